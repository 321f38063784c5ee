# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What a search found, in the formats that others read: TREC runs, DPR's and CORA's `ctxs`, XOR-Retrieve predictions.

Axes: B questions, k passages of each.
"""

import json
import os
from collections.abc import Iterator, Sequence

import numpy as np

from class_jax.common.files import replacing
from class_jax.corpus.passages import Passage
from class_jax.corpus.store import TokenStore
from class_jax.errors import InputError
from class_jax.evaluation.text import get_tokeniser, join_passages, span_answers
from class_jax.questions.readers import Question


def write_trec(
    path: str | os.PathLike,
    questions: Sequence[Question],
    store: TokenStore,
    rows: np.ndarray,
    scores: np.ndarray,
    tag: str = "class_jax",
) -> None:
    """Writes a TREC run: lines `question Q0 passage rank score tag`, ranks from 1.

    Args:
      path: file to write.
      questions: B questions; only their ids are used.
      store: knows the passage ids.
      rows: [B, k] int64, best first, -1 where there are no more.
      scores: [B, k] float32.
      tag: name of the run.

    Raises:
      InputError: if an id or the tag holds white space, which the format can't express; the disk is full.
    """
    _check_word(tag, "tag")
    with replacing(path) as f:
        for question, ranked in zip(questions, _ranked(rows, scores), strict=True):
            _check_word(question.id, "question id")
            for rank, (row, score) in enumerate(ranked, start=1):
                id = store.id(row)
                _check_word(id, "passage id")
                f.write(f"{question.id} Q0 {id} {rank} {score:.6f} {tag}\n")


def write_ctxs(
    path: str | os.PathLike, questions: Sequence[Question], store: TokenStore, rows: np.ndarray, scores: np.ndarray
) -> None:
    """Writes the JSON that DPR's and CORA's readers take: a list of questions, each with its passages as `ctxs`.

    `has_answer` of a passage says whether an answer's tokens occur in it; it is left out where a question has no
    answers. Arguments as in `write_trec`.

    Raises:
      InputError: if the disk is full.
    """
    splitter = get_tokeniser("auto")
    with _array(path) as add:
        for question, ranked in zip(questions, _ranked(rows, scores), strict=True):
            answers, passages = span_answers(question.answers), []
            for row, score in ranked:
                passage = store.passage(row)
                entry = {"id": passage.id, "title": passage.title, "text": passage.text, "score": f"{score:.6f}"}
                if answers:
                    entry["has_answer"] = bool(join_passages([passage.text], splitter).find(answers))
                passages.append(entry)
            add(
                {
                    "q_id": question.id,
                    "question": question.text,
                    "lang": question.language,
                    "answers": list(question.answers),
                    "ctxs": passages,
                }
            )


def write_xor_retrieve(
    path: str | os.PathLike, questions: Sequence[Question], store: TokenStore, rows: np.ndarray
) -> None:
    """Writes official XOR-Retrieve predictions: a list of `{"id", "lang", "ctxs"}`, `ctxs` the texts, best first.

    Arguments as in `write_trec`.

    Raises:
      InputError: if the disk is full.
    """
    with _array(path) as add:
        for question, ranked in zip(questions, rows, strict=True):
            texts = [_passage(store, row).text for row in ranked if row >= 0]
            add({"id": question.id, "lang": question.language, "ctxs": texts})


def _ranked(rows: np.ndarray, scores: np.ndarray) -> Iterator[list[tuple[int, float]]]:
    for some, values in zip(rows, scores, strict=True):
        yield [(int(row), float(score)) for row, score in zip(some, values, strict=True) if row >= 0]


def _passage(store: TokenStore, row: int) -> Passage:
    return store.passage(int(row))


class _array:  # noqa: N801 (a context manager, used like a function)
    """A JSON array written entry by entry, so that not all passages' texts are held at once."""

    def __init__(self, path: str | os.PathLike):
        self._replacing, self._count = replacing(path), 0

    def __enter__(self):
        self._file = self._replacing.__enter__()
        self._file.write("[")
        return self._add

    def _add(self, entry: dict) -> None:
        self._file.write((",\n" if self._count else "\n") + json.dumps(entry, ensure_ascii=False))
        self._count += 1

    def __exit__(self, *error):
        if error[0] is None:
            self._file.write("\n]\n")
        return self._replacing.__exit__(*error)


def _check_word(text: str, key: str) -> None:
    if not text or text.split() != [text]:
        raise InputError(f"{text!r} can't be in a TREC run", key=key, remedy="ids without white space are needed")
