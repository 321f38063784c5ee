# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A model small enough for the tests, over the vocabulary of `tiny_run`, with weights that take no compiling to make."""

import jax
import numpy as np
import tiny_run

from class_jax.models import ModelConfig, param_shapes

CONFIG = ModelConfig(
    vocab_size=tiny_run.PIECES,
    d_model=16,
    d_kv=8,
    d_ff=24,
    num_layers=2,
    num_decoder_layers=1,
    num_heads=2,
    retriever_head=1,
)


def random_params(config=CONFIG, seed=1):
    """Random parameters; the scale makes answers differ between questions."""
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        scale = np.ones(shape.shape) if "scale" in jax.tree_util.keystr(path) else rng.normal(0, 0.4, shape.shape)
        return scale.astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, param_shapes(config))
