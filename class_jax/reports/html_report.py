# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""One HTML page about a run: figures, tables, learning curves, configuration; self-contained, light and dark.

The page loads nothing: styles and charts are in it, fonts are the reader's own, and its content security policy forbids
anything else. It has no script.
"""

import dataclasses
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from class_jax.common.files import read_json, replacing
from class_jax.errors import InputError
from class_jax.reports import charts
from class_jax.reports.curves import Series, read_metrics, smooth
from class_jax.reports.published import TASKS, published
from class_jax.reports.reports import breakdown_tables, comparison_table, metrics_of, read_report, report_table
from class_jax.reports.tables import Column, Table

if TYPE_CHECKING:
    import jinja2

METRICS, RESULTS, CONFIGURATION, REPORTS = "metrics.jsonl", "results.json", "config.gin", "*.report.json"
_SMOOTHING = 0.02  # of a run's points, the time constant of the curve drawn in full


@dataclass
class Contents:
    """What a page shows.

    Attributes:
      name: of the run.
      curves: metrics of each stage, by its name, in their order.
      tables: results that the run left as tables.
      reports: evaluations (`class-jax evaluate --out`).
      configurations: gin text of each stage.
    """

    name: str
    curves: dict[str, Series] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    configurations: dict[str, str] = field(default_factory=dict)


def collect(run: str | os.PathLike, reports: Sequence[str | os.PathLike] = (), name: str | None = None) -> Contents:
    """Gathers what there is of a run.

    Args:
      run: a run's folder (`metrics.jsonl`, `config.gin`), a folder whose subfolders are the runs of its stages (as the
        demo's), or an evaluation's report. `results.json` and `*.report.json` in the folder are taken, too.
      reports: further evaluations.
      name: of the run; by default the folder's.

    Raises:
      InputError: if there is nothing to show, or a file is not what its name says.
    """
    run = Path(run)
    found = Contents(name or run.resolve().name.removesuffix(".json").removesuffix(".report"))
    paths = [Path(path) for path in reports]
    if run.is_file():
        paths.insert(0, run)
    elif not run.is_dir():
        raise InputError("no such folder or file", file=run)
    else:
        stages = [run] if (run / METRICS).is_file() else sorted(p.parent for p in run.glob(f"*/{METRICS}"))
        for stage in stages:
            key = stage.name if stage != run else found.name
            found.curves[key] = read_metrics(stage / METRICS)
            if (stage / CONFIGURATION).is_file():
                found.configurations[key] = (stage / CONFIGURATION).read_text(encoding="utf-8")
        if (run / RESULTS).is_file():
            found.tables.append(_read_table(run / RESULTS))
        paths = sorted(run.glob(REPORTS)) + paths
    found.reports = [read_report(path) for path in paths]
    if not (found.curves or found.tables or found.reports):
        remedy = f"name a folder with {METRICS}, or a report of `class-jax evaluate --out`"
        raise InputError("nothing to report on", file=run, remedy=remedy)
    return found


def _read_table(path: Path) -> Table:
    held = read_json(path)
    try:
        columns, rows = held["columns"], held["rows"]
        # Fractions are shown times 100, as the tables of results do; counts are whole by type.
        shown = [Column(heading, percent=_is_share([row[heading] for row in rows])) for heading in columns]
        return Table(held["title"], shown, [[row[heading] for heading in columns] for row in rows], held["notes"])
    except (KeyError, TypeError, IndexError) as error:
        raise InputError("not a table of results", file=path, remedy="write it with Table.write") from error


def _is_share(cells: Sequence[Any]) -> bool:
    numbers = [cell for cell in cells if isinstance(cell, float)]
    return bool(numbers) and all(0 <= number <= 1 for number in numbers)


def write_html_report(path: str | os.PathLike, contents: Contents) -> None:
    """Writes the page, whole or not at all.

    Raises:
      InputError: if the disk refuses the write.
    """
    with replacing(path) as f:
        f.write(render(contents))


def render(contents: Contents) -> str:
    """The page as HTML.

    Raises:
      InputError: if jinja2 or matplotlib is not installed.
    """
    return _template().render(
        name=contents.name,
        figures=_figures(contents),
        stages=[_stage(name, series) for name, series in contents.curves.items()],
        tables=[_cells(table) for table in contents.tables],
        evaluations=[_evaluation(report) for report in contents.reports],
        configurations=contents.configurations,
    )


def _template() -> "jinja2.Template":
    try:
        import jinja2
    except ImportError as error:
        remedy = "pip install 'class-jax[evaluate]'"
        raise InputError("the HTML report needs the package 'jinja2'", remedy=remedy) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("class_jax.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _cells(table: Table) -> dict[str, Any]:
    """A table as the template shows it: groups above their columns, cells with whether they are their column's best."""
    columns = list(table.columns)
    # Neighbouring columns without a group are not one.
    keys = [column.group or number for number, column in enumerate(columns)]
    spans = [(key, len(list(found))) for key, found in itertools.groupby(keys)]
    groups = [(key if isinstance(key, str) else "", width) for key, width in spans]
    best = [table.best_rows(number) for number in range(len(columns))]
    rows = []
    for i, row in enumerate(table.rows):
        name, *shown = (column.show(cell) for column, cell in zip(columns, row, strict=True))
        rows.append((name, [(text, i in best[c]) for c, text in enumerate(shown, start=1)]))
    return {
        "title": table.title,
        "groups": groups if any(name for name, _ in groups) else [],
        "columns": [column.name for column in columns],
        "rows": rows,
        "notes": table.notes,
    }


def _figures(contents: Contents) -> list[tuple[str, str]]:
    """The few numbers that one looks for first: of the last stage, and of the evaluations."""
    shown: list[tuple[str, str]] = []
    for stage, series in list(contents.curves.items())[-1:]:
        prefix = f"{stage}: " if len(contents.curves) > 1 else ""
        steps = max((int(s[-1]) for s, _ in series.values() if len(s)), default=0)
        shown.append((f"{prefix}steps", f"{steps:,}"))
        for name, (_, values) in series.items():
            if name.startswith("eval/") and name.endswith("/macro") and len(values) and math.isfinite(values[-1]):
                label = name.removeprefix("eval/").removesuffix("/macro")
                shown.append((f"{prefix}{label}, macro", f"{100 * values[-1]:.1f}"))
    for report in contents.reports:
        for part in report["parts"].values():
            for metric, value in part["macro"].items():
                if isinstance(value, float) and math.isfinite(value):
                    shown.append((f"{report['name']}: {metric}, macro", f"{100 * value:.1f}"))
    return shown


def _stage(name: str, series: Series) -> dict[str, Any]:
    """Loss and evaluations of a stage as charts, and its last evaluation by language as a table."""
    shown = []
    if "loss" in series:
        steps, values = series["loss"]
        smoothed = smooth(np.where(np.isfinite(values), values, np.nan), _SMOOTHING * len(values))
        line = charts.Line("loss", steps, smoothed, pale=values)
        shown += _chart(charts.line_chart([line], f"loss of {name} over steps", x="step", y="loss"), "Loss, smoothed")
    lines = [
        charts.Line(key.removeprefix("eval/").removesuffix("/macro"), steps, 100 * values, dots=True)
        for key, (steps, values) in series.items()
        if key.startswith("eval/") and key.endswith("/macro")
    ]
    label = f"evaluations of {name} over steps"
    chart = charts.line_chart(lines, label, x="step", y="score, ×100", from_zero=True)
    shown += _chart(chart, "Evaluation, macro average")
    table = _last_evaluation(name, series)
    return {"name": name, "charts": shown, "table": table and _cells(table)}


def _chart(svg: str, caption: str) -> list[dict[str, Any]]:
    """A chart with its caption, none where nothing was drawn."""
    import markupsafe

    return [{"svg": markupsafe.Markup(svg), "caption": caption}] if svg else []


def _last_evaluation(name: str, series: Series) -> Table | None:
    found: dict[str, dict[str, float]] = {}
    last = 0
    for key, (steps, values) in series.items():
        parts = key.split("/")
        if len(parts) == 3 and parts[0] == "eval" and len(values):
            found.setdefault(parts[1], {})[parts[2]] = float(values[-1])
            last = max(last, int(steps[-1]))
    if not found:
        return None
    languages = sorted({code for row in found.values() for code in row} - {"macro"})
    columns = [Column("metric"), *(Column(code, percent=True, best=None) for code in (*languages, "macro"))]
    rows = [[metric, *(row.get(code) for code in (*languages, "macro"))] for metric, row in found.items()]
    return Table(f"{name}: evaluation at step {last:,}", columns, rows)


def _evaluation(report: Mapping[str, Any]) -> dict[str, Any]:
    """Tables, intervals and breakdowns of an evaluation, and the published rows of its task."""
    parts = []
    for part, scores in report["parts"].items():
        shown = [chart for metric in scores["by_question"]["values"] for chart in _intervals(part, metric, scores)]
        parts.append({"table": _cells(report_table(report, part)), "charts": shown})
    tables = list(breakdown_tables(report))
    if report["task"] in TASKS:
        tables += _beside_published(report)
    return {
        "title": f"{report['task']}: {report['name']}",
        "parts": parts,
        "tables": [_cells(table) for table in tables],
        "inputs": json.dumps(report.get("inputs", {}), ensure_ascii=False, indent=1),
    }


def _beside_published(report: Mapping[str, Any]) -> list[Table]:
    """A table for each metric that is published for the task."""
    note = "published rows are of the official development sets: beside other questions they are for orientation only"
    tables = []
    for metric in metrics_of(report):
        rows = [row for row in published(report["task"]) if metric in row.values]
        if rows:
            table = comparison_table([report], [metric], rows, notes=[note])
            tables.append(dataclasses.replace(table, title=f"{metric} beside published results"))
    return tables


def _intervals(part: str, metric: str, scores: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A chart of one metric by language with its confidence intervals."""
    rows = []
    for code in (*sorted(scores["languages"]), "macro"):
        value = (scores["macro"] if code == "macro" else scores["languages"][code]).get(metric)
        if value is None:
            continue
        low, high = _ends(scores.get("intervals", {}), code, metric)
        rows.append((code, 100 * value, low, high))
    chart = charts.interval_chart(rows, f"{metric} of {part} by language", x=f"{metric}, ×100")
    return _chart(chart, f"{metric} by language, 95% confidence intervals")


def _ends(intervals: Mapping[str, Any], code: str, metric: str) -> tuple[float | None, float | None]:
    groups = intervals["macro"] if code == "macro" else intervals.get("languages", {}).get(code, {})
    low, high = groups.get(metric, (None, None))
    return (None, None) if low is None or high is None else (100 * low, 100 * high)
