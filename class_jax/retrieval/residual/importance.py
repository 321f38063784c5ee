# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""How often each token vector of a passage is the one that MaxSim takes, by sample questions.

MaxSim reads one vector of a passage for each question token. Most vectors are rarely that one: their errors cost
nothing, and bits are better spent on the others.

Axes: M passages, P passage tokens, K head dim; S sample question tokens; T vectors.
"""

import jax
import jax.numpy as jnp
import numpy as np

TOKENS = 8192
"""Sample question tokens that are looked at; more are thinned out."""
_CHUNK = 1024
_PASSAGES = 16
_LENGTH_STEP = 32


def win_rates(vectors: np.ndarray, lengths: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Returns for each vector the share of question tokens whose best vector in its passage it is.

    Args:
      vectors: [T, K] float32, passage after passage.
      lengths: [M], vectors of each passage; the shares of a passage sum to 1.
      tokens: [S, K] float32.

    Returns:
      [T] float32.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    held, real = _chunks(tokens[np.linspace(0, len(tokens) - 1, min(TOKENS, len(tokens))).astype(np.int64)])
    found = np.zeros(len(vectors), np.float32)
    # Passages of like length go together.
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), _PASSAGES):
        rows = order[start : start + _PASSAGES]
        rows = rows[lengths[rows] > 0]
        if not len(rows):
            continue
        longest = -(-int(lengths[rows].max()) // _LENGTH_STEP) * _LENGTH_STEP
        mask = np.zeros((_PASSAGES, longest), bool)
        mask[: len(rows)] = np.arange(longest) < lengths[rows][:, None]
        at = (offsets[rows][:, None] + np.arange(longest))[mask[: len(rows)]]
        padded = np.zeros((_PASSAGES, longest, vectors.shape[1]), np.float32)
        padded[mask] = vectors[at]
        found[at] = np.asarray(_wins(padded, mask, held, real))[mask]
    return found / min(TOKENS, len(tokens))


def _chunks(tokens: np.ndarray) -> tuple[jax.Array, jax.Array]:
    count = -(-len(tokens) // _CHUNK)
    padded = np.pad(tokens.astype(np.float32), ((0, count * _CHUNK - len(tokens)), (0, 0)))
    real = np.arange(count * _CHUNK) < len(tokens)
    return jnp.asarray(padded.reshape(count, _CHUNK, -1)), jnp.asarray(real.reshape(count, _CHUNK))


@jax.jit
def _wins(vectors: jax.Array, mask: jax.Array, tokens: jax.Array, real: jax.Array) -> jax.Array:
    """Counts [M, P] of the question tokens [chunks, s, K] that each vector [M, P, K] wins."""

    def step(counts: jax.Array, given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        chunk, there = given
        products = jnp.where(mask[..., None], jnp.einsum("MPK,SK->MPS", vectors, chunk), -jnp.inf)
        won = (products == products.max(axis=1, keepdims=True)) & mask[..., None] & there
        return counts + won.sum(axis=-1, dtype=jnp.float32), None

    return jax.lax.scan(step, jnp.zeros(mask.shape, jnp.float32), (tokens, real))[0]
