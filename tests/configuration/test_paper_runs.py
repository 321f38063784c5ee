# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The files of `gin/runs/paper`: each resolves, says what was published as it was, and its step traces at full size."""

import re

import pytest
from gin_runs import MACRO, RUNS, header, must_be_set, resolved, step_key, trace_step

import gin
from class_jax.models.config import ModelConfig
from class_jax.questions.readers import XOR_LANGUAGES
from class_jax.reports.published import published

FILES = sorted(f"paper/{path.name}" for path in (RUNS / "paper").glob("*.gin"))
FIGURES = {
    *(("5", label) for label in ("-q^En", "-q^L", "-L_align", "w/ 7 langs", "w/ CS", "w/ MT")),
    *(("8", label) for label in ("CS", "MT")),
    *(("9", label) for label in ("CLASS", "CLASS w/o MLQA-PT", "CLASS w/o Pre-train")),
    ("10", "CLASS, 5 to 100 passages"),
}


def claims(name):
    """(table or figure, its number, row, what it says) of each published line of a header."""
    [block] = re.findall(r"^# Published:\n((?:#   .*\n)+)", header(name), flags=re.MULTILINE)
    text = re.sub(r"\n#     +", " ", block)
    found = re.findall(r"^#   (Table|Figure) (\d+), (.+?): (.+)$", text, flags=re.MULTILINE)
    assert found or "#   no score of this step by itself" in text, name
    return found


def printed(row):
    return ", ".join(f"{metric} {100 * values['macro']:.1f}" for metric, values in row.values.items())


@pytest.fixture(scope="module")
def configurations():
    found = {}
    for name in FILES:
        with resolved(name) as config:
            found[name] = config, gin.query_parameter("%INIT_FROM"), gin.query_parameter("%STORE")
    return found


def test_published_scores_are_those_on_record():
    """Every row of CLASS in Tables 1 to 9 is in one file, with its scores; no file claims anything else."""
    rows = [row for row in published(tables=range(1, 10)) if row.row.startswith("CLASS")]
    expected = sorted(
        (row.table, f"{row.row}, {row.group}" if row.table == 9 else row.row, printed(row)) for row in rows
    )
    claimed = [claim for name in FILES for claim in claims(name)]
    assert sorted((int(n), row, scores) for kind, n, row, scores in claimed if kind == "Table") == expected
    assert {(n, row) for kind, n, row, _ in claimed if kind == "Figure"} == FIGURES


@pytest.mark.parametrize("name", FILES)
def test_the_header_has_the_commands(name):
    text = header(name)
    run = name.removeprefix("paper/").removesuffix(".gin")
    assert f"class-jax train runs/{name} --gin.MODEL_DIR=\"'runs/paper/{run}'\"" in text
    assert "arXiv 2402.16508" in text and f"--model runs/paper/{run}/model" in text
    [expected] = re.findall(r"^# Expected: (.*)$", text, flags=re.MULTILINE)
    assert "not measured here" in expected and ("A100" in expected or "neither chips nor hours" in expected)
    for macro in must_be_set(name):
        assert macro == "MODEL_DIR" or f"--gin.{macro}=" in text, f"the command leaves {macro} out"
    # Passages of 13 languages for XOR-Full, English ones for XOR-Retrieve and MKQA's retrieval.
    tasks = {"full": "evaluate xor-full", "retrieve": "evaluate xor-retrieve", "stage1": "evaluate xor-retrieve"}
    assert tasks[run.partition("_")[0]] in text
    own = (RUNS / name).read_text(encoding="utf-8")
    assert len(own.removeprefix(text).strip().splitlines()) < 24, "a row's file holds what differs"
    assert MACRO.search(re.findall(r"^# Commonly overridden: (.*)$", text, flags=re.MULTILINE)[0])


def test_the_configurations_are_the_papers(configurations):
    steps = {"stage1": 64000, "us": 16000, "zs": 8000, "class": {"retrieve": 6000, "full": 12000}}
    for name, (config, _, _) in configurations.items():
        assert isinstance(config.model, ModelConfig) and config.model.d_model == 1024, name
        assert (config.batch_size, config.num_passages, config.losses.alpha) == (64, 100, 8.0), name
        assert config.optimizer.learning_rate == 5e-5 and config.optimizer.weight_decay == 0.01
        assert config.model.retriever == ("dense" if "dense" in name else "multi_vector")
        task, _, kind = name.removeprefix("paper/").removesuffix(".gin").partition("_")
        if "shot" in name:
            continue
        expected = steps["stage1"] if task == "stage1" else steps[kind.partition("_")[0]]
        expected = expected[task] if isinstance(expected, dict) else expected
        assert config.optimizer.total_steps == expected, name
        if task != "stage1":
            assert config.refresh.every == 1000 and config.teacher is None
        best = None if task == "stage1" or kind.startswith("us") else {"retrieve": "R@2kt", "full": "f1"}[task]
        assert config.checkpoints.best_metric == (best and f"eval/{best}/macro"), name


def test_each_row_starts_from_the_one_before_it(configurations):
    """Weights come from a row of the same retriever (and corpus, after stage 1), in the order of the paper's Figure 3."""
    order = {"stage1": 0, "us": 1, "zs": 2, "class": 3, "shots": 3, "5shot": 3}
    for name, (config, init_from, store) in configurations.items():
        task, _, kind = name.removeprefix("paper/").removesuffix(".gin").partition("_")
        assert store == ("runs/paper/data/multilingual" if task == "full" else "runs/paper/data/english")
        if init_from == "google/mt5-large":
            assert task == "stage1" or "without_pretraining" in name
            continue
        before = "paper/" + init_from.removeprefix("runs/paper/") + ".gin"
        assert before in configurations, f"{name} starts from {init_from}"
        assert configurations[before][0].model == config.model
        stage, _, earlier = before.removeprefix("paper/").removesuffix(".gin").partition("_")
        assert stage in ("stage1", task)
        now = order[kind.partition("_")[0]]
        assert (0 if stage == "stage1" else order[earlier.partition("_")[0]]) < now
        for part in ("without_stage2", "without_pretraining"):
            if part in earlier:
                assert part in kind


def test_ablations_of_stage_1(configurations):
    losses = {name: config.losses for name, (config, _, _) in configurations.items()}
    assert losses["paper/stage1_no_english_queries.gin"].queries == "parallel"
    assert losses["paper/stage1_no_target_queries.gin"].queries == "english"
    assert not losses["paper/stage1_no_alignment.gin"].align and losses["paper/stage1.gin"].align
    [questions] = configurations["paper/stage1_7_languages.gin"][0].data.questions.splits.values()
    assert f"languages={XOR_LANGUAGES}" in repr(questions)
    for name in ("paper/stage1.gin", "paper/stage1_dense.gin"):
        assert configurations[name][0].teacher.model.retriever == "multi_vector"  # ReAtt is, whatever its student is


@pytest.mark.parametrize("name", FILES)
def test_the_step_traces_at_full_size(name, configurations):
    """Rows differ in data and starting weights more than in their step, and each step is traced once."""
    trace_step(configurations[name][0])


def test_steps_differ_where_the_rows_do(configurations):
    steps = {step_key(config) for config, _, _ in configurations.values()}
    assert (
        len(steps) == 7
    )  # stage 1: whole, dense, three ablations of its objective; end to end: multi-vector and dense
