# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The files of a token store: columns that are appended to, checked and memory-mapped, and the id table.

A store is a folder of plain binary columns (little-endian, no headers) beside `manifest.json`:

| file | per | holds |
|---|---|---|
| `tokens.bin` | token | token ids of all passages, one after the other (uint16 or int32) |
| `token_offsets.bin` | passage | where each passage's tokens start, and one more entry: where they end |
| `lengths.bin` | passage | tokens of each passage |
| `ids.bin`, `titles.bin`, `texts.bin` | byte | UTF-8 of ids, titles and texts, one after the other |
| `id_offsets.bin`, `title_offsets.bin`, `text_offsets.bin` | passage | the same of the strings |
| `id_hashes.bin`, `id_rows.bin` | passage | sorted 64-bit hashes of the ids, and the row of each |
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from class_jax.common.files import digest_file
from class_jax.corpus.passages import read_numbered
from class_jax.errors import InputError

REBUILD = "build the token store again"
# The ids' hashes in the order of the rows; there only while a store is built.
UNSORTED = "id_hashes.unsorted"
_BLOCK = 1 << 20  # ids sorted into the table at a time


def hash_ids(names: Sequence[bytes]) -> np.ndarray:
    """Returns 64-bit hashes of passage ids, uint64 [m]."""
    digests = b"".join([hashlib.blake2b(name, digest_size=8).digest() for name in names])
    return np.frombuffer(digests, "<u8")


class MemmapColumn:
    """One file of the store, appended to in order; its digest is taken on the way."""

    def __init__(self, path: Path, dtype: str) -> None:
        self._file = open(path, "wb", buffering=1 << 20)  # noqa: SIM115 (closed by close)
        self._digest, self._dtype, self.count = hashlib.sha256(), np.dtype(dtype), 0

    def append(self, values: np.ndarray | bytes) -> None:
        """Appends values, or bytes unchanged."""
        data = values if isinstance(values, bytes) else np.ascontiguousarray(values, self._dtype).tobytes()
        self._file.write(data)
        self._digest.update(data)
        self.count += len(data) // self._dtype.itemsize

    def close(self) -> dict:
        """Closes the file when its bytes are on the disk; returns its entry in the manifest."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {"dtype": self._dtype.str, "count": self.count, "sha256": self._digest.hexdigest()}

    def abandon(self) -> None:
        """Closes the file after a failure; does nothing after `close`."""
        # A full disk refuses the buffered rest once more; the first refusal is the one to report.
        with contextlib.suppress(OSError):
            self._file.close()


def check_column(path: Path, entry: dict, verify: bool) -> None:
    """Compares a file with its entry in the manifest; under `verify` its digest too.

    Raises:
      InputError: naming the file and, for a wrong length, both lengths.
    """
    expected = entry["count"] * np.dtype(entry["dtype"]).itemsize
    found = path.stat().st_size if path.is_file() else None
    if found is None:
        raise InputError("missing from the token store", file=path, remedy=REBUILD)
    if found != expected:
        kind = "truncated" if found < expected else "too long"
        raise InputError(f"{kind}: {found} bytes, not {expected}", file=path, remedy=REBUILD)
    if verify and digest_file(path) != entry["sha256"]:
        raise InputError("damaged: its bytes are not those that were written", file=path, remedy=REBUILD)


def map_column(path: Path, entry: dict) -> np.ndarray:
    """Maps a column of which `entry` is the manifest's; read only."""
    if not entry["count"]:  # an empty file can't be mapped
        return np.zeros(0, entry["dtype"])
    return np.memmap(path, entry["dtype"], "r")


def write_id_table(folder: Path, count: int, source: Path) -> dict[str, dict]:
    """Sorts the ids' hashes and writes them with their rows; returns the manifest's entries.

    Args:
      folder: of the store, where the id columns are complete.
      count: passages.
      source: the TSV, read again only to find the lines of a duplicate id.

    Raises:
      InputError: for a duplicate id, with both lines.
    """
    unsorted = np.fromfile(folder / UNSORTED, "<u8")
    (folder / UNSORTED).unlink()
    order = np.argsort(unsorted)
    hashes = MemmapColumn(folder / "id_hashes.bin", "<u8")
    rows = MemmapColumn(folder / "id_rows.bin", "<u4" if count < 1 << 32 else "<i8")
    try:
        for start in range(0, count, _BLOCK):
            here = order[start : start + _BLOCK + 1]  # one more, to compare over the blocks' border
            values = unsorted[here]
            equal = np.flatnonzero(values[1:] == values[:-1])
            if equal.size:
                _check_duplicates(folder, unsorted, order, equal + start, source)
            hashes.append(values[:_BLOCK])
            rows.append(here[:_BLOCK])
        return {"id_hashes.bin": hashes.close(), "id_rows.bin": rows.close()}
    finally:
        hashes.abandon()
        rows.abandon()


def _check_duplicates(folder: Path, unsorted: np.ndarray, order: np.ndarray, slots: np.ndarray, source: Path) -> None:
    """Compares the ids that share a hash with the next slot's; different ids may (and then both stay)."""
    blob = np.memmap(folder / "ids.bin", np.uint8, "r")
    offsets = np.memmap(folder / "id_offsets.bin", "<i8", "r")
    seen: dict[np.uint64, set[bytes]] = {}
    for slot in slots:
        hashed = unsorted[order[slot]]
        names = seen.setdefault(hashed, {blob[slice(*offsets[order[slot] :][:2])].tobytes()})
        name = blob[slice(*offsets[order[slot + 1] :][:2])].tobytes()
        if name in names:
            _refuse_duplicate(source, name.decode())
        names.add(name)


def _refuse_duplicate(source: Path, id_: str) -> None:
    lines = (line for line, passage in read_numbered(source) if passage.id == id_)
    first, second = next(lines), next(lines)
    raise InputError(
        f"duplicate id, first seen on line {first}",
        file=source,
        line=second,
        key=f"passage {id_!r}",
        remedy="give every passage an id of its own",
    )
