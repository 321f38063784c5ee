# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Retrieval and reading for re-ranking: the lists of questions, and the answers read from lists.

Axes: B questions, N passages of one question.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from class_jax.common.batching import power_of_two
from class_jax.common.files import replacing
from class_jax.corpus.passages import Passage, write_passages
from class_jax.corpus.store import TokenStore, build_store
from class_jax.errors import InputError
from class_jax.questions.readers import Question
from class_jax.reranking.ranked import Candidate, RankedList

if TYPE_CHECKING:
    from class_jax.api import CLASS, Answer, Searcher

_log = logging.getLogger(__name__)

_BLOCK = 64
_STORE_TOKENS = 200  # what a passage of CLASS has at most


def retrieve(
    model: "CLASS",
    corpus: "Searcher",
    questions: Sequence[Question],
    passages: int,
    languages: Mapping[str, str] | None = None,
    language: str | None = None,
) -> list[RankedList]:
    """The first passages of each question, by the model's own retriever.

    Args:
      model: retrieves.
      corpus: searched.
      questions: B questions.
      passages: N.
      languages: of passages, by id. language: of those that are not in it.
    """
    from tqdm import tqdm

    found: list[RankedList] = []
    with tqdm(total=len(questions), unit="question", desc="retrieve", disable=None) as bar:
        for start in range(0, len(questions), _BLOCK):
            block = questions[start : start + _BLOCK]
            hits = model.retrieve([q.text for q in block], corpus, passages, [q.language for q in block])
            for question, rows, scores in zip(block, hits.rows, hits.scores, strict=True):
                candidates = []
                for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
                    if row >= 0:
                        p = corpus.store.passage(row)
                        code = (languages or {}).get(p.id, language)
                        candidates.append(Candidate(p.id, p.title, p.text, score, code))
                found.append(RankedList(question, tuple(candidates)))
            bar.update(len(block))
    return found


class ListReader:
    """Reads answers from lists: holds their passages in a token store, and for each question the rows to read.

    Args:
      model: whose vocabulary makes the tokens.
      lists: B lists; those without passages can't be read.
      folder: for the store.
      passages: N, read for a question at most.
      input_tokens: tokens of a question's passages together at most, or None. The first passage that no longer fits
        and those after it are left out, but one is always read.

    Attributes:
      rows: of the store, by question id, [<= N].
      read_tokens: passage tokens that are read, of all questions.

    Raises:
      InputError: if no list has a passage.
    """

    def __init__(
        self,
        model: "CLASS",
        lists: Sequence[RankedList],
        folder: str | os.PathLike,
        passages: int,
        input_tokens: int | None = None,
    ):
        self.lists = {ranked.question.id: ranked for ranked in lists if ranked.passages}
        if not self.lists:
            raise InputError("no question has a passage to read", key="ctxs")
        self._model, self._passages = model, passages
        # Two lists may use one id for different passages.
        numbers: dict[tuple[str, str], int] = {}
        for ranked in self.lists.values():
            for c in ranked.passages[:passages]:
                numbers.setdefault((c.title, c.text), len(numbers))
        tsv = Path(folder) / "read.tsv"
        write_passages(tsv, (Passage(str(n), text, title) for (title, text), n in numbers.items()))
        self.store: TokenStore = build_store(tsv, model.vocabulary, Path(folder) / "read_store", _STORE_TOKENS)
        self.rows: dict[str, np.ndarray] = {}
        self.read_tokens = 0
        for id, ranked in self.lists.items():
            wanted = [str(numbers[c.title, c.text]) for c in ranked.passages[:passages]]
            rows = np.array([self.store.row(name) for name in wanted], np.int64)
            if input_tokens is not None:
                fitting = int((np.cumsum(self.store.lengths[rows]) <= input_tokens).sum())
                rows = rows[: max(1, fitting)]
            self.rows[id] = rows
            self.read_tokens += int(self.store.lengths[rows].sum())

    def answers(
        self, questions: Sequence[Question], *, beams: int = 1, max_answer_tokens: int = 50, batch: int | None = None
    ) -> "Iterator[tuple[Question, Answer]]":
        """Yields each question with its answer; passages have the ids and scores of the list that was read."""
        from class_jax.api import Retrieved

        settings = {"beams": beams, "max_answer_tokens": max_answer_tokens, "batch": batch}
        for start in range(0, len(questions), _BLOCK):
            block = questions[start : start + _BLOCK]
            # Rows are as wide as the most that a question of this block reads: with a budget that is few.
            width = min(self._passages, power_of_two(max(len(self.rows[q.id]) for q in block)))
            rows = np.full((len(block), width), -1, np.int64)
            scores = np.full((len(block), width), -np.inf, np.float32)
            for b, question in enumerate(block):
                mine = self.rows[question.id]
                rows[b, : len(mine)] = mine
                scores[b, : len(mine)] = [c.score for c in self.lists[question.id].passages[: len(mine)]]
            texts = [q.text for q in block]
            found = Retrieved(rows, scores, 0.0, self._model.tokenise(texts, [q.language for q in block]))
            for i, answer in self._model.read(texts, found, self.store, **settings):
                own = self.lists[block[i].id].passages
                named = [dataclasses.replace(p, id=c.id) for p, c in zip(answer.passages, own, strict=False)]
                yield block[i], dataclasses.replace(answer, passages=named)


def write_questions(path: str | os.PathLike, questions: Collection[Question]) -> None:
    """Writes questions as XOR-TyDi QA JSON lines.

    Raises:
      InputError: if the disk refuses.
    """
    with replacing(path) as f:
        for q in questions:
            record = {"id": q.id, "question": q.text, "lang": q.language, "answers": list(q.answers)}
            f.write(json.dumps(record, ensure_ascii=False) + "\n")
