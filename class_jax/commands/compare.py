# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax compare RUN...`: evaluations side by side, beside what was published, with tests of significance."""

from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.evaluate import numbers_or_names, show
from class_jax.errors import InputError, nearest

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
) -> None:
    """Puts runs side by side and beside the published rows of their task; tests each against the first.

    Below rankings stands what re-ranking by question generation was published to change, by language.
    """
    form = _form(form, out)
    from class_jax.reports.published import TASKS, changes_table
    from class_jax.reports.published import published as published_rows
    from class_jax.reports.reports import (
        check_comparable,
        comparison_table,
        difference_table,
        metrics_of,
        read_report,
    )

    reports = [read_report(path) for path in runs]
    notes = check_comparable(reports, runs)
    known = list(dict.fromkeys(metric for report in reports for metric in metrics_of(report)))
    shown = numbers_or_names(metrics) or known
    rows = []
    if published != "none" and reports[0]["task"] in TASKS:
        names = None if published == "all" else numbers_or_names(published)
        rows = published_rows(reports[0]["task"], _table_numbers(tables), names)
        rows = [row for row in rows if set(row.values) & set(shown)]
    codes = numbers_or_names(languages) or None
    result = [comparison_table(reports, shown, rows, codes, notes)]
    if len(reports) > 1:
        by_name = {report["name"]: report for report in reports}
        first = against or reports[0]["name"]
        if first not in by_name:
            raise InputError(f"no run is named {first!r}", key="against", remedy=nearest(first, by_name))
        for report in reports:
            common = [m for m in shown if m in metrics_of(report) and m in metrics_of(by_name[first])]
            if report["name"] != first and common:
                result.append(difference_table(report, by_name[first], common, samples))
        if reports[0]["task"] == "passages" and published != "none":
            result.append(changes_table())
    show(result, form, out)
    if out is not None:
        typer.echo(str(out))


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
    entries = numbers_or_names(tables)
    if not all(entry.isdecimal() for entry in entries):
        raise InputError(f"{tables!r} is no list of numbers", key="tables", remedy="write 1,4")
    return [int(entry) for entry in entries]
