# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The optimizer: its schedule, its first step, and what `retriever_rate` slows down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from class_jax.models import ModelConfig
from class_jax.models.class_model import param_shapes
from class_jax.training.optimizer import OptimizerConfig, make_optimizer, schedule

pytestmark = pytest.mark.core

CONFIG = ModelConfig(
    vocab_size=32,
    d_model=8,
    d_kv=4,
    d_ff=8,
    num_layers=3,
    num_decoder_layers=1,
    num_heads=2,
    retriever_head=1,
    retriever_layer=1,
    retriever="dense",
)


def test_schedule_warms_up_then_decays():
    rate = schedule(OptimizerConfig(total_steps=100, learning_rate=2.0))
    assert [float(rate(step)) for step in (0, 5, 10, 55, 100)] == pytest.approx([0, 1, 2, 1, 0])


def test_first_update_of_adamw_is_clipped_decayed_and_signed():
    config = OptimizerConfig(total_steps=10, learning_rate=0.5, weight_decay=0.1)
    optimizer = make_optimizer(config)
    params = {"relative_bias": {"embedding": jnp.array([2.0])}, "norm": {"scale": jnp.array([2.0])}}
    gradients = jax.tree.map(lambda x: jnp.array([-30.0]), params)
    state = optimizer.init(params)
    first, state = optimizer.update(gradients, state, params)
    assert all(float(leaf[0]) == 0 for leaf in jax.tree.leaves(first))  # the rate starts at 0
    second, _ = optimizer.update(gradients, state, params)
    # Adam's step is the sign, times the rate; only the norm's scale decays.
    assert float(second["relative_bias"]["embedding"][0]) == pytest.approx(0.5, rel=1e-4)
    assert float(second["norm"]["scale"][0]) == pytest.approx(0.5 * (1 - 0.1 * 2), rel=1e-4)


def step_from_ones(**settings) -> dict[str, np.ndarray]:
    """How far each parameter moves from gradients of one: its name -> update."""
    optimizer = make_optimizer(OptimizerConfig(total_steps=10, learning_rate=0.1, weight_decay=0.0, **settings))

    @jax.jit
    def second_step() -> dict:
        ones = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), param_shapes(CONFIG))
        _, state = optimizer.update(ones, optimizer.init(ones), ones)  # the rate starts at 0
        return optimizer.update(ones, state, ones)[0]

    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(second_step())}


def test_what_retrieves_moves_more_slowly_where_asked():
    whole, slowed = step_from_ones(), step_from_ones(retriever_rate=0.25)
    slow = {
        name
        for name in whole
        if name.startswith(("['embed']", "['dense_head']", "['encoder']['re"))
        and not name.startswith("['encoder']['reader_layers']")
    }
    compared = tuple(f"['encoder']['reader_layers']['attention']['{name}']" for name in ("norm", "q", "k"))
    assert len(slow) == 14 and sum(name.startswith(compared) for name in whole) == 3
    for name, update in whole.items():
        factor = np.full(update.shape, 0.25 if name in slow else 1.0)
        if name.startswith(compared):
            factor[0] = 0.25  # the layer that makes the vectors; the others only read
        assert np.abs(update).min() > 0, name
        np.testing.assert_allclose(slowed[name], update * factor, rtol=1e-6, err_msg=name)
