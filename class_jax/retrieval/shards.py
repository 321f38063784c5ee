# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Search of a corpus in shards, one for each host: the mask of a shard, and the merging of the shards' results.

Axes: B questions, M passages, k passages of a question's list.
"""

from collections.abc import Sequence

import numpy as np

NO_ROW = -1


def shard_mask(allowed: np.ndarray | None, passages: int, index: int, count: int) -> np.ndarray:
    """Returns the mask [M] bool of the allowed passages that host `index` of `count` searches.

    Each shard is a range of the store; shards have equally many allowed passages, or one more.
    """
    rows = np.arange(passages) if allowed is None else np.flatnonzero(allowed)
    mask = np.zeros(passages, bool)
    mask[np.array_split(rows, count)[index]] = True
    return mask


def pad_lists(rows: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Pads lists [B, n], n <= k, to [B, k] with row -1 and score -inf: a small shard may have fewer than k passages."""
    short = ((0, 0), (0, k - rows.shape[1]))
    return np.pad(rows, short, constant_values=NO_ROW), np.pad(scores, short, constant_values=-np.inf)


def merge_shards(parts: Sequence[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """Merges the lists of all shards into the k best passages of each question.

    Args:
      parts: of each shard, rows [B, n] and scores [B, n]; -1 and -inf mean no passage.
      k: passages per question.

    Returns:
      rows [B, k] int64 and scores [B, k] float32, best first; equal scores are ordered by row.
    """
    rows = np.concatenate([np.asarray(part[0], np.int64) for part in parts], axis=1)
    scores = np.concatenate([np.asarray(part[1], np.float32) for part in parts], axis=1)
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
