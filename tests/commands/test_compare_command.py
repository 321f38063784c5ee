# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax compare`: runs side by side, beside published rows, with tests; and what may not be compared."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from class_jax.commands.compare import compare
from class_jax.errors import InputError
from class_jax.evaluation.scores import Scores
from class_jax.questions.readers import XOR_LANGUAGES, Question
from class_jax.reports.reports import digest_questions, make_report, read_report, write_report

app = typer.Typer()
app.command()(compare)

QUESTIONS = [Question(f"{code}{i}", "q", ("a",), code) for code in XOR_LANGUAGES for i in range(20)]


def write(path, name, share, task="xor-retrieve", metric="R@2kt", corpus="wiki", questions=QUESTIONS):
    """A report in which the first `share` of each language's questions is right."""
    hits = np.array([float(i % 20 < 20 * share) for i in range(len(questions))])
    scores = Scores([q.id for q in questions], [q.language for q in questions], {metric: hits})
    part = "answers" if metric == "f1" else "retrieval"
    write_report(path, make_report(task, name, questions, {part: scores}, corpus=corpus, samples=20))
    return path


@pytest.fixture
def runs(tmp_path):
    return [write(tmp_path / "a.json", "weak", 0.25), write(tmp_path / "b.json", "strong", 0.75)]


def run(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def tables(*args):
    found = json.loads(run(*args, "--format", "json", "--samples", "500"))
    return found if isinstance(found, list) else [found]


def test_runs_and_published_rows_side_by_side(runs):
    side_by_side, difference = tables(*runs, "--published", "CLASS,CLASS-ZS")
    rows = {row["run"]: row for row in side_by_side["rows"]}
    assert rows["weak"]["R@2kt macro"] == 0.25 and rows["strong"]["R@2kt te"] == 0.75
    published = rows["CLASS ((semi-) supervised retrievers), Table 1"]
    assert published["R@2kt macro"] == pytest.approx(0.716) and published["R@2kt ko"] == pytest.approx(0.716)
    assert rows["CLASS (supervised), Table 4"]["R@2kt ko"] is None
    assert any("arXiv 2402.16508" in note for note in side_by_side["notes"])
    assert difference["title"] == "strong minus weak"
    macro = difference["rows"][-1]
    assert macro["R@2kt difference"] == 0.5 and macro["R@2kt p, bootstrap"] < 0.01 > macro["R@2kt p, t-test"]
    assert 0 < macro["R@2kt low"] < 0.5 < macro["R@2kt high"] < 1


def test_rows_tables_and_languages_are_chosen(runs):
    side_by_side, difference = tables(*runs, "--tables", "1", "--languages", "fi,ko", "--against", "strong")
    assert len(side_by_side["rows"]) == 2 + 17
    assert side_by_side["columns"] == ["run", "R@2kt fi", "R@2kt ko", "R@2kt macro"]
    assert difference["title"] == "weak minus strong" and difference["rows"][-1]["R@2kt difference"] == -0.5
    (alone,) = tables(runs[0], "--published", "none")
    assert [row["run"] for row in alone["rows"]] == ["weak"]
    noted = tables(*runs, "--tables", "1", "--published", "QuiCK")[0]["notes"]
    assert any("61.3" in note and "61.6" in note for note in noted)


def test_other_languages_than_the_published_are_said(tmp_path):
    few = [question for question in QUESTIONS if question.language in ("fi", "ja")]
    path = write(tmp_path / "f.json", "few", 0.5, questions=few)
    (table,) = tables(path, "--published", "CLASS", "--tables", "1")
    assert any("other languages" in note for note in table["notes"])


@pytest.mark.parametrize(("suffix", "mark"), [("md", "| **75.0** |"), ("tex", r"\textbf{75.0}"), ("csv", "0.75")])
def test_files_are_written_in_the_form_of_their_ending(runs, suffix, mark):
    out = runs[0].with_suffix(f".{suffix}")
    assert str(out) in run(*runs, "--published", "none", "--out", out)
    assert mark in out.read_text(encoding="utf-8")


def test_the_terminal_table_holds_both(runs):
    text = run(*runs, "--published", "CLASS", "--samples", "200")
    assert "strong minus weak" in text and "Table 1" in text and "71.6" in text


def test_what_may_not_be_compared(runs, tmp_path):
    other = [Question(q.id, q.text, ("b",), q.language) for q in QUESTIONS]
    cases = {
        "other questions": write(tmp_path / "1.json", "x", 0.5, questions=other),
        "corpus is 'news'": write(tmp_path / "2.json", "x", 0.5, corpus="news"),
        "task is 'xor-full'": write(tmp_path / "3.json", "x", 0.5, task="xor-full", metric="f1"),
        "two runs have this name": write(tmp_path / "4.json", "weak", 0.5),
    }
    for message, path in cases.items():
        with pytest.raises(InputError, match=f"{path.name}: .*{message}"):
            run(runs[0], path)
    unnamed = write(tmp_path / "5.json", "unnamed", 0.5, corpus=None)
    assert any("not compared: unnamed" in note for note in tables(runs[0], unnamed)[0]["notes"])


def test_mistakes_are_named(runs, tmp_path):
    (tmp_path / "bad.json").write_text('{"id": "answer"}', encoding="utf-8")
    (tmp_path / "cut.json").write_text(runs[0].read_text(encoding="utf-8")[:-20], encoding="utf-8")
    for args, message in (
        ([tmp_path / "bad.json"], "not a report"),
        ([tmp_path / "cut.json"], r"cut\.json:\d+: not valid JSON"),
        ([runs[0], "--metrics", "R@2k"], "'R@2kt'"),
        ([runs[0], "--published", "CLAS"], "'CLASS'"),
        ([*runs, "--against", "stong"], "'strong'"),
        ([runs[0], "--languages", "sw"], "no run was scored in this language"),
        ([runs[0], "--out", tmp_path / "t.html"], "end it with"),
        ([runs[0], "--out", tmp_path / "t.md", "--format", "csv"], "leave out"),
        ([runs[0], "--tables", "one"], "tables"),
    ):
        with pytest.raises(InputError, match=message):
            run(*args)


def test_digests_ignore_order_and_see_answers():
    assert digest_questions(QUESTIONS) == digest_questions(QUESTIONS[::-1])
    assert digest_questions(QUESTIONS) != digest_questions([*QUESTIONS[:-1], Question("te19", "q", ("b",), "te")])


def test_reports_come_back_as_written(runs):
    report = read_report(runs[0])
    assert report["parts"]["retrieval"]["intervals"]["level"] == 0.95 and report["corpus"] == "wiki"
    assert len(report["parts"]["retrieval"]["by_question"]["ids"]) == len(QUESTIONS)


def test_below_rankings_are_the_published_changes_of_re_ranking(tmp_path):
    runs = [write(tmp_path / f"{i}.json", f"run{i}", 0.5, "passages", "R@5") for i in range(2)]
    *_, changes = tables(*runs)
    rows = {row["language"]: row for row in changes["rows"]}
    assert rows["ko"] == {"language": "ko", "change": "better", "metrics": "R@5, R@15", "percent": 4.0}
    assert rows["fi"]["change"] == "worse" and "arXiv 2501.04153" in changes["notes"][0]
    assert len(tables(*runs, "--published", "none")) == 2
