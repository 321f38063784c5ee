# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The CLASS model: configuration, T5 layers, the model itself, generation.

Axis legend, used in names, docstrings and einsums throughout the project:

  B  questions in a batch            D  model width (d_model)
  N  passages of one question        H  attention heads
  M  passages in all                 K  width of one head (d_kv)
  Q  question tokens                 F  hidden width of the feed-forward layers (d_ff)
  P  passage tokens                  V  vocabulary
  T  tokens of a joint row (Q + P)   L  layers
  A  answer tokens                   E  width of a dense vector (H * K)
  S  source tokens that a layer attends to

Modules are Flax NNX in a restricted dialect: they hold parameters and the maths of one layer. All that
transforms (jit, grad, scan, checkpoint, sharding) is plain JAX on the parameter tree that `split` returns.
"""

from class_jax.models.class_model import (
    ClassModel,
    Encoded,
    Memory,
    Params,
    create,
    merge,
    model_graph,
    param_axes,
    param_shapes,
    split,
)
from class_jax.models.config import ModelConfig

__all__ = [
    "ClassModel",
    "Encoded",
    "Memory",
    "ModelConfig",
    "Params",
    "create",
    "merge",
    "model_graph",
    "param_axes",
    "param_shapes",
    "split",
]
