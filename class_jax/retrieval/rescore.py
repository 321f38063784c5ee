# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Exact scores of a few candidates: with stored vectors, or with the passages embedded again.

Axes: N candidates, Q question tokens, P passage tokens, K head dim.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from class_jax.common.batching import length_batches, power_of_two
from class_jax.models import scoring
from class_jax.models.encode import PASSAGE_BUCKETS, DualEncoder, Params, Tokens, embed_passages, padded_batch
from class_jax.retrieval.vectors import VectorStore

# (question vectors [Q, K], candidate rows [N]) -> exact scores [N]
Rescorer = Callable[[np.ndarray, np.ndarray], np.ndarray]


def with_stored(store: VectorStore, batch: int = 256) -> Rescorer:
    """Returns a function that scores candidates with their stored vectors, by MaxSim (dense: by the dot product)."""
    buckets = (1,) if store.retriever == "dense" else PASSAGE_BUCKETS

    def rescore(question: np.ndarray, rows: np.ndarray) -> np.ndarray:
        padded, mask = _padded_question(question)
        scores = np.empty(len(rows), np.float32)
        size = min(batch, power_of_two(len(rows)))
        for members, length in length_batches(np.asarray(store.lengths)[rows], size, buckets):
            # Reading is fastest, and `padded` defined, in the order of the disk.
            order = members[np.argsort(rows[members], kind="stable")]
            found = _stored_scores(padded, mask, *store.padded(rows[order], length, size))
            scores[order] = np.asarray(found)[: len(order)]
        return scores

    return rescore


def with_model(encoder: DualEncoder, params: Params, store: Tokens, batch: int = 64) -> Rescorer:
    """Returns a function that embeds the candidates again and scores them: exact, for an index without its vectors."""

    def rescore(question: np.ndarray, rows: np.ndarray) -> np.ndarray:
        padded, mask = _padded_question(question)
        scores = np.empty(len(rows), np.float32)
        size = min(batch, power_of_two(len(rows)))
        for members, length in length_batches(np.asarray(store.lengths)[rows], size, PASSAGE_BUCKETS):
            ids, counts, _ = padded_batch(store, rows[members], size, length)
            found = _scores(padded, mask, *embed_passages(encoder, params, ids, counts))
            scores[members] = np.asarray(found)[: len(members)]
        return scores

    return rescore


def _padded_question(question: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pads a question [Q, K] to a power of two tokens, so that few shapes are compiled: [1, Q, K] and mask [1, Q]."""
    size = power_of_two(len(question))
    padded = np.zeros((1, size, question.shape[1]), np.float32)
    padded[0, : len(question)] = question
    return padded, np.arange(size)[None] < len(question)


@jax.jit
def _scores(question: jax.Array, question_mask: jax.Array, vectors: jax.Array, mask: jax.Array) -> jax.Array:
    if vectors.ndim == 2:
        vectors, mask = vectors[:, None], jnp.ones((len(vectors), 1), bool)
    return scoring.maxsim(question, question_mask, vectors, mask)[0]


@jax.jit
def _stored_scores(
    question: jax.Array, question_mask: jax.Array, stored: jax.Array, scales: jax.Array, mask: jax.Array
) -> jax.Array:
    return _scores(question, question_mask, stored.astype(jnp.float32) * scales[..., None], mask)
