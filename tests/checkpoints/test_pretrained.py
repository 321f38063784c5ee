# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Models in and out of folders, and the same numbers from transformers' mT5 over what is written."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from class_jax.checkpoints import huggingface
from class_jax.checkpoints.pretrained import load_pretrained, save_pretrained
from class_jax.errors import InputError
from class_jax.models import ModelConfig, create, merge, model_graph, split

pytestmark = pytest.mark.core

QUICK = {"xla_backend_optimization_level": 0}
TOLERANCE = 1e-4  # absolute, on logits of about 1
CONFIG = ModelConfig(
    vocab_size=64,
    d_model=32,
    d_kv=8,
    d_ff=48,
    num_layers=4,
    num_decoder_layers=2,
    num_heads=4,
    retriever_layer=3,
    retriever_head=1,
)
DENSE = dataclasses.replace(CONFIG, retriever="dense")
Q, P, A = 5, 150, 4  # longer than 128, so that every bucket of positions is used


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: split(create(CONFIG, seed=1))[1], compiler_options=QUICK)()


@pytest.fixture(scope="module")
def row():
    draw = np.random.default_rng(0)
    return draw.integers(3, CONFIG.vocab_size, Q + P), draw.integers(3, CONFIG.vocab_size, A)


@functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
def our_logits(config, params, question, passage, answer):
    model = merge(model_graph(config), params)
    questions = model.encode_questions(question[None], jnp.array([len(question)]))
    length = jnp.array([(passage > 0).sum()])
    passages = model.encode_passages(passage[None], length)
    memory = model.read(questions, jax.tree.map(lambda x: x[:, None], passages))
    return model.decode(memory, answer[None])[0][0]


@pytest.fixture(scope="module")
def theirs(params, tmp_path_factory):
    """Transformers' mT5, loaded from what `save_pretrained` writes."""
    import transformers

    folder = tmp_path_factory.mktemp("exported") / "m"
    save_pretrained(folder, params, CONFIG, max_shard_bytes=50_000)
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    model, report = transformers.MT5ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.mark.torch
def test_transformers_gives_the_same_logits_for_one_row_without_sides(params, theirs, row):
    """Its encoder knows no sides: with an empty passage, neither has ours anything to keep apart."""
    import torch

    ids, answer = row
    ours = our_logits(CONFIG, params, ids, np.zeros(1, np.int32), answer)
    with torch.no_grad():
        expected = theirs(input_ids=torch.tensor(ids)[None], labels=torch.tensor(answer)[None]).logits[0]
    np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=TOLERANCE)
    assert np.abs(expected.numpy()).max() > 0.5


@pytest.mark.torch
def test_transformers_gives_the_same_logits_for_one_joint_row(params, theirs, row):
    """Its encoder layer by layer over the whole row; in the lower ones each side is kept from seeing the other."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    ids, answer = row
    ours = our_logits(CONFIG, params, ids[:Q], ids[Q:], answer)
    is_passage = torch.arange(Q + P) >= Q
    apart = torch.where(is_passage[:, None] == is_passage[None], 0.0, -1e9)
    with torch.no_grad():
        encoder = theirs.encoder
        bias = encoder.block[0].layer[0].SelfAttention.compute_bias(Q + P, Q + P)
        states = encoder.embed_tokens(torch.tensor(ids)[None])
        for i, block in enumerate(encoder.block):
            states = block(states, position_bias=bias + apart if i < CONFIG.retriever_layer else bias)[0]
        memory = BaseModelOutput(last_hidden_state=encoder.final_layer_norm(states))
        expected = theirs(encoder_outputs=memory, labels=torch.tensor(answer)[None]).logits[0].numpy()
        joint = theirs(input_ids=torch.tensor(ids)[None], labels=torch.tensor(answer)[None]).logits[0].numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)
    assert np.abs(joint - expected).max() > 100 * TOLERANCE  # the sides matter


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_round_trip_with_vocabulary(params, tmp_path):
    tiny_run.write_vocabulary(tmp_path / "v.model")
    save_pretrained(tmp_path / "m", params, CONFIG, tmp_path / "v.model")
    config, loaded, vocabulary, _ = load_pretrained(tmp_path / "m")
    assert dataclasses.replace(config, dropout_rate=CONFIG.dropout_rate) == CONFIG
    assert_same(loaded, params)
    assert (
        vocabulary == tmp_path / "m" / "spiece.model" and vocabulary.read_bytes() == (tmp_path / "v.model").read_bytes()
    )
    save_pretrained(tmp_path / "m", jax.tree.map(lambda x: x + 1, params), CONFIG)  # in place of the old one
    _, loaded, vocabulary, _ = load_pretrained(tmp_path / "m", dtype=np.float16)
    assert vocabulary is None and loaded["head"]["kernel"].dtype == np.float16
    with pytest.raises(InputError, match=r"no\.model"):
        save_pretrained(tmp_path / "m", params, CONFIG, tmp_path / "no.model")


def test_a_folder_of_other_things_is_not_replaced(params, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds other things than a model's \(thesis.txt\) and would be replaced"):
        save_pretrained(tmp_path, params, CONFIG)
    with pytest.raises(InputError, match="holds other things"):
        save_pretrained(tmp_path / "thesis.txt", params, CONFIG)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_dense_retriever_of_weights_without_one(params, tmp_path, caplog):
    from class_jax.checkpoints.convert import Retriever

    save_pretrained(tmp_path / "m", params, CONFIG)
    config, loaded, *_ = load_pretrained(tmp_path / "m", retriever=Retriever("dense"))
    assert config.retriever == "dense" and "dense_head" in loaded
    assert "newly initialised" in caplog.text and "query_proj" in caplog.text
    save_pretrained(tmp_path / "dense", loaded, config)
    assert_same(load_pretrained(tmp_path / "dense")[1], loaded)


def test_missing_folders_have_a_remedy():
    with pytest.raises(InputError, match="no such folder; give a folder, or a Hugging Face id such as owner/name"):
        load_pretrained("no-such-model")


def test_released_fixtures_load(golden):
    for kind, part in (("multi_vector", "hf_checkpoint"), ("dense", "hf_teacher")):
        config, params, vocabulary, _ = load_pretrained(golden / "class_reference" / kind / part)
        assert config.retriever == "multi_vector" and vocabulary is None
        huggingface.check_leaves(params, config)


@pytest.mark.torch_file
def test_the_released_dense_fixture_loads(golden):
    config, params, *_ = load_pretrained(golden / "class_reference" / "dense" / "hf_checkpoint")
    assert config.retriever == "dense" and "dense_head" in params
