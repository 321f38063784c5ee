# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Rows of MediaWiki's SQL dumps (`langlinks`, `page`), streamed."""

import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from class_jax.errors import InputError, nearest

_CREATE = re.compile(r"CREATE TABLE `(\w+)`")
_COLUMN = re.compile(r"\s+`(\w+)`")
_ROW = re.compile(r"\(((?:'(?:[^'\\]|\\.)*'|[^'()])*)\)([,;])", re.DOTALL)
_VALUE = re.compile(r"'((?:[^'\\]|\\.)*)'|([^,']+)", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "Z": "\x1a"}


def read_rows(
    path: str | os.PathLike,
    table: str,
    columns: Sequence[str],
    on_damage: Callable[[InputError], object],
) -> Iterator[tuple[str, ...]]:
    """Streams some columns of the rows that an SQL dump inserts.

    Values are strings, NULL is empty; bytes that are not UTF-8 become U+FFFD (titles in the dumps are UTF-8, other
    columns need not be). `),(` within a title ends no row here, unlike in some parsers.

    Args:
      path: the dump, plain or `.gz`.
      table: the table that it has to be of.
      columns: their names.
      on_damage: called with what could not be read: a line whose rows can't be parsed, after which the next line
        follows, or an archive that is cut off.

    Raises:
      InputError: if the file is missing, is of another table or lacks a column.
    """
    names: list[str] = []
    found = ""
    places: list[int] | None = None
    for number, line in _lines(Path(path), on_damage):
        if line.startswith("INSERT INTO"):
            if places is None:
                places = _places(path, table, found, names, columns)
            try:
                yield from _rows(line, places)
            except ValueError as error:
                on_damage(InputError(str(error), file=path, line=number))
        elif created := _CREATE.match(line):
            found = created[1]
        elif column := _COLUMN.match(line):
            names.append(column[1])
    if places is None:
        _places(path, table, found, names, columns)


def _places(path: str | os.PathLike, table: str, found: str, names: Sequence[str], columns: Sequence[str]) -> list[int]:
    remedy = f"give the wiki's ...-{table}.sql.gz"
    if found != table:
        raise InputError(f"a dump of the table {found!r}, not {table!r}", file=path, remedy=remedy)
    for column in columns:
        if column not in names:
            raise InputError(f"the table has no column {column!r}", file=path, remedy=nearest(column, names))
    return [names.index(column) for column in columns]


def _rows(line: str, places: Sequence[int]) -> Iterator[tuple[str, ...]]:
    at = line.find("(", line.find(" VALUES"))
    last = ","
    while last == ",":
        row = _ROW.match(line, at) if at >= 0 else None
        if row is None:
            raise ValueError(f"no row can be read at character {max(at, 0) + 1}")
        values = [_unescaped(text) if text or not bare else _bare(bare) for text, bare in _VALUE.findall(row[1])]
        if len(values) <= max(places):
            raise ValueError(f"a row of {len(values)} values at character {at + 1}")
        yield tuple(values[place] for place in places)
        at, last = row.end(), row[2]


def _bare(value: str) -> str:
    return "" if value == "NULL" else value


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), text) if "\\" in text else text


def _lines(path: Path, on_damage: Callable[[InputError], object]) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.decode("utf-8", "replace")
    except FileNotFoundError as error:
        raise InputError("cannot be read (no such file)", file=path) from error
    except (OSError, EOFError, zlib.error) as error:
        on_damage(InputError(f"cannot be read on ({error})", file=path, line=number + 1, remedy="fetch it again"))
