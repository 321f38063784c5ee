# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Reports of several runs side by side, beside the published rows of their task, each tested against one of them."""

from collections.abc import Sequence
from pathlib import Path

from class_jax.errors import InputError, nearest
from class_jax.reports.published import TASKS, changes_table
from class_jax.reports.published import published as published_rows
from class_jax.reports.reports import check_comparable, comparison_table, difference_table, metrics_of, read_report
from class_jax.reports.tables import Table


def compare_reports(
    files: Sequence[Path],
    *,
    metrics: Sequence[str] = (),
    languages: Sequence[str] = (),
    against: str | None = None,
    published: str | Sequence[str] = "all",
    published_tables: Sequence[int] | None = None,
    samples: int = 10_000,
) -> list[Table]:
    """Returns the runs side by side, the difference of each from one of them, and for rankings published changes.

    Args:
      files: reports.
      metrics: only these; all if empty.
      languages: only these and the macro average; all if empty.
      against: name of the run that the others are tested against; the first if None.
      published: rows to show: names, `all` or `none`.
      published_tables: numbers of the published tables to show; all if None.
      samples: of the paired bootstrap.

    Raises:
      InputError: for reports that may not be compared, and unknown names.
    """
    reports = [read_report(path) for path in files]
    notes = check_comparable(reports, files)
    known = list(dict.fromkeys(metric for report in reports for metric in metrics_of(report)))
    shown, rows, task = list(metrics) or known, [], reports[0]["task"]
    if published != "none" and task in TASKS:
        rows = published_rows(task, published_tables, None if published == "all" else published)
        rows = [row for row in rows if set(row.values) & set(shown)]
    made = [comparison_table(reports, shown, rows, list(languages) or None, notes)]
    if len(reports) == 1:
        return made
    by_name = {report["name"]: report for report in reports}
    first = against or reports[0]["name"]
    if first not in by_name:
        raise InputError(f"no run is named {first!r}", key="against", remedy=nearest(first, by_name))
    for report in reports:
        common = [m for m in shown if m in metrics_of(report) and m in metrics_of(by_name[first])]
        if report["name"] != first and common:
            made.append(difference_table(report, by_name[first], common, samples))
    if task == "passages" and published != "none":
        made.append(changes_table())
    return made
