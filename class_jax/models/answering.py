# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Answering in batches of few shapes: which questions go together is planned once, then encoded, read and decoded.

Axes: B questions, N passages of one question, Q question tokens, P passage tokens, A answer tokens; R rows of a batch.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np

from class_jax.common.batching import bucket_lengths, length_batches, power_of_two
from class_jax.errors import InputError
from class_jax.models import inference
from class_jax.models.class_model import Params
from class_jax.models.config import ModelConfig
from class_jax.models.encode import DualEncoder, Vectors, embed_questions, question_lengths

# Padded lengths. A batch has one of each, so these and the powers of two of its rows are all shapes there are.
QUESTION_BUCKETS = (16, 32, 50)
PASSAGE_BUCKETS = (32, 64, 96, 128, 160, 200)
# Keys and values that the decoder may hold for one batch, and questions of a batch at most.
_MEMORY_BYTES = 16 * 2**30
_MEMORY_BYTES_CPU = 2**30
_MAX_ROWS = 16
# Questions embedded in one call.
_EMBED_ROWS = 256


class Passages(Protocol):
    """The part of the token store that reading needs (class_jax.corpus.store.TokenStore)."""

    lengths: np.ndarray

    def batch(self, rows: np.ndarray, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns ids [..., P] and lengths [...] of `rows` [...], padded with 0 to `length`."""
        ...


class QuestionBatch(NamedTuple):
    """Questions that are answered together.

    Attributes:
      members: their positions among all questions, at most R.
      ids, lengths: their tokens, [R, Q] int32 and [R] int32. Rows beyond the members repeat the first one.
    """

    members: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray


class Plan(NamedTuple):
    """Which questions go together, and the length to which passages are padded.

    Attributes:
      batches: all of R rows; together they hold every question once, shorter questions first.
      count: B. passage_tokens: P.
    """

    batches: tuple[QuestionBatch, ...]
    count: int
    passage_tokens: int


class Reading(NamedTuple):
    """The answers of one batch, in NumPy.

    Attributes:
      members: positions of its questions among all, [R' <= R]; the other arrays are in their order.
      ids: tokens [R', A], with the end of sequence, then padding. lengths: tokens up to and with it, [R'].
      log_probabilities: sums over those tokens, [R'].
      passage_attention: P_ca, [R', N].
      read_seconds, decode_seconds: of the whole batch.
    """

    members: np.ndarray
    ids: np.ndarray
    lengths: np.ndarray
    log_probabilities: np.ndarray
    passage_attention: np.ndarray
    read_seconds: float
    decode_seconds: float


def memory_bytes(config: ModelConfig, passages: int, question_tokens: int, passage_tokens: int) -> int:
    """Bytes of what `inference.reader` returns for one question of N passages: keys, values and their mask."""
    tokens = passages * (question_tokens + passage_tokens)
    width = 2 * config.num_decoder_layers * config.num_heads * config.d_kv
    return tokens * (width * jax.numpy.dtype(config.dtype).itemsize + 1)


def plan_batches(
    tokens: Sequence[np.ndarray],
    config: ModelConfig,
    passages: int,
    longest: int,
    *,
    rows: int | None = None,
    question_buckets: Sequence[int] = QUESTION_BUCKETS,
) -> Plan:
    """Plans the batches of B questions.

    Args:
      tokens: B token arrays without padding.
      config: of the model that answers.
      passages: N.
      longest: tokens of the longest passage that may be read.
      rows: R; None takes as many (a power of two) as the decoder's memory has room for.
      question_buckets: padded lengths of questions.

    Raises:
      InputError: if a question has no tokens, or `rows` is below 1.
    """
    lengths = question_lengths(tokens)
    P = int(bucket_lengths(np.array([longest]), PASSAGE_BUCKETS)[0])
    if rows is None:
        Q = int(bucket_lengths(lengths, question_buckets).max(initial=0))
        held = _MEMORY_BYTES_CPU if jax.default_backend() == "cpu" else _MEMORY_BYTES
        fitting = held // max(1, memory_bytes(config, passages, Q, P))
        rows = min(_MAX_ROWS, 1 << max(0, fitting.bit_length() - 1))
    if rows < 1:
        raise InputError(f"is {rows}", key="batch", remedy="give 1 or more")
    rows = min(rows, power_of_two(len(tokens)))
    batches = []
    for members, Q in length_batches(lengths, rows, question_buckets):
        taken = np.concatenate([members, np.repeat(members[:1], rows - len(members))])
        batches.append(QuestionBatch(members, *inference.pad_rows([tokens[i] for i in taken], Q)))
    return Plan(tuple(batches), len(tokens), P)


def embed_batches(encoder: DualEncoder, params: Params, planned: Plan) -> Vectors:
    """Embeds the questions of a plan, several batches of one length at a time.

    Returns:
      In NumPy: vectors [B, Q, K] and mask [B, Q], Q the longest in use; or dense vectors [B, E] and mask [B, 0].

    Raises:
      InputError: if there are no questions.
    """
    if not planned.batches:
        raise InputError("no questions to embed", key="questions")
    longest = max(batch.ids.shape[1] for batch in planned.batches)
    vectors = mask = None
    for Q, group in itertools.groupby(planned.batches, key=lambda batch: batch.ids.shape[1]):
        batches = list(group)
        members = np.concatenate([batch.members for batch in batches])
        ids = np.concatenate([batch.ids[: len(batch.members)] for batch in batches])
        lengths = np.concatenate([batch.lengths[: len(batch.members)] for batch in batches])
        size = min(_EMBED_ROWS, power_of_two(len(members)))
        for start in range(0, len(members), size):
            at = np.minimum(np.arange(start, start + size), len(members) - 1)
            found = jax.device_get(embed_questions(encoder, params, ids[at], lengths[at]))
            here = members[start : start + size]
            if vectors is None:
                padded = () if encoder.kind == "dense" else (longest,)
                vectors = np.zeros((planned.count, *padded, found.vectors.shape[-1]), found.vectors.dtype)
                mask = np.zeros((planned.count, longest if padded else 0), bool)
            if encoder.kind == "dense":
                vectors[here] = found.vectors[: len(here)]
            else:
                vectors[here, :Q], mask[here, :Q] = found.vectors[: len(here)], found.mask[: len(here)]
    return Vectors(vectors, mask)


def read(
    config: ModelConfig,
    params: Params,
    planned: Plan,
    rows: np.ndarray,
    store: Passages,
    *,
    max_tokens: int = 50,
    beams: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Reading]:
    """Reads the questions' passages and decodes their answers, batch by batch.

    Args:
      config: of the model.
      params: its parameters.
      planned: the questions; every passage has at most `planned.passage_tokens` tokens, or is cut.
      rows: passages of each question, rows of the store [B, N]; -1 is none.
      store: of the passages.
      max_tokens: A.
      beams: 1 decodes greedily.
      clock: seconds from any start.

    Yields:
      Answers, in the plan's order.
    """
    run_reader, run_decoder = inference.reader(config), inference.decoder(config, max_tokens, beams)
    for batch in planned.batches:
        count = len(batch.members)
        taken = np.concatenate([batch.members, np.repeat(batch.members[:1], len(batch.ids) - count)])
        passage_ids, passage_lengths = store.batch(np.maximum(rows[taken], 0), planned.passage_tokens)
        passage_lengths = np.where(rows[taken] >= 0, passage_lengths, 0)
        begun = clock()
        memory = jax.block_until_ready(run_reader(params, batch.ids, batch.lengths, passage_ids, passage_lengths))
        joined = clock()
        answers = jax.device_get(run_decoder(params, memory))
        del memory  # or it would be in memory beside the next batch's
        done = clock()
        yield Reading(batch.members, *(array[:count] for array in answers), joined - begun, done - joined)
