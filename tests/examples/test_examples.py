# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Every script of `examples/` runs, on tiny things."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_model
import tiny_run

from class_jax.checkpoints.convert import open_source
from class_jax.checkpoints.pretrained import save_pretrained
from class_jax.corpus.store import build_store
from class_jax.corpus.vocabulary import Vocabulary

pytestmark = pytest.mark.core
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model, a token store and questions with answers."""
    folder = tmp_path_factory.mktemp("examples")
    tiny_run.write_data(folder)
    build_store(folder / "passages.tsv", Vocabulary.load(folder / "vocabulary.model"), folder / "store", progress=False)
    save_pretrained(folder / "model", tiny_model.random_params(), tiny_model.CONFIG, folder / "vocabulary.model")
    lines = [{"id": f"q{i}", "question": f"joki {i}", "answers": ["Onar"], "lang": "fi"} for i in range(8)]
    (folder / "xor.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def run(folder, name, *arguments):
    """What an example prints."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_answer_questions(folder):
    printed = run(folder, "answer_questions.py", "model", "store", "fi", "joki Asla", "tori Borun")
    first, second = printed.split("tori Borun ")
    assert first.startswith("joki Asla ")
    for part in (first, second):
        assert part.count("log-probability") == 1 and part.count(", attention ") == 5


def test_search_and_explain(folder):
    printed = run(folder, "search_and_explain.py", "model", "store", "fi", "joki Asla").splitlines()
    assert "rank 1, " in printed[5]
    total = float(printed[5].split("score ")[1].split(",")[0])
    parts = [float(line.split()[0]) for line in printed[6:]]
    assert parts and sum(parts) == pytest.approx(total, abs=0.01 * len(parts))


def test_fine_tune(folder):
    run(folder, "fine_tune.py", "model", "xor.jsonl", "store", "mine", 2)
    assert (folder / "mine" / "model" / "model.safetensors").stat().st_size > 0


def test_convert_weights(folder):
    assert "head 0" in run(folder, "convert_weights.py", "model", "converted", 0)
    assert open_source(folder / "converted").config.retriever_head == 0


def test_read_gin(folder):
    gin_file = tiny_run.write_gin(folder, "stage1")
    printed = run(folder, "read_gin.py", gin_file, "MODEL_DIR = 'mine'", "optimizer.OptimizerConfig.total_steps = 7")
    assert "7 steps of 4 questions" in printed and "2 layers of 32" in printed


def test_every_example_is_run():
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))
