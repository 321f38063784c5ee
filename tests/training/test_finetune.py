# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Fine-tuning from Python: from a model's folder to a run that opens as a model."""

import shutil

import jax
import numpy as np
import pytest
import tiny_run

from class_jax.api import CLASS
from class_jax.checkpoints.pretrained import load_pretrained, save_pretrained
from class_jax.errors import InputError
from class_jax.models import ModelConfig, create, split
from class_jax.questions.readers import read_anchor_questions, read_xor
from class_jax.training.evaluator import EvaluationConfig
from class_jax.training.finetune import finetune

CONFIG = ModelConfig(
    vocab_size=tiny_run.PIECES,
    d_model=16,
    d_kv=4,
    d_ff=16,
    num_layers=2,
    num_decoder_layers=1,
    num_heads=2,
    retriever_head=1,
    dropout_rate=0.1,
)
SETTINGS = {
    "steps": 12,
    "batch_size": 4,
    "num_passages": 3,
    "learning_rate": 1e-2,
    "refresh_every": 5,
    "progress": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, a model with random weights, and a run from it."""
    folder = tmp_path_factory.mktemp("finetune")
    tiny_run.write_data(folder)
    params = jax.device_get(jax.jit(lambda: split(create(CONFIG, 1))[1])())
    save_pretrained(folder / "model", params, CONFIG, folder / "vocabulary.model")
    evaluation = EvaluationConfig(
        questions=read_xor(folder / "heldout.jsonl"), gold=str(folder / "gold.jsonl"), ks=(1, 5), read=False
    )
    scores = finetune(
        folder / "model",
        folder / "questions.tsv",
        folder / "passages.tsv",
        folder / "run",
        evaluation=evaluation,
        **SETTINGS,
    )
    return folder, scores


def test_the_run_has_trained_and_opens_as_a_model(folder):
    folder, scores = folder
    assert list(tiny_run.losses(folder / "run")) == [10, 12]
    measured = tiny_run.metrics(folder / "run")
    assert scores["eval/R@5/macro"] == [line for line in measured if "eval/R@5/macro" in line][-1]["eval/R@5/macro"]
    assert any("refresh/version" in line for line in measured)
    before, after = load_pretrained(folder / "model"), load_pretrained(folder / "run")
    assert after.config.fingerprint == before.config.fingerprint
    assert (np.asarray(after.params["head"]["kernel"]) != np.asarray(before.params["head"]["kernel"])).any()
    model = CLASS.from_pretrained(folder / "run")
    exported = CLASS.from_pretrained(folder / "run" / "model")
    for opened in (model, exported):
        assert opened.config.d_model == CONFIG.d_model


def test_the_same_call_resumes(folder):
    """Nothing is left to do: the weights stay, whatever the questions are given as, and the passages as a store."""
    folder, _ = folder
    shutil.copytree(folder / "run", folder / "again")
    questions = list(read_anchor_questions(folder / "questions.tsv"))
    again = finetune(folder / "model", questions, folder / "run" / "store", folder / "again", **SETTINGS)
    assert again == {}
    for name in ("config.json", "model.safetensors"):
        assert (folder / "again" / "model" / name).read_bytes() == (folder / "run" / "model" / name).read_bytes()


def test_what_can_not_be_used_is_refused_before_training(folder, tmp_path):
    folder, _ = folder
    shutil.copytree(folder / "model", tmp_path / "silent")
    for name in ("spiece.model", "digests.json"):
        (tmp_path / "silent" / name).unlink()
    with pytest.raises(InputError, match=r"silent: spiece\.model: "):
        finetune(tmp_path / "silent", folder / "questions.tsv", folder / "passages.tsv", tmp_path / "x", **SETTINGS)
    with pytest.raises(InputError, match=r"nowhere\.jsonl"):
        finetune(folder / "model", tmp_path / "nowhere.jsonl", folder / "passages.tsv", tmp_path / "x", **SETTINGS)
    with pytest.raises(InputError, match="batch_size"):
        finetune(
            folder / "model",
            folder / "questions.tsv",
            folder / "passages.tsv",
            tmp_path / "x",
            micro_batches=3,
            **SETTINGS,
        )
