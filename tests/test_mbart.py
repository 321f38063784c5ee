# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""mBART equals the public implementation: logits, log-probabilities, greedy and beam search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from class_jax.checkpoints.mbart_files import config_from_hf, load_mbart, to_params
from class_jax.checkpoints.tensor_files import read_tensors
from class_jax.errors import InputError
from class_jax.files import read_json
from class_jax.models import mbart
from class_jax.models.class_model import merge

# Public float32 values; "within 1e-4" is the bar, and what is met is an order of magnitude better.
TOLERANCE = 1e-4
TAG = 323


@pytest.fixture(scope="module")
def fixture(golden):
    with np.load(golden / "mbart" / "fixture.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def loaded(golden):
    config, params, vocabulary = load_mbart(golden / "mbart" / "hf_checkpoint")
    assert vocabulary is None
    return config, params


@pytest.fixture(scope="module")
def model(loaded):
    config, params = loaded
    return merge(mbart.model_graph(config), jax.tree.map(jnp.asarray, params))


@pytest.fixture(scope="module")
def encode(model):
    return jax.jit(model.encode)


@pytest.fixture(scope="module")
def memory(model, encode, fixture):
    ids = fixture["src_ids"]
    lengths = (ids != model.config.pad_id).sum(axis=1)
    assert len(set(lengths.tolist())) > 1  # padding is part of the fixture
    return jax.jit(model.project)(encode(ids, lengths), lengths)


@pytest.fixture(scope="module")
def decode(model):
    return jax.jit(lambda *given: model.logits(model.decode(*given)))


def log_probabilities(decode, memory, targets, rows):
    """Log-probability of each target token [R, A], logits."""
    inputs = np.concatenate([np.full((len(targets), 1), 2), targets[:, :-1]], axis=1)
    logits = decode(memory, inputs, np.asarray(rows))
    return np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), targets[..., None], axis=-1)[..., 0], logits


def test_logits_and_log_probabilities(decode, memory, fixture):
    targets, mask = fixture["tgt_ids"], fixture["mask"]
    found, logits = log_probabilities(decode, memory, targets, range(5))
    real = mask.astype(bool)
    np.testing.assert_allclose(np.asarray(logits)[real], fixture["logits"][real], atol=TOLERANCE)
    np.testing.assert_allclose(found * mask, fixture["token_log_probs"], atol=TOLERANCE)
    np.testing.assert_allclose((found * mask).sum(1) / mask.sum(1), fixture["mean_log_prob"], atol=TOLERANCE)
    untagged = mask[:, 1:]
    mean = (found[:, 1:] * untagged).sum(1) / untagged.sum(1)
    np.testing.assert_allclose(mean, fixture["mean_log_prob_question_only"], atol=TOLERANCE)
    assert np.abs(mean - fixture["mean_log_prob"]).max() > 100 * TOLERANCE  # the two means are different things


def test_sequences_share_a_memory(decode, memory, fixture):
    targets, rows = fixture["tgt_ids"][[3, 1, 3, 3, 3]], [3, 1, 0, 0, 0]
    found, _ = log_probabilities(decode, memory, targets, rows)
    np.testing.assert_allclose(found[:2][:, :7], fixture["token_log_probs"][[3, 1], :7], atol=TOLERANCE)
    assert np.abs(found[0] - found[2]).max() > 0.01  # another passage, other probabilities


@pytest.mark.parametrize(("beams", "name"), [(1, "greedy"), (4, "beam4")])
def test_searches(model, memory, fixture, beams, name):
    wanted = fixture[name]
    length = wanted.shape[1] - 1  # the fixture's begins with the start token
    search = jax.jit(lambda memory: mbart.generate(model, memory, length, beams, language_id=TAG))
    found = search(memory)
    assert np.array_equal(wanted[:, 0], np.full(len(wanted), model.config.start_id))
    assert np.array_equal(np.asarray(found.ids[:, 0]), wanted[:, 1:])


def test_padding_changes_nothing(encode, fixture):
    ids = fixture["src_ids"]
    lengths = (ids != 1).sum(axis=1)
    other = np.where(ids == 1, 7, ids)
    states, padded = np.asarray(encode(ids, lengths)), np.asarray(encode(other, lengths))
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(padded[row, :length], states[row, :length], atol=1e-5)


def test_activation_and_scale_come_from_the_file(golden, loaded, encode, fixture):
    content = read_json(golden / "mbart" / "hf_checkpoint" / "config.json")
    changed = config_from_hf(content | {"activation_function": "relu", "scale_embedding": False})
    assert (changed.activation, changed.scale_embedding) == ("relu", False)
    ids, lengths = fixture["src_ids"], (fixture["src_ids"] != 1).sum(axis=1)
    other = jax.jit(merge(mbart.model_graph(changed), jax.tree.map(jnp.asarray, loaded[1])).encode)(ids, lengths)
    assert np.abs(np.asarray(other - encode(ids, lengths))).max() > 0.01


def test_bad_checkpoints_are_named(golden, loaded):
    tensors = dict(read_tensors(golden / "mbart" / "hf_checkpoint"))
    config = loaded[0]
    whole = to_params(tensors, config)
    assert jax.tree.map(np.shape, whole) == jax.tree.map(lambda x: x.shape, mbart.param_shapes(config))

    def problem(change):
        given = dict(tensors)
        change(given)
        with pytest.raises(InputError) as caught:
            to_params(given, config)
        return str(caught.value)

    name = "model.decoder.layers.1.encoder_attn.k_proj.bias"
    assert f"{name} (shape (48,)) is missing" in problem(lambda t: t.pop(name))
    assert "model.odd (shape (2,)) is unknown" in problem(lambda t: t.update({"model.odd": np.zeros(2)}))
    assert "has shape (3, 48)" in problem(lambda t: t.update({"model.shared.weight": np.zeros((3, 48))}))
    assert "lm_head.weight: differs" in problem(lambda t: t.update({"lm_head.weight": t["model.shared.weight"] + 1}))
    tied = tensors | {"lm_head.weight": tensors["model.shared.weight"]}
    assert np.array_equal(to_params(tied, config)["embed"]["embedding"], whole["embed"]["embedding"])
    with pytest.raises(InputError, match="is of type 'mt5'"):
        config_from_hf({"model_type": "mt5"})
    with pytest.raises(InputError, match="unknown value 'swish'"):
        config_from_hf(read_json(golden / "mbart/hf_checkpoint/config.json") | {"activation_function": "swish"})
