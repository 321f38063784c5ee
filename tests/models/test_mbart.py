# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""mBART equals the public implementation: logits, log-probabilities, greedy and beam search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_mbart

from class_jax.checkpoints.mbart_files import (
    load_mbart,
    mbart_config_from_hf,
    save_mbart,
    to_mbart_params,
    to_mbart_tensors,
)
from class_jax.checkpoints.tensor_files import read_tensors
from class_jax.common.files import read_json
from class_jax.corpus.mbart_vocabulary import MBartVocabulary
from class_jax.errors import InputError
from class_jax.models import mbart
from class_jax.models.class_model import merge

pytestmark = pytest.mark.core

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
    return merge(mbart.mbart_graph(config), jax.tree.map(jnp.asarray, params))


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
    changed = mbart_config_from_hf(content | {"activation_function": "relu", "scale_embedding": False})
    assert (changed.activation, changed.scale_embedding) == ("relu", False)
    ids, lengths = fixture["src_ids"], (fixture["src_ids"] != 1).sum(axis=1)
    other = jax.jit(merge(mbart.mbart_graph(changed), jax.tree.map(jnp.asarray, loaded[1])).encode)(ids, lengths)
    assert np.abs(np.asarray(other - encode(ids, lengths))).max() > 0.01


def test_bad_checkpoints_are_named(golden, loaded):
    tensors = dict(read_tensors(golden / "mbart" / "hf_checkpoint"))
    config = loaded[0]
    whole = to_mbart_params(tensors, config)
    assert jax.tree.map(np.shape, whole) == jax.tree.map(lambda x: x.shape, tiny_mbart.shapes(config))

    def problem(change):
        given = dict(tensors)
        change(given)
        with pytest.raises(InputError) as caught:
            to_mbart_params(given, config)
        return str(caught.value)

    name = "model.decoder.layers.1.encoder_attn.k_proj.bias"
    assert f"{name} (shape (48,)) is missing" in problem(lambda t: t.pop(name))
    assert "model.odd (shape (2,)) is unknown" in problem(lambda t: t.update({"model.odd": np.zeros(2)}))
    assert "has shape (3, 48)" in problem(lambda t: t.update({"model.shared.weight": np.zeros((3, 48))}))
    assert "lm_head.weight: differs" in problem(lambda t: t.update({"lm_head.weight": t["model.shared.weight"] + 1}))
    tied = tensors | {"lm_head.weight": tensors["model.shared.weight"]}
    assert np.array_equal(to_mbart_params(tied, config)["embed"]["embedding"], whole["embed"]["embedding"])
    with pytest.raises(InputError, match="is of type 'mt5'"):
        mbart_config_from_hf({"model_type": "mt5"})
    with pytest.raises(InputError, match="unknown value 'swish'"):
        mbart_config_from_hf(read_json(golden / "mbart/hf_checkpoint/config.json") | {"activation_function": "swish"})


def equal_trees(a, b):
    """Whether two trees have the same arrays, bit for bit."""
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(np.asarray(x), np.asarray(y)), a, b)
    return all(jax.tree.leaves(same))


@pytest.mark.parametrize("shard_bytes", [10**9, 100_000])
def test_what_is_saved_is_loaded_again(golden, loaded, tmp_path, shard_bytes):
    config, params = loaded
    save_mbart(tmp_path / "m", jax.tree.map(jnp.asarray, params), config, max_shard_bytes=shard_bytes)
    assert (len(list((tmp_path / "m").glob("*.safetensors"))) > 1) == (shard_bytes < 10**9)
    again, read, vocabulary = load_mbart(tmp_path / "m")
    assert again == config and vocabulary is None and equal_trees(read, params)
    # The tensors are those of the file that was read first.
    given, written = (read_tensors(folder) for folder in (golden / "mbart" / "hf_checkpoint", tmp_path / "m"))
    assert set(written) <= set(given) and equal_trees(dict(written), {name: given[name] for name in written})


def test_a_tree_of_other_shapes_is_not_saved(loaded, tmp_path):
    config, params = loaded
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds other things than a model's \(thesis.txt\)"):
        save_mbart(tmp_path / "m", params, config)
    wrong = params | {"logits_bias": params["logits_bias"][1:], "more": np.zeros(2)}
    problem = r"logits_bias has shape \(323,\) in the parameters but shape \(324,\).*more \(shape \(2,\)\) is unknown"
    with pytest.raises(InputError, match=problem):
        to_mbart_tensors(wrong, config)
    with pytest.raises(InputError, match="logits_bias has shape"):
        save_mbart(tmp_path / "new", wrong, config)
    assert not (tmp_path / "new").exists()


def test_a_disk_that_refuses_leaves_the_old_weights(loaded, tmp_path, monkeypatch):
    config, params = loaded
    save_mbart(tmp_path / "m", params, config)
    before = (tmp_path / "m" / "model.safetensors").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("class_jax.checkpoints.mbart_files.write_tensors", full)
    with pytest.raises(InputError, match=r"could not be written \(No space left on device\)"):
        save_mbart(tmp_path / "m", jax.tree.map(lambda x: x + 1, params), config)
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_flipped_bit_is_noticed(loaded, tmp_path):
    config, params = loaded
    save_mbart(tmp_path / "m", params, config)
    file = tmp_path / "m" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        load_mbart(tmp_path / "m")


@pytest.mark.torch
def test_transformers_loads_what_is_saved(tmp_path):
    import torch
    import transformers

    config, params = tiny_mbart.CONFIG, tiny_mbart.random_params()
    tiny_mbart.write_pieces(tmp_path / "pieces.model")
    vocabulary = MBartVocabulary(tmp_path / "pieces.model", config.vocab_size)
    save_mbart(tmp_path / "m", params, config, vocabulary)
    again, read, file = load_mbart(tmp_path / "m")
    assert again == config and equal_trees(read, params)
    assert MBartVocabulary(file, config.vocab_size).fingerprint == vocabulary.fingerprint
    public, report = transformers.MBartForConditionalGeneration.from_pretrained(
        tmp_path / "m", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    tokeniser = transformers.AutoTokenizer.from_pretrained(tmp_path / "m", src_lang="en_XX")
    ids = tokeniser("Asla is a town")["input_ids"]
    assert ids == [vocabulary.tag("en"), *vocabulary.encode("Asla is a town"), config.eos_id]
    inputs = np.array([[config.start_id, vocabulary.tag("fi"), *vocabulary.encode("a town")]])
    with torch.no_grad():
        wanted = public.eval()(input_ids=torch.tensor([ids]), decoder_input_ids=torch.from_numpy(inputs)).logits
    model = merge(mbart.mbart_graph(config), jax.tree.map(jnp.asarray, read))
    lengths = np.array([len(ids)])
    states = model.decode(model.project(model.encode(np.array([ids]), lengths), lengths), inputs, np.array([0]))
    np.testing.assert_allclose(np.asarray(model.logits(states)), wanted.numpy(), atol=TOLERANCE)
