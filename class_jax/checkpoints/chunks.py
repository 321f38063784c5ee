# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""TensorStore's arrays, chunk by chunk: left to itself it packs or unpacks many at a time beside the array."""

import collections
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorstore as ts

_IN_FLIGHT = 2  # packing is the work; each holds its chunk up to three times


def regions(shape: Sequence[int], chunk: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """The parts into which chunks of one shape cut an array."""
    starts = [range(0, size, step) for size, step in zip(shape, chunk, strict=True)]
    for corner in itertools.product(*starts):
        yield tuple(
            slice(start, min(start + step, size)) for start, step, size in zip(corner, chunk, shape, strict=True)
        )


def read_chunks(store: ts.TensorStore) -> np.ndarray:
    """Reads a whole array; raises what TensorStore does (ValueError)."""
    array = np.empty(store.shape, store.dtype.numpy_dtype)

    def start(region: tuple[slice, ...]) -> ts.Future:
        return store[region].read()

    def finish(region: tuple[slice, ...], future: ts.Future) -> None:
        array[region] = future.result()

    _in_turn(store, start, finish)
    return array


def write_chunks(store: ts.TensorStore, array: np.ndarray) -> None:
    """Writes a whole array, of any strides and as the store's type; raises what TensorStore does (ValueError)."""
    dtype = store.dtype.numpy_dtype

    def start(region: tuple[slice, ...]) -> ts.WriteFutures:
        return store[region].write(np.ascontiguousarray(array[region]).astype(dtype, copy=False))

    _in_turn(store, start, lambda region, future: future.result())


def _in_turn(store: ts.TensorStore, start: Callable[..., Any], finish: Callable[..., None]) -> None:
    under_way: collections.deque = collections.deque()
    chunk = store.chunk_layout.write_chunk.shape or store.shape  # a scalar has none
    for region in regions(store.shape, chunk):
        if len(under_way) == _IN_FLIGHT:
            finish(*under_way.popleft())
        under_way.append((region, start(region)))
    while under_way:
        finish(*under_way.popleft())
