# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The main job: whole in a few steps, and what it must reach at full length (slow)."""

import io
import json
import re
import shutil

import pytest
from rich.console import Console
from short_demo import SHORT

from class_jax.corpus.passages import Passage
from class_jax.demo import jobs
from class_jax.demo.answers import JudgedAnswer, show_answers, spread_questions
from class_jax.demo.encyclopaedia import QUESTION_LANGUAGES
from class_jax.demo.run import run_demo
from class_jax.errors import InputError
from class_jax.questions.readers import Question


def short_run(folder, extra=SHORT):
    printed = io.StringIO()
    table = run_demo(folder, extra, Console(file=printed, width=200))
    return table, printed.getvalue()


@pytest.fixture(scope="module")
def finished(demo_folder, tmp_path_factory):
    """A short run's folder, its table and what it printed; not to be changed."""
    folder = tmp_path_factory.mktemp("job") / "demo"
    shutil.copytree(demo_folder, folder)
    return folder, *short_run(folder)


def test_the_whole_job_in_a_few_steps(finished):
    folder, table, shown = finished
    assert [row[0] for row in table.rows] == ["BM25", "untrained", "after stage 1", "after stage 2"]
    assert len(table.columns) == 1 + 2 * (len(QUESTION_LANGUAGES) + 1) + 2
    assert all(value is None for value in table.rows[0][-2:])  # BM25 answers nothing
    assert all(value is not None for row in table.rows[1:] for value in row)
    for name in ("results.md", "results.json", "results.csv", "curves.png", "stage2/model/model.safetensors"):
        assert (folder / name).stat().st_size > 0
    answers = [line for line in shown.splitlines() if "(expected: " in line]
    assert len(answers) == 9 and all(line.lstrip().startswith(("right: ", "wrong: ")) for line in answers)
    assert all(0 <= float(re.search(r"confidence ([\d.]+)", line)[1]) <= 1 for line in answers)
    right = sum(line.lstrip().startswith("right: ") for line in answers)
    assert re.search(rf"^right: {right} of 9", shown, re.MULTILINE)
    assert all(f"] {what}" in shown for what in ("stage1", "stage2", "evaluating BM25", "answering"))


def test_a_finished_job_is_not_made_again(finished, monkeypatch):
    folder, table, _ = finished
    monkeypatch.setattr(jobs, "train_from_gin", None)
    again, _ = short_run(folder)
    assert again.rows == table.rows


def test_scores_of_other_settings_are_not_taken(finished):
    folder, _, _ = finished
    with pytest.raises(InputError, match=f"{folder / 'stage1'}: settings.STEPS: "):
        short_run(folder, [*SHORT, "STEPS = 9"])


def test_a_run_that_was_begun_with_other_settings_is_not_resumed(finished, tmp_path):
    """As an older version left it: a run's folder, and no record of finished work."""
    folder = tmp_path / "demo"
    shutil.copytree(finished[0], folder)
    (folder / "work" / "stage1.json").unlink()
    with pytest.raises(InputError, match=f"{folder / 'stage1' / 'config.gin'}: settings.config.TrainConfig.batch_size"):
        short_run(folder, [*SHORT, "config.TrainConfig.batch_size = 2"])


def test_a_run_that_ended_before_its_record_was_written_keeps_its_evaluation(finished):
    folder, table, _ = finished
    scores = jobs.evaluation_of(folder / "stage2", last=True)
    headings = [column.heading for column in table.columns]
    assert table.rows[3][headings.index("macro F1")] == scores["eval/f1/macro"]
    assert table.rows[3][headings.index("R@5 fi")] == scores["eval/R@5/fi"]


def question(text, answers, language="fi"):
    return Question(id=text, text=text, language=language, answers=answers)


def judged(text, *, right, supported):
    passage = Passage("1", "Helsinki on Suomen [pääkaupunki].", "Suomi")
    return JudgedAnswer(question("Mikä?", ("Helsinki",)), text, right, 0.25, supported, [(0.9, passage)])


def test_an_answer_without_support_is_not_shown_as_a_success():
    printed = io.StringIO()
    answers = [
        judged("Helsinki", right=True, supported=True),
        judged("Helsinki", right=True, supported=False),
        judged("Turku", right=False, supported=True),
    ]
    show_answers(answers, Console(file=printed, width=200, force_terminal=True, color_system="standard"))
    good, unsupported, wrong = (line for line in printed.getvalue().splitlines() if "expected: " in line)
    green, yellow, red = "\x1b[32mright", "\x1b[33mright", "\x1b[31mwrong"
    assert green in good and yellow in unsupported and red in wrong
    assert "no passage" in unsupported and "no passage" not in good and "0.25" in wrong
    assert "right: 2 of 3 (1 of them without" in printed.getvalue()


def test_questions_are_spread_over_each_language():
    questions = [question(f"{code}{i}", (), code) for code in ("fi", "ja", "ko") for i in range(90)]
    assert spread_questions(questions, ("ja", "fi"), 3) == [105, 135, 165, 15, 45, 75]
    assert spread_questions(questions[:2], ("fi", "te"), 3) == [0, 1]


@pytest.mark.slow
def test_what_it_must_reach_at_full_length(tmp_path):
    run_demo(tmp_path / "demo", [], Console())
    table = json.loads((tmp_path / "demo" / "results.json").read_text(encoding="utf-8"))
    rows = {row["model"]: row for row in table["rows"]}
    for language in QUESTION_LANGUAGES:
        trained, bm25, untrained = (rows[k][f"R@5 {language}"] for k in ("after stage 1", "BM25", "untrained"))
        assert trained > bm25 and trained > untrained
    assert rows["after stage 2"]["macro F1"] > rows["after stage 1"]["macro F1"] + 0.1
