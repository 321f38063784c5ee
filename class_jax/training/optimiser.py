# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""AdamW with warm-up and linear decay, as in the reference (paper, appendix A.1.3; public scripts)."""

import dataclasses

import jax
import optax

from class_jax.models.class_model import Params


@dataclasses.dataclass(frozen=True)
class OptimiserConfig:
    """Settings of the optimiser.

    Attributes:
      learning_rate: peak (5e-5 in the paper; the released stage-1 script says 1e-4).
      total_steps: steps from start to a learning rate of 0.
      warmup_fraction: part of the steps in which the rate rises linearly from 0.
      weight_decay: on every parameter but the relative position biases. T5's layer norms are decayed: the reference
        exempts names with "bias" or "LayerNorm.weight", and T5's are called "layer_norm.weight".
      clip_norm: global norm to which gradients are clipped.
      b1, b2, eps: of Adam.
    """

    total_steps: int
    learning_rate: float = 5e-5
    warmup_fraction: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8


def schedule(config: OptimiserConfig) -> optax.Schedule:
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
    """True for the parameters that weight decay shrinks; see `OptimiserConfig.weight_decay`."""

    def decayed(path: tuple, _: object) -> bool:
        return not any(getattr(part, "key", None) == "relative_bias" for part in path)

    return jax.tree_util.tree_map_with_path(decayed, params)


def make_optimiser(config: OptimiserConfig) -> optax.GradientTransformation:
    """Clipping, then AdamW under the schedule."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule(config), config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=decay_mask
        ),
    )
