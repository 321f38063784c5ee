# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Data by language: counted from files and read from records; the commands `statistics` and `convert-mkqa`."""

import gzip
import json

import pytest
import typer
from typer.testing import CliRunner

from class_jax.commands.convert_mkqa import convert_mkqa
from class_jax.commands.statistics import statistics
from class_jax.errors import InputError
from class_jax.reports.statistics import count_rows, read_counts, statistics_table

COUNTS = {"queries/te": 100, "queries/fi": 900, "pairs/fi": 600, "pairs/te": 70, "rejected/no_answer": 5, "bytes": 9}


def invoke(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1" / "stage.json").write_text(json.dumps({"counts": COUNTS}))
    return tmp_path / "stage1"


def test_a_record_holds_counts_by_language(stage):
    expected = {"pairs": {"fi": 600, "te": 70}, "queries": {"te": 100, "fi": 900}}
    assert read_counts(stage) == expected == read_counts(stage / "stage.json")
    table = statistics_table(read_counts(stage), "data")
    # Drawn by the square roots of 0.9 and 0.1: 3 to 1.
    assert [list(row) for row in table.rows] == [
        ["fi", "Finnish", 600, 900, 0.9, pytest.approx(0.75)],
        ["te", "Telugu", 70, 100, 0.1, pytest.approx(0.25)],
        ["all", "", 670, 1000, 1.0, 1.0],
    ]


def test_rows_are_counted_by_their_ids(tmp_path):
    path = tmp_path / "parallel.tsv"
    path.write_text("fi-1\ta\tb\tc\nja-1\ta\tb\tc\n\nfi-2\ta\tb\tc\n17\ta\tb\n", encoding="utf-8")
    assert count_rows(path) == {"fi": 2, "ja": 1, "en": 1}
    path.write_text("fi-1\ta\n\nxx-1\tb\n")
    with pytest.raises(InputError, match=r"parallel\.tsv:3: id: unknown language 'xx'"):
        read_counts(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="no rows"):
        read_counts(path)
    (tmp_path / "stage.json").write_text('{"counts": {"bytes": 3}}')
    with pytest.raises(InputError, match="no counts by language"):
        read_counts(tmp_path)


def test_the_command_draws_and_writes(stage, tmp_path):
    pytest.importorskip("matplotlib")
    result = invoke(statistics, stage, "--plot", tmp_path / "bars.svg", "--format", "md", "--out", tmp_path / "data.md")
    assert result.exit_code == 0
    text = (tmp_path / "data.md").read_text(encoding="utf-8")
    assert text.index("| fi") < text.index("| te") < text.index("| all") and "1,000" in text
    picture = (tmp_path / "bars.svg").read_text(encoding="utf-8")
    assert picture.index(">fi<") < picture.index(">te<") and "queries" in picture


def test_mkqa_is_converted(tmp_path):
    answers = {
        code: [{"type": "entity", "text": text, "aliases": []}] for code, text in (("da", "Kina"), ("en", "China"))
    }
    record = {"example_id": 7, "queries": {"da": "hvor", "en": "where"}, "answers": answers}
    with gzip.open(tmp_path / "mkqa.jsonl.gz", "wt", encoding="utf-8") as f:
        f.write(json.dumps(record) + "\n")
    result = invoke(convert_mkqa, tmp_path / "mkqa.jsonl.gz", "--out", tmp_path / "out", "--languages", "da,en")
    assert result.exit_code == 0 and "2 questions in 2 languages" in result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mkqa-da.jsonl", "mkqa-en.jsonl"]
