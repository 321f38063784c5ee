# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What commands print: results on standard output, as text or as one JSON document; the rest on standard error."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from class_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from rich.console import Console

    from class_jax.reports.tables import Table

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document instead of text")]

_QUIET = "CLASS_JAX_QUIET"


class _WithoutBars:
    """Standard error that is never taken for a terminal: progress bars draw themselves only on terminals."""

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        return False


def be_quiet() -> None:
    """Leaves results and errors; notes, progress bars and warnings are not printed, here and in child processes."""
    import logging

    os.environ[_QUIET] = "1"
    sys.stderr = _WithoutBars(sys.stderr)
    logging.disable(logging.WARNING)


def is_quiet() -> bool:
    """Whether `class-jax --quiet` runs."""
    return bool(os.environ.get(_QUIET))


def note(text: str, as_json: bool = False) -> None:
    """Prints a line about what was done, such as the file that was written; nothing if quiet."""
    if not is_quiet():
        typer.echo(text, err=as_json)


def show(value: Any, text: str | Callable[[], None], as_json: bool) -> None:
    """Prints a result.

    Args:
      value: JSON-able; printed if `as_json`.
      text: otherwise printed, or called to print it.
      as_json: whether the command was given `--json`.
    """
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False, indent=1, default=str))
    elif callable(text):
        text()
    else:
        typer.echo(text)


def console(as_json: bool = False) -> "Console":
    """Where a long job prints its progress: standard error if its result is JSON, nowhere if quiet."""
    from rich.console import Console

    return Console(stderr=as_json, quiet=is_quiet())


def show_tables(tables: "Sequence[Table]", form: str, out: Path | None = None) -> None:
    """Prints tables in a form, or writes them to a file.

    Raises:
      InputError: for an unknown form, or if the disk refuses the write.
    """
    check_form(form)
    if form == "table" and out is None:
        for i, table in enumerate(tables):
            if i:
                typer.echo()
            table.print()
        return
    texts = [table.text(form) for table in tables]
    text = f"[{','.join(texts)}]\n" if form == "json" and len(texts) > 1 else "\n".join(texts)
    if out is None:
        typer.echo(text, nl=False)
        return
    from class_jax.common.files import replacing

    with replacing(out) as f:
        f.write(text)


def check_form(form: str) -> None:
    """Raises InputError if tables have no such form."""
    from class_jax.reports.tables import FORMS

    if form not in FORMS:
        raise InputError(f"no table can be shown as {form!r}", key="format", remedy=nearest(form, FORMS))
