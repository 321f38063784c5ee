# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Unsupervised SimCSE: the loss by hand, training that learns, resuming, and the gin run."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import linked_wiki
import numpy as np
import pytest
import tiny_model
import tiny_run

import gin
from class_jax.checkpoints.pretrained import load_pretrained
from class_jax.configuration.gin_files import parse
from class_jax.errors import InputError
from class_jax.models import merge, model_graph
from class_jax.synthesis.stage1 import simcse
from class_jax.synthesis.stage1.embedders import SimcseEmbedder
from class_jax.training.optimizer import OptimizerConfig

STEPS = 60
GIN = "gin/synthesis/simcse.gin"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simcse")
    tiny_run.write_vocabulary(folder / "vocabulary.model")
    sentences = [s.strip() for p in tiny_run.passages() for s in p.text.split(".") if s.strip()]
    (folder / "sentences.txt").write_text("".join(f"{s}.\n" for s in sentences), encoding="utf-8")
    return simcse.SimcseConfig(
        model=dataclasses.replace(tiny_model.CONFIG, dropout_rate=0.1),
        optimizer=OptimizerConfig(total_steps=STEPS, learning_rate=1e-2, weight_decay=0.0),
        vocabulary=str(folder / "vocabulary.model"),
        sentences=str(folder / "sentences.txt"),
        batch_size=16,
        max_tokens=24,
        min_words=3,
        buckets=(24,),
        checkpoint_every=20,
        log_every=1,
        progress=False,
    )


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, simcse.train_simcse(str(folder), config)


@pytest.fixture(scope="module")
def untrained(config, tmp_path_factory):
    """The model of a run that changes nothing."""
    folder = tmp_path_factory.mktemp("untrained")
    still = OptimizerConfig(total_steps=1, learning_rate=0.0)
    simcse.train_simcse(str(folder), dataclasses.replace(config, optimizer=still))
    return folder / "model"


def logged(folder, name):
    return [json.loads(line)[name] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return logged(folder, "loss")


def test_the_loss_against_its_formula():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, 4)).astype(np.float32)
    expected = 0.0
    for i in range(5):
        cosines = [first[i] @ second[j] / np.linalg.norm(first[i]) / np.linalg.norm(second[j]) / 0.05 for j in range(5)]
        expected -= (cosines[i] - np.log(np.exp(cosines).sum())) / 5
    loss, _ = simcse.simcse_loss(jnp.array(first), jnp.array(second), 0.05)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    loss, accuracy = simcse.simcse_loss(jnp.eye(4), 3 * jnp.eye(4), 0.05)
    assert loss < 1e-6 and accuracy == 1.0
    assert simcse.simcse_loss(jnp.eye(4), jnp.eye(4)[::-1], 0.05)[1] == 0.0
    # A sentence of no tokens has a zero vector; its gradient must stay finite.
    gradient = jax.grad(lambda x: simcse.simcse_loss(x, jnp.eye(2), 0.05)[0])(jnp.zeros((2, 2)))
    assert jnp.isfinite(gradient).all()


def test_padding_and_dropout(config):
    model = merge(model_graph(config.model), tiny_model.random_params(config.model))
    ids = jnp.array([[5, 6, 7, 0, 0, 0]])
    vectors = simcse.sentence_vectors(model, ids, jnp.array([3]))
    np.testing.assert_allclose(
        vectors, simcse.sentence_vectors(model, ids[:, :3], jnp.array([3])), rtol=1e-4, atol=1e-5
    )
    dropped = [simcse.sentence_vectors(model, ids, jnp.array([3]), jax.random.key(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert jnp.abs(dropped[0] - dropped[2]).max() > 1e-3 < jnp.abs(dropped[0] - vectors).max()


def test_training_separates_sentences(config, trained, untrained):
    folder, metrics = trained
    found = losses(folder)
    assert len(found) == STEPS and np.mean(found[-5:]) < 0.5 * np.mean(found[:5])
    accuracy = logged(folder, "accuracy")
    assert np.mean(accuracy[-5:]) > np.mean(accuracy[:5]) + 0.05 and metrics["accuracy"] == accuracy[-1]
    # Sentences that lack their last word still find themselves, and better than before training.
    texts = sorted(set(simcse.read_sentences(config.sentences)))[:40]
    cut = [text.rsplit(" ", 1)[0] for text in texts]

    def gap(folder):
        embedder = SimcseEmbedder(folder, batch=40, max_tokens=24)
        similarity = embedder.embed(texts, "en") @ embedder.embed(cut, "en").T
        return np.diagonal(similarity).mean() - similarity[~np.eye(len(texts), dtype=bool)].mean()

    assert gap(str(folder / "model")) > gap(str(untrained)) + 0.05


def test_only_the_encoder_is_trained(trained, untrained):
    _, params, vocabulary, _ = load_pretrained(trained[0] / "model")
    _, first, *_ = load_pretrained(untrained)
    assert vocabulary is not None
    changed = {name: not jax.tree.all(jax.tree.map(np.array_equal, params[name], first[name])) for name in params}
    assert changed == {name: name in simcse.TRAINED for name in params}


def test_a_run_that_was_stopped_resumes_as_if_it_had_not(config, trained, tmp_path, monkeypatch):
    report = simcse._report

    def killed(log, done, *rest):
        report(log, done, *rest)
        if done == 29:
            raise KeyboardInterrupt
        return {}

    monkeypatch.setattr(simcse, "_report", killed)
    with pytest.raises(KeyboardInterrupt):
        simcse.train_simcse(str(tmp_path), config)
    monkeypatch.setattr(simcse, "_report", report)
    assert len(losses(tmp_path)) == 29
    simcse.train_simcse(str(tmp_path), config)
    assert losses(tmp_path) == losses(trained[0])
    with pytest.raises(InputError, match="sentences"):
        simcse.train_simcse(str(tmp_path), dataclasses.replace(config, seed=1))


def test_sentences_are_drawn_by_seed_and_epoch(config):
    vocabulary = simcse.Vocabulary.load(config.vocabulary)
    texts = list(simcse.read_sentences(config.sentences))
    one, two = (simcse.Sentences(iter(texts), vocabulary, config) for _ in range(2))
    steps = len(one) // 16
    for step in (0, steps, 3 * steps + 1):
        for a, b in zip(one.batch(step), two.batch(step), strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.batch(0)[0], one.batch(steps)[0])  # another epoch, another order
    epoch = np.concatenate([one.batch(step)[0] for step in range(steps)])
    assert len(epoch) == 16 * steps and epoch.shape[1] == 24
    few = simcse.Sentences(iter(texts), vocabulary, dataclasses.replace(config, max_sentences=20))
    assert len(few) == 20


def test_bad_input(config, tmp_path):
    (tmp_path / "few.txt").write_text(
        "A sentence of five words.\nToo short.\n\n日本語の長い文章です。\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match=r"few\.txt: .*\b16\b"):
        simcse.train_simcse(str(tmp_path), dataclasses.replace(config, sentences=str(tmp_path / "few.txt")))
    with pytest.raises(InputError, match="dropout_rate: "):
        dataclasses.replace(config, model=dataclasses.replace(config.model, dropout_rate=0.0))
    with pytest.raises(InputError, match=r"SimcseConfig\.batch_size: "):
        dataclasses.replace(config, batch_size=1)
    linked_wiki.write_pages(tmp_path)
    assert "Ruotsi on maa." in list(simcse.read_sentences(tmp_path / "pages" / "fi"))


def test_the_gin_run(monkeypatch, capsys):
    monkeypatch.chdir(tiny_run.REPOSITORY)
    text = (tiny_run.REPOSITORY / GIN).read_text(encoding="utf-8")
    for part in ("Reproduces", "Command", "Expected", "Must be set", "Commonly overridden"):
        assert re.search(rf"^# {part}: \S", text, flags=re.MULTILINE), part
    parse([GIN], ["MODEL_DIR = 'runs/test'", "SENTENCES = 'somewhere'"])
    found = gin.get_configurable(simcse.SimcseConfig)()
    assert found.model.d_model == 768 and found.temperature == 0.05 and found.init_from == "google/mt5-base"
    assert simcse.main([f"--gin_file={GIN}", "--gin.MODEL_DIR='x'"]) == 2
    assert "SENTENCES: is not set" in capsys.readouterr().err
    assert simcse.main([f"--gin_file={GIN}", "--gin.SENTENCES='nowhere.txt'"]) == 2
    assert capsys.readouterr().err.startswith("error: MODEL_DIR: is not set")
    gin.clear_config()
