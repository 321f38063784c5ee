# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""How long a step takes at least: the slowest of products, memory and links between devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from class_jax.models.class_model import merge, model_graph, param_shapes
from class_jax.models.config import ModelConfig
from class_jax.objectives.batch import Batch
from class_jax.objectives.objectives import OBJECTIVES, ObjectiveConfig, add_teacher_targets
from class_jax.planning.chips import Chip
from class_jax.planning.flops import Flops, count_flops
from class_jax.planning.memory import Shape, parameters_per_device


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What the plan assumes.

    Attributes:
      efficiency: share of the chip's bfloat16 peak that products reach in a training step, those that rematerialisation
        repeats included (HFU).
      encode_efficiency: the same for encoding passages, which has no backward pass.
      links: share of the links' bandwidth that collectives reach.
      memory: share of the chip's memory that may be filled.
    """

    efficiency: float = 0.5
    encode_efficiency: float = 0.55
    links: float = 0.7
    memory: float = 0.9


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step, by what limits it; the step takes the longest of the three."""

    compute: float
    hbm: float
    links: float

    @property
    def seconds(self) -> float:
        """Of the step."""
        return max(self.compute, self.hbm, self.links)

    @property
    def limit(self) -> str:
        """What limits it: "compute", "hbm" or "links"."""
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]


@functools.cache
def step_flops(config: ModelConfig, shape: Shape, cut: bool, teacher: ModelConfig | None) -> Flops:
    """FLOPs of a step over all devices.

    Args:
      config: the model, with its remat policy. shape: of the step.
      cut: whether the batch is cut into micro-batches (how many does not matter: each is computed again once).
      teacher: of stage 1, or None.
    """
    graph = model_graph(config)
    losses = ObjectiveConfig(micro_batches=2 if cut else 1)
    B, N = shape.batch, shape.passages

    def integers(*size: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(size, jnp.int32)

    readings = shape.readings * B
    batch = Batch(
        question_ids=integers(readings, shape.question_tokens),
        question_lengths=integers(readings),
        passage_ids=integers(B, N, shape.passage_tokens),
        passage_lengths=integers(B, N),
        answer_ids=integers(readings, shape.answer_tokens),
        answer_lengths=integers(readings),
    )
    if teacher is not None:
        batch = batch._replace(
            teacher_question_ids=integers(B, shape.question_tokens),
            teacher_question_lengths=integers(B),
            teacher_passage_ids=batch.passage_ids,
            teacher_passage_lengths=batch.passage_lengths,
        )

    def step(params: dict, batch: Batch, teacher_params: dict | None) -> tuple:
        if teacher is not None:
            batch = add_teacher_targets(merge(model_graph(teacher), teacher_params), batch, losses)
        loss = OBJECTIVES[shape.objective]
        return jax.grad(lambda p: loss(merge(graph, p), batch, losses, None), has_aux=True)(params)

    return count_flops(step, param_shapes(config), batch, None if teacher is None else param_shapes(teacher))


@functools.cache
def encode_flops(config: ModelConfig, tokens: int) -> int:
    """FLOPs of encoding one passage of so many tokens."""
    graph = model_graph(config)
    ids, lengths = jax.ShapeDtypeStruct((1, tokens), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.int32)
    encode = lambda p, i, n: merge(graph, p).encode_passages(i, n).vectors  # noqa: E731
    return count_flops(encode, param_shapes(config), ids, lengths).model


def link_bytes(config: ModelConfig, shape: Shape, mesh: dict[str, int], micro_batches: int) -> float:
    """What a device sends in a step.

    Over "fsdp" every micro-batch gathers the parameters forward and backward and scatters their gradients; over "data"
    gradients are summed once more; over "tensor" every layer sums its two results, forward and backward.
    """
    held = parameters_per_device(config, mesh)
    item = jnp.dtype(config.dtype).itemsize
    fsdp, data, tensor = mesh["fsdp"], mesh["data"], mesh["tensor"]
    whole = held * fsdp  # of a device's part along "tensor"
    moved = micro_batches * (fsdp - 1) / fsdp * whole * (2 * item + 4)
    moved += 2 * (data - 1) / data * held * 4
    questions = shape.batch // (data * fsdp)
    rows = questions * shape.passages
    encoded = rows * shape.passage_tokens * config.retriever_layer
    read = rows * shape.readings * (shape.question_tokens + shape.passage_tokens) * config.num_reader_layers
    moved += 4 * 2 * (tensor - 1) / tensor * (encoded + read) * config.d_model * item
    return moved


def hbm_bytes(
    config: ModelConfig, shape: Shape, mesh: dict[str, int], micro_batches: int, residuals: dict[str, dict[str, int]]
) -> float:
    """What a device reads and writes in a step: the state once, weights for every micro-batch, intermediate results.

    The latter are written, read forward and read backward: three times what a forward pass without remat keeps.
    """
    held = parameters_per_device(config, mesh)
    questions = shape.batch // (mesh["data"] * mesh["fsdp"])
    item = jnp.dtype(config.dtype).itemsize
    weights = 3 * micro_batches * held * mesh["fsdp"] * item
    return 32 * held + weights + 3 * questions * sum(residuals["none"].values()) / mesh["tensor"]


def step_time(flops: int, links: float, hbm: float, chip: Chip, devices: int, assumptions: Assumptions) -> StepTime:
    """The three bounds of a step.

    Args:
      flops: over all devices, repeated ones included. links, hbm: bytes of one device.
      chip, devices: the machine. assumptions: what it reaches.
    """
    return StepTime(
        compute=flops / (devices * chip.tflops * 1e12 * assumptions.efficiency),
        hbm=hbm / (chip.hbm_gbps * 1e9),
        links=links / (chip.link_gbps * 1e9 * assumptions.links),
    )
