# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Weights that a run starts from and those that it leaves: the right step's, of the right vocabulary."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import CONFIG, random_params

from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.checkpoints.weights import best_params, load_params, with_head_from_embedding
from class_jax.errors import InputError

SCORES = {1: 0.2, 2: 0.9, 3: 0.4}


def write_run(folder, **settings):
    """A run whose step i has the weights of seed i."""
    with TrainCheckpoints(folder / "checkpoints", keep_last=3, **settings) as checkpoints:
        for step, score in SCORES.items():
            host = {"model": CONFIG.fingerprint, "vocabulary": "of this run"}
            metrics = {"recall": score} if settings else None
            checkpoints.save(step, {"params": random_params(CONFIG, step)}, host, metrics)


def same(found, seed):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), random_params(CONFIG, seed))


@pytest.mark.parametrize(("mode", "last", "seed"), [("max", 3, 2), ("min", 3, 1), ("max", 2, 9)])
def test_the_best_step_s_weights_are_handed_on(tmp_path, mode, last, seed):
    write_run(tmp_path, best_metric="recall", best_mode=mode)
    given = jax.tree.map(jnp.asarray, random_params(CONFIG, 9))
    with TrainCheckpoints(tmp_path / "checkpoints", 3, 1, "recall", mode) as checkpoints:
        same(best_params(checkpoints, last, given), seed)


def test_without_a_best_step_the_last_weights_are_handed_on(tmp_path):
    write_run(tmp_path)
    given = random_params(CONFIG, 9)
    with TrainCheckpoints(tmp_path / "checkpoints") as checkpoints:
        assert best_params(checkpoints, 4, given) is given


def test_a_run_starts_from_the_newest_weights_of_its_vocabulary(tmp_path):
    write_run(tmp_path)
    same(load_params(str(tmp_path), CONFIG), 3)
    same(load_params(str(tmp_path), CONFIG, vocabulary="of this run"), 3)
    with pytest.raises(InputError, match="vocabulary") as error:
        load_params(str(tmp_path), CONFIG, vocabulary="of another")
    assert str(tmp_path / "checkpoints" / "3") in str(error.value)
    with pytest.raises(InputError, match="embed/embedding"):
        load_params(str(tmp_path), dataclasses.replace(CONFIG, vocab_size=CONFIG.vocab_size + 1))


def test_a_head_from_the_embedding_has_its_deviation():
    made = with_head_from_embedding(random_params(CONFIG, 1), 0.05)
    embedding, kernel = np.asarray(made["embed"]["embedding"]), np.asarray(made["head"]["kernel"])
    np.testing.assert_allclose(kernel.std(), 0.05, rtol=1e-4)
    np.testing.assert_allclose(kernel / kernel.std(), embedding.T / embedding.std(), rtol=1e-4, atol=1e-6)
