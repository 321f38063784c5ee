# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""How retrieval calls the model without importing it: functions of padded batches, and those batches.

Axes: B questions, M passages, Q question tokens, P passage tokens, K head dim (multi-vector), E = dense dim.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np

from class_jax.common.batching import bucket_lengths, length_batches, power_of_two
from class_jax.errors import InputError, nearest
from class_jax.models import scoring

PASSAGE_BUCKETS = (32, 64, 96, 128, 200)
QUESTION_BUCKETS = (16, 32, 50)

Params = Any
EncodeFunction = Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class Tokens(Protocol):
    """The part of the token store that retrieval reads (class_jax.corpus.store.TokenStore)."""

    num_passages: int
    lengths: np.ndarray
    fingerprint: str

    def batch(self, rows: np.ndarray, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns (ids [M, P] int32, lengths [M] int32) of `rows` [M], padded with 0 to `length`."""
        ...


class Vectors(NamedTuple):
    """Vectors of questions or passages.

    Attributes:
      vectors: [B, Q, K] or [M, P, K] (multi-vector), [B, E] or [M, E] (dense).
      mask: [B, Q] or [M, P] bool, whether the token is real; ignored for dense vectors.
    """

    vectors: jax.Array
    mask: jax.Array


@dataclasses.dataclass(frozen=True)
class DualEncoder:
    """The retriever half of a model, as two pure functions of its parameters.

    Make one and keep it: compiled programs are cached by the identity of the two functions.

    Attributes:
      questions: `(params, ids [B, Q] int32, lengths [B] int32) -> (vectors, mask)`; see `Vectors` for shapes.
      passages: the same for passages, `ids [M, P]`.
      kind: "multi_vector" scores by MaxSim, "dense" by the dot product (paper, section 3.1).
      mean: whether MaxSim is divided by the number of question tokens; changes scores, never ranks.
    """

    questions: EncodeFunction
    passages: EncodeFunction
    kind: Literal["multi_vector", "dense"]
    mean: bool = False

    def __post_init__(self):
        kinds = ("multi_vector", "dense")
        if self.kind not in kinds:
            raise InputError(f"unknown kind of retriever {self.kind!r}", key="kind", remedy=nearest(self.kind, kinds))

    def score(self, questions: Vectors, passages: Vectors) -> jax.Array:
        """Returns the scores [B, M] of every question against every passage."""
        if self.kind == "dense":
            return scoring.dense(questions.vectors, passages.vectors)
        return scoring.maxsim(*questions, *passages, mean=self.mean)


@functools.partial(jax.jit, static_argnames="encoder")
def embed_questions(encoder: DualEncoder, params: Params, ids: jax.Array, lengths: jax.Array) -> Vectors:
    """Embeds one batch of questions, ids [B, Q] and lengths [B]; compiled once per encoder and shape."""
    return Vectors(*encoder.questions(params, ids, lengths))


@functools.partial(jax.jit, static_argnames="encoder")
def embed_passages(encoder: DualEncoder, params: Params, ids: jax.Array, lengths: jax.Array) -> Vectors:
    """Embeds one batch of passages, ids [M, P] and lengths [M]; compiled once per encoder and shape."""
    return Vectors(*encoder.passages(params, ids, lengths))


def allowed_rows(store: Tokens, allowed: np.ndarray | None) -> np.ndarray:
    """Returns the passage rows [M] int64 that may be retrieved, ascending.

    Raises:
      InputError: if the mask does not have one entry per passage.
    """
    if allowed is None:
        return np.arange(store.num_passages, dtype=np.int64)
    allowed = np.asarray(allowed)
    if allowed.shape != (store.num_passages,) or allowed.dtype != bool:
        raise InputError(
            f"a bool mask of {store.num_passages} passages is needed, not {allowed.dtype} {allowed.shape}",
            key="allowed",
        )
    return np.flatnonzero(allowed)


def check_enough(rows: np.ndarray, k: int, exclude: np.ndarray | None = None) -> None:
    """Checks that each question has `k` of the ascending passage `rows` [M] left after its own `exclude` [B].

    Raises:
      InputError: if there are too few.
    """
    left = len(rows)
    if exclude is not None and len(exclude) and np.isin(exclude, rows).any():
        left -= 1
    if k < 1 or k > left:
        raise InputError(
            f"{k} passages a question asked for where {left} may be retrieved",
            key="k",
            remedy="ask for fewer or add passages",
        )


def padded_batch(store: Tokens, rows: np.ndarray, batch: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads passages as one full batch: (ids [batch, length], lengths [batch], rows [batch] with -1 for filler).

    Filler repeats the first passage, so that the model never sees an empty row.
    """
    filler = batch - len(rows)
    taken = np.concatenate([rows, np.repeat(rows[:1], filler)])
    ids, lengths = store.batch(taken, length)
    return ids, lengths, np.concatenate([rows, np.full(filler, -1, rows.dtype)])


def padded_questions(questions: Sequence[np.ndarray], batch: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Pads token arrays to (ids [batch, length] int32, lengths [batch] int32); filler repeats the first question."""
    ids = np.zeros((batch, length), np.int32)
    lengths = np.empty(batch, np.int32)
    for i in range(batch):
        tokens = questions[i if i < len(questions) else 0]
        ids[i, : len(tokens)] = tokens
        lengths[i] = len(tokens)
    return ids, lengths


def question_lengths(questions: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the lengths [B] of tokenised questions.

    Raises:
      InputError: if a question has no tokens.
    """
    lengths = np.array([len(tokens) for tokens in questions], np.int64)
    if len(lengths) and lengths.min() == 0:
        raise InputError("a question has no tokens", key=f"question {int(lengths.argmin())}")
    return lengths


def encode_questions(
    encoder: DualEncoder,
    params: Params,
    questions: Sequence[np.ndarray],
    *,
    batch: int = 256,
    buckets: Sequence[int] = QUESTION_BUCKETS,
) -> Vectors:
    """Embeds all questions and pads them to one length.

    Args:
      encoder: the model's retriever.
      params: its parameters.
      questions: B token arrays without padding.
      batch: questions per call.
      buckets: padded lengths.

    Returns:
      In NumPy: vectors [B, Q, K] and mask [B, Q], Q the longest bucket in use; or vectors [B, E] and mask [B, 0].

    Raises:
      InputError: if a question has no tokens.
    """
    lengths = question_lengths(questions)
    batch = min(batch, power_of_two(len(questions)))
    longest = int(bucket_lengths(lengths, buckets).max(initial=0))
    vectors, mask = None, None
    for members, length in length_batches(lengths, batch, buckets):
        padded = padded_questions([questions[i] for i in members], batch, length)
        part = jax.device_get(embed_questions(encoder, params, *padded))
        if vectors is None:
            tokens = () if encoder.kind == "dense" else (longest,)
            vectors = np.zeros((len(questions), *tokens, part.vectors.shape[-1]), part.vectors.dtype)
            mask = np.zeros((len(questions), *tokens) if tokens else (len(questions), 0), bool)
        if encoder.kind == "dense":
            vectors[members] = part.vectors[: len(members)]
        else:
            vectors[members, :length] = part.vectors[: len(members)]
            mask[members, :length] = part.mask[: len(members)]
    if vectors is None:
        raise InputError("no questions to embed", key="questions")
    return Vectors(vectors, mask)
