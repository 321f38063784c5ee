# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""SHA-256 digests of sharded arrays, independent of how many processes or devices hold them.

Orbax restores an array whose file has a flipped bit without complaint. So each array gets a digest for each of its
*chunks* at save time: the distinct regions into which its sharding cuts it, each hashed in C order by the process that
holds its first replica. No array is ever gathered for that. At load time the same regions are hashed again: in
place where the new sharding cuts the array in the same way, else from a NumPy copy of one array at a time.
"""

import concurrent.futures
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from class_jax.checkpoints.folder_digests import sha256

Chunk = tuple[tuple[int, int], ...]


def _chunk(index: tuple[slice, ...], shape: tuple[int, ...]) -> Chunk:
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


def _chunks(array: jax.Array) -> list[Chunk]:
    """All chunks of an array on all processes, in an order that every process agrees on."""
    return sorted({_chunk(i, array.shape) for i in array.sharding.devices_indices_map(array.shape).values()})


def _sha256(array: jax.Array | np.ndarray) -> bytes:
    # The reshaped view has a buffer that hashlib takes, whatever the type (bfloat16 has none of its own).
    flat = np.ascontiguousarray(np.asarray(array)).reshape(-1)
    return hashlib.sha256(flat.view(np.uint8)).digest()


def _hash_all(pieces: list[jax.Array | np.ndarray]) -> list[bytes]:
    # hashlib releases the interpreter's lock, so threads help.
    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(_sha256, pieces))


def digest_arrays(arrays: Mapping[str, jax.Array]) -> dict[str, dict[str, Any]]:
    """Describes arrays such that `first_damaged` can recognise them.

    Every process must call this with the same names.

    Returns:
      For each name its "shape", "dtype" and "chunks": pairs of a chunk's [start, stop] in each dimension and its
      SHA-256 in hex. JSON-able.
    """
    layout = [(name, chunk) for name, array in arrays.items() for chunk in _chunks(array)]
    place = {key: row for row, key in enumerate(layout)}
    rows, pieces = [], []
    for name, array in arrays.items():
        for shard in array.addressable_shards:
            if shard.replica_id == 0:
                rows.append(place[name, _chunk(shard.index, array.shape)])
                pieces.append(shard.data)
    table = np.zeros((len(layout), 32), np.uint8)
    for row, digest in zip(rows, _hash_all(pieces), strict=True):
        table[row] = np.frombuffer(digest, np.uint8)
    if jax.process_count() > 1:
        # A row is zero on all processes but the one that hashed it.
        table = multihost_utils.process_allgather(table).max(axis=0)
    records = {
        name: {"shape": list(array.shape), "dtype": str(array.dtype), "chunks": []} for name, array in arrays.items()
    }
    for (name, chunk), digest in zip(layout, table, strict=True):
        records[name]["chunks"].append([[list(part) for part in chunk], digest.tobytes().hex()])
    return records


def first_damaged(arrays: Mapping[str, jax.Array], records: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Returns the first name whose bytes are not those that `digest_arrays` saw, or None.

    Every process must call this with the same names; all get the same answer.
    """
    names = list(arrays)
    damaged = [row for row, name in enumerate(names) if not _intact(arrays[name], records[name]["chunks"])]
    first = damaged[0] if damaged else len(names)
    if jax.process_count() > 1:
        first = int(multihost_utils.process_allgather(np.int32(first)).min())
    return names[first] if first < len(names) else None


def is_intact(array: np.ndarray, record: Mapping[str, Any]) -> bool:
    """Whether a NumPy array has the shape, type and digests of `digest_arrays`'s record of it."""
    if list(array.shape) != record["shape"] or str(array.dtype) != record["dtype"]:
        return False
    return all(sha256(array[tuple(slice(*part) for part in chunk)]) == digest for chunk, digest in record["chunks"])


def _intact(array: jax.Array, chunks: list) -> bool:
    """Whether the chunks of one array that this process can see have the digests recorded for them."""
    recorded = {tuple(tuple(part) for part in chunk): digest for chunk, digest in chunks}
    if set(recorded) == set(_chunks(array)):
        pieces = {_chunk(shard.index, array.shape): shard.data for shard in array.addressable_shards}
    else:
        whole = array if array.is_fully_addressable else multihost_utils.process_allgather(array, tiled=True)
        whole = np.asarray(whole)
        pieces = {chunk: whole[tuple(slice(*part) for part in chunk)] for chunk in recorded}
    digests = _hash_all(list(pieces.values()))
    return all(recorded[chunk] == digest.hex() for chunk, digest in zip(pieces, digests, strict=True))
