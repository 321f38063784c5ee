# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A run computes the same numbers whether its questions come from a file or from a mixture, interrupted or not."""

import pytest
import tiny_run

pytest.importorskip("seqio")

from class_jax import tasks
from class_jax.corpus.vocabulary import Vocabulary, train_vocabulary
from class_jax.questions import readers
from class_jax.questions.real_pairs import training_pairs
from class_jax.questions.table import QuestionTable

pytestmark = pytest.mark.tensorflow

FILES = {"stage1": ("class_stage1", "parallel.tsv"), "end_to_end": ("class_stage2", "questions.tsv")}


def gin_by_mixture(folder, stage):
    """The gin file of a stage, with its questions as a mixture."""
    name, file = FILES[stage]
    path = tiny_run.write_gin(folder, stage, folder / f"{stage}_by_mixture.gin")
    lines = [
        "from class_jax import tasks",
        f"tasks.mixture.name = {name!r}",
        f"tasks.mixture.files = {str(folder / file)!r}",
        "data.DataConfig.questions = @tasks.mixture()",
    ]
    path.write_text(path.read_text(encoding="utf-8") + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("by_mixture")
    tiny_run.write_data(folder / "data")
    return folder


@pytest.mark.parametrize("stage", FILES)
def test_losses_and_weights_are_the_same_to_the_bit(world, stage):
    files = {"file": tiny_run.write_gin(world / "data", stage), "mixture": gin_by_mixture(world / "data", stage)}
    shorter = {"optimizer__OptimizerConfig__total_steps": 10}
    commands = [tiny_run.arguments(file, world / f"{stage}_{by}", **shorter) for by, file in files.items()]
    for ended in tiny_run.run_in_turn(commands, cache=world / "cache"):
        assert ended.status == 0, ended.error
    by_file, by_mixture = (world / f"{stage}_{by}" for by in files)
    assert tiny_run.losses(by_mixture) == tiny_run.losses(by_file) and len(tiny_run.losses(by_file)) == 10
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (by_file, by_mixture)]
    assert weights[0] == weights[1]


def test_a_stopped_run_resumes_with_the_same_numbers(world):
    """The mixture is registered again by the second process; the whole run is that of the test above, by file."""
    file = gin_by_mixture(world / "data", "end_to_end")
    whole = tiny_run.arguments(tiny_run.write_gin(world / "data", "end_to_end"), world / "whole")
    command = tiny_run.arguments(file, world / "stopped")
    stopped = tiny_run.start(command, stop="SIGTERM write 7", cache=world / "cache")
    _, error = stopped.communicate(timeout=600)
    assert stopped.returncode == 2, error
    before = tiny_run.losses(world / "stopped")
    assert 7 <= len(before) < 20
    for ended in tiny_run.run_in_turn([command, whole], cache=world / "cache"):
        assert ended.status == 0, ended.error
    assert tiny_run.losses(world / "stopped") == tiny_run.losses(world / "whole")


@pytest.mark.parametrize(
    ("name", "file", "read"),
    [
        ("demo_stage1", "stage1/parallel.tsv", readers.read_parallel),
        ("demo_stage2", "stage2/anchor_questions.tsv", readers.read_anchor_questions),
    ],
)
def test_the_demos_questions_are_the_plain_readers(demo_folder, name, file, read):
    vocabulary = Vocabulary.load(demo_folder / "data" / "vocabulary.model")
    path = demo_folder / "data" / file
    plain = QuestionTable.from_questions(read(path), vocabulary, max_question_tokens=32)
    tasks.mixture(name, path).register(vocabulary.path)
    assert QuestionTable.from_task(name, max_question_tokens=32).fingerprint == plain.fingerprint
    assert len(plain) > 5000


def test_the_real_runs_questions_are_the_plain_readers(real_data, tmp_path):
    texts = (text for pair in training_pairs(real_data) for text in (pair.text, pair.english))
    vocabulary = train_vocabulary(texts, tmp_path / "v.model", 8000, max_texts=20000)
    plain = QuestionTable.from_questions(training_pairs(real_data), vocabulary, max_question_tokens=32)
    tasks.mixture("real_parallel", real_data).register(vocabulary.path)
    assert QuestionTable.from_task("real_parallel", max_question_tokens=32).fingerprint == plain.fingerprint
    assert len(plain) > 10000 and len(plain.languages) == 8
