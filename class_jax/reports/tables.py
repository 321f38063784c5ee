# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables of results: one value, five forms (terminal, Markdown, LaTeX, JSON, CSV)."""

import csv
import io
import itertools
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from class_jax.common.files import replacing
from class_jax.errors import InputError, nearest

Cell = str | int | float | None
_ABSENT = "–"
_GAP = 2  # blanks between two columns in the terminal
_WIDTH = 132  # in characters, where the output is not a terminal
_LATEX = str.maketrans(
    {c: "\\" + c for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", _ABSENT: "--", "\n": " "}
)
FORMS = ("table", "md", "tex", "csv", "json")
"""How a table can be shown: for the terminal, or as text in one of four forms."""


def _is_absent(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


@dataclass(frozen=True)
class Column:
    """A column of numbers or text.

    Attributes:
      name: its heading.
      group: a heading above it that neighbouring columns may share, such as the metric over its languages.
      percent: show fractions times 100.
      digits: digits after the point of numbers that are not whole by type.
      best: mark the `max` or the `min` of the column; None marks nothing.
    """

    name: str
    group: str = ""
    percent: bool = False
    digits: int = 1
    best: str | None = "max"

    def __post_init__(self):
        if self.best not in ("max", "min", None):
            raise InputError(f"{self.best!r} is neither 'max', 'min' nor None", key=f"best of column {self.name!r}")

    @property
    def heading(self) -> str:
        """Group and name in one line."""
        return f"{self.group} {self.name}".strip()

    def show(self, cell: Cell) -> str:
        """The cell as readers see it."""
        if _is_absent(cell):
            return _ABSENT
        if isinstance(cell, str):
            return cell
        if isinstance(cell, int) and not self.percent:
            return f"{cell:,}"
        return f"{cell * (100 if self.percent else 1):.{self.digits}f}"


@dataclass(frozen=True)
class Table:
    """A titled table whose first column names the rows.

    Attributes:
      title: what it shows.
      columns: the columns, the first one naming the rows; a string is short for `Column(string)`.
      rows: one cell a column; None and NaN are absent values.
      notes: sentences below the table.

    Raises:
      InputError: when made with rows of another length than the columns.

    Example:
      >>> print(Table("Scores", ("model", Column("F1", percent=True)), (("ours", 0.5), ("theirs", 0.25))).markdown())
      **Scores**
      <BLANKLINE>
      | model  |       F1 |
      | :----- | -------: |
      | ours   | **50.0** |
      | theirs |     25.0 |
      <BLANKLINE>
    """

    title: str
    columns: Sequence[Column | str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    def __post_init__(self):
        columns = tuple(Column(c) if isinstance(c, str) else c for c in self.columns)
        # NumPy scalars become Python's: they would be neither int nor float, nor JSON.
        rows = tuple(tuple(c.item() if hasattr(c, "item") else c for c in row) for row in self.rows)
        for row in rows:
            if len(row) != len(columns):
                name = str(row[0]) if row else "the first"
                raise InputError(
                    f"row {name!r} has {len(row)} cells for {len(columns)} columns", key=f"table {self.title!r}"
                )
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "rows", rows)

    def best_rows(self, column: int) -> set[int]:
        """Rows with the best value of a column as shown, ties included; empty where there is nothing to compare."""
        goal = self.columns[column].best
        digits = self.columns[column].digits + (2 if self.columns[column].percent else 0)
        numbers = {
            i: round(cell, digits)
            for i, cell in enumerate(row[column] for row in self.rows)
            if isinstance(cell, int | float) and not math.isnan(cell)
        }
        if column == 0 or goal is None or len(numbers) < 2 or len(set(numbers.values())) == 1:
            return set()
        top = max(numbers.values()) if goal == "max" else min(numbers.values())
        return {i for i, number in numbers.items() if number == top}

    def _shown(self) -> list[list[str]]:
        return [[column.show(cell) for column, cell in zip(self.columns, row, strict=True)] for row in self.rows]

    def markdown(self) -> str:
        """GitHub-style Markdown, columns aligned in the source too, the best of each column in bold."""
        cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in self._shown()]
        for column in range(1, len(self.columns)):
            for i in self.best_rows(column):
                cells[i][column] = f"**{cells[i][column]}**"
        lines = [[column.heading.replace("|", "\\|") for column in self.columns], *cells]
        widths = [max(4, *(cell_len(line[c]) for line in lines)) for c in range(len(self.columns))]
        rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
        padded = [
            [line[0] + " " * (widths[0] - cell_len(line[0]))]
            + [" " * (width - cell_len(cell)) + cell for cell, width in zip(line[1:], widths[1:], strict=True)]
            for line in lines
        ]
        body = ["| " + " | ".join(line) + " |" for line in (padded[0], rule, *padded[1:])]
        notes = ["", *(f"- {note}" for note in self.notes)] if self.notes else []
        return "\n".join([f"**{self.title}**", "", *body, *notes]) + "\n"

    def latex(self) -> str:
        r"""A LaTeX `table` for the package booktabs: groups above their columns, the best of each column in bold."""
        cells = [[cell.translate(_LATEX) for cell in row] for row in self._shown()]
        for column in range(1, len(self.columns)):
            for i in self.best_rows(column):
                cells[i][column] = rf"\textbf{{{cells[i][column]}}}"
        heads = [" & ".join(column.name.translate(_LATEX) for column in self.columns) + r" \\"]
        if any(column.group for column in self.columns):
            spans = [[group, list(found)] for group, found in itertools.groupby(self.columns, lambda c: c.group)]
            over, rules, at = [], [], 1
            for group, found in spans:
                width = len(found)
                over.append(
                    rf"\multicolumn{{{width}}}{{c}}{{{group.translate(_LATEX)}}}" if group else " & " * (width - 1)
                )
                if group:
                    rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
                at += width
            heads = [" & ".join(over) + r" \\", "".join(rules), *heads]
        notes = " ".join(note.translate(_LATEX) for note in self.notes)
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}",
            r"\toprule",
        ]
        lines += [*heads, r"\midrule", *(" & ".join(row) + r" \\" for row in cells), r"\bottomrule", r"\end{tabular}"]
        lines += [rf"\caption{{{self.title.translate(_LATEX)}.{' ' + notes if notes else ''}}}", r"\end{table}"]
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """JSON with full precision: `title`, `columns`, `rows` (objects keyed by heading) and `notes`."""
        headings = [column.heading for column in self.columns]
        rows = [
            {
                h: None if isinstance(c, float) and not math.isfinite(c) else c
                for h, c in zip(headings, row, strict=True)
            }
            for row in self.rows
        ]
        value = {"title": self.title, "columns": headings, "rows": rows, "notes": list(self.notes)}
        return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n"

    def csv(self) -> str:
        """CSV with full precision and a header row; absent values are empty. Title and notes are not in it."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([column.heading for column in self.columns])
        for row in self.rows:
            writer.writerow(["" if _is_absent(cell) else cell for cell in row])
        return out.getvalue()

    def rich(self, width: int | None = None) -> RenderableType:
        """The table for a terminal, as something `rich` prints.

        Args:
          width: characters available; a wider table is broken between groups of columns, and where one
            group is too wide within it, into blocks below each other, each with the rows' names.
        """
        parts: list[RenderableType] = [Text(self.title, style="bold")]
        for block in self._blocks(width or _WIDTH):
            parts += [Text(), self._block(block)]
        if self.notes:
            parts += [Text(), *(Text(note, style="dim") for note in self.notes)]
        return Group(*parts)

    def print(self, console: Console | None = None) -> None:
        """Prints the table, as wide as the terminal is; elsewhere up to 132 characters wide, without colours."""
        if console is None:
            console = Console()
            if not console.is_terminal:
                console = Console(width=_WIDTH)
        console.print(self.rich(console.width), highlight=False)

    def _widths(self) -> list[int]:
        lines = [[c.name for c in self.columns], [c.group for c in self.columns], *self._shown()]
        return [max(cell_len(line[c]) for line in lines) for c in range(len(self.columns))]

    def _blocks(self, width: int) -> list[list[int]]:
        """Columns after the first, divided into blocks that fit the width."""
        widths = self._widths()
        room = width - widths[0]
        groups: list[list[int]] = []
        for c in range(1, len(self.columns)):
            group = self.columns[c].group
            joins = bool(groups) and group != "" and group == self.columns[groups[-1][-1]].group
            if joins and sum(widths[i] + _GAP for i in [*groups[-1], c]) <= room:
                groups[-1].append(c)
            else:
                groups.append([c])
        blocks: list[list[int]] = []
        for group in groups:
            if blocks and sum(widths[i] + _GAP for i in blocks[-1] + group) <= room:
                blocks[-1] += group
            else:
                blocks.append(list(group))
        return blocks or [[]]

    def _block(self, columns: list[int]) -> RichTable:
        table = RichTable(box=SIMPLE_HEAD, show_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="bold")
        two_lines = any(self.columns[c].group for c in columns)
        shown, best = self._shown(), {c: self.best_rows(c) for c in columns}
        first = self.columns[0].name
        table.add_column(f"\n{first}" if two_lines else first, no_wrap=True)
        previous = ""
        for c in columns:
            column = self.columns[c]
            heading = (
                column.name if not two_lines else f"{column.group if column.group != previous else ''}\n{column.name}"
            )
            table.add_column(Text(heading), justify="right", no_wrap=True)
            previous = column.group
        for i, row in enumerate(shown):
            table.add_row(Text(row[0]), *(Text(row[c], style="bold green" if i in best[c] else "") for c in columns))
        return table

    def text(self, form: str) -> str:
        """The table as text in the form `md`, `tex`, `csv` or `json`.

        Raises:
          InputError: for an unknown form.
        """
        writers = {"md": self.markdown, "tex": self.latex, "json": self.json, "csv": self.csv}
        if form not in writers:
            raise InputError(f"no table can be written as {form!r}", key="forms", remedy=nearest(form, writers))
        return writers[form]()

    def write(self, path: str | os.PathLike, forms: Iterable[str] = ("md", "json", "csv")) -> list[Path]:
        """Writes `path.md`, `path.json` and `path.csv` (`path.tex` on request), each whole or not at all.

        Returns:
          The files written.

        Raises:
          InputError: for an unknown form, or if the disk refuses a write.
        """
        files = []
        for form in forms:
            text = self.text(form)
            file = Path(os.fspath(path) + f".{form}")
            with replacing(file) as f:
                f.write(text)
            files.append(file)
        return files
