# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables in miniature: which runs they need, what each run is given, the comparison; and a real run of two steps."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from class_jax.configuration.gin_files import configured
from class_jax.demo import reproduce as room
from class_jax.demo.miniatures import RUNS, TABLES, Miniature, Row, Run, list_tables, needed_runs
from class_jax.demo.reproduce import compare_with_paper, reproduce, run_bindings, write_cloze
from class_jax.demo.run import gin_file, make_demo_data
from class_jax.errors import InputError
from class_jax.questions.readers import MASK, read_anchor_questions
from class_jax.training.config import TrainConfig

SHORT = (
    "config.TrainConfig.batch_size = 4",
    "evaluator.EvaluationConfig.max_questions = 7",
    "evaluator.EvaluationConfig.read = False",
)


@pytest.fixture(scope="module")
def folder(demo_folder):
    """A folder with the encyclopaedia, shared by the tests."""
    return demo_folder


@pytest.fixture(autouse=True)
def prepared(folder, monkeypatch):
    """Every folder finds the encyclopaedia already made."""

    def linked(where, phases):
        where.mkdir(parents=True, exist_ok=True)
        if not (where / "data").exists():
            (where / "data").symlink_to(folder / "data")
        return make_demo_data(folder, phases)

    monkeypatch.setattr(room, "make_demo_data", linked)


def quiet():
    return Console(file=io.StringIO(), width=150)


def test_runs_are_shared_and_come_after_those_that_they_start_from():
    assert needed_runs(TABLES["1"]) == ["stage1", "stage1_dense", "stage2", "stage2_dense"]
    assert needed_runs(TABLES["4"]) == ["stage1", "stage2", "stage2_cloze", "stage2_alone"]
    order = list(RUNS)
    for name, run in RUNS.items():
        assert run.start is None or order.index(run.start) < order.index(name)
    assert set(RUNS) == {name for table in TABLES.values() for name in needed_runs(table)}


def test_each_run_is_what_its_row_says(folder):
    def config(name):
        return configured(TrainConfig, [gin_file(RUNS[name].stage)], run_bindings(folder, name, 2, 30, SHORT))

    found = {name: config(name) for name in RUNS}
    for name, one in found.items():
        assert one.seed == 2 and one.optimizer.total_steps == one.evaluate_every == 30 and one.batch_size == 4
        assert one.model.retriever == ("dense" if "dense" in name else "multi_vector")
        start = RUNS[name].start
        assert one.init_from == (start and str(folder / start / "seed2"))
    assert found["stage1_no_english_queries"].losses.queries == "parallel"
    assert found["stage1_no_target_queries"].losses.queries == "english"
    assert not found["stage1_no_alignment"].losses.align and found["stage1"].losses.align
    assert found["stage2_alone"].head_from_embedding is None and found["stage2"].head_from_embedding == 0.1
    assert found["stage2_alone"].optimizer.retriever_rate == 1.0
    full = configured(TrainConfig, [gin_file("stage2")], run_bindings(folder, "stage2", 0, None))
    assert full.optimizer.total_steps == 600


def test_cloze_questions_are_sentences_without_their_answer(folder):
    cloze = list(read_anchor_questions(write_cloze(folder / "data")))
    questions = list(read_anchor_questions(folder / "data" / "stage2" / "anchor_questions.tsv"))
    assert [(q.id, q.answers) for q in cloze] == [(q.id, q.answers) for q in questions]
    assert all(MASK in q.text and q.answers[0] not in q.text for q in cloze)
    sentence = "Maassa nimeltä Suomi pääkaupunkina on _X_."
    asked = [q.text for q, whole in zip(questions, cloze, strict=True) if whole.text == sentence]
    assert len(asked) == 4 and "Mikä on maan Suomi pääkaupunki?" in asked
    assert any(q.text.startswith("フランスの首都は_X_") for q in cloze)


def begun(bindings):
    """Makes the folder of a run's weights; returns the run's name and seed."""
    folder = Path(dict(b.split(" = ") for b in bindings)["MODEL_DIR"].strip("'"))
    (folder / "model").mkdir(parents=True)
    return folder.parts[-2:]


def fake_scores(name, seed):
    base = {"stage2": 0.5, "stage1": 0.4, "stage2_cloze": 0.5, "stage2_alone": 0.6}[name]
    change = 0.01 * seed if name != "stage2_cloze" else 0.03 * (seed - 0.5)
    return {"eval/R@5/macro": base + change, "eval/f1/macro": 0.2 if name == "stage2" else 0.1, "eval/em/macro": 0.1}


def test_the_table_is_shown_beside_the_papers(tmp_path):
    calls = []

    def train(files, bindings):
        name, seed = begun(bindings)
        calls.append((name, seed))
        assert RUNS[name].stage in files[0]
        return fake_scores(name, int(seed.removeprefix("seed")))

    console = quiet()
    table = reproduce("4", tmp_path, seeds=2, steps=5, console=console, train=train)
    assert calls == [
        (name, f"seed{s}") for s in (0, 1) for name in ("stage1", "stage2", "stage2_cloze", "stage2_alone")
    ]
    assert "[8/8] stage2_alone, seed 1, about 0 minutes left" in console.file.getvalue()
    headings = [column.heading for column in table.columns]
    rows = {row[0]: dict(zip(headings, row, strict=True)) for row in table.rows}
    first, without, cloze, alone = rows.values()
    assert first["R@5, here mean"] == pytest.approx(0.505) and first["R@5, here ±"] == pytest.approx(0.00707, abs=1e-5)
    assert first["R@2kt, paper score"] == pytest.approx(0.665) and first["R@5 direction"] is None
    assert without["R@5, here change"] == pytest.approx(-0.1) and without["R@2kt, paper change"] == pytest.approx(
        -0.074
    )
    assert without["R@5 direction"] == "same" and without["f1 direction"] == "same"
    assert without["f1, paper change"] == pytest.approx(0.057 - 0.184)
    assert cloze["R@5 direction"] == "seeds differ" and cloze["f1 direction"] == "same"
    assert alone["R@2kt, paper change"] == pytest.approx(0.276 - 0.682) and alone["R@5 direction"] == "other"
    assert json.loads((tmp_path / "table4.json").read_text())["title"].startswith("Table 4")
    # All is there: nothing is trained again, and one more seed trains only that one.
    calls.clear()
    assert reproduce("4", tmp_path, seeds=2, steps=5, console=quiet(), train=train).rows == table.rows and not calls
    reproduce("4", tmp_path, seeds=3, steps=5, console=quiet(), train=train)
    assert {seed for _, seed in calls} == {"seed2"} and len(calls) == 4
    with pytest.raises(InputError, match=r"settings\.STEPS: "):
        reproduce("4", tmp_path, seeds=1, steps=6, console=quiet(), train=train)


def test_an_interrupted_table_resumes(tmp_path):
    done = []

    def train(files, bindings):
        if len(done) == 2 and "again" not in done:
            done.append("again")
            raise InputError("stopped by SIGINT")
        done.append(begun(bindings)[0])
        return {"eval/R@5/macro": 0.1}

    with pytest.raises(InputError, match="stopped"):
        reproduce("figure5", tmp_path, seeds=1, console=quiet(), train=train)
    table = reproduce("figure5", tmp_path, seeds=1, console=quiet(), train=train)
    assert sorted(name for name in done if name != "again") == sorted(needed_runs(TABLES["figure5"]))
    assert [row[0] for row in table.rows] == ["stage 1", "-q^En", "-q^L", "-L_align"]
    assert [column.group for column in table.columns[1:4]] == ["R@5, here"] * 3


def test_directions_need_all_seeds():
    table = TABLES["figure5"]
    scores = {row.run: [{"eval/R@5/macro": 0.5}] * 2 for row in table.rows}
    scores["stage1_no_english_queries"] = [{"eval/R@5/macro": value} for value in (0.4, 0.6)]
    scores["stage1_no_target_queries"] = [{"eval/R@5/macro": value} for value in (0.4, 0.3)]
    scores["stage1_no_alignment"] = [{"eval/R@5/macro": value} for value in (0.6, 0.7)]
    rows = compare_with_paper(table, scores).rows
    assert [row[-1] for row in rows] == [None, "seeds differ", "same", "other"]
    assert np.isclose(rows[2][3], -0.15)


def test_unknown_tables_and_scales_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"TABLE: .*'figure5'"):
        reproduce("figure 5", tmp_path)
    with pytest.raises(InputError, match="gin/runs/paper"):
        reproduce("4", tmp_path, scale="paper")
    with pytest.raises(InputError, match="seeds: "):
        reproduce("4", tmp_path, seeds=0)


def test_a_real_run_of_two_steps(tmp_path, monkeypatch):
    """Only stage 2, on cloze questions."""
    run = Run("stage2", None, RUNS["stage2_alone"].settings, cloze=True)
    monkeypatch.setitem(RUNS, "mine", run)
    monkeypatch.setitem(TABLES, "mine", Miniature("Mine", (Row("first", "mine"),)))
    table = reproduce("mine", tmp_path, seeds=1, steps=2, extra=SHORT, console=quiet())
    assert [row[0] for row in table.rows] == ["first"] and 0 <= table.rows[0][1] <= 1
    record = json.loads((tmp_path / "work" / "mine" / "seed0.json").read_text())
    assert record["result"]["eval/R@5/macro"] == table.rows[0][1] and record["seconds"] > 0
    assert (tmp_path / "mine" / "seed0" / "model").is_dir()


def test_what_can_be_reproduced_is_listed_without_jax():
    listed = "from class_jax.demo.miniatures import list_tables; print(*(row[0] for row in list_tables()))"
    script = f"{listed}; import sys; print(sorted({{'jax', 'numpy', 'gin'}} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["1 4 figure5", "[]"] and [row[2] for row in list_tables()] == [4, 4, 4]
