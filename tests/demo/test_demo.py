# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The main job: whole in a few steps, and its bars at full length (slow)."""

import io
import json
import shutil

import pytest
from rich.console import Console

from class_jax.demo.encyclopaedia import QUESTION_LANGUAGES
from class_jax.demo.run import run

SHORT = [
    "STEPS = 8",
    "config.TrainConfig.evaluate_every = 8",
    "config.TrainConfig.batch_size = 4",
    "config.TrainConfig.tensorboard = False",
    "config.CheckpointConfig.every = 4",
    "evaluator.EvaluationConfig.max_questions = 21",
    "evaluator.EvaluationConfig.max_answer_tokens = 3",
]


def test_the_whole_job_in_a_few_steps(demo_folder, tmp_path):
    shutil.copytree(demo_folder / "data", tmp_path / "demo" / "data")
    printed = io.StringIO()
    table = run(tmp_path / "demo", SHORT, Console(file=printed, width=200))
    assert [row[0] for row in table.rows] == ["BM25", "untrained", "after stage 1", "after stage 2"]
    assert len(table.columns) == 1 + 2 * (len(QUESTION_LANGUAGES) + 1) + 2
    assert all(value is None for value in table.rows[0][-2:])  # BM25 answers nothing
    assert all(value is not None for row in table.rows[1:] for value in row)
    for name in ("results.md", "results.json", "results.csv", "curves.png", "stage2/model/model.safetensors"):
        assert (tmp_path / "demo" / name).stat().st_size > 0
    shown = printed.getvalue()
    assert shown.count("expected:") == 3 and "of the reader's attention" in shown
    again = run(tmp_path / "demo", SHORT, Console(file=io.StringIO()))
    assert again.rows == table.rows


@pytest.mark.slow
def test_the_bars_at_full_length(tmp_path):
    run(tmp_path / "demo", [], Console())
    table = json.loads((tmp_path / "demo" / "results.json").read_text(encoding="utf-8"))
    rows = {row["model"]: row for row in table["rows"]}
    for language in QUESTION_LANGUAGES:
        trained, bm25, untrained = (rows[k][f"R@5 {language}"] for k in ("after stage 1", "BM25", "untrained"))
        assert trained > bm25 and trained > untrained
    assert rows["after stage 2"]["macro F1"] > rows["after stage 1"]["macro F1"] + 0.1
