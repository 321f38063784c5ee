# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""score(passage) = mean over the question's tokens of log p(token | earlier tokens, passage); arXiv 2501.04153, eq. 4.

A passage is encoded once for all questions of a block that it was retrieved for, and its keys and values are projected
once; pairs are decoded in batches of like length, so few shapes are compiled. Axes: M passages, R pairs, P passage
tokens, A question tokens, D model, V vocabulary, L decoder layers, H heads, K head dim.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from class_jax.common.batching import SOURCE_BUCKETS, buckets_within, length_batches, power_of_two
from class_jax.errors import InputError

TARGET_BUCKETS = (16, 24, 32, 48, 64)
_BATCH = 16


class SourcePassage(NamedTuple):
    """A passage to score questions from.

    Attributes:
      id, title, text: as retrieved.
      language: its code; None where it is not known: scoring with tags then fails.
    """

    id: str
    title: str
    text: str
    language: str | None


class Target(NamedTuple):
    """A question as the decoder is to produce it.

    Attributes:
      start: what the decoder is given first.
      labels: tokens whose probabilities are asked for.
      skip: leading labels that are no part of the question (a language tag) and don't count.
    """

    start: int
    labels: list[int]
    skip: int


class Scorer(Protocol):
    """A sequence-to-sequence model that scores questions; `class_jax.reranking.scorers` has them.

    Attributes:
      fingerprint: SHA-256 of weights, vocabulary and the form of the input: equal ones give equal scores.
      max_source, max_target: tokens at most; `source` and `target` cut.
    """

    fingerprint: str
    max_source: int
    max_target: int

    def source(self, passage: SourcePassage) -> tuple[list[int], bool]:
        """Encoder tokens of a passage, and whether it was cut."""
        ...

    def target(self, question: str, language: str | None) -> tuple[Target, bool]:
        """Decoder tokens of a question, and whether it was cut."""
        ...

    def encode(self, ids: np.ndarray, lengths: np.ndarray) -> Any:
        """Passages [M, P] of [M] tokens -> what the decoder attends to, on the device."""
        ...

    def log_probabilities(
        self, memory: Any, rows: np.ndarray, inputs: np.ndarray, labels: np.ndarray, counted: np.ndarray
    ) -> np.ndarray:
        """Log-probabilities [R, A] of labels [R, A], given inputs [R, A] and passage `rows[r]` of the memory.

        Only those where `counted` [R, A] is True are wanted: a vocabulary's logits for each of the others would take a
        good part of the time.
        """
        ...


class Scored(NamedTuple):
    """Scores of pairs.

    Attributes:
      scores: mean log-probability of a question token, [R] float32.
      cut_passages, cut_questions: how many were longer than the model takes.
      encoded: passages that were encoded.
    """

    scores: np.ndarray
    cut_passages: int
    cut_questions: int
    encoded: int


def score_pairs(
    scorer: Scorer,
    passages: Sequence[SourcePassage],
    questions: Sequence[tuple[str, str | None]],
    pairs: np.ndarray,
    *,
    batch: int = _BATCH,
    on_scored: Callable[[int], None] = lambda count: None,
) -> Scored:
    """Scores questions by passages.

    Args:
      scorer: the model.
      passages: M of them; equal ones (id, text, title and language) are encoded once.
      questions: (text, language) of each.
      pairs: (passage, question) indices, [R, 2].
      batch: passages, and pairs, of one call of the model.
      on_scored: called with the number of pairs of each batch.

    Raises:
      InputError: for a passage or question without text, or a language that the scorer has no tag for.
    """
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    if not len(pairs):
        return Scored(np.empty(0, np.float32), 0, 0, 0)
    first: dict[SourcePassage, int] = {}
    unique = np.array([first.setdefault(passage, len(first)) for passage in passages])
    sources = [_source(scorer, passage) for passage in first]
    targets = [_target(scorer, *question) for question in questions]
    row_of_pair, question_of_pair = unique[pairs[:, 0]], pairs[:, 1]
    target_lengths = np.array([len(target.labels) for target, _ in targets])
    scores = np.zeros(len(pairs), np.float32)
    source_buckets = buckets_within(SOURCE_BUCKETS, scorer.max_source)
    target_buckets = buckets_within(TARGET_BUCKETS, scorer.max_target)
    lengths = np.array([len(ids) for ids, _ in sources])
    for members in _chunks(lengths, row_of_pair, target_lengths[question_of_pair], batch, source_buckets):
        memory = scorer.encode(*_padded([sources[m][0] for m in members.rows], members.width, members.size))
        place = np.full(len(sources), -1)
        place[members.rows] = np.arange(len(members.rows))
        mine = np.flatnonzero(place[row_of_pair] >= 0)
        for some, width in length_batches(target_lengths[question_of_pair[mine]], batch, target_buckets):
            here = mine[some]
            chosen = [targets[q][0] for q in question_of_pair[here]]
            scores[here] = _means(scorer, memory, place[row_of_pair[here]], chosen, width, _size(len(here), batch))
            on_scored(len(here))
    return Scored(scores, sum(cut for _, cut in sources), sum(cut for _, cut in targets), len(sources))


class _Chunk(NamedTuple):
    """Passages to encode together: their rows, padded length, and the size that the batch is filled up to."""

    rows: np.ndarray
    width: int
    size: int


def _chunks(
    lengths: np.ndarray, row_of_pair: np.ndarray, target_lengths: np.ndarray, batch: int, buckets: Sequence[int]
) -> list[_Chunk]:
    """Batches of passages of like length; among those, passages of like questions come together."""
    longest_target = np.zeros(len(lengths), np.int64)
    np.maximum.at(longest_target, row_of_pair, target_lengths)
    order = np.argsort(longest_target, kind="stable")
    # Passages that no pair names need no encoding.
    order = order[longest_target[order] > 0]
    batches = length_batches(lengths[order], batch, buckets)
    return [_Chunk(order[some], width, _size(len(some), batch)) for some, width in batches]


def _size(count: int, batch: int) -> int:
    """What a batch of `count` is filled up to: three sizes in all, each of which is compiled."""
    return min(batch, max(power_of_two(count), batch // 4))


def _means(scorer: Scorer, memory: Any, rows: np.ndarray, targets: list[Target], width: int, size: int) -> np.ndarray:
    """Mean log-probability of each target's question tokens, [len(targets)]."""
    labels, lengths = _padded([target.labels for target in targets], width, size)
    starts = np.array([target.start for target in targets] + [targets[0].start] * (size - len(targets)), np.int32)
    inputs = np.concatenate([starts[:, None], labels[:, :-1]], axis=1)
    rows = np.concatenate([rows, np.repeat(rows[:1], size - len(rows))]).astype(np.int32)
    at = np.arange(width)
    skips = np.array([target.skip for target in targets] + [width] * (size - len(targets)))
    counted = (at >= skips[:, None]) & (at < lengths[:, None])
    found = np.where(counted, scorer.log_probabilities(memory, rows, inputs, labels, counted), 0)
    return (found.sum(axis=1)[: len(targets)] / counted.sum(axis=1)[: len(targets)]).astype(np.float32)


def _padded(rows: Sequence[Sequence[int]], width: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Token lists -> ids [size, width] and lengths [size]; filler repeats the first."""
    ids, lengths = np.zeros((size, width), np.int32), np.empty(size, np.int32)
    for i in range(size):
        tokens = rows[i] if i < len(rows) else rows[0]
        ids[i, : len(tokens)] = tokens
        lengths[i] = len(tokens)
    return ids, lengths


def _source(scorer: Scorer, passage: SourcePassage) -> tuple[list[int], bool]:
    if not passage.text.strip():
        raise InputError("the passage has no text", key=f"passage {passage.id!r}", remedy="remove it")
    return scorer.source(passage)


def _target(scorer: Scorer, question: str, language: str | None) -> tuple[Target, bool]:
    if not question.strip():
        raise InputError("the question is empty", key="question", remedy="remove it")
    return scorer.target(question, language)
