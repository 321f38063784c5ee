# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax statistics`: how much training data there is in each language."""

from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.printing import AsJson, check_form, show, show_tables


def statistics(
    data: Annotated[Path, typer.Argument(help="a stage's folder, its stage.json, or a TSV whose ids start fi-")],
    plot: Annotated[Path | None, typer.Option(help="picture to draw: .png, .svg or .pdf")] = None,
    exponent: Annotated[float, typer.Option(help="of the sampling over languages", min=0.0)] = 0.5,
    form: Annotated[str, typer.Option("--format", help="table, md, tex, csv or json")] = "table",
    out: Annotated[Path | None, typer.Option(help="file to write the table to, in the same form")] = None,
    as_json: AsJson = False,
) -> None:
    """Counts parallel queries (or other training questions) by language: the paper's Figure 6.

    --json is short for --format json.
    """
    form = "json" if as_json and out is None else form
    check_form(form)
    from class_jax.reports.statistics import by_size, read_counts, statistics_table

    counts = read_counts(data)
    if plot is not None:
        from class_jax.reports.plots import plot_bars

        shown = {name: counts[name] for name in ("queries", "questions") if name in counts} or counts
        order = by_size(next(iter(shown.values())), *shown.values())
        plot_bars(shown, plot, y=" and ".join(shown), order=order, percent=False)
    show_tables([statistics_table(counts, f"training data in {data}", exponent)], form, out)
    if out is not None:
        show({"out": out, "plot": plot}, str(out), as_json)
