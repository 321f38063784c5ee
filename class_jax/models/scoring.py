# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Retrieval scores: multi-vector MaxSim and dense dot products (paper, section 2.2). Pure functions.

Axes by the legend in `class_jax.models`. All scores are float32.
"""

import jax
import jax.numpy as jnp

from class_jax.models.class_model import Encoded

# Score of a padded passage token. Not 0: real scores can be negative, and padding must never win the maximum.
PADDED = -1e9


def maxsim(
    query_vectors: jax.Array,
    query_mask: jax.Array,
    passage_vectors: jax.Array,
    passage_mask: jax.Array,
    *,
    mean: bool = False,
    chunk: int | None = None,
) -> jax.Array:
    """Sum over question tokens of the best match among passage tokens, every question with every passage.

    Args:
      query_vectors: [B, Q, K]. query_mask: [B, Q], True for tokens that are not padding.
      passage_vectors: [M, P, K]. passage_mask: [M, P].
      mean: divide by the question's number of tokens (end-to-end training in the reference does, stage 1 does not).
      chunk: passages compared at a time; bounds the [B, Q, M, P] matches that are held at once, forward and backward.
        The result is the same. None compares all at once.

    Returns:
      Scores [B, M].
    """

    def scores(vectors: jax.Array, mask: jax.Array) -> jax.Array:
        match = _best_matches(query_vectors, vectors, mask)
        return jnp.where(query_mask[..., None], match, 0.0).sum(axis=1)

    M = passage_vectors.shape[0]
    if chunk is None or chunk >= M:
        total = scores(passage_vectors, passage_mask)
    else:
        padding = -M % chunk
        pieces = [
            jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, chunk, *x.shape[1:])
            for x in (passage_vectors, passage_mask)
        ]
        body = jax.checkpoint(lambda _, piece: (None, scores(*piece)), prevent_cse=False)
        total = jax.lax.scan(body, None, tuple(pieces))[1]  # [chunks, B, chunk]
        total = total.swapaxes(0, 1).reshape(query_vectors.shape[0], -1)[:, :M]
    return total / query_mask.sum(-1)[:, None] if mean else total


def maxsim_own(
    query_vectors: jax.Array,
    query_mask: jax.Array,
    passage_vectors: jax.Array,
    passage_mask: jax.Array,
    *,
    mean: bool = False,
) -> jax.Array:
    """As `maxsim`, each question only with its own passages [B, N, P, K]: scores [B, N]."""
    queries, passages = map(jax.lax.stop_gradient, (query_vectors, passage_vectors))
    where = _best_token(jnp.einsum("bqk,bnpk->bqnp", queries, passages), passage_mask[:, None])  # [B, Q, N]
    best = jnp.take_along_axis(passage_vectors, where.swapaxes(1, 2)[..., None], axis=2)  # [B, N, Q, K]
    match = jnp.einsum("bqk,bnqk->bqn", query_vectors, best, preferred_element_type=jnp.float32)
    total = jnp.where(query_mask[..., None], match, 0.0).sum(axis=1)
    return total / query_mask.sum(-1)[:, None] if mean else total


def dense(query_vectors: jax.Array, passage_vectors: jax.Array) -> jax.Array:
    """Dot products of every question [B, E] with every passage [M, E]: [B, M]."""
    return jnp.einsum("be,me->bm", query_vectors, passage_vectors, preferred_element_type=jnp.float32)


def dense_own(query_vectors: jax.Array, passage_vectors: jax.Array) -> jax.Array:
    """Dot products of each question [B, E] with its own passages [B, N, E]: [B, N]."""
    return jnp.einsum("be,bne->bn", query_vectors, passage_vectors, preferred_element_type=jnp.float32)


@jax.named_scope("scores")
def score_all(questions: Encoded, passages: Encoded, *, mean: bool = False, chunk: int | None = None) -> jax.Array:
    """Every question with every passage, by whichever kind of vector they carry.

    `questions` are [B, ...]; `passages` are [M, ...] or [B, N, ...], taken in that order as one list.
    """
    if questions.vectors.ndim == 2:
        return dense(questions.vectors, passages.vectors.reshape(-1, passages.vectors.shape[-1]))
    flat = passages.vectors.reshape(-1, *passages.vectors.shape[-2:])
    mask = passages.mask.reshape(-1, passages.mask.shape[-1])
    return maxsim(questions.vectors, questions.mask, flat, mask, mean=mean, chunk=chunk)


@jax.named_scope("scores")
def score_own(questions: Encoded, passages: Encoded, *, mean: bool = False) -> jax.Array:
    """Each question [B, ...] with its own passages [B, N, ...]: [B, N]."""
    if questions.vectors.ndim == 2:
        return dense_own(questions.vectors, passages.vectors)
    return maxsim_own(questions.vectors, questions.mask, passages.vectors, passages.mask, mean=mean)


@jax.custom_vjp
def _best_matches(queries: jax.Array, vectors: jax.Array, mask: jax.Array) -> jax.Array:
    """Best match of every question token in every passage: [B, Q, K], [M, P, K], [M, P] -> [B, Q, M]."""
    # Axes stay in the product's own order, b q m p: moving M before Q would copy the largest array here.
    match = jnp.einsum("bqk,mpk->bqmp", queries, vectors, preferred_element_type=jnp.float32)
    return jnp.where(mask, match, PADDED).max(axis=-1)


def _looked_up_matches(queries: jax.Array, vectors: jax.Array, mask: jax.Array) -> jax.Array:
    """As `_best_matches`, through the index of the best token: what the gradient needs; see `_best_token`."""
    match = jnp.einsum("bqk,mpk->bqmp", *map(jax.lax.stop_gradient, (queries, vectors)))
    best = vectors[jnp.arange(len(vectors)), _best_token(match, mask)]  # [B, Q, M, K]
    return jnp.einsum("bqk,bqmk->bqm", queries, best, preferred_element_type=jnp.float32)


_best_matches.defvjp(
    lambda queries, vectors, mask: jax.vjp(lambda q, v: _looked_up_matches(q, v, mask), queries, vectors),
    lambda pull, gradient: (*pull(gradient), None),
)


def _best_token(match: jax.Array, passage_mask: jax.Array) -> jax.Array:
    """Index of the best passage token, [..., P] -> [...].

    The scores are then computed again from only the chosen vectors: the gradient of a maximum over [B, Q, M, P]
    would hold several arrays of that size, that of a look-up holds [B, Q, M, K]. Two reductions, because XLA's argmax
    on a CPU is many times slower than a maximum.
    """
    P = match.shape[-1]
    match = jnp.where(passage_mask, match, PADDED)
    best = match.max(axis=-1, keepdims=True)
    # A score that is not a number equals nothing, but must be chosen: a broken vector is not to be hidden.
    chosen = (match == best) | jnp.isnan(match)
    return jnp.where(chosen, jnp.arange(P), P).min(axis=-1)
