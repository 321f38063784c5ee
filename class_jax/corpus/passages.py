# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Passages in the public TSV layout (`id text title`), as DPR and CORA publish them."""

import csv
import gzip
import io
import os
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from class_jax.common.files import replacing
from class_jax.errors import InputError

COLUMNS = ("id", "text", "title")
# A passage has about 100 words (3 kB in the widest scripts): a far longer row is a quote that was never closed.
# The bound also stays below the csv module's own (131,072 characters a field), which is global to the process.
MAX_ROW_BYTES = 128_000
_LAYOUT = "rows are id<TAB>text<TAB>title, and a text that starts with a quote is quoted with its quotes doubled"


class Passage(NamedTuple):
    """A piece of an article of about 100 words: its id in the corpus, its text, the article's title."""

    id: str
    text: str
    title: str


def read_passages(path: str | os.PathLike) -> Iterator[Passage]:
    """Streams the passages of a `.tsv` or `.tsv.gz` file, in constant memory.

    A header row (`id text title`) and blank lines are skipped. Titles are NFC-normalised, as
    the 13-language corpus needs; texts are unchanged.

    Raises:
      InputError: with file and line, for a row without exactly three columns, an empty id or text,
        bytes that are not UTF-8, a NUL byte, an unclosed quote, a broken gzip stream, a missing file.
    """
    for _, passage in read_numbered(path):
        yield passage


def read_numbered(
    path: str | os.PathLike, on_bytes: Callable[[bytes | memoryview], None] | None = None
) -> Iterator[tuple[int, Passage]]:
    """Streams `(line, passage)`, where `line` is the physical line (from 1) on which the row starts.

    Args:
      path: as in `read_passages`.
      on_bytes: called with every block of the file's bytes on the disk, in order (for a
        digest or a progress bar), so that nobody needs to read a large file twice.

    Raises:
      InputError: as `read_passages`.
    """
    lines = _Lines(path, on_bytes)
    try:
        reader = csv.reader(lines, delimiter="\t")
        first = True
        while True:
            start = lines.start_row()
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise InputError(f"not a TSV row ({error})", file=path, line=start, remedy=_LAYOUT) from error
            if not row:
                continue
            _check_quotes(row, path, start, lines)
            if first and row[0] == COLUMNS[0]:
                if tuple(row) != COLUMNS:
                    raise InputError(
                        f"the columns are {' '.join(row)}, not {' '.join(COLUMNS)}",
                        file=path,
                        line=start,
                        remedy="reorder the columns",
                    )
            else:
                yield start, _passage(row, path, start)
            first = False
    finally:
        lines.close()


def write_passages(path: str | os.PathLike, passages: Iterable[Passage]) -> int:
    """Writes passages (a stream will do) with a header row, whole or not at all; returns their number.

    Texts are always quoted, as in the public files. A path that ends in `.gz` is compressed, with
    the same bytes for the same passages.

    Raises:
      InputError: for a passage that `read_passages` would refuse, or when the disk refuses a write.
    """
    count = 0
    with replacing(path, "wb") as file:
        packed = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if _is_gzip(path) else None
        out = packed or file
        out.write(("\t".join(COLUMNS) + "\n").encode())
        for passage in passages:
            out.write(_line(passage, path))
            count += 1
        if packed is not None:
            packed.close()
    return count


def _line(passage: Passage, path: str | os.PathLike) -> bytes:
    for name, value in zip(COLUMNS, passage, strict=True):
        problem = ""
        if not value.strip() and name != "title":
            problem = f"empty {name}"
        elif "\0" in value:
            problem = f"a NUL character in the {name}"
        elif "\t" in value and ("\n" in value or "\r" in value):
            problem = f"a tab and a line end in one {name}"
        if problem:
            raise InputError(problem, file=path, key=f"passage {passage.id!r}", remedy="clean the passage first")
    text = '"' + passage.text.replace('"', '""') + '"'
    try:
        line = f"{_quoted(passage.id)}\t{text}\t{_quoted(passage.title)}\n".encode()
    except UnicodeEncodeError as error:
        raise InputError(
            "holds half a surrogate pair, which UTF-8 cannot carry", file=path, key=f"passage {passage.id!r}"
        ) from error
    if len(line) > MAX_ROW_BYTES:
        raise InputError(
            f"a passage of {len(line)} bytes, more than {MAX_ROW_BYTES}",
            file=path,
            key=f"passage {passage.id!r}",
            remedy="split it",
        )
    return line


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if any(c in field for c in '"\t\n\r') else field


def _is_gzip(path: str | os.PathLike) -> bool:
    return Path(path).suffix == ".gz"


def _passage(row: list[str], path: str | os.PathLike, line: int) -> Passage:
    if len(row) != len(COLUMNS):
        columns = f"{len(row)} column" + ("s" if len(row) > 1 else "")
        raise InputError(f"{columns}, not {len(COLUMNS)}", file=path, line=line, remedy=_LAYOUT)
    id_, text, title = row
    if not id_ or id_.isspace():
        raise InputError("empty id", file=path, line=line, remedy="give every passage an id of its own")
    if not text or text.isspace():
        raise InputError("empty text", file=path, line=line, key=f"passage {id_!r}", remedy="remove the row")
    return Passage(id_, text, unicodedata.normalize("NFC", title))


def _check_quotes(row: list[str], path: str | os.PathLike, start: int, lines: "_Lines") -> None:
    """Refuses a row that swallowed others.

    The csv module forgives a quote that is open at the end of the file, and a stray quote joins
    rows until the next one: the field then holds the tabs of the rows that it ate.
    """
    ate = lines.number > start and any("\t" in field and ("\n" in field or "\r" in field) for field in row)
    if lines.ended or ate:
        raise InputError("a quote opens here and is never closed", file=path, line=start, remedy=_LAYOUT)


class _Lines:
    """Decoded lines of a file with the number of the last one; errors name the line."""

    def __init__(self, path: str | os.PathLike, on_bytes: Callable[[bytes | memoryview], None] | None):
        self.path, self.number, self.ended = path, 0, False
        self._start, self._held = 1, 0  # the row being read: its first line, its bytes up to now
        try:
            raw = _Watched(path, on_bytes)
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", file=path) from error
        self._raw = io.BufferedReader(raw, 1 << 20)
        self._file = gzip.GzipFile(fileobj=self._raw) if _is_gzip(path) else self._raw

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    def start_row(self) -> int:
        """Returns the line on which the next row starts."""
        self._start, self._held = self.number + 1, 0
        return self._start

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        try:
            # The limit keeps a file without line ends from being taken into memory whole.
            data = self._file.readline(MAX_ROW_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(
                f"cannot be read on ({error})", file=self.path, line=self.number + 1, remedy="fetch the file again"
            ) from error
        if not data:
            self.ended = True
            raise StopIteration
        self.number += 1
        if b"\0" in data:
            raise InputError("a NUL byte", file=self.path, line=self.number, remedy="remove it: it is no text")
        if self.number == 1 and data.startswith(b"\xef\xbb\xbf"):
            data = data[3:]
        self._held += len(data)
        if self._held > MAX_ROW_BYTES:
            raise InputError(
                f"a row of more than {MAX_ROW_BYTES} bytes starts here: is a quote never closed?",
                file=self.path,
                line=self._start,
                remedy=_LAYOUT,
            )
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"not valid UTF-8 (byte {error.start + 1} of the line)",
                file=self.path,
                line=self.number,
                remedy="convert the file to UTF-8",
            ) from error


class _Watched(io.RawIOBase):
    """A file that shows every block it reads to a callback."""

    _file: io.RawIOBase | None = None  # so that one whose file can't be opened is closed without complaint

    def __init__(self, path: str | os.PathLike, on_bytes: Callable[[bytes | memoryview], None] | None):
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by close)
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        size = self._file.readinto(buffer)
        if size and self._on_bytes is not None:
            self._on_bytes(buffer[:size])
        return size

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()
