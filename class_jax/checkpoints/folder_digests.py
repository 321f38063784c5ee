# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`digests.json`: what the arrays and files of a folder of weights were when this project wrote it.

Formats for weights notice a file that is cut short, but not one with a flipped bit. So each array has a digest here,
checked whenever it is read, and so has every other byte that decides how the arrays are read (headers, indexes).
Folders that others wrote have no such file and are read without it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from class_jax.common.files import read_json, write_json
from class_jax.errors import InputError

FILE = "digests.json"
_FORMAT = 1
_REMEDY = f"fetch or write it again; if you changed it on purpose, delete {FILE}"
_PIECE_BYTES = 64 << 20


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yields an array's rows in C order as contiguous arrays of at most `_PIECE_BYTES` (or one row).

    So a transposed view is copied piece by piece and never as a whole.
    """
    if array.ndim == 0:
        array = array.reshape(1)
    rows = max(1, _PIECE_BYTES // max(1, array[:1].nbytes))
    for start in range(0, array.shape[0], rows):
        yield np.ascontiguousarray(array[start : start + rows])


def as_bytes(array: np.ndarray) -> np.ndarray:
    """The bytes of a contiguous array, of any type: bfloat16 has no buffer of its own."""
    return array.reshape(-1).view(np.uint8)


def sha256(array: np.ndarray, dtype: Any = None) -> str:
    """SHA-256 of an array's bytes (cast to `dtype`) in C order, in hex; of any strides, in bounded memory."""
    digest = hashlib.sha256()
    for piece in pieces(array):
        digest.update(as_bytes(piece if dtype is None else piece.astype(dtype, copy=False)))
    return digest.hexdigest()


def _file_sha256(path: Path, head: int | None) -> str:
    with open(path, "rb") as f:
        if head is None:
            return hashlib.file_digest(f, "sha256").hexdigest()
        return hashlib.sha256(f.read(head)).hexdigest()


class FolderDigests:
    """The content of one `digests.json`.

    Attributes:
      arrays: name -> {"shape", "dtype", "sha256"}.
      files: path relative to the folder -> {"bytes", "sha256"}; "bytes" is how many leading bytes count (a safetensors
        header, say), None for the whole file.
    """

    def __init__(self, folder: str | os.PathLike, arrays: dict[str, Any] | None = None, files: dict | None = None):
        self.folder = Path(folder)
        self.arrays = {} if arrays is None else arrays
        self.files = {} if files is None else files

    @classmethod
    def read(cls, folder: str | os.PathLike) -> "FolderDigests | None":
        """Reads a folder's digests; None where there are none.

        Raises:
          InputError: if the file is damaged.
        """
        path = Path(folder) / FILE
        if not path.is_file():
            return None
        content = read_json(path)
        if not isinstance(content, dict) or content.pop("sha256", None) != _seal(content):
            raise InputError("is damaged (its text does not have its own digest)", file=path, remedy=_REMEDY)
        if content["format"] != _FORMAT:
            raise InputError(f"is of format {content['format']}, this version reads {_FORMAT}", file=path)
        return cls(folder, content["arrays"], content["files"])

    def write(self) -> None:
        """Writes the file into its folder."""
        content = {"format": _FORMAT, "arrays": self.arrays, "files": self.files}
        write_json(self.folder / FILE, content | {"sha256": _seal(content)})

    def add_array(self, name: str, shape: tuple[int, ...], dtype: Any, digest: str) -> None:
        """Records an array by its `sha256`."""
        self.arrays[name] = {"shape": list(shape), "dtype": str(np.dtype(dtype)), "sha256": digest}

    def add_file(self, name: str, head: int | None = None) -> None:
        """Records a file of the folder, or its first `head` bytes."""
        self.files[name] = {"bytes": head, "sha256": _file_sha256(self.folder / name, head)}

    def check_file(self, name: str) -> None:
        """Compares a file with its record.

        Raises:
          InputError: if it is gone, unknown or not what was written.
        """
        path = self.folder / name
        if name not in self.files:
            raise InputError(f"is not among the files that {FILE} names", file=path, remedy=_REMEDY)
        try:
            same = _file_sha256(path, self.files[name]["bytes"]) == self.files[name]["sha256"]
        except OSError as error:
            raise InputError(f"can't be read ({error.strerror})", file=path, remedy="fetch it again") from error
        if not same:
            raise InputError(f"is damaged (it does not have the digest in {FILE})", file=path, remedy=_REMEDY)

    def check_files(self) -> None:
        """Compares every file with its record; raises as `check_file` does."""
        for name in self.files:
            self.check_file(name)

    def check_listed(self, names: Iterable[str]) -> None:
        """Compares those of the files that have a record; raises as `check_file` does."""
        for name in names:
            if name in self.files:
                self.check_file(name)

    def check_array(self, name: str, array: np.ndarray) -> np.ndarray:
        """Returns the array if it is what was written.

        Raises:
          InputError: naming the array if not.
        """
        record = self.arrays.get(name)
        if record is None:
            raise InputError(f"is not among the arrays that {FILE} names", file=self.folder, key=name, remedy=_REMEDY)
        found = (list(array.shape), str(array.dtype), sha256(array))
        if found != (record["shape"], record["dtype"], record["sha256"]):
            raise InputError(
                f"is damaged (its bytes do not have the digest in {FILE})", file=self.folder, key=name, remedy=_REMEDY
            )
        return array


def _seal(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
