# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables in every form, and learning curves as a picture."""

import csv
import io
import json

import pytest

from class_jax.errors import InputError
from class_jax.reports.curves import plot_curves, read_metrics
from class_jax.reports.tables import Column, Table

TABLE = Table(
    "Scores",
    (Column("model"), Column("ar", "R@5", percent=True), Column("loss", best="min")),
    (("ours", 0.5, 1.25), ("theirs", 0.25, None)),
    ("measured here",),
)


def test_markdown_marks_the_best():
    text = TABLE.markdown()
    assert "**50.0**" in text and "25.0" in text and "measured here" in text
    header = next(line for line in text.splitlines() if "model" in line)
    assert "R@5 ar" in header


def test_every_form_holds_the_same_numbers(tmp_path):
    files = TABLE.write(tmp_path / "scores")
    assert sorted(file.suffix for file in files) == [".csv", ".json", ".md"]
    rows = list(csv.reader(io.StringIO((tmp_path / "scores.csv").read_text(encoding="utf-8"))))
    assert rows[1][0] == "ours" and float(rows[1][1]) == 0.5
    assert "0.5" in json.dumps(json.loads((tmp_path / "scores.json").read_text(encoding="utf-8")))


def test_latex_groups_columns_and_escapes(tmp_path):
    table = Table(
        "100% & more", (Column("run"), Column("fi", "R^L@5"), Column("macro", "R^L@5")), (("a_b", 1.0, None),)
    )
    text = table.latex()
    assert r"\multicolumn{2}{c}{R\textasciicircum{}L@5}" in text and r"\cmidrule(lr){2-3}" in text
    assert r"a\_b & 1.0 & -- \\" in text and r"\caption{100\% \& more.}" in text
    assert table.write(tmp_path / "t", ("tex",))[0].read_text(encoding="utf-8") == text
    with pytest.raises(InputError, match="'tex'"):
        table.text("latex")


def test_rows_of_the_wrong_length_are_refused():
    with pytest.raises(InputError, match="short"):
        Table("Scores", ("model", "F1"), (("short",),))


def test_curves_are_drawn_from_metrics(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": s, "loss": 5.0 - s / 10} for s in range(20)] + [{"step": 10, "eval/f1/macro": 0.3}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 99, "lo', encoding="utf-8")
    steps, values = read_metrics(path)["loss"]
    assert steps[-1] == 19 and values[0] == 5.0
    picture = plot_curves({"run": path}, tmp_path / "curves.png")
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000


def test_a_metrics_file_that_is_not_one_is_refused(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2}\nnot json\n{"step": 2, "loss": 1}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"metrics\.jsonl:2"):
        read_metrics(path)
