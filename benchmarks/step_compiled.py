# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Memory and collectives of a compiled step, on as many CPU devices as there would be accelerators."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from step_count import batch_shapes

from class_jax.distributed import sharding
from class_jax.models import param_shapes
from class_jax.objectives.objectives import ObjectiveConfig
from class_jax.planning.collectives import collectives
from class_jax.planning.memory import Shape, compiled_memory, residuals_per_question, step_memory
from class_jax.planning.roofline import link_bytes
from class_jax.training.optimizer import OptimizerConfig, make_optimizer
from class_jax.training.step import make_train_step, state_shapes


def compile_step(config, teacher, shape):
    """Compiles a step of the given shape (as `step.run_shape`) without allocating its arrays."""
    mesh = sharding.make_mesh(sharding.MeshConfig(**shape["mesh"]))
    optimizer = make_optimizer(OptimizerConfig(total_steps=1000))
    losses = ObjectiveConfig(micro_batches=shape["micro_batches"], score_chunk=shape["score_chunk"])
    taught = shape["objective"] == "stage1"
    step = make_train_step(config, shape["objective"], losses, optimizer, mesh, teacher=teacher if taught else None)
    lengths = {letter: shape[f"{letter} bucket"] for letter in "QPA"}
    cut = sharding.batch_sharding(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cut),
        batch_shapes(shape["objective"], shape["B"], shape["N"], lengths=lengths),
    )
    others = ()
    if taught:
        places = sharding.param_shardings(teacher, mesh)
        others = (jax.tree.map(_matrix, param_shapes(teacher), places),)
    with jax.set_mesh(mesh):
        return step.lower(state_shapes(config, optimizer, mesh), batch, *others).compile(), mesh


def _matrix(like: jax.ShapeDtypeStruct, place: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(like.shape, jnp.dtype(like.dtype), sharding=place)


def report(config, teacher, shape):
    """What the compiler says beside what the plan says: bytes of one device."""
    compiled, mesh = compile_step(config, teacher, shape)
    lengths = (shape[f"{letter} bucket"] for letter in "QPA")
    planned = Shape(shape["objective"], shape["B"], shape["N"], *lengths)
    ways = dict(mesh.shape)
    taught = dataclasses.replace(teacher) if shape["objective"] == "stage1" else None
    residuals = residuals_per_question(config, planned)
    memory = step_memory(config, planned, ways, shape["micro_batches"], config.remat, residuals, taught)
    return {
        "mesh": ways,
        "compiled_memory": compiled_memory(compiled),
        "planned_memory": dataclasses.asdict(memory),
        "collectives": {kind: dataclasses.asdict(one) for kind, one in collectives(compiled.as_text()).items()},
        "planned_link_bytes": link_bytes(config, planned, ways, shape["micro_batches"]),
    }
