# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""How texts of many lengths become batches of few shapes, each of which is compiled. Axis: M items."""

from collections.abc import Iterator, Sequence

import numpy as np

# Padded lengths of what an encoder-decoder reads; `buckets_within` cuts them to a model's positions.
SOURCE_BUCKETS = (32, 64, 96, 128, 160, 192, 256, 384, 512)
# Rows longer than the last bucket are padded to a multiple of this.
_BEYOND = 64


def power_of_two(n: int) -> int:
    """Returns the smallest power of two that is at least `n` (and at least 1)."""
    return 1 << max(n - 1, 0).bit_length()


def bucket_lengths(lengths: np.ndarray, buckets: Sequence[int]) -> np.ndarray:
    """Returns, for lengths [M], the padded lengths [M]: the smallest bucket that holds each."""
    padded = np.sort(np.asarray(buckets, np.int64))
    lengths = np.asarray(lengths, np.int64)
    at = np.searchsorted(padded, lengths)
    beyond = -(-lengths // _BEYOND) * _BEYOND
    return np.where(at < len(padded), padded[np.minimum(at, len(padded) - 1)], beyond)


def length_batches(lengths: np.ndarray, batch: int, buckets: Sequence[int]) -> Iterator[tuple[np.ndarray, int]]:
    """Groups items of like length, so that little is padded and few shapes are compiled.

    What does not fill a batch moves up to the next bucket, so that only the very last batch can be short.

    Args:
      lengths: [M] tokens of each item.
      batch: items per batch.
      buckets: padded lengths.

    Yields:
      (positions [<= batch] int64 ascending, padded length).
    """
    padded = bucket_lengths(lengths, buckets)
    carried, length = np.empty(0, np.int64), 0
    for length in np.unique(padded):
        members = np.concatenate([carried, np.flatnonzero(padded == length)])
        whole = len(members) // batch * batch
        for start in range(0, whole, batch):
            yield np.sort(members[start : start + batch]), int(length)
        carried = members[whole:]
    if len(carried):
        yield np.sort(carried), int(length)


def buckets_within(buckets: Sequence[int], limit: int) -> tuple[int, ...]:
    """Padded lengths none of which passes a limit, such as the number of a model's positions."""
    return tuple(sorted({min(size, limit) for size in buckets}))
