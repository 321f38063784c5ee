# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Published results, with the table and row that they come from, to compare with one's own.

The numbers are in `published.json` as they were printed, times 100; here they are fractions, as scores are everywhere.
Where a printed macro average is not the mean of the printed languages, the row's note says so.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Any

from class_jax.errors import InputError, nearest
from class_jax.reports.tables import Column, Table

CLASS_PAPER = "arXiv 2402.16508"
RERANKING_PAPER = "arXiv 2501.04153"
TASKS = ("xor-retrieve", "xor-full", "mkqa")


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    Attributes:
      paper: where it was published.
      table: number of the table.
      task: `xor-retrieve`, `xor-full` or `mkqa`.
      split: the questions that it is measured on.
      section: the part of the table, such as `Zero-shot Retrievers`.
      row: name of the row; a variant carries the name of its model (`CLASS w/ Dense`).
      values: by metric, by language or `macro`, fractions in 0..1; what was not printed is absent.
      details: what else the row says: `parameters`, `pre_training`, `fine_tuning`, `pipeline`.
      note: where the printed numbers disagree among themselves.
      breakdown: of a row about only some of the questions, the breakdown of `class-jax evaluate` that it belongs to.
      group: the group of that breakdown.
    """

    paper: str
    table: int
    task: str
    split: str
    section: str
    row: str
    values: Mapping[str, Mapping[str, float]]
    details: Mapping[str, str]
    note: str = ""
    breakdown: str = ""
    group: str = ""

    @property
    def source(self) -> str:
        """Paper and table in a few words."""
        return f"{self.paper}, Table {self.table}"

    @property
    def label(self) -> str:
        """Row and section, unique within a table and task."""
        return f"{self.row} ({self.section.lower()})"

    def summary(self) -> dict[str, Any]:
        """The row in the form of `Scores.summary`, without counts."""
        codes = sorted({code for row in self.values.values() for code in row} - {"macro"})
        languages = {code: {metric: row[code] for metric, row in self.values.items() if code in row} for code in codes}
        macro = {metric: row["macro"] for metric, row in self.values.items() if "macro" in row}
        return {"languages": languages, "macro": macro, "notes": [self.note] if self.note else []}


@functools.lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    return json.loads(resources.files(__package__).joinpath("published.json").read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=1)
def _all() -> tuple[Published, ...]:
    paper = _data()[CLASS_PAPER]
    found = []
    for row in paper["rows"]:
        values = {
            metric: MappingProxyType({code: number / 100 for code, number in numbers.items()})
            for metric, numbers in row["values"].items()
        }
        details = {key: row[key] for key in ("parameters", "pre_training", "fine_tuning", "pipeline") if key in row}
        found.append(
            Published(
                CLASS_PAPER,
                row["table"],
                row["task"],
                paper["split"][str(row["table"])],
                row["section"],
                row["row"],
                MappingProxyType(values),
                MappingProxyType(details),
                row.get("note", ""),
                row.get("breakdown", ""),
                row.get("group", ""),
            )
        )
    return tuple(found)


def published(
    task: str | None = None, tables: Sequence[int] | None = None, rows: Sequence[str] | None = None
) -> list[Published]:
    """Rows of Tables 1 to 9 of the CLASS paper (arXiv 2402.16508), in their order.

    Args:
      task: `xor-retrieve`, `xor-full` or `mkqa`; all by default.
      tables: numbers of the tables; by default 1 to 6, those about all questions of a task.
      rows: names of the rows, such as `CLASS-ZS`; all by default.

    Raises:
      InputError: for an unknown task, table or row.

    Example:
      >>> [f"{row.values['R@2kt']['macro']:.3f}" for row in published("xor-retrieve", [1], ["CLASS"])]
      ['0.716']
    """
    everything = _all()
    if task is not None and task not in TASKS:
        raise InputError(f"nothing is published for {task!r}", key="task", remedy=nearest(task, TASKS))
    known_tables = sorted({row.table for row in everything})
    for table in tables or ():
        if table not in known_tables:
            raise InputError(f"no Table {table} is on record", key="tables", remedy=f"known: {known_tables}")
    here = [
        row
        for row in everything
        if (task is None or row.task == task) and (row.table in tables if tables is not None else not row.breakdown)
    ]
    names = {row.row for row in here}
    for name in rows or ():
        if name not in names:
            raise InputError(f"no published row {name!r}", key="rows", remedy=nearest(name, names))
    return [row for row in here if rows is None or row.row in rows]


def published_breakdown(title: str) -> list[Published]:
    """Rows of Tables 7 to 9 that belong beside a breakdown, by its title; none for other titles."""
    return [row for row in _all() if row.breakdown == title]


def published_changes() -> list[dict[str, Any]]:
    """What question-generation re-ranking with mBART changed by language, over mDPR (arXiv 2501.04153).

    Returns:
      For each language named: `language`, `metrics` (those named), `direction` (`better` or `worse`) and, where a
      number was given, `percent`.
    """
    return [dict(change) for change in _data()[RERANKING_PAPER]["changes"]]


def changes_table() -> Table:
    """`published_changes` as a table, shown below comparisons of rankings."""
    data = _data()[RERANKING_PAPER]
    rows = [
        [change["language"], change["direction"], ", ".join(change["metrics"]), change.get("percent")]
        for change in published_changes()
    ]
    columns = [Column("language"), "change", "metrics", Column("percent", best=None)]
    title = f"published: {data['method']}, against {data['baseline']}"
    return Table(title, columns, rows, (f"{RERANKING_PAPER}, {data['data']}; read from {data['read_from']}",))
