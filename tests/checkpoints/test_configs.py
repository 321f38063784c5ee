# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`config.json`: every value that is read and written, and where each default applies; without JAX."""

import dataclasses
import re
import types

import pytest

from class_jax.checkpoints.configs import (
    PAPER,
    TextConfig,
    config_document,
    config_from_hf,
    config_from_shapes,
    config_to_hf,
    text_config,
)
from class_jax.errors import InputError

pytestmark = pytest.mark.core

SIZES = {"vocab_size": 17, "d_model": 6, "d_kv": 4, "d_ff": 10, "num_layers": 5, "num_heads": 8}
# Each differs from T5's and the paper's default.
SETTINGS = {
    "num_decoder_layers": 3,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": 64,
    "dropout_rate": 0.3,
    "layer_norm_epsilon": 1e-5,
    "retriever_layer": 1,
}
OTHERS = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
PLAIN = SIZES | OTHERS
MULTI = types.SimpleNamespace(**SIZES, **SETTINGS, retriever="multi_vector", retriever_head=0, dtype="bfloat16")
DENSE = types.SimpleNamespace(**vars(MULTI) | {"retriever": "dense", "retriever_head": 4})
TEXTS = TextConfig(max_question_tokens=1, max_passage_tokens=2, max_answer_tokens=3, normalise_questions=False)


def refused(key):
    return pytest.raises(InputError, match=f"^{re.escape(key)}: ")


def test_the_paper_s_lengths():
    assert dataclasses.astuple(PAPER) == (50, 200, 50, True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        PAPER.max_answer_tokens = 60


@pytest.mark.parametrize("key", ["max_question_tokens", "max_passage_tokens", "max_answer_tokens"])
@pytest.mark.parametrize("value", [0, -1, True, 1.0, "50", None])
def test_lengths_are_whole_numbers_of_at_least_1(key, value):
    assert getattr(TextConfig(**{key: 1}), key) == 1
    with refused(key):
        TextConfig(**{key: value})


@pytest.mark.parametrize("value", [1, "true", None])
def test_normalisation_is_true_or_false(value):
    with refused("normalise_questions"):
        TextConfig(normalise_questions=value)


@pytest.mark.parametrize("config", [MULTI, DENSE], ids=["multi_vector", "dense"])
def test_what_is_written_is_read(config):
    document = config_document(config, TEXTS)
    assert text_config(document) == TEXTS
    assert config_from_hf(document) == vars(config)
    assert text_config(config_document(config)) == PAPER


def test_a_document_has_what_other_programs_read():
    written = config_to_hf(MULTI)
    assert "class_jax" not in written and written.pop("retriever_head") == 0
    assert written == SIZES | SETTINGS | OTHERS | {
        "architectures": ["MT5ForConditionalGeneration"],
        "model_type": "mt5",
        "dense_act_fn": "gelu_new",
        "is_gated_act": True,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "tokenizer_class": "T5Tokenizer",
        "use_cache": True,
    }
    assert "retriever_head" not in config_to_hf(DENSE)


def test_defaults_of_a_plain_t5():
    assert config_from_hf(PLAIN) == SIZES | {
        "num_decoder_layers": 5,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6,
        "retriever_layer": 2,
        "retriever": "multi_vector",
        "retriever_head": 6,
    }
    assert text_config(PLAIN) == PAPER
    assert text_config({"class_jax": {"max_answer_tokens": 9}}) == TextConfig(max_answer_tokens=9)
    assert config_from_hf(PLAIN | {"num_heads": 6})["retriever_head"] == 5


def test_a_layer_without_a_head_is_dense():
    for name in ("retriever", "retrieval"):  # ours and ReAtt's
        dense = config_from_hf(PLAIN | {f"{name}_layer": 3})
        assert (dense["retriever"], dense["retriever_layer"]) == ("dense", 3) and "retriever_head" not in dense
        multi = config_from_hf(PLAIN | {f"{name}_layer": 3, f"{name}_head": 0})
        assert (multi["retriever"], multi["retriever_layer"], multi["retriever_head"]) == ("multi_vector", 3, 0)
    assert config_from_hf(PLAIN | {"retriever_head": 0})["retriever_layer"] == 2
    ours_first = config_from_hf(PLAIN | {"retriever_layer": 1, "retrieval_layer": 3})
    assert ours_first["retriever_layer"] == 1


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"d_kv": None}, "d_kv"),
        ({"num_heads": 8.0, "d_ff": "10"}, "d_ff, num_heads"),
        ({"feed_forward_proj": "relu"}, "feed_forward_proj"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"class_jax": [1]}, "class_jax"),
    ],
)
def test_other_models_are_refused(change, key):
    with refused(key):
        config_from_hf(PLAIN | change)


def test_missing_keys_have_t5_s_meaning():
    with refused("feed_forward_proj"):
        config_from_hf(SIZES)  # without feed_forward_proj a T5 has ReLU
    untied = {key: value for key, value in PLAIN.items() if key != "tie_word_embeddings"}
    assert config_from_hf(untied) == config_from_hf(PLAIN)
    with refused("class_jax"):
        text_config({"class_jax": "50"})


def shapes_of(heads):
    attention, bias = "encoder.block.0.layer.0.SelfAttention", "relative_attention_bias.weight"
    return {
        "shared.weight": (17, 6),
        f"{attention}.{bias}": (16, heads),
        f"{attention}.q.weight": (4 * heads, 6),
        "encoder.block.0.layer.1.DenseReluDense.wi_0.weight": (10, 6),
        "encoder.block.11.layer.0.SelfAttention.q.weight": (4 * heads, 6),
        "encoder.block.2.layer.0.SelfAttention.q.weight": (4 * heads, 6),
        "decoder.block.2.layer.0.SelfAttention.q.weight": (4 * heads, 6),
    }


def test_sizes_are_read_from_shapes():
    sizes = SIZES | {"num_layers": 12, "num_decoder_layers": 3, "relative_attention_num_buckets": 16}
    assert config_from_shapes(shapes_of(8)) == sizes | {"retriever": "multi_vector", "retriever_head": 6}
    assert config_from_shapes(shapes_of(3))["retriever_head"] == 2
    dense = shapes_of(8) | {"encoder.block.7.layer.0.SelfAttention.query_proj.weight": (9, 6)}
    assert config_from_shapes(dense) == sizes | {"retriever": "dense", "retriever_layer": 7}
    for name in list(shapes_of(8))[:4]:
        with refused(name):
            config_from_shapes({key: shape for key, shape in shapes_of(8).items() if key != name})
