# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Work that is resumed: pieces that are whole or absent, and what each was made from.

A piece of work has a name, inputs (settings, digests of what it reads) and outputs. When it is finished, its record is
written: inputs, the outputs' sizes and digests, and a small result. The same call finds a finished piece by its record
and makes nothing; a piece that was interrupted has no record and is made from its beginning. Two kinds:

| piece | made by | record |
|---|---|---|
| files | `WorkFolder.run` | `work/NAME.json` in the folder |
| a folder, published by one rename | `WorkFolder.run_folder` | `NAME/stage.json` |

For thousands of small results see `class_jax.common.work_log`.

>>> import tempfile
>>> folder = WorkFolder(tempfile.mkdtemp())
>>> def count():
...     print("counting")
...     _ = (folder.path / "count.txt").write_text("3")
...     return {"words": 3}
>>> folder.run("count", count, inputs={"language": "fi"}, outputs=["count.txt"]).result
counting
{'words': 3}
>>> folder.run("count", count, inputs={"language": "fi"}, outputs=["count.txt"]).result
{'words': 3}
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from class_jax.common.files import (
    digest_file,
    locked,
    read_json,
    remove_leftovers,
    replacing_folder,
    write_json,
)
from class_jax.errors import InputError

RECORDS = "work"
FOLDER_RECORD = "stage.json"
_NOTHING = object()  # the value of a key that is not there
_OTHER = "give another folder, or remove this one"


@dataclass(frozen=True)
class Piece:
    """A finished piece of work.

    Attributes:
      name: of the piece.
      inputs: JSON-able: all that the outputs depend on.
      files: each output file's size in bytes and SHA-256, by its path in the folder.
      result: JSON-able: what the function that made it returned.
      seconds: that it took.
      made: whether this call made it.
    """

    name: str
    inputs: Any
    files: Mapping[str, Sequence[Any]]
    result: Any = None
    seconds: float = 0.0
    made: bool = False

    @property
    def fingerprint(self) -> str:
        """Digest of what it holds and was made from, to be put in the inputs of the next piece."""
        content = {"name": self.name, "inputs": self.inputs, "files": {n: list(e) for n, e in self.files.items()}}
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Piece":
        """Reads a record.

        Raises:
          InputError: if the file is missing or is no record.
        """
        content = read_json(path)
        if isinstance(content, dict) and "counts" in content:
            content["result"] = content.pop("counts")  # the key that `stage.json` had first
        needed = {"name", "inputs", "files", "result"}
        if not (isinstance(content, dict) and needed <= content.keys() and isinstance(content["files"], dict)):
            raise InputError("is no record of finished work", file=path, remedy=_OTHER)
        return cls(**{key: content[key] for key in needed}, seconds=content.get("seconds", 0.0))

    def write(self, path: str | os.PathLike) -> None:
        """Writes the record.

        Raises:
          InputError: if the disk refuses.
        """
        content = {"name": self.name, "inputs": self.inputs, "files": self.files}
        write_json(path, content | {"result": self.result, "seconds": round(self.seconds, 1)})


class WorkFolder:
    """A folder in which pieces of work are made, each once.

    Several processes may work in one folder, each at pieces of its own; of two that make the same piece the second is
    refused. All functions of a piece run in the caller's process.

    Args:
      path: of the folder; made when the first piece is.
      remedy: what the user can do where a piece was made from other inputs or altered, for messages.

    Attributes:
      path: of the folder.
    """

    def __init__(self, path: str | os.PathLike, remedy: str = _OTHER):
        self.path, self._remedy = Path(path), remedy

    def run(
        self,
        name: str,
        make: Callable[[], Any],
        *,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        replace_other: bool = False,
        replace_damaged: bool = True,
    ) -> Piece:
        """Makes a piece whose outputs are files, or finds it finished.

        Args:
          name: of the piece; may have slashes.
          make: writes the outputs, each whole or absent (`class_jax.common.files.replacing`); what it returns,
            JSON-able, is the piece's result.
          inputs: JSON-able: all that the outputs depend on.
          outputs: paths in the folder, all of which `make` writes; of a folder, every file in it counts.
          replace_other: make the piece again where it was made from other inputs, instead of refusing.
          replace_damaged: make it again where an output is missing or altered, instead of refusing.

        Returns:
          The piece.

        Raises:
          InputError: if the piece was made from other inputs (naming the first that differs), or an output is altered,
            and may not be replaced; if another process is making it; if the disk refuses; and what `make` raises.
          RuntimeError: if `make` did not write an output.
        """
        record, given = self.record(name), as_json(inputs)

        def finished() -> Piece | None:
            if not record.exists():
                return None
            piece = Piece.read(record)
            return piece if self._is_same(piece, self.path, given, replace_other, replace_damaged, True) else None

        piece = finished()
        if piece is None:
            with locked(record):
                piece = finished()  # another process may have made it between the two looks
                if piece is None:
                    for path in (record, *(self.path / output for output in outputs)):
                        remove_leftovers(path)
                    record.unlink(missing_ok=True)
                    begun = time.monotonic()
                    result = as_json(make())
                    files = described(self.path, outputs)
                    piece = Piece(name, given, files, result, time.monotonic() - begun, made=True)
                    piece.write(record)
        return piece

    def run_folder(
        self,
        name: str,
        make: Callable[[Path], Any],
        *,
        inputs: Mapping[str, Any],
        replace_other: bool = False,
        replace_damaged: bool = False,
    ) -> Piece:
        """Makes a piece that is a folder, or finds it finished.

        Args:
          name: of the piece; the folder becomes `path/name` (`name` may have slashes).
          make: writes files into the folder that it is given, which takes the place of `path/name` once `make`
            returned; what it returns, JSON-able, is the piece's result.
          inputs, replace_other: as in `run`; `replace_other` replaces a folder without a record too.
          replace_damaged: make it again where a file is missing or has another size (digests are not compared), instead
            of refusing.

        Returns:
          The piece; its files are paths in `path/name`.

        Raises:
          InputError: as `run`; and if there is a folder that has no record.
        """
        target, given = self.path / name, as_json(inputs)

        def finished() -> Piece | None:
            if not (target / FOLDER_RECORD).exists():
                if os.path.lexists(target) and not replace_other:
                    raise InputError("is there, but was not made by this command", file=target, remedy=self._remedy)
                return None
            piece = Piece.read(target / FOLDER_RECORD)
            return piece if self._is_same(piece, target, given, replace_other, replace_damaged, False) else None

        piece = finished()
        if piece is None:
            with locked(target):
                piece = finished()
                if piece is None:
                    with replacing_folder(target) as aside:
                        begun = time.monotonic()
                        result = as_json(make(aside))
                        names = sorted(path.name for path in aside.iterdir())
                        piece = Piece(name, given, described(aside, names), result, time.monotonic() - begun, made=True)
                        piece.write(aside / FOLDER_RECORD)
        return piece

    def record(self, name: str) -> Path:
        """The file of a piece's record, for pieces of `run`."""
        return self.path / RECORDS / f"{name}.json"

    def piece(self, name: str, inputs: Mapping[str, Any] | None = None) -> Piece | None:
        """A finished piece of `run`, or None; with `inputs`, only if it was made from these and its files are whole.

        Raises:
          InputError: if the record is damaged.
        """
        record = self.record(name)
        if not record.exists():
            return None
        piece = Piece.read(record)
        if inputs is not None and not self._is_same(piece, self.path, as_json(inputs), True, True, True):
            return None
        return piece

    def pieces(self) -> Iterator[Piece]:
        """Yields the finished pieces of `run`; their files are not looked at.

        Raises:
          InputError: if a record is damaged.
        """
        for record in sorted((self.path / RECORDS).rglob("*.json")):
            yield Piece.read(record)

    def forget(self) -> None:
        """Removes all records of `run`, once the folder has a manifest that says all that they do."""
        shutil.rmtree(self.path / RECORDS, ignore_errors=True)

    def _is_same(self, piece: Piece, folder: Path, inputs: Any, other: bool, damaged: bool, digests: bool) -> bool:
        """Whether a piece was made from these inputs and its files are as they were; raises if it may not be replaced.

        Args:
          piece: as its record says.
          folder: of its files.
          inputs: wanted.
          other, damaged: whether a piece of other inputs, or with altered files, may be replaced.
          digests: compare the files' digests too.
        """
        if piece.inputs != inputs:
            if other:
                return False
            refuse_other(piece.inputs, inputs, file=folder, remedy=self._remedy)
        for name, (size, digest) in piece.files.items():
            path = folder / name
            if path.is_file() and path.stat().st_size == size and (not digests or digest_file(path) == digest):
                continue
            if not damaged:
                raise InputError("changed since it was made", file=path, remedy=self._remedy)
            return False
        return True


def input_digest(path: str | os.PathLike | None) -> str | None:
    """Returns what changes when an input does: a file's digest; of a folder, one of all files' names, sizes and times.

    A model's folder may be far too large to be read whole before each start.

    Args:
      path: of the input; None, for an input that is not given, is returned unchanged.

    Raises:
      InputError: if there is nothing at the path.
    """
    if path is None:
        return None
    path = Path(path)
    if path.is_file():
        return digest_file(path)
    if not path.is_dir():
        raise InputError("no such file or folder", file=path, remedy="check the path")
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        status = file.stat()
        digest.update(f"{file.relative_to(path)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def as_json(value: Any) -> Any:
    """Returns a value written as JSON and read again: tuples become lists."""
    return json.loads(json.dumps(value, sort_keys=True))


def described(folder: Path, outputs: Sequence[str]) -> dict[str, list[Any]]:
    """Size and digest of each file, by its path in the folder; of a folder, of all files in it.

    Raises:
      RuntimeError: if there is no such output.
    """
    files: dict[str, list[Any]] = {}
    for output in outputs:
        path = folder / output
        if not path.exists():
            raise RuntimeError(f"{path} was not written")
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        files |= {p.relative_to(folder).as_posix(): [p.stat().st_size, digest_file(p)] for p in inside}
    return files


def refuse_other(found: Any, wanted: Any, *, file: str | os.PathLike, remedy: str = _OTHER) -> None:
    """Refuses what was made from other inputs.

    Args:
      found: JSON value: what it was made from.
      wanted: JSON value: what it is asked to be made from.
      file: the file or folder that was made.
      remedy: what the user can do.

    Raises:
      InputError: if the two differ, with the first key at which they do and both values.
    """
    if found != wanted:
        key, old, new = _first_difference(found, wanted)
        raise InputError(f"was made with {_short(old)}, not {_short(new)}", file=file, key=key, remedy=remedy)


def _first_difference(old: Any, new: Any, key: str = "") -> tuple[str, Any, Any]:
    """The first key at which two JSON values differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            one, other = old.get(name, _NOTHING), new.get(name, _NOTHING)
            if one != other:
                return _first_difference(one, other, f"{key}.{name}" if key else name)
    return key or "inputs", old, new


def _short(value: Any) -> str:
    text = "nothing" if value is _NOTHING else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
