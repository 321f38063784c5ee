# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax report RUN`: one self-contained HTML page about a run."""

from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.printing import AsJson, show
from class_jax.errors import InputError


def report(
    run: Annotated[Path, typer.Argument(help="a run's folder, one with the runs of its stages, or an evaluation")],
    evaluation: Annotated[list[Path] | None, typer.Option(help="a report of `class-jax evaluate --out`")] = None,
    name: Annotated[str | None, typer.Option(help="of the run; by default the folder's")] = None,
    out: Annotated[Path | None, typer.Option(help="page to write; by default RUN/report.html")] = None,
    as_json: AsJson = False,
) -> None:
    """Writes learning curves, scores with their intervals, breakdowns, published rows and configuration as one page.

    The page is a single file without scripts that loads nothing: it can be mailed, and opened without a network.
    """
    from class_jax.reports.html_report import collect, write_html_report

    contents = collect(run, evaluation or (), name)
    page = out or (run / "report.html" if run.is_dir() else run.with_name(f"{contents.name}.html"))
    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError("not a page's name", file=page, remedy="end it with .html")
    write_html_report(page, contents)
    show({"out": page}, str(page), as_json)
