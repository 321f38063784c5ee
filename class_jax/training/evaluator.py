# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Evaluation on held-out questions, during training and after: retrieve, read, score."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from class_jax.common.batching import bucket_lengths
from class_jax.common.files import numbered_lines
from class_jax.corpus import inputs
from class_jax.corpus.store import TokenStore
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.distributed import SINGLE_PROCESS, ProcessGroup
from class_jax.distributed.placing import gather_from_hosts
from class_jax.distributed.sharding import batch_sharding
from class_jax.errors import InputError
from class_jax.evaluation.passages import evaluate_passages
from class_jax.evaluation.xor_full import evaluate_answers
from class_jax.evaluation.xor_retrieve import evaluate_retrieval
from class_jax.models import answering, inference
from class_jax.models.class_model import Params
from class_jax.models.config import ModelConfig
from class_jax.models.encode import allowed_rows, check_enough
from class_jax.questions.readers import Question
from class_jax.retrieval.exact import exact_search
from class_jax.retrieval.filters import Allowed, SearchFilters, in_languages
from class_jax.retrieval.shards import merge_shards, shard_mask


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is measured on held-out questions.

    Attributes:
      questions: as a reader of `class_jax.questions.readers` yields them; an iterator is read once and kept.
      gold: JSON lines `{"id", "passages": [ids], ...}`: passages that answer each question; gives R@k by passage id.
      gold_key: the entry of those lines to use.
      retrieve_languages: languages of the passages that R@k and R@n tokens search (("en",) as in XOR-Retrieve); None
        for all.
      ks: the k of R@k.
      recall_tokens: the n of R@n tokens (answer string within the first n tokens), with `recall_questions`' answers.
      recall_questions: the same questions with the answers that R@n tokens looks for (English ones in
        XOR-Retrieve); None leaves R@n tokens out.
      read: whether to answer, too (F1 and EM as in XOR-Full).
      read_languages: languages of the passages that are read; "question" is the question's own. None for all.
      num_passages: passages read for each question.
      max_answer_tokens: of a generated answer.
      batch: questions answered at once.
      max_questions: only this many, evenly spaced; None for all.
    """

    questions: Iterable[Question]
    gold: str | None = None
    gold_key: str = "passages"
    retrieve_languages: Sequence[str] | None = None
    ks: Sequence[int] = (1, 5, 20)
    recall_tokens: Sequence[int] = ()
    recall_questions: Iterable[Question] | None = None
    read: bool = True
    read_languages: Sequence[str] | None = None
    num_passages: int = 100
    max_answer_tokens: int = 50
    batch: int = 16
    max_questions: int | None = None

    def __post_init__(self):
        for key in ("questions", "recall_questions"):
            object.__setattr__(self, key, _repeatable(getattr(self, key)))


class _Kept:
    """What an iterator yields, read when it is first asked for and kept: a configuration is used more than once."""

    def __init__(self, source: Iterator[Question]):
        self._source, self._items = source, None

    def __iter__(self) -> Iterator[Question]:
        if self._items is None:
            self._items = tuple(self._source)
        return iter(self._items)


def _repeatable(questions: Iterable[Question] | None) -> Iterable[Question] | None:
    return _Kept(questions) if isinstance(questions, Iterator) else questions


class AnsweredQuestions(NamedTuple):
    """Answers of B questions.

    Attributes:
      texts: the answers.
      log_probabilities: of each answer, [B].
      rows: passages read, best first, [B, N] rows of the store.
      scores: their retrieval scores, [B, N].
      passage_attention: P_ca, [B, N].
    """

    texts: list[str]
    log_probabilities: np.ndarray
    rows: np.ndarray
    scores: np.ndarray
    passage_attention: np.ndarray


class Evaluator:
    """Retrieves and answers held-out questions with given weights.

    Args:
      config: what is measured.
      model: the model's configuration.
      vocabulary: its vocabulary. store: the corpus.
      languages: language of each passage [M], or None.
      hosts: those of the run. Each searches a part of the corpus and answers a part of the questions, with weights on
        its own devices; host 0 scores.
      local: a mesh of this host's devices, over which passages are cut; None leaves that to JAX.

    Raises:
      InputError: for gold passages of unknown ids, questions without gold, or languages that are not known.
    """

    def __init__(
        self,
        config: EvaluationConfig,
        model: ModelConfig,
        vocabulary: Vocabulary,
        store: TokenStore,
        languages: np.ndarray | None,
        *,
        hosts: ProcessGroup = SINGLE_PROCESS,
        local: Mesh | None = None,
    ):
        self.hosts, self.local = hosts, local
        self.config, self.model, self.vocabulary, self.store = config, model, vocabulary, store
        self.questions = _spaced(list(config.questions), config.max_questions)
        if not self.questions:
            raise InputError("no questions to evaluate on", key="EvaluationConfig.questions")
        self.tokens = [
            np.asarray(inputs.encode_question(vocabulary, q.text, q.language), np.int32) for q in self.questions
        ]
        asked = [question.language for question in self.questions]
        self.retrieve_allowed = in_languages(languages, config.retrieve_languages, asked)
        self.read_allowed = in_languages(languages, config.read_languages, asked)
        self.gold = None if config.gold is None else self._read_gold(config.gold)
        recall = [] if config.recall_questions is None else list(config.recall_questions)
        kept = {q.id for q in self.questions}
        self.recall_questions = [q for q in recall if q.id in kept]

    def __call__(self, params: Params) -> dict[str, float]:
        """Measures weights: flat names such as "eval/R@5/ar", "eval/f1/macro", "eval/R@2kt/macro".

        On several hosts all call this, and all get the same.
        """
        retriever = inference.retriever_params(params)
        found = {}
        if self.gold is not None or self.recall_questions:
            rows, _ = self.search(retriever, max(self.config.ks), self.retrieve_allowed)
            if self.hosts.index == 0:
                found |= self.score_rows(rows)
        if self.config.read:
            rows, scores = self.search(retriever, self.config.num_passages, self.read_allowed)
            mine = np.array_split(np.arange(len(self.questions)), self.hosts.count)[self.hosts.index]
            texts = self.answer(params, rows, scores, mine).texts if len(mine) else []
            texts = [text for part in self.hosts.exchange("answers", texts) for text in part]
            if self.hosts.index == 0:
                predictions = dict(zip([q.id for q in self.questions], texts, strict=True))
                found |= _flat(evaluate_answers(self.questions, predictions))
        return self.hosts.exchange("scores", found)[0]

    def search(self, retriever: Params, k: int, allowed: Allowed) -> tuple[np.ndarray, np.ndarray]:
        """The k best passages of each question: rows [B, k] and scores [B, k]."""

        def within(questions: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
            given = inference.encoder(self.model), retriever, self.store, [self.tokens[i] for i in questions], k
            over = None if self.local is None else batch_sharding(self.local)
            if self.hosts.count == 1:
                return exact_search(*given, allowed=mask, sharding=over, progress=False)
            check_enough(allowed_rows(self.store, mask), k)
            part = shard_mask(mask, self.store.num_passages, self.hosts.index, self.hosts.count)
            found = exact_search(*given, allowed=part, sharding=over, fill=True, progress=False)
            return merge_shards(gather_from_hosts(self.hosts, "evaluation's passages", found), k)

        questions = np.arange(len(self.tokens))
        return allowed.search(questions, within) if isinstance(allowed, SearchFilters) else within(questions, allowed)

    def score_rows(self, rows: np.ndarray) -> dict[str, float]:
        """Retrieval scores of ranked passages [B, k]."""
        found = {}
        if self.gold is not None:
            found |= _flat(evaluate_passages(self.questions, rows, self.gold, tuple(self.config.ks)))
        if self.recall_questions:
            ranked = {q.id: row for q, row in zip(self.questions, rows, strict=True)}
            texts = {q.id: [self.store.passage(int(r)).text for r in ranked[q.id]] for q in self.recall_questions}
            found |= _flat(evaluate_retrieval(self.recall_questions, texts, self.config.recall_tokens, progress=False))
        return found

    def answer(
        self, params: Params, rows: np.ndarray, scores: np.ndarray, asked: np.ndarray | None = None
    ) -> AnsweredQuestions:
        """Reads passages [B, N] and answers greedily, in batches of equal shape.

        Where `asked` is given, only the questions of these numbers, and the result has only theirs.
        """
        asked = np.arange(len(self.questions)) if asked is None else asked
        tokens, rows, scores = [self.tokens[i] for i in asked], rows[asked], scores[asked]
        # All batches have one shape: on a small run, compiling takes longer than reading.
        longest = max(len(question) for question in self.tokens)
        size = {"rows": self.config.batch, "question_buckets": bucket_lengths([longest], answering.QUESTION_BUCKETS)}
        planned = answering.plan_batches(
            tokens, self.model, rows.shape[1], int(self.store.lengths[rows.ravel()].max()), **size
        )
        texts = [""] * len(asked)
        log_probabilities, attention = np.empty(len(asked), np.float32), np.empty(rows.shape, np.float32)
        settings = {"max_tokens": self.config.max_answer_tokens}
        for found in answering.read(self.model, params, planned, rows, self.store, **settings):
            log_probabilities[found.members] = found.log_probabilities
            attention[found.members] = found.passage_attention
            for i, ids, length in zip(found.members, found.ids, found.lengths, strict=True):
                texts[i] = self.vocabulary.decode(ids[:length])
        return AnsweredQuestions(texts, log_probabilities, rows, scores, attention)

    def _read_gold(self, path: str) -> list[set[int]]:
        gold = {}
        for line, text in numbered_lines(path):
            try:
                entry = json.loads(text)
                gold[entry["id"]] = set(self.store.rows(entry[self.config.gold_key]).tolist())
            except (ValueError, KeyError, TypeError) as error:  # among them an unknown passage id
                remedy = f'write {{"id": ..., "{self.config.gold_key}": [passage ids]}}'
                raise InputError(f"unusable line ({error})", file=path, line=line, remedy=remedy) from error
        if missing := [q.id for q in self.questions if not gold.get(q.id)]:
            raise InputError(f"{len(missing)} questions have no gold passage", file=Path(path), key=missing[0])
        return [gold[q.id] for q in self.questions]


def _spaced(questions: list[Question], count: int | None) -> list[Question]:
    if count is None or count >= len(questions):
        return questions
    return [questions[i] for i in np.linspace(0, len(questions) - 1, count).astype(int)]


def _flat(measured: dict) -> dict[str, float]:
    """{"languages": {"ar": {"R@5": ...}}, "macro": {...}} -> {"eval/R@5/ar": ..., "eval/R@5/macro": ...}."""
    groups = {**measured["languages"], "macro": measured["macro"]}
    names = {name for scores in groups.values() for name in scores if name != "count"}
    return {f"eval/{name}/{group}": float(groups[group][name]) for name in sorted(names) for group in groups}
