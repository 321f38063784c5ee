# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Files and folders that are whole or absent: written aside, flushed, then renamed; their locks and digests.

What a killed process leaves is `.NAME.XXXXXXXX.tmp` beside the file or folder NAME (X: hexadecimal digits), and an
empty `.NAME.lock`, which locks nothing once its process is dead.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from class_jax.errors import InputError

_log = logging.getLogger(__name__)

# (thread, path) of the locks of this process.
_held: set[tuple[int, str]] = set()


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


def remove_leftovers(path: str | os.PathLike) -> int:
    """Removes what killed processes left beside `path` while they wrote it; returns how many files and folders.

    Nobody may be writing `path`: hold its lock (`locked`), or be the only one who writes there.
    """
    path = Path(path)
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")
    left = [p for p in path.parent.iterdir() if ours.fullmatch(p.name)] if path.parent.is_dir() else []
    for leftover in left:
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return len(left)


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes and threads from making the file or folder `path` meanwhile; may be nested.

    The lock is one on the file `.NAME.lock` beside it: it ends with the process that holds it, however that ends.

    Raises:
      InputError: if another process holds it, or the disk refuses the lock file.
    """
    path = Path(path)
    key = (threading.get_ident(), os.path.abspath(path))
    if key in _held:
        yield
        return
    lock = path.with_name(f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked_file(lock)
    except BlockingIOError as error:
        raise InputError("another process is making it", file=path, remedy="wait for it, or end it") from error
    except OSError as error:
        raise InputError(f"could not be locked ({error.strerror})", file=path, remedy="check the path") from error
    _held.add(key)
    try:
        yield
    finally:
        _held.discard(key)
        lock.unlink(missing_ok=True)  # before the lock ends: who opened the file meanwhile finds it gone
        file.close()


def _locked_file(lock: Path) -> IO:
    """Opens a lock file and locks it.

    Raises:
      BlockingIOError: if another process holds it.
    """
    import fcntl

    while True:
        file = open(lock, "w")  # noqa: SIM115 (closed by the caller)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have removed it between the two calls.
            if lock.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                return file
        except BlockingIOError:
            file.close()
            raise
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("%s: this file system has no locks (%s); don't start the same work twice", lock, error)
            return file
        file.close()


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
        encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
        with open(aside, mode, encoding=encoding, newline=newline) as f:
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

    All folders are written by this function: it holds their lock, and removes what killed processes left of them.

    Raises:
      InputError: if another process is writing the folder, something there must not be replaced, or the disk refuses a
        write; an old folder at `path` stays as it was.
    """
    path = Path(path)
    check_destination(path)
    with locked(path):
        remove_leftovers(path)
        aside = _aside(path)
        try:
            aside.mkdir()
            yield aside
            old = None
            if path.exists():
                check_destination(path)
                old = _aside(path)
                os.replace(path, old)
            os.replace(aside, path)
            if old is not None:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise InputError(f"could not be written ({error.strerror})", file=path, remedy="free some space") from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def check_destination(path: str | os.PathLike) -> None:
    """Decides whether `replacing_folder` may put a folder in the place of what is at `path`.

    Raises:
      InputError: if there is something that is no folder, such as a file or a link to nowhere.
    """
    path = Path(path)
    if not path.is_dir() and os.path.lexists(path):
        raise InputError("is there and is no folder", file=path, remedy="give another path")


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


def file_entry(path: str | os.PathLike) -> dict[str, Any]:
    """Returns what a manifest says of a file: its bytes and digest."""
    return {"bytes": Path(path).stat().st_size, "sha256": digest_file(path)}
