# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The training state and the training step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from class_jax.distributed import sharding
from class_jax.models.class_model import Params, create, merge, model_graph, param_shapes, split
from class_jax.models.config import ModelConfig
from class_jax.objectives.batch import Batch, Stage
from class_jax.objectives.objectives import OBJECTIVES, Metrics, ObjectiveConfig, add_teacher_targets

# A CPU's compiler orders operations so that as many as possible may run at once: the zeros to which an embedding's
# gradient is added are made first and kept all the while. Scheduled by memory, the step needs half as much. Not on
# several devices of one process: with it, eight once deadlocked, two of them in different collectives.
SINGLE_CPU_OPTIONS = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


class TrainState(NamedTuple):
    """What a step carries over.

    Attributes:
      step: steps taken, int32 scalar.
      params: parameter tree, float32.
      optimizer: state of the optimizer.
      rng: raw PRNG key of the run, uint32 [2]; a step's dropout key is this folded with its number.
    """

    step: jax.Array
    params: Params
    optimizer: optax.OptState
    rng: jax.Array


TrainStep = Callable[..., tuple[TrainState, Metrics]]
"""`state, metrics = step(state, batch)`, or `step(state, batch, teacher_params)` where a model teaches."""


def state_shardings(config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shardings of the training state."""
    everywhere = sharding.replicated(mesh)
    params = sharding.param_shardings(config, mesh)
    return TrainState(everywhere, params, sharding.optimizer_shardings(optimizer, config, mesh), everywhere)


def init_state(
    config: ModelConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    seed: int = 0,
    params: Params | None = None,
) -> TrainState:
    """A fresh state, made in place on the mesh; `params` (host or device arrays) replace the random ones."""

    def make(params: Params | None) -> TrainState:
        if params is None:
            params = split(create(config, seed))[1]
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.random.PRNGKey(seed))

    return jax.jit(make, out_shardings=state_shardings(config, optimizer, mesh))(params)


def state_shapes(config: ModelConfig, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of the state; allocates nothing."""
    params = param_shapes(config)
    key = jax.eval_shape(lambda: jax.random.PRNGKey(0))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    shapes = TrainState(step, params, jax.eval_shape(optimizer.init, params), key)
    return jax.tree.map(
        lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place),
        shapes,
        state_shardings(config, optimizer, mesh),
    )


def make_train_step(
    config: ModelConfig,
    stage: Stage | str,
    objective_config: ObjectiveConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    teacher: ModelConfig | None = None,
    teacher_temperature: float = 1.0,
) -> TrainStep:
    """The compiled step: `state, metrics = step(state, batch)`; the old state's buffers are reused.

    Args:
      config: the model.
      stage: which objective is minimised; see `class_jax.objectives.objectives`.
      objective_config: settings of the losses.
      optimizer: from `make_optimizer`.
      mesh: the device mesh; the batch is cut along its first axis, scores and means are over the global batch.
      teacher: the model that teaches stage 1; the step is then `step(state, batch, teacher_params)`: its parameters are
        sharded as the student's and only read, and the batch has the texts that the teacher reads.
      teacher_temperature: divides that teacher's scores.

    Returns:
      The step. Metrics are scalars (loss, its parts, grad_norm), and per_question [B] for naming a bad question.

    Raises:
      InputError: for an unknown stage, or a mesh that does not divide a parameter.
    """
    graph = model_graph(config)
    loss_function = OBJECTIVES[Stage.parse(stage)]
    teacher_graph = None if teacher is None else model_graph(teacher)

    def step(state: TrainState, batch: Batch, *teacher_params: Params) -> tuple[TrainState, Metrics]:
        if teacher is not None:
            teacher_model = merge(teacher_graph, *teacher_params)
            batch = add_teacher_targets(teacher_model, batch, objective_config, teacher_temperature)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        key = None if config.dropout_rate == 0.0 else key

        def loss(params: Params) -> tuple[jax.Array, Metrics]:
            return loss_function(merge(graph, params), batch, objective_config, key)

        (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {"loss": value, "grad_norm": optax.global_norm(gradients)}
        return TrainState(state.step + 1, params, optimizer_state, state.rng), metrics

    shardings = state_shardings(config, optimizer, mesh)
    teacher_shardings = () if teacher is None else (sharding.param_shardings(teacher, mesh),)
    single_cpu = mesh.size == 1 and mesh.devices.item().platform == "cpu"
    compiled = jax.jit(
        step,
        compiler_options=SINGLE_CPU_OPTIONS if single_cpu else None,
        in_shardings=(shardings, sharding.batch_sharding(mesh), *teacher_shardings),
        out_shardings=(shardings, sharding.replicated(mesh)),
        donate_argnums=0,
    )

    def run(state: TrainState, batch: Batch, *teacher_params: Params) -> tuple[TrainState, Metrics]:
        with jax.set_mesh(mesh):
            return compiled(state, batch, *teacher_params)

    run.lower, run.trace = compiled.lower, compiled.trace
    return run
