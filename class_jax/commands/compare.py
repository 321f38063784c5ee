# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax compare RUN...`: evaluations side by side, beside what was published, with tests of significance."""

from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.options import entries
from class_jax.commands.printing import AsJson, show, show_tables
from class_jax.errors import InputError

_SUFFIXES = {".md": "md", ".tex": "tex", ".csv": "csv", ".json": "json"}


def compare(
    runs: Annotated[list[Path], typer.Argument(help="reports of `class-jax evaluate --out`")],
    metrics: Annotated[str | None, typer.Option(help="only these, such as R@2kt,f1; by default all")] = None,
    languages: Annotated[str | None, typer.Option(help="only these and the macro average, such as fi,ja")] = None,
    against: Annotated[str | None, typer.Option(help="name of the run that others are tested against")] = None,
    published: Annotated[str, typer.Option(help="rows to show, such as CLASS,CLASS-ZS; 'all' or 'none'")] = "all",
    tables: Annotated[str | None, typer.Option(help="published tables to show, such as 1,4; by default all")] = None,
    samples: Annotated[int, typer.Option(help="of the paired bootstrap", min=1)] = 10_000,
    form: Annotated[str | None, typer.Option("--format", help="table, md, tex, csv or json")] = None,
    out: Annotated[Path | None, typer.Option(help="file to write; its ending says the form")] = None,
    as_json: AsJson = False,
) -> None:
    """Puts runs side by side and beside the published rows of their task; tests each against the first.

    Below rankings are the published changes by question-generation re-ranking, by language.
    """
    form = "json" if as_json and out is None else _form(form, out)
    numbers = _table_numbers(tables)
    from class_jax.reports.comparison import compare_reports

    made = compare_reports(
        runs,
        metrics=entries(metrics),
        languages=entries(languages),
        against=against,
        published=published if published in ("all", "none") else entries(published),
        published_tables=numbers,
        samples=samples,
    )
    show_tables(made, form, out)
    if out is not None:
        show({"out": out}, str(out), as_json)


def _form(form: str | None, out: Path | None) -> str:
    if out is None:
        return form or "table"
    of_file = _SUFFIXES.get(out.suffix.lower())
    if of_file is None:
        raise InputError("not a table's name", file=out, remedy=f"end it with one of {', '.join(_SUFFIXES)}")
    if form is not None and form != of_file:
        raise InputError(f"the ending says {of_file!r}, --format {form!r}", file=out, remedy="leave out --format")
    return of_file


def _table_numbers(tables: str | None) -> list[int] | None:
    if tables is None:
        return None
    numbers = entries(tables)
    if not all(number.isdecimal() for number in numbers):
        raise InputError(f"{tables!r} is no list of numbers", key="tables", remedy="write 1,4")
    return [int(number) for number in numbers]
