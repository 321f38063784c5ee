# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Logs of finished items: JSON lines, appended to as each is done, from which interrupted work is resumed.

For pieces of work that write files see `class_jax.common.work`.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from class_jax.common.files import locked, numbered_lines
from class_jax.common.work import as_json, refuse_other
from class_jax.errors import InputError

_REMEDY = "give another --out, or remove the file to start afresh"


class WorkLog:
    """JSON lines: a first one that says what made the others, then one for each item.

    Used as a context; nothing is opened before, and no other process can open it meanwhile. What follows the last line
    end, a line that a killed process did not finish, is cut off.

    Args:
      path: the file; made with its folder where it is missing.
      made_with: JSON-able: what decides the entries.
      what: the entries in a word, for messages: "scores".
      kept: names of an entry's values that are kept in memory; every entry has them.

    Attributes:
      entries: id -> {name: value}, of the last entry with this id.

    Raises:
      InputError: on entering, if the file was made with something else than `made_with`, another process is writing
        it, a line is not one of such a log, or the disk refuses.
    """

    def __init__(self, path: str | os.PathLike, made_with: Mapping[str, Any], what: str, kept: Sequence[str]):
        self.path = Path(path)
        self.entries: dict[str, dict[str, Any]] = {}
        self._made_with, self._what, self._kept = as_json(made_with), what, tuple(kept)
        self._file: IO[str] | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "WorkLog":
        with contextlib.ExitStack() as stack, self._one_line():
            stack.enter_context(locked(self.path))
            cut_torn_line(self.path)
            self._file = stack.enter_context(open(self.path, "a", encoding="utf-8", newline="\n"))
            for line, text in numbered_lines(self.path):
                self._take(line, text)
            if not self._file.tell():
                self._append({"made_with": self._made_with})
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def write(self, id: str, entry: Mapping[str, Any]) -> None:
        """Appends an entry; when this returns it outlives the process."""
        self._append({"id": id, **entry})
        self.entries[id] = {name: entry[name] for name in self._kept}

    def _append(self, entry: Mapping[str, Any]) -> None:
        assert self._file is not None, "used outside its block"
        with self._one_line():
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()

    def _take(self, line: int, text: str) -> None:
        try:
            entry = json.loads(text)
            if line > 1:
                self.entries[entry["id"]] = {name: entry[name] for name in self._kept}
                return
            found = dict(entry["made_with"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"not a line of a log of {self._what}", file=self.path, line=line, remedy=_REMEDY
            ) from error
        refuse_other(found, self._made_with, file=self.path, remedy=_REMEDY)

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        """Turns what the operating system refuses into one line."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(f"could not be written ({reason})", file=self.path, remedy="free some space") from error


def cut_torn_line(path: str | os.PathLike) -> None:
    """Cuts off what follows the last line end of a file, if there is one.

    Raises:
      OSError: if the disk refuses.
    """
    if not os.path.exists(path):
        return
    with open(path, "r+b") as f:
        content = f.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            f.truncate(whole)
