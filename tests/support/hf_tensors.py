# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Random weights in the Hugging Face layout, of a model all of whose sizes differ."""

import dataclasses

import numpy as np

from class_jax.models.config import ModelConfig

# All sizes differ, so that no transposition or mix-up of layers goes unseen.
CONFIG = ModelConfig(
    vocab_size=17,
    d_model=6,
    d_kv=4,
    d_ff=10,
    num_layers=5,
    num_decoder_layers=3,
    num_heads=2,
    relative_attention_num_buckets=8,
    retriever_layer=2,
    retriever_head=1,
)
DENSE = dataclasses.replace(CONFIG, retriever="dense")


def make_tensors(config, seed=0) -> dict[str, np.ndarray]:
    """Random tensors by Hugging Face's own naming rules, written out independently of the code under test."""
    D, inner, F, H = config.d_model, config.num_heads * config.d_kv, config.d_ff, config.num_heads
    shapes = {"shared.weight": (config.vocab_size, D), "lm_head.weight": (config.vocab_size, D)}
    for side, layers in (("encoder", config.num_layers), ("decoder", config.num_decoder_layers)):
        shapes[f"{side}.final_layer_norm.weight"] = (D,)
        shapes[f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (8, H)
        for block in range(layers):
            sublayers = ["SelfAttention", "EncDecAttention"] if side == "decoder" else ["SelfAttention"]
            for number, kind in enumerate(sublayers):
                prefix = f"{side}.block.{block}.layer.{number}"
                shapes |= {f"{prefix}.{kind}.{part}.weight": (inner, D) for part in "qkv"}
                shapes |= {f"{prefix}.{kind}.o.weight": (D, inner), f"{prefix}.layer_norm.weight": (D,)}
            prefix = f"{side}.block.{block}.layer.{len(sublayers)}"
            shapes |= {f"{prefix}.DenseReluDense.wi_{i}.weight": (F, D) for i in range(2)}
            shapes |= {f"{prefix}.DenseReluDense.wo.weight": (D, F), f"{prefix}.layer_norm.weight": (D,)}
    if config.retriever == "dense":
        prefix = f"encoder.block.{config.retriever_layer}.layer.0.SelfAttention"
        shapes |= {f"{prefix}.{part}_proj.weight": (inner, D) for part in ("query", "passage")}
        shapes[f"{prefix}.layer_norm.weight"] = (inner,)
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def same(left, right) -> bool:
    """Whether two arrays are equal bit for bit."""
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
