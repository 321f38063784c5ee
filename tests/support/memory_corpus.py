# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A corpus in memory, encoders whose vectors are rows of a table, and what search over it must find."""

import jax.numpy as jnp
import numpy as np

from class_jax.models.encode import DualEncoder

VOCABULARY, WIDTH = 40, 6
BUCKETS, QUESTION_BUCKETS = (4, 8, 12), (3, 6)


class Store:
    """Passages in memory, with the token store's interface."""

    fingerprint = "corpus"

    def __init__(self, passages):
        self.passages = passages
        self.num_passages = len(passages)
        self.lengths = np.array([len(p) for p in passages], np.int32)

    def batch(self, rows, length=None):
        length = length or int(self.lengths[rows].max())
        ids = np.zeros((len(rows), length), np.int32)
        for i, row in enumerate(rows):
            ids[i, : self.lengths[row]] = self.passages[row]
        return ids, self.lengths[rows]


def mask_of(ids, lengths):
    return jnp.arange(ids.shape[1]) < lengths[:, None]


def token_vectors(params, ids, lengths):
    return params[ids], mask_of(ids, lengths)


def mean_vectors(params, ids, lengths):
    mask = mask_of(ids, lengths)
    return (params[ids] * mask[..., None]).sum(1) / lengths[:, None], mask


MULTI = DualEncoder(token_vectors, token_vectors, "multi_vector")
MEAN = DualEncoder(token_vectors, token_vectors, "multi_vector", mean=True)
DENSE = DualEncoder(mean_vectors, mean_vectors, "dense")


def texts(rng, count, longest):
    return [rng.integers(1, VOCABULARY, rng.integers(1, longest + 1)) for _ in range(count)]


def brute_force(encoder, table, questions, passages):
    scores = np.empty((len(questions), len(passages)), np.float64)
    for i, q in enumerate(questions):
        for j, p in enumerate(passages):
            if encoder.kind == "dense":
                scores[i, j] = table[q].mean(0) @ table[p].mean(0)
            else:
                scores[i, j] = (table[q] @ table[p].T).max(1).sum() / (len(q) if encoder.mean else 1)
    return scores


def assert_best(rows, scores, expected, k):
    """The rows are the best k by the expected scores, wherever those differ by more than rounding."""
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :k], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(expected, rows, 1), scores, rtol=1e-4, atol=1e-4)
    assert all(len(set(row)) == k for row in rows.tolist())
