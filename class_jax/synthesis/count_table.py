# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The counts of the stages as a table: for each stage what was made, then what was rejected and why."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from class_jax.corpus.wikipedia.rejects import REJECTED

if TYPE_CHECKING:
    from rich.table import Table

# Of the time taken: no counts of what was made.
_HIDDEN = frozenset({"bytes", "microseconds"})


class CountRow(NamedTuple):
    """A count of a stage over all languages.

    Attributes:
      stage: without a language.
      name: of the counter, without a language.
      total: over all languages.
      by_language: where the stage or the counter is one language's.
    """

    stage: str
    name: str
    total: int
    by_language: dict[str, int]


def stage_count_rows(counts: Mapping[str, Mapping[str, int]], languages: Collection[str]) -> list[CountRow]:
    """Joins the counts of stages and counters that are alike except for their language; rejects last in each stage.

    Args:
      counts: by stage (`pages/fi`) and counter (`examples/fi`).
      languages: codes that may end a name.
    """
    stages: dict[str, dict[str, dict[str, int]]] = {}
    for stage, found in counts.items():
        stage, of_stage = _split(stage, languages)
        rows = stages.setdefault(stage, defaultdict(dict))
        for name, count in found.items():
            if name not in _HIDDEN:
                name, language = _split(name, languages)
                language = language or of_stage
                rows[name][language] = rows[name].get(language, 0) + count
    return [
        CountRow(stage, name, sum(found.values()), {code: n for code, n in found.items() if code})
        for stage, rows in stages.items()
        for name, found in sorted(rows.items(), key=lambda row: row[0].startswith(REJECTED))
    ]


def count_table(rows: Collection[CountRow]) -> "Table":
    """Returns the rows as a table for `rich`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for name, justify in (("stage", "left"), ("count", "left"), ("all", "right"), ("by language", "left")):
        table.add_column(name, justify=justify, overflow="fold")
    before = None
    for row in rows:
        if before not in (None, row.stage):
            table.add_section()
        parts = "  ".join(f"{language} {count:,}" for language, count in sorted(row.by_language.items()))
        rejected = row.name.startswith(REJECTED)
        name = f"rejected: {row.name.removeprefix(REJECTED)}" if rejected else row.name
        style = "yellow" if rejected and row.total else None
        table.add_row("" if row.stage == before else row.stage, name, f"{row.total:,}", parts, style=style)
        before = row.stage
    return table


def _split(name: str, languages: Collection[str]) -> tuple[str, str]:
    before, slash, last = name.rpartition("/")
    return (before, last) if slash and last in languages else (name, "")
