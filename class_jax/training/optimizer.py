# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""AdamW with warm-up and linear decay, as in the reference (paper, appendix A.1.3; public scripts)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from class_jax.models.class_model import Params


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Settings of the optimizer.

    Attributes:
      learning_rate: peak (5e-5 in the paper, 1e-4 in the released stage-1 script).
      total_steps: steps from start to a learning rate of 0.
      warmup_fraction: part of the steps in which the rate rises linearly from 0.
      weight_decay: on every parameter but the relative position biases. T5's layer norms are decayed: the reference
        exempts names with "bias" or "LayerNorm.weight", and T5's are called "layer_norm.weight".
      clip_norm: global norm to which gradients are clipped.
      b1, b2, eps: of Adam.
      retriever_rate: multiplies the learning rate of what retrieves: embeddings, relative positions, the layers before
        a question and a passage join, the queries and keys that are compared, and the dense head. 1 in the paper, which
        begins from mT5. A reader that begins from nothing sends noise through the layers that it shares with a trained
        retriever: there, less than 1 keeps what the retriever has learnt.
    """

    total_steps: int
    learning_rate: float = 5e-5
    warmup_fraction: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    retriever_rate: float = 1.0


def schedule(config: OptimizerConfig) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then linear decay to 0."""
    warmup = max(1, int(config.total_steps * config.warmup_fraction))
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.learning_rate, warmup),
            optax.linear_schedule(config.learning_rate, 0.0, max(1, config.total_steps - warmup)),
        ],
        [warmup],
    )


def decay_mask(params: Params) -> Params:
    """True for the parameters that weight decay shrinks; see `OptimizerConfig.weight_decay`."""

    def decayed(path: tuple, _: object) -> bool:
        return not any(getattr(part, "key", None) == "relative_bias" for part in path)

    return jax.tree_util.tree_map_with_path(decayed, params)


def retriever_rates(params: Params, rate: float) -> Params:
    """What multiplies each parameter's step: `rate` for those that retrieve, 1 for the others.

    The multi-vector representation is made by queries and keys of the first joint layer, which shares an array with the
    other joint layers: there the factor is an array, [layers, 1, ...].
    """

    def factor(path: tuple, leaf: jax.Array) -> float | np.ndarray:
        names = [getattr(part, "key", None) for part in path]
        if names[0] in ("embed", "dense_head") or names[:2] in (
            ["encoder", "relative_bias"],
            ["encoder", "retriever_layers"],
        ):
            return rate
        if names[:3] == ["encoder", "reader_layers", "attention"] and names[3] in ("norm", "q", "k"):
            first = np.ones((leaf.shape[0],) + (1,) * (leaf.ndim - 1), np.float32)
            first[0] = rate
            return first
        return 1.0

    return jax.tree_util.tree_map_with_path(factor, params)


def slow_retriever(rate: float) -> optax.GradientTransformation:
    """Multiplies the steps of the parameters that retrieve; see `OptimizerConfig.retriever_rate`."""
    return optax.stateless(
        lambda updates, _: jax.tree.map(lambda x, factor: x * factor, updates, retriever_rates(updates, rate))
    )


def clip(norm: float) -> optax.GradientTransformation:
    """Shrinks gradients to a global norm, where theirs is larger.

    As `optax.clip_by_global_norm`, except for rounding: one factor for all elements, by which they are multiplied where
    they are used next. A division and a choice for each element would make a second copy of all gradients.
    """
    return optax.stateless(
        lambda updates, _: optax.tree.scale(norm / jnp.maximum(optax.global_norm(updates), norm), updates)
    )


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping, then AdamW under the schedule."""
    adamw = optax.adamw(
        schedule(config), config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=decay_mask
    )
    steps = [clip(config.clip_norm), adamw]
    if config.retriever_rate != 1.0:
        steps.append(slow_retriever(config.retriever_rate))
    return optax.chain(*steps)
