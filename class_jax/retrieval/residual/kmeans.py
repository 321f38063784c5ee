# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""k-means over vectors that need not have one length, on whatever device JAX has.

Axes: T vectors, K their width, C centroids.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

# Distances [T, C] computed at once.
_DISTANCES = 1 << 25
# Rounds of Lloyd's algorithm.
_ROUNDS = 12


def assign(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Returns the nearest centroid (by Euclidean distance) of every vector [T, K]: int32 [T]."""
    batch = max(256, min(1 << 14, _DISTANCES // len(centroids)))
    held, halves = jnp.asarray(centroids), jnp.asarray((centroids**2).sum(1) / 2)
    found = np.empty(len(vectors), np.int32)
    for start in range(0, len(vectors), batch):
        part = vectors[start : start + batch]
        padded = np.pad(part, ((0, batch - len(part)), (0, 0)))
        found[start : start + batch] = np.asarray(_nearest(padded, held, halves))[: len(part)]
    return found


@jax.jit
def _nearest(vectors: jax.Array, centroids: jax.Array, halves: jax.Array) -> jax.Array:
    scores = vectors @ centroids.T - halves
    # XLA's argmax is many times slower on a CPU than two plain reductions.
    best = scores.max(axis=1, keepdims=True)
    return jnp.where(scores == best, jnp.arange(scores.shape[1], dtype=jnp.int32), scores.shape[1] - 1).min(axis=1)


def kmeans(vectors: np.ndarray, centroids: int, *, seed: int = 0, progress: bool | None = None) -> np.ndarray:
    """Returns centroids [C, K] float32 of vectors [T, K] (Lloyd's algorithm, begun at vectors drawn at random).

    A centroid that loses all its vectors is moved to one of those that are farthest from their own.
    C is at most T.
    """
    generator = np.random.default_rng(seed)
    held = vectors[np.sort(generator.choice(len(vectors), min(centroids, len(vectors)), replace=False))].copy()
    hidden = None if progress is None else not progress
    for _ in tqdm(range(_ROUNDS), desc="k-means", unit="round", disable=hidden, leave=False):
        at = assign(vectors, held)
        counts = np.bincount(at, minlength=len(held))
        order = np.argsort(at, kind="stable")
        used = np.flatnonzero(counts)
        starts = np.concatenate([[0], np.cumsum(counts[used])[:-1]])
        held[used] = np.add.reduceat(vectors[order], starts, axis=0) / counts[used, None]
        empty = np.flatnonzero(counts == 0)
        if len(empty):
            distances = ((vectors - held[at]) ** 2).sum(axis=1)
            held[empty] = vectors[np.argpartition(-distances, len(empty) - 1)[: len(empty)]]
    return held


@functools.cache
def count_for(vectors: int) -> int:
    """Returns how many centroids an index of that many vectors should have: a power of two, at most 65,536.

    About 8 times the square root of the vectors: more find candidates more sharply and leave smaller residuals, but
    assigning costs in proportion, and in a small corpus the centroids themselves would take the disk.
    """
    return 1 << min(16, max(0, int(8 * np.sqrt(vectors)).bit_length() - 1), max(0, (vectors // 8).bit_length() - 1))
