# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Memory of a training step on one device: from shapes for any size, or of a compiled step.

What is known exactly is counted from shapes: parameters, moments, gradients, and (from the traced backward pass) what a
micro-batch's forward pass keeps. What the compiler needs besides is taken as one layer's intermediate results.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

from class_jax.distributed.sharding import MESH_AXES, RULES
from class_jax.errors import InputError
from class_jax.models.class_model import Encoded, merge, model_graph, param_axes, param_shapes
from class_jax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Shape:
    """A training step's shape.

    Attributes:
      objective: "stage1" or "end_to_end".
      batch: questions (stage 1: pairs) of the global batch, B. passages: of a question, N.
      question_tokens, passage_tokens, answer_tokens: padded lengths Q, P, A.
    """

    objective: str
    batch: int = 64
    passages: int = 100
    question_tokens: int = 50
    passage_tokens: int = 200
    answer_tokens: int = 50

    @property
    def readings(self) -> int:
        """Questions read for each set of passages."""
        return 2 if self.objective == "stage1" else 1


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes on one device.

    Attributes:
      parameters: float32. moments: Adam's two. gradients: float32. teacher: its parameters.
      kept: what all passages leave for the losses and for reading, and its gradient.
      activations: of the micro-batch that needs most, with one layer's intermediate results.
    """

    parameters: int
    moments: int
    gradients: int
    teacher: int
    kept: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(dataclasses.astuple(self))


def parameters_per_device(config: ModelConfig, mesh: dict[str, int]) -> int:
    """Elements of the parameters that one device holds.

    Args:
      config: the model.
      mesh: ways along "data", "fsdp" and "tensor".

    Raises:
      InputError: if the mesh does not divide a parameter, naming it.
    """
    total = 0
    leaves = jax.tree_util.tree_leaves_with_path(param_axes(config), is_leaf=lambda x: isinstance(x, tuple))
    for (path, axes), shape in zip(leaves, jax.tree.leaves(param_shapes(config)), strict=True):
        local = 1
        for name, size in zip(axes, shape.shape, strict=True):
            ways = math.prod(mesh[axis] for axis in RULES[name])
            if size % ways:
                key = "/".join(part.key for part in path)
                raise InputError(f"{name} = {size} is not divisible by the mesh's {ways}", key=key)
            local *= size // ways
        total += local
    return total


def check_mesh(mesh: dict[str, int], devices: int, batch: int, micro_batches: int) -> None:
    """Raises InputError if a mesh does not use all devices, or does not divide the batch."""
    if set(mesh) != set(MESH_AXES) or any(ways < 1 for ways in mesh.values()):
        raise InputError(f"is {mesh}", key="mesh", remedy=f"give {', '.join(MESH_AXES)}, each at least 1")
    if math.prod(mesh.values()) != devices:
        raise InputError(
            f"{mesh} does not divide the {devices} devices", key="mesh", remedy=f"make the axes multiply to {devices}"
        )
    pieces = mesh["data"] * mesh["fsdp"] * micro_batches
    if batch % pieces:
        raise InputError(
            f"{batch} questions for {pieces // micro_batches} devices that share it, in {micro_batches} micro-batches",
            key="batch",
            remedy=f"use a multiple of {pieces}",
        )


def residual_bytes(function: Callable, *args: Any) -> int:
    """Bytes that the forward pass of `function(*args)` keeps for the backward one, its arguments left out."""

    def residuals(*args: Any) -> Any:
        return jax.vjp(function, *args)[1]  # a pytree whose leaves are what was kept

    closed = jax.make_jaxpr(residuals)(*args)
    arguments = set(closed.jaxpr.invars)
    # A parameter's conversion to bfloat16 that is kept counts; the parameter itself does not.
    kept = {id(v): v.aval for v in closed.jaxpr.outvars if not isinstance(v, Literal) and v not in arguments}
    return sum(aval.size * aval.dtype.itemsize for aval in kept.values())


def _stages(config: ModelConfig, shape: Shape) -> dict[str, int]:
    """What the two differentiated parts keep for one question with its passages, in bytes."""
    graph = model_graph(config)
    N, Q, P, A = shape.passages, shape.question_tokens, shape.passage_tokens, shape.answer_tokens
    R, D, dtype = shape.readings, config.d_model, jnp.dtype(config.dtype)

    def integers(*size: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(size, jnp.int32)

    def encode(params: Any, ids: jax.Array, lengths: jax.Array) -> Any:
        found = merge(graph, params).encode_passages(ids, lengths)
        return found.states, found.vectors

    def read(params: Any, states: tuple, lengths: tuple, answers: jax.Array) -> Any:
        model = merge(graph, params)
        sides = [Encoded(x, n, x) for x, n in zip(states, lengths, strict=True)]
        return model.decode(model.read(*sides), answers)

    params = param_shapes(config)
    encoded = residual_bytes(encode, params, integers(N, P), integers(N))
    states = (jax.ShapeDtypeStruct((R, Q, D), dtype), jax.ShapeDtypeStruct((R, N, P, D), dtype))
    lengths = (integers(R), integers(R, N))
    return {"encode": encoded, "read": residual_bytes(read, params, states, lengths, integers(R, A))}


def residuals_per_question(config: ModelConfig, shape: Shape) -> dict[str, dict[str, int]]:
    """What "encode" and "read" keep for one question, in bytes, by remat policy; the same for any mesh."""
    policies = ("none", "dots", "full")
    return {policy: _stages(dataclasses.replace(config, remat=policy), shape) for policy in policies}


def step_memory(
    config: ModelConfig,
    shape: Shape,
    mesh: dict[str, int],
    micro_batches: int,
    remat: str,
    residuals: dict[str, dict[str, int]],
    teacher: ModelConfig | None = None,
) -> StepMemory:
    """Memory of one device.

    Args:
      config: the model. shape: of the step. mesh: ways by axis. micro_batches: pieces of a device's part.
      remat: the policy. residuals: of `residuals_per_question`.
      teacher: of stage 1, or None.

    Raises:
      InputError: if the mesh does not divide the parameters.
    """
    local = parameters_per_device(config, mesh)
    questions = shape.batch // (mesh["data"] * mesh["fsdp"])
    item = jnp.dtype(config.dtype).itemsize
    states = shape.passages * shape.passage_tokens * (config.d_model * item + 4 * config.d_kv)
    found = residuals[remat]
    if remat != "none":
        # One layer's intermediate results are there while it is computed again.
        layers = {"encode": config.retriever_layer, "read": config.num_reader_layers + config.num_decoder_layers}
        found = {name: size + residuals["none"][name] // layers[name] for name, size in found.items()}
    activations = max(found.values()) if micro_batches > 1 else sum(found.values())
    per_piece = max(1, questions // micro_batches)
    return StepMemory(
        parameters=4 * local,
        moments=8 * local,
        gradients=4 * local,
        teacher=0 if teacher is None else jnp.dtype(teacher.dtype).itemsize * parameters_per_device(teacher, mesh),
        kept=2 * questions * states,
        activations=activations * per_piece // mesh["tensor"],
    )


def compiled_memory(compiled: Any) -> dict[str, int]:
    """Bytes of a compiled step by its own analysis: arguments, results, what shares their buffers, temporary ones.

    Args:
      compiled: of `jax.jit(...).lower(...).compile()`.
    """
    found = compiled.memory_analysis()
    names = ("argument_size", "output_size", "alias_size", "temp_size")
    return {name: int(getattr(found, f"{name}_in_bytes")) for name in names}
