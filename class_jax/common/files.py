# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent: written aside, flushed, then renamed; and their digests."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from class_jax.errors import InputError


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


@contextlib.contextmanager
def replacing(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Opens a file beside `path` for writing and renames it to `path` if the block succeeds.

    Raises:
      InputError: if the disk refuses the write (full, read-only); nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    try:
        with open(aside, mode, **({} if "b" in mode else {"encoding": "utf-8", "newline": "\n"})) as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise InputError(f"could not be written ({error.strerror})", file=path, remedy="free some space") from error
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty folder beside `path` that takes the place of `path` if the block succeeds.

    Raises:
      InputError: if the disk refuses a write; an old folder at `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(path)
    aside.mkdir()
    try:
        yield aside
        old = None
        if path.exists():
            old = _aside(path)
            os.replace(path, old)
        os.replace(aside, path)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise InputError(f"could not be written ({error.strerror})", file=path, remedy="free some space") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` as readable JSON, whole or not at all."""
    with replacing(path) as f:
        json.dump(value, f, ensure_ascii=False, indent=1, sort_keys=True)
        f.write("\n")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
      InputError: if the file is missing, is not UTF-8 or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("no such file", file=path) from error
    except UnicodeDecodeError as error:
        raise InputError("not valid UTF-8", file=path) from error
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON ({error.msg})", file=path, line=error.lineno) from error


def numbered_lines(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """Yields the lines of a UTF-8 file without their ends, numbered from 1.

    Raises:
      InputError: if the file can't be read, or a line is not UTF-8.
    """
    line = 0
    try:
        with open(path, "rb") as f:
            for line, raw in enumerate(f, start=1):
                yield line, raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError("not valid UTF-8", file=path, line=line, remedy="convert the file to UTF-8") from error
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", file=path, remedy="check the path") from error


def digest_file(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
