# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Exact search: embed the corpus once in a stream, score every question against it, keep the best k; nothing is stored.

Axes: B questions, M passages, Q question tokens, P passage tokens, K head dim; and here G chunks of C questions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from class_jax.common.batching import bucket_lengths, length_batches, power_of_two
from class_jax.errors import InputError
from class_jax.models.encode import (
    PASSAGE_BUCKETS,
    QUESTION_BUCKETS,
    DualEncoder,
    Params,
    Tokens,
    Vectors,
    allowed_rows,
    check_enough,
    embed_passages,
    embed_questions,
    padded_batch,
    padded_questions,
    question_lengths,
)

# Similarities [C, Q, M, P] that one chunk of questions may hold in memory; on a CPU they should fit its cache.
_CHUNK_BYTES = 256 * 2**20
_CHUNK_BYTES_CPU = 8 * 2**20
# Work of one call: about a millisecond on an accelerator, so that training steps pass in between.
_CALL_FLOPS = 2e11
# Passage batches dispatched to the device before the oldest is waited for.
_IN_FLIGHT = 2
# Questions embedded at once, and scored in one call at most.
_EMBED_QUESTIONS = 256
_MAX_GROUP = 16384
_NO_ROW = np.iinfo(np.int32).max


class _Group(NamedTuple):
    """Questions that are scored in one call: `members` in NumPy, the rest on the device, [G, C, ...]."""

    members: np.ndarray
    questions: Vectors
    exclude: jax.Array


def exact_search(
    encoder: DualEncoder,
    params: Params,
    store: Tokens,
    questions: Sequence[np.ndarray] | Vectors,
    k: int,
    *,
    batch_passages: int = 512,
    batch_questions: int | None = None,
    buckets: Sequence[int] = PASSAGE_BUCKETS,
    question_buckets: Sequence[int] = QUESTION_BUCKETS,
    allowed: np.ndarray | None = None,
    exclude: np.ndarray | None = None,
    sharding: jax.sharding.Sharding | None = None,
    fill: bool = False,
    progress: bool | None = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k best passages of every question by exact scores (paper, section 3.1).

    Args:
      encoder: the model's retriever; its compiled programs are kept for later calls with the same encoder.
      params: its parameters.
      store: the token store.
      questions: B token arrays without padding; or their vectors in NumPy, as `encode_questions` returns them.
      k: passages per question.
      batch_passages: passages embedded at once.
      batch_questions: questions scored at once against them; None chooses from the shapes.
      buckets: padded passage lengths.
      question_buckets: padded question lengths.
      allowed: [passages] bool, which rows may be retrieved; None allows all.
      exclude: [B] int, a row that is never returned for the question (its own passage), -1 for none.
      sharding: of a passage batch's leading axis over devices; None leaves it to JAX.
      fill: whether lists that are short of k passages are filled with row -1 and score -inf, instead of refused.
      progress: True shows a bar, False hides it, None shows it on a terminal.
      report: called with (passages done, passages in all) after each batch; may raise to stop the search.

    Returns:
      rows [B, k] int64 and scores [B, k] float32, best first; equal scores are ordered by row.

    Raises:
      InputError: if fewer than k passages may be retrieved for a question, a question has no tokens, the masks have the
        wrong shape, or the model's scores are not finite.
    """
    rows = allowed_rows(store, allowed)
    count = len(questions.vectors if isinstance(questions, Vectors) else questions)
    exclude = checked_exclude(exclude, count)
    if not fill:
        check_enough(rows, k, exclude)
    if store.num_passages >= _NO_ROW:
        raise InputError(f"{store.num_passages} passages do not fit 32-bit rows", remedy="split the corpus")
    if not count or not len(rows):
        shape = count, k
        return np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    batch = min(batch_passages, power_of_two(len(rows)))
    if sharding is not None:
        batch = -(-batch // sharding.num_devices) * sharding.num_devices
    lengths = np.asarray(store.lengths)[rows]
    passage_tokens = batch * int(bucket_lengths(lengths, buckets).max())
    groups = _question_groups(
        encoder, params, questions, exclude, question_buckets, passage_tokens, batch, batch_questions
    )
    best = [_empty(group, k) for group in groups]
    dispatched, done = [], 0
    with tqdm(
        total=len(rows), unit="passage", desc="search", disable=None if progress is None else not progress
    ) as bar:
        for members, length in length_batches(lengths, batch, buckets):
            ids, token_counts, at = padded_batch(store, rows[members], batch, length)
            given = (ids, token_counts) if sharding is None else jax.device_put((ids, token_counts), sharding)
            passages = embed_passages(encoder, params, *given)
            at = at.astype(np.int32)
            best = [
                _merge(encoder, group.questions, group.exclude, passages, at, old)
                for group, old in zip(groups, best, strict=True)
            ]
            # Waiting for an earlier batch bounds memory, and lets training steps onto the device.
            dispatched.append(best[-1])
            if len(dispatched) > _IN_FLIGHT:
                jax.block_until_ready(dispatched.pop(0))
            done += len(members)
            bar.update(len(members))
            if report is not None:
                report(done, len(rows))
    return _collect(groups, best, count, k, fill)


def checked_exclude(exclude: np.ndarray | None, count: int) -> np.ndarray:
    """Returns the excluded row of each question, [B] int64 with -1 for none.

    Raises:
      InputError: if there is not one entry per question.
    """
    exclude = np.full(count, -1, np.int64) if exclude is None else np.asarray(exclude, np.int64)
    if exclude.shape != (count,):
        raise InputError(f"one row for each of {count} questions is needed, not {exclude.shape}", key="exclude")
    return exclude


def _question_groups(
    encoder: DualEncoder,
    params: Params,
    questions: Sequence[np.ndarray] | Vectors,
    exclude: np.ndarray,
    buckets: Sequence[int],
    passage_tokens: int,
    passages: int,
    chunk: int | None,
) -> list[_Group]:
    """Embeds the questions and lays them out as groups whose scoring is bounded in memory (C) and time (G * C)."""
    if isinstance(questions, Vectors):
        width, longest = questions.vectors.shape[-1], questions.mask.shape[1]
        lengths, buckets = np.full(len(questions.vectors), longest), (longest,)
    else:
        lengths = question_lengths(questions)
        longest = int(bucket_lengths(lengths, buckets).max())
        spec = jax.ShapeDtypeStruct((1, longest), np.int32), jax.ShapeDtypeStruct((1,), np.int32)
        width = jax.eval_shape(functools.partial(embed_questions, encoder), params, *spec).vectors.shape[-1]
    pairs = passages if encoder.kind == "dense" else longest * passage_tokens
    held = _CHUNK_BYTES_CPU if jax.default_backend() == "cpu" else _CHUNK_BYTES
    chunk = chunk or _floor_power(held / (4 * pairs))
    per_call = chunk * _floor_power(_CALL_FLOPS / (2 * pairs * width * chunk))
    return [
        _group(encoder, params, questions, members, exclude[members], length, chunk)
        for members, length in length_batches(lengths, min(per_call, max(_MAX_GROUP, chunk)), buckets)
    ]


def _group(
    encoder: DualEncoder,
    params: Params,
    questions: Sequence[np.ndarray] | Vectors,
    members: np.ndarray,
    exclude: np.ndarray,
    length: int,
    chunk: int,
) -> _Group:
    # Powers of two keep the compiled shapes few when the next refresh has another number of questions.
    chunk = min(chunk, power_of_two(len(members)))
    chunks = power_of_two(-(-len(members) // chunk))
    size = chunk * chunks
    if isinstance(questions, Vectors):
        at = members[np.minimum(np.arange(size), len(members) - 1)]
        vectors = Vectors(questions.vectors[at], questions.mask[at])
        if encoder.kind == "dense":
            vectors = Vectors(vectors.vectors, np.ones(size, bool))
    else:
        vectors = _embedded(encoder, params, [questions[i] for i in members], size, length)
    own = np.full(size, -1, np.int32)
    own[: len(members)] = exclude
    vectors = jax.tree.map(lambda x: x.reshape(chunks, chunk, *x.shape[1:]), vectors)
    return _Group(members, vectors, jnp.asarray(own.reshape(chunks, chunk)))


def _embedded(encoder: DualEncoder, params: Params, questions: Sequence[np.ndarray], size: int, length: int) -> Vectors:
    """Vectors of questions, and of fillers up to `size`, on the device."""
    at_once = min(size, _EMBED_QUESTIONS)
    parts = []
    for start in range(0, size, at_once):
        some = questions[start : start + at_once] or questions[:1]
        parts.append(_maskless(embed_questions(encoder, params, *padded_questions(some, at_once, length)), encoder))
    return jax.tree.map(lambda *x: jnp.concatenate(x)[:size], *parts)


def _maskless(vectors: Vectors, encoder: DualEncoder) -> Vectors:
    """Drops the mask of dense vectors, which may have any shape."""
    return vectors if encoder.kind == "multi_vector" else Vectors(vectors.vectors, jnp.ones(len(vectors.vectors), bool))


def _floor_power(n: float) -> int:
    """Returns the largest power of two that is at most `n`, or 1."""
    return 1 << max(int(n).bit_length() - 1, 0)


def _empty(group: _Group, k: int) -> tuple[np.ndarray, np.ndarray]:
    shape = (*group.exclude.shape, k)
    # Of NumPy: JAX would compile a program for each.
    return np.full(shape, -np.inf, np.float32), np.full(shape, _NO_ROW, np.int32)


@functools.partial(jax.jit, static_argnames="encoder")
def _merge(
    encoder: DualEncoder,
    questions: Vectors,
    exclude: jax.Array,
    passages: Vectors,
    at: jax.Array,
    best: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Merges one batch of passages into the best k so far.

    Args:
      encoder: gives the score.
      questions: vectors [G, C, ...] and mask.
      exclude: [G, C] rows to leave out.
      passages: vectors [M, ...] and mask.
      at: [M] int32 rows of the passages, ascending, -1 for filler.
      best: scores [G, C, k] float32 and rows [G, C, k] int32, in order.

    Returns:
      The new `best`: highest score first, equal scores by row.
    """
    k = best[0].shape[-1]
    sound_passages = _sound(passages)

    def chunk(given: tuple) -> tuple[jax.Array, jax.Array]:
        part, own, (old_scores, old_rows) = given
        scores = encoder.score(part, passages).astype(jnp.float32)
        # A broken vector wins, so that it is noticed at the end: a maximum may lose a NaN. -0.0 and 0.0 are one score.
        sound = jnp.isfinite(scores) & _sound(part)[:, None] & sound_passages
        scores = jnp.where(sound, jnp.where(scores == 0, 0.0, scores), jnp.inf)
        scores = jnp.where((at >= 0) & (at != own[:, None]), scores, -jnp.inf)
        # Among equals top_k takes the first, and `at` ascends: the order within the batch is right already.
        new_scores, positions = jax.lax.top_k(scores, min(k, scores.shape[-1]))
        new_rows = jnp.where(new_scores == -jnp.inf, _NO_ROW, at[positions])
        falling = -jnp.concatenate([old_scores, new_scores], axis=-1)
        falling, rows = jax.lax.sort((falling, jnp.concatenate([old_rows, new_rows], axis=-1)), num_keys=2)
        return -falling[:, :k], rows[:, :k]

    return jax.lax.map(chunk, (questions, exclude, best))


def _sound(vectors: Vectors) -> jax.Array:
    """Returns [B] bool: whether all vectors of the text are finite, padding aside."""
    finite = jnp.isfinite(vectors.vectors).all(axis=-1)
    return finite if finite.ndim == 1 else (finite | ~vectors.mask).all(axis=-1)


def _collect(
    groups: Sequence[_Group], best: Sequence[tuple[jax.Array, jax.Array]], count: int, k: int, fill: bool
) -> tuple[np.ndarray, np.ndarray]:
    rows, scores = np.empty((count, k), np.int64), np.empty((count, k), np.float32)
    for group, found in zip(groups, jax.device_get(best), strict=True):
        real = len(group.members)
        scores[group.members] = found[0].reshape(-1, k)[:real]
        rows[group.members] = found[1].reshape(-1, k)[:real]
    sound = np.isfinite(scores)
    if fill:
        none = rows == _NO_ROW
        sound |= none & np.isneginf(scores)
        rows[none] = -1
    if not sound.all():
        question = int(np.argmin(sound.all(axis=1)))
        raise InputError("the model's scores are not finite", key=f"question {question}", remedy="use earlier weights")
    return rows, scores
