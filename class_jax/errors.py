# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""One-line errors for bad input: what is wrong, where, and what to do about it."""

import difflib
import os
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from a user: a file, a row, a key or a setting.

    The message is one line: ``file:line: key: problem; remedy``. The command line prints it
    and exits with status 2, without a traceback.

    Args:
      problem: what is wrong, in a few words.
      file: the file or folder at fault.
      line: its line, counted from 1.
      key: the field, parameter, passage id or setting at fault.
      remedy: what the user can do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: str | os.PathLike | None = None,
        line: int | None = None,
        key: str | None = None,
        remedy: str | None = None,
    ):
        place = "" if file is None else os.fspath(file) + (f":{line}" if line is not None else "")
        parts = [part for part in (place, key) if part]
        message = ": ".join([*parts, problem]) + (f"; {remedy}" if remedy else "")
        super().__init__(" ".join(message.split("\n")))


def nearest(name: str, choices: Iterable[str], count: int = 3) -> str:
    """Returns a hint like ``did you mean 'a', 'b'?``, or ``known: ...`` where nothing is near."""
    known = sorted(choices)
    close = difflib.get_close_matches(name, known, n=count, cutoff=0.6)
    if close:
        return "did you mean " + ", ".join(repr(c) for c in close) + "?"
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"known: {shown}" if known else "none is known"
