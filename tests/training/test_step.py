# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The training step: its arithmetic against NumPy's, its dropout keys and its seeds."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from class_jax.distributed.sharding import MeshConfig, make_mesh
from class_jax.errors import InputError
from class_jax.models import ModelConfig, create, merge, model_graph, split
from class_jax.objectives.batch import Batch, Stage
from class_jax.objectives.objectives import OBJECTIVES, ObjectiveConfig, add_teacher_targets
from class_jax.training import first_state
from class_jax.training.optimizer import OptimizerConfig, make_optimizer
from class_jax.training.step import TrainState, init_state, make_train_step

CONFIG = ModelConfig(
    vocab_size=24,
    d_model=8,
    d_kv=4,
    d_ff=8,
    num_layers=2,
    num_decoder_layers=1,
    num_heads=2,
    retriever_head=1,
    dropout_rate=0.0,
)
DROPPING = dataclasses.replace(CONFIG, dropout_rate=0.3)
MESH = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])


def make_batch(seed: int) -> Batch:
    rng = np.random.default_rng(seed)

    def texts(*shape):
        lengths = rng.integers(1, shape[-1] + 1, shape[:-1])
        ids = np.where(np.arange(shape[-1]) < lengths[..., None], rng.integers(2, 24, shape), 0)
        return ids.astype(np.int32), lengths.astype(np.int32)

    return Batch(*texts(2, 4), *texts(2, 2, 5), *texts(2, 3))


@functools.cache
def compiled(config: ModelConfig, settings: OptimizerConfig):
    optimizer = make_optimizer(settings)
    return optimizer, make_train_step(config, "end_to_end", ObjectiveConfig(), optimizer, MESH)


def host_copy(tree):
    return jax.tree.map(lambda x: np.array(x), tree)  # the step takes its state's buffers


def test_three_steps_are_adamw_on_clipped_gradients_under_the_warm_up():
    settings = OptimizerConfig(
        total_steps=40, learning_rate=0.02, weight_decay=0.3, clip_norm=0.5, b1=0.8, b2=0.9, eps=1e-3
    )
    optimizer, step = compiled(CONFIG, settings)
    state = init_state(CONFIG, optimizer, MESH, seed=3)
    params = host_copy(state.params)
    graph = model_graph(CONFIG)
    gradient = jax.jit(
        jax.value_and_grad(
            lambda params, batch: OBJECTIVES[Stage.END_TO_END](merge(graph, params), batch, ObjectiveConfig(), None),
            has_aux=True,
        )
    )
    m, v = (jax.tree.map(np.zeros_like, params) for _ in range(2))
    for count in range(3):
        batch = make_batch(count)
        (loss, parts), gradients = jax.device_get(gradient(params, batch))
        norm = np.sqrt(sum(np.square(g).sum() for g in jax.tree.leaves(gradients)))
        assert norm > 2 * settings.clip_norm  # else clipping would not be seen
        state, metrics = step(state, batch)
        assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
        assert float(metrics["grad_norm"]) == pytest.approx(float(norm), rel=1e-4)
        np.testing.assert_allclose(metrics["per_question"], parts["per_question"], rtol=1e-4)
        gradients = jax.tree.map(lambda g, n=norm: g * settings.clip_norm / n, gradients)
        m = jax.tree.map(lambda m, g: 0.8 * m + 0.2 * g, m, gradients)
        v = jax.tree.map(lambda v, g: 0.9 * v + 0.1 * g * g, v, gradients)
        rate = 0.02 * count / 4  # warm-up over a tenth of 40 steps; the first step's rate is 0

        def moved(path, p, m, v, count=count, rate=rate):
            direction = m / (1 - 0.8 ** (count + 1)) / (np.sqrt(v / (1 - 0.9 ** (count + 1))) + 1e-3)
            decay = 0.0 if "relative_bias" in jax.tree_util.keystr(path) else 0.3
            return p - rate * (direction + decay * p)

        params = jax.tree_util.tree_map_with_path(moved, params, m, v)
        jax.tree.map(
            lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-4, atol=2e-6), host_copy(state.params), params
        )
    assert int(state.step) == 3


def test_every_step_draws_its_own_dropout_and_a_resumed_run_draws_the_same():
    optimizer, step = compiled(DROPPING, OptimizerConfig(total_steps=10, learning_rate=0.0))
    batch = make_batch(0)
    state = init_state(DROPPING, optimizer, MESH, seed=0)
    params = host_copy(state.params)
    losses = []
    for count in range(3):
        if count == 2:
            saved = host_copy(state)
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    jax.tree.map(np.testing.assert_array_equal, host_copy(state.params), params)  # a rate of 0 moves nothing
    assert len(set(losses)) == 3
    assert float(step(TrainState(*jax.tree.map(jnp.asarray, saved)), batch)[1]["loss"]) == losses[2]
    for seed in (0, 1):
        again = step(init_state(DROPPING, optimizer, MESH, seed=seed, params=params), batch)[1]
        assert (float(again["loss"]) == losses[0]) == (seed == 0)


def test_without_dropout_a_step_depends_on_weights_and_batch_only():
    optimizer, step = compiled(CONFIG, OptimizerConfig(total_steps=10, learning_rate=0.0))
    state = init_state(CONFIG, optimizer, MESH, seed=0)
    state, first = step(state, make_batch(0))
    assert float(step(state, make_batch(0))[1]["loss"]) == float(first["loss"])


def test_a_new_run_takes_weights_and_key_from_its_seed(monkeypatch):
    monkeypatch.setattr(first_state, "_first_lists", lambda run, params: None)
    optimizer = make_optimizer(OptimizerConfig(total_steps=10))

    def begun(seed):
        run = types.SimpleNamespace(
            config=types.SimpleNamespace(model=CONFIG, seed=seed, init_from=None),
            optimizer=optimizer,
            mesh=MESH,
            fingerprints={},
            checkpoints=types.SimpleNamespace(restore=lambda shapes, expect: None),
            feed=types.SimpleNamespace(set_lists=lambda lists, from_step: None),
        )
        return host_copy(first_state.first_state(run).state)

    one, same, other = begun(1), begun(1), begun(2)
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert (one.rng != other.rng).any()
    assert (one.params["embed"]["embedding"] != other.params["embed"]["embedding"]).any()


def test_an_unknown_stage_is_refused():
    with pytest.raises(InputError, match=r"stage: .*'stage2'.*'stage1'"):
        make_train_step(CONFIG, "stage2", ObjectiveConfig(), make_optimizer(OptimizerConfig(total_steps=1)), MESH)


def test_a_model_teaches_with_its_scores_at_a_temperature():
    taught_by = dataclasses.replace(CONFIG, d_model=12, num_layers=3)
    model = model_graph(taught_by)
    teacher_params = jax.jit(lambda: split(create(taught_by, 1))[1])()
    pairs = make_batch(0)
    batch = pairs._replace(
        question_ids=jnp.concatenate([pairs.question_ids, make_batch(1).question_ids]),
        question_lengths=jnp.concatenate([pairs.question_lengths, make_batch(1).question_lengths]),
        answer_ids=jnp.tile(pairs.answer_ids, (2, 1)),
        answer_lengths=jnp.tile(pairs.answer_lengths, 2),
        teacher_question_ids=pairs.question_ids,
        teacher_question_lengths=pairs.question_lengths,
        teacher_passage_ids=pairs.passage_ids,
        teacher_passage_lengths=pairs.passage_lengths,
    )
    optimizer = make_optimizer(OptimizerConfig(total_steps=10))
    params = host_copy(init_state(CONFIG, optimizer, MESH).params)
    losses = ObjectiveConfig()

    @jax.jit
    def expected(params, teacher_params, batch):
        given = add_teacher_targets(merge(model, teacher_params), batch, losses, 0.05)
        return OBJECTIVES[Stage.STAGE1](merge(model_graph(CONFIG), params), given, losses, None)[1]

    def made(**settings):
        return make_train_step(CONFIG, "stage1", losses, optimizer, MESH, teacher=taught_by, **settings)

    state = init_state(CONFIG, optimizer, MESH, params=params)
    # What is not given is 1: the traced programs tell, which need no compilation.
    plain, unscaled, scaled = (
        str(made(**settings).trace(state, batch, teacher_params).jaxpr)
        for settings in ({}, {"teacher_temperature": 1.0}, {"teacher_temperature": 0.05})
    )
    assert plain == unscaled != scaled
    _, metrics = made(teacher_temperature=0.05)(state, batch, teacher_params)
    parts = expected(params, teacher_params, batch)
    for name in ("distillation", "attention"):
        np.testing.assert_allclose(metrics[name], parts[name], rtol=1e-4)
