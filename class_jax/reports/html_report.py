# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""One HTML page about a run: figures, tables, learning curves, configuration; self-contained, light and dark.

The page loads nothing: styles and charts are in it, fonts are the reader's own, and its content security policy forbids
anything else. It has no script.
"""

import dataclasses
import html
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from class_jax.common.files import read_json, replacing
from class_jax.errors import InputError
from class_jax.reports import svg
from class_jax.reports.curves import Series, read_metrics, smooth
from class_jax.reports.published import TASKS, published
from class_jax.reports.reports import breakdown_tables, comparison_table, metrics_of, read_report, report_table
from class_jax.reports.tables import Column, Table

METRICS, RESULTS, CONFIGURATION, REPORTS = "metrics.jsonl", "results.json", "config.gin", "*.report.json"
_SMOOTHING = 0.02  # of a run's points, the time constant of the curve drawn in full

_STYLE = """
:root{color-scheme:light dark;--ink:#1d2430;--soft:#5b6575;--paper:#fff;--panel:#f5f6f8;--rule:#d9dde3;--mark:#e6f2ea;
--s0:#0b67b2;--s1:#c2500a;--s2:#00805c;--s3:#a8508a;--s4:#2f86b8;--s5:#9a6b00;--s6:#333}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaee;--soft:#a3adba;--paper:#14171c;--panel:#1d2229;--rule:#363d48;
--mark:#17382a;--s0:#6cb6f5;--s1:#f59a5f;--s2:#4fd0a5;--s3:#e4a0cd;--s4:#8ed1f5;--s5:#e8c15c;--s6:#ddd}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:74rem;padding:1.5rem 1rem 4rem;background:var(--paper);color:var(--ink);line-height:1.5;
font-family:system-ui,"Noto Sans","Segoe UI",Roboto,"Helvetica Neue",Arial,"Noto Sans Arabic","Noto Naskh Arabic",
"Geeza Pro","Noto Sans Bengali","Bangla Sangam MN",Vrinda,"Noto Sans Telugu","Telugu Sangam MN",Gautami,
"Noto Sans Tamil","Noto Sans Malayalam","Noto Sans Kannada","Noto Sans Thai","Noto Sans Khmer","Noto Sans Hebrew",
"Noto Sans CJK JP","Hiragino Sans","Yu Gothic","Noto Sans CJK KR","Apple SD Gothic Neo","Malgun Gothic",
"Noto Sans CJK SC","PingFang SC","Microsoft YaHei",Unifont,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.25rem;margin:2.4rem 0 .6rem}
h3{font-size:1.02rem;margin:1.6rem 0 .4rem}
p,li{max-width:48rem}
figcaption,.notes{color:var(--soft);font-size:.9rem}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:.6rem;padding:0;margin:1rem 0;
list-style:none}
.figures li{background:var(--panel);border-radius:.5rem;padding:.5rem .8rem;font-size:.9rem;overflow-wrap:anywhere}
.figures b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto;margin:.6rem 0;border:1px solid var(--rule);border-radius:.4rem}
table{border-collapse:separate;border-spacing:0;font-size:.9rem;font-variant-numeric:tabular-nums;width:100%}
caption{text-align:start;font-weight:600;padding:.5rem .6rem}
th,td{padding:.3rem .6rem;text-align:end;white-space:nowrap;border-top:1px solid var(--rule)}
thead th{color:var(--soft);font-weight:600;background:var(--panel)}
thead th[colspan]{text-align:center}
tbody th,thead th[scope=col]:first-child{text-align:start}
tbody th{font-weight:500;position:sticky;left:0;background:var(--paper)}
td.best{font-weight:700;background:var(--mark)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:.8rem;margin:.6rem 0}
figure{margin:0;background:var(--panel);border-radius:.5rem;padding:.7rem}
figure>svg{width:100%;height:auto;display:block}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;padding:0;margin:.4rem 0 0;list-style:none;font-size:.85rem}
.legend svg{vertical-align:middle}
svg text{font:12px system-ui,sans-serif;fill:var(--soft)}
svg path{fill:none;stroke-width:2}
svg .grid{stroke:var(--rule);stroke-width:1}
svg .rule{stroke:var(--soft);stroke-width:1}
svg .faint{opacity:.3;stroke-width:1}
details{margin:1rem 0}
summary{cursor:pointer;font-weight:600}
pre{overflow-x:auto;background:var(--panel);padding:.8rem;border-radius:.4rem;font-size:.82rem;line-height:1.4}
@media (max-width:40rem){svg text{font-size:18px}}
@media print{body{max-width:none}details{break-inside:avoid}.wide{overflow:visible}}
"""
_STYLE += "".join(f"svg path.s{i}{{stroke:var(--s{i})}}svg circle.s{i}{{fill:var(--s{i})}}" for i in range(svg.SERIES))


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
    """The page as HTML."""
    body = [f"<h1>{_text(contents.name)}</h1>", _figures(contents)]
    if contents.curves:
        body.append("<h2>Training</h2>" + "".join(_stage(name, series) for name, series in contents.curves.items()))
    if contents.tables:
        body.append("<h2>Results</h2>" + "".join(html_table(table) for table in contents.tables))
    for report in contents.reports:
        body.append(_evaluation(report))
    if contents.configurations:
        body.append("<h2>Configuration</h2>")
        for name, text in contents.configurations.items():
            body.append(f"<details><summary>{_text(name)}</summary><pre>{_text(text)}</pre></details>")
    policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(contents.name)}: class_jax</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def html_table(table: Table) -> str:
    """A table as HTML: groups above their columns, the best of each column marked, notes below."""
    columns = list(table.columns)
    head = []
    if any(column.group for column in columns):
        cells, at = [], 0
        while at < len(columns):
            width = 1
            while columns[at].group and at + width < len(columns) and columns[at + width].group == columns[at].group:
                width += 1
            span = f' colspan="{width}" scope="colgroup"' if columns[at].group else ""
            cells.append(f"<th{span}>{_text(columns[at].group)}</th>" if span else "<td></td>")
            at += width
        head.append(f"<tr>{''.join(cells)}</tr>")
    head.append("<tr>" + "".join(f'<th scope="col">{_text(column.name)}</th>' for column in columns) + "</tr>")
    best = [table.best_rows(i) for i in range(len(columns))]
    rows = []
    for i, row in enumerate(table.rows):
        shown = [_text(column.show(cell)) for column, cell in zip(columns, row, strict=True)]
        cells = [f'<th scope="row" dir="auto">{shown[0]}</th>']
        cells += [f"<td{' class=best' if i in best[c] else ''}>{shown[c]}</td>" for c in range(1, len(columns))]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    notes = "".join(f"<li>{_text(note)}</li>" for note in table.notes)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{_text(table.title)}"><table>'
        f"<caption>{_text(table.title)}</caption><thead>{''.join(head)}</thead><tbody>{''.join(rows)}</tbody></table></div>"
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def _text(text: Any) -> str:
    return html.escape(str(text))


def _figures(contents: Contents) -> str:
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
    items = "".join(f"<li><b>{_text(number)}</b>{_text(label)}</li>" for label, number in shown)
    return f'<ul class="figures">{items}</ul>' if items else ""


def _stage(name: str, series: Series) -> str:
    """Loss and evaluations of a stage as charts, and its last evaluation by language as a table."""
    charts = []
    if "loss" in series:
        steps, values = series["loss"]
        smoothed = smooth(np.where(np.isfinite(values), values, np.nan), _SMOOTHING * len(values))
        line = svg.Line("loss", steps, smoothed, pale=values)
        charts.append(
            _figure(svg.line_chart([line], f"loss of {name} over steps", x="step", y="loss"), "Loss, smoothed")
        )
    macro = [key for key in series if key.startswith("eval/") and key.endswith("/macro")]
    lines = [
        svg.Line(key.removeprefix("eval/").removesuffix("/macro"), series[key][0], 100 * series[key][1], dots=True)
        for key in macro
    ]
    chart = svg.line_chart(lines, f"evaluations of {name} over steps", x="step", y="score, ×100", from_zero=True)
    charts.append(_figure(chart, "Evaluation, macro average", svg.legend([line.name for line in lines])))
    table = _last_evaluation(name, series)
    return f"<h3>{_text(name)}</h3><div class=charts>{''.join(charts)}</div>" + (html_table(table) if table else "")


def _figure(chart: str, caption: str, below: str = "") -> str:
    return f"<figure>{chart}<figcaption>{_text(caption)}</figcaption>{below}</figure>" if chart else ""


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


def _evaluation(report: Mapping[str, Any]) -> str:
    """Tables, intervals and breakdowns of an evaluation, and the published rows of its task."""
    parts = [f"<h2>{_text(report['task'])}: {_text(report['name'])}</h2>"]
    for part, scores in report["parts"].items():
        parts.append(html_table(report_table(report, part)))
        charts = [_intervals(part, metric, scores) for metric in scores["by_question"]["values"]]
        parts.append(f"<div class=charts>{''.join(charts)}</div>")
    parts += [html_table(table) for table in breakdown_tables(report)]
    if report["task"] in TASKS:
        parts += _beside_published(report)
    inputs = json.dumps(report.get("inputs", {}), ensure_ascii=False, indent=1)
    parts.append(f"<details><summary>Inputs</summary><pre>{_text(inputs)}</pre></details>")
    return "".join(parts)


def _beside_published(report: Mapping[str, Any]) -> list[str]:
    """A table for each metric that is published for the task."""
    note = "published rows are of the official development sets: beside other questions they are for orientation only"
    tables = []
    for metric in metrics_of(report):
        rows = [row for row in published(report["task"]) if metric in row.values]
        if rows:
            table = comparison_table([report], [metric], rows, notes=[note])
            tables.append(html_table(dataclasses.replace(table, title=f"{metric} beside published results")))
    return tables


def _intervals(part: str, metric: str, scores: Mapping[str, Any]) -> str:
    """A chart of one metric by language with its confidence intervals."""
    rows = []
    for code in (*sorted(scores["languages"]), "macro"):
        value = (scores["macro"] if code == "macro" else scores["languages"][code]).get(metric)
        if value is None:
            continue
        low, high = _ends(scores.get("intervals", {}), code, metric)
        rows.append((code, 100 * value, low, high))
    chart = svg.interval_chart(rows, f"{metric} of {part} by language", x=f"{metric}, ×100")
    return _figure(chart, f"{metric} by language, 95% confidence intervals")


def _ends(intervals: Mapping[str, Any], code: str, metric: str) -> tuple[float | None, float | None]:
    groups = intervals["macro"] if code == "macro" else intervals.get("languages", {}).get(code, {})
    low, high = groups.get(metric, (None, None))
    return (None, None) if low is None or high is None else (100 * low, 100 * high)
