# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Shards of a corpus: each passage is in one, and their merged lists are those of the whole."""

import numpy as np
import pytest

from class_jax.retrieval.shards import merge_shards, pad_lists, shard_mask


@pytest.mark.parametrize("count", [1, 3, 7])
def test_every_allowed_passage_is_in_one_shard(count):
    allowed = np.arange(20) % 3 != 0
    for given, wanted in ((allowed, allowed), (None, np.ones(20, bool))):
        masks = [shard_mask(given, 20, index, count) for index in range(count)]
        np.testing.assert_array_equal(np.sum(masks, axis=0), wanted)
        sizes = [mask.sum() for mask in masks]
        assert max(sizes) - min(sizes) <= 1
        firsts = [np.flatnonzero(mask)[[0, -1]] for mask in masks if mask.any()]
        assert (np.diff(np.concatenate(firsts)) >= 0).all()


def test_merged_lists():
    none = -np.inf
    first = np.array([[4, 0, -1], [2, 1, 0]]), np.array([[3.0, -1, none], [5, 4, 3]], np.float32)
    second = np.array([[9, 7, 8], [5, 6, 7]]), np.array([[3.0, 2, 2], [4, 4, -9]], np.float32)
    rows, scores = merge_shards([second, first], 4)
    assert rows.tolist() == [[4, 9, 7, 8], [2, 1, 5, 6]] and rows.dtype == np.int64
    assert scores.tolist() == [[3, 3, 2, 2], [5, 4, 4, 4]] and scores.dtype == np.float32


def test_padded_lists():
    rows, scores = pad_lists(np.array([[3], [4]]), np.array([[1.0], [2.0]], np.float32), 3)
    assert rows.tolist() == [[3, -1, -1], [4, -1, -1]]
    assert scores.tolist() == [[1, -np.inf, -np.inf], [2, -np.inf, -np.inf]]
    assert pad_lists(rows, scores, 3)[0].tolist() == rows.tolist()
