# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Reads the parity fixtures that the PyTorch reference wrote (`tests/golden/class_reference`)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from class_jax.checkpoints.configs import config_from_hf
from class_jax.checkpoints.huggingface import to_params
from class_jax.checkpoints.tensor_files import read_tensors
from class_jax.common.files import read_json
from class_jax.models import ModelConfig
from class_jax.objectives.batch import Batch


def load(folder):
    """A checkpoint's configuration, without dropout, and its parameters."""
    config = ModelConfig(**config_from_hf(read_json(folder / "config.json")))
    config = dataclasses.replace(config, dropout_rate=0.0)
    return config, jax.tree.map(jnp.asarray, to_params(read_tensors(folder), config))


def batch_of(inputs, prefix=""):
    """A batch of the fixtures' inputs; `prefix` names the distillation's."""
    labels = inputs[f"{prefix}labels"]
    arrays = (
        inputs[f"{prefix}query_ids"],
        inputs[f"{prefix}query_mask"].sum(-1),
        inputs[f"{prefix}passage_ids"],
        inputs[f"{prefix}passage_mask"].sum(-1),
        np.maximum(labels, 0),
        (labels >= 0).sum(-1),
    )
    return Batch(*(jnp.asarray(array, jnp.int32) for array in arrays))
