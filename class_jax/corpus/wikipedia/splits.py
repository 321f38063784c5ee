# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Splits of a wiki's dumps, each read by one worker: files, or runs of streams of a multistream dump with its index."""

import bz2
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from class_jax.errors import InputError

SPLIT_BYTES = 16 << 20
"""Compressed bytes of a split of a multistream dump, at least."""

_EDGE = 1 << 20


@dataclass(frozen=True)
class Split:
    """A part of a wiki's dumps that is read by itself.

    Attributes:
      index: its number, from 0; names its output.
      count: of the wiki's splits.
      path: the dump.
      start, length: its bytes in the file; length None: to the end.
    """

    index: int
    count: int
    path: str
    start: int = 0
    length: int | None = None

    def shard(self, name: str, suffix: str) -> str:
        """Returns a name such as `pages-00003-of-00016.jsonl`."""
        return f"{name}-{self.index:05d}-of-{self.count:05d}{suffix}"


def split_dumps(dumps: Sequence[str | os.PathLike], split_bytes: int = SPLIT_BYTES) -> list[Split]:
    """Returns the splits of a wiki's dumps, in order.

    A multistream dump (`...-multistream.xml.bz2`) is cut into runs of streams where its index
    (`...-multistream-index.txt.bz2`) is beside it; any other file is one split.

    Raises:
      InputError: if a dump is missing, or an index is not one of its dump.
    """
    parts = [part for dump in dumps for part in _parts(Path(dump), split_bytes)]
    return [Split(i, len(parts), path, start, length) for i, (path, start, length) in enumerate(parts)]


def index_of(dump: Path) -> Path | None:
    """Returns the index beside a multistream dump, if there is one."""
    name, found = re.subn(r"-multistream(\d*)\.xml", r"-multistream-index\1.txt", dump.name)
    index = dump.with_name(name)
    if not found:
        return None
    plain = index.with_name(name.removesuffix(".bz2"))
    return next((path for path in (index, plain) if path.exists()), None)


def file_identity(path: str | os.PathLike) -> dict[str, str | int]:
    """Returns what identifies a file: name, size, and a digest of its first and last MB.

    Raises:
      InputError: if it can't be read.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            digest.update(file.read(_EDGE))
            file.seek(max(0, size - _EDGE))
            digest.update(file.read())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=path) from error
    return {"name": path.name, "bytes": size, "edges": digest.hexdigest()}


def _parts(dump: Path, split_bytes: int) -> Iterator[tuple[str, int, int | None]]:
    if not dump.exists():
        raise InputError("cannot be read (no such file)", file=dump, remedy="check the path")
    index = index_of(dump) if dump.suffix == ".bz2" else None
    if index is None:
        yield str(dump), 0, None
        return
    size = dump.stat().st_size
    # The head (the wiki's names) is the first stream and has no pages; the tail closes the XML.
    begin = last = 0
    for number, offset in _offsets(index):
        if not last <= offset < size:
            raise InputError(
                f"offset {offset} does not fit a dump of {size} bytes", file=index, line=number, remedy="wrong index?"
            )
        if offset - begin >= split_bytes:
            yield str(dump), begin, offset - begin
            begin = offset
        last = offset
    yield str(dump), begin, size - begin


def _offsets(index: Path) -> Iterator[tuple[int, int]]:
    """Yields line and offset of each line `offset:page id:title`."""
    number = 0
    try:
        opened = bz2.open if index.suffix == ".bz2" else open
        with opened(index, "rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, int(line.split(b":", 1)[0])
    except ValueError as error:
        raise InputError("not 'offset:page id:title'", file=index, line=number) from error
    except (OSError, EOFError) as error:
        raise InputError(
            f"cannot be read on ({error})", file=index, line=number + 1, remedy="fetch it again"
        ) from error
