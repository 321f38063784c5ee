# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A plan for the paper's training on given chips: mesh, micro-batches, remat, memory, time and cost."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from class_jax.errors import InputError
from class_jax.models.config import ModelConfig
from class_jax.planning import roofline
from class_jax.planning.chips import PRICES_AS_OF, Chip
from class_jax.planning.memory import Shape, StepMemory, check_mesh, residuals_per_question, step_memory
from class_jax.planning.roofline import Assumptions, StepTime

REMAT = ("none", "dots", "full")
REFRESH_EVERY = 1000


class PaperStage(NamedTuple):
    """A stage of the paper (appendix A.1.3).

    Attributes:
      name: of the stage. objective: what it minimises. steps: how many.
      corpus: passages that are encoded. refreshed: every 1000 steps, or else once, before training, by the teacher.
    """

    name: str
    objective: str
    steps: int
    corpus: int
    refreshed: bool = True


PAPER_STAGES = (
    PaperStage("stage 1", "stage1", 64_000, 18_000_000, refreshed=False),
    PaperStage("stage 2", "end_to_end", 16_000, 18_000_000),
    PaperStage("NQ", "end_to_end", 8_000, 18_000_000),
    PaperStage("XOR-Retrieve", "end_to_end", 6_000, 18_000_000),
    PaperStage("XOR-Full", "end_to_end", 12_000, 43_000_000),
)


class Choice(NamedTuple):
    """A way to run a step: mesh, pieces, policy, and what they come to."""

    mesh: dict[str, int]
    micro_batches: int
    remat: str
    memory: StepMemory
    time: StepTime
    model_flops: int


@dataclasses.dataclass(frozen=True)
class Machine:
    """What the plan is for.

    Attributes:
      chip: of which kind. devices: how many. dollars: of one chip for an hour.
      assumptions: what the machine reaches of its peaks.
      mesh: ways by axis, or None to choose. micro_batches, remat: as wanted, or None to choose.
    """

    chip: Chip
    devices: int
    dollars: float
    assumptions: Assumptions = Assumptions()
    mesh: dict[str, int] | None = None
    micro_batches: int | None = None
    remat: str | None = None


def choose(config: ModelConfig, shape: Shape, machine: Machine, teacher: ModelConfig | None = None) -> Choice:
    """The fastest way to run a step that fits into the memory; of equally fast ones that of least memory.

    Raises:
      InputError: if the mesh divides neither devices nor batch nor parameters, or nothing fits.
    """
    residuals = residuals_per_question(config, shape)
    budget = machine.chip.hbm_gb * 1e9 * machine.assumptions.memory
    found, smallest, refused = [], None, None
    for mesh, micro_batches in _layouts(shape, machine):
        for remat in REMAT if machine.remat is None else (machine.remat,):
            try:
                memory = step_memory(config, shape, mesh, micro_batches, remat, residuals, teacher)
            except InputError as error:
                refused = error
                continue
            if smallest is None or memory.total < smallest.total:
                smallest = memory
            if memory.total > budget:
                continue
            cut = micro_batches > 1
            flops = roofline.step_flops(dataclasses.replace(config, remat=remat), shape, cut, teacher)
            links = roofline.link_bytes(config, shape, mesh, micro_batches)
            hbm = roofline.hbm_bytes(config, shape, mesh, micro_batches, residuals)
            time = roofline.step_time(flops.hardware, links, hbm, machine.chip, machine.devices, machine.assumptions)
            found.append(Choice(mesh, micro_batches, remat, memory, time, flops.model))
    if found:
        # A difference of less than a hundredth is none: the bounds are rougher than that.
        return min(found, key=lambda one: (float(f"{one.time.seconds:.2g}"), one.memory.total))
    if smallest is None:
        raise refused or InputError("no mesh divides the batch", key="batch", remedy="use another number of devices")
    raise InputError(
        f"nothing fits: at least {smallest.total / 1e9:.1f} GB of a device, {budget / 1e9:.1f} GB are there",
        key=f"{machine.devices} x {machine.chip.name}",
        remedy="use more devices, or a mesh that cuts the parameters",
    )


def _layouts(shape: Shape, machine: Machine) -> Iterator[tuple[dict[str, int], int]]:
    """Meshes (data by fsdp, or the one that was asked for) and micro-batches to try."""
    meshes = [machine.mesh]
    if machine.mesh is None:
        ways = [n for n in range(1, machine.devices + 1) if machine.devices % n == 0]
        meshes = [{"data": machine.devices // n, "fsdp": n, "tensor": 1} for n in ways if n <= machine.chip.node]
    for mesh in meshes:
        if machine.mesh is not None:
            check_mesh(mesh, machine.devices, shape.batch, machine.micro_batches or 1)
        own, rest = divmod(shape.batch, mesh["data"] * mesh["fsdp"])
        if rest or not own:
            continue
        counts = [n for n in range(1, own + 1) if own % n == 0]
        if machine.micro_batches is not None:
            counts = [n for n in counts if n == machine.micro_batches]
        for count in counts:
            yield mesh, count


def refresh_seconds(config: ModelConfig, stage: PaperStage, shape: Shape, machine: Machine) -> float:
    """Encoding a corpus again and searching the next interval's questions in it exactly, on the training's devices."""
    speed = machine.devices * machine.chip.tflops * 1e12 * machine.assumptions.encode_efficiency
    encode = stage.corpus * roofline.encode_flops(dataclasses.replace(config, remat="none"), shape.passage_tokens)
    questions = shape.batch * (REFRESH_EVERY if stage.refreshed else stage.steps)
    width = config.d_kv if config.retriever == "multi_vector" else config.num_heads * config.d_kv
    compared = shape.question_tokens * shape.passage_tokens if config.retriever == "multi_vector" else 1
    return (encode + 2 * questions * stage.corpus * compared * width) / speed


def make_plan(
    config: ModelConfig, machine: Machine, shape: Shape, teacher: ModelConfig | None = None
) -> dict[str, Any]:
    """The plan as plain numbers: for each objective how to run a step, for each stage of the paper time and cost.

    Args:
      config: the model. machine: what it runs on. shape: batch and lengths; its objective is not looked at.
      teacher: of stage 1; None takes a model of the same shape.

    Raises:
      InputError: as `choose`.
    """
    teacher = teacher or dataclasses.replace(config, remat="none")
    steps, choices = {}, {}
    for objective in ("stage1", "end_to_end"):
        one = dataclasses.replace(shape, objective=objective)
        choice = choose(config, one, machine, teacher if objective == "stage1" else None)
        choices[objective] = choice
        peak = machine.devices * machine.chip.tflops * 1e12
        steps[objective] = {
            "mesh": choice.mesh,
            "micro_batches": choice.micro_batches,
            "remat": choice.remat,
            "memory_gb": {name: size / 1e9 for name, size in dataclasses.asdict(choice.memory).items()}
            | {"total": choice.memory.total / 1e9},
            "seconds": choice.time.seconds,
            "limit": choice.time.limit,
            "bounds": dataclasses.asdict(choice.time),
            "mfu": choice.model_flops / choice.time.seconds / peak,
        }
    stages = []
    for stage in PAPER_STAGES:
        train = stage.steps * choices[stage.objective].time.seconds
        encoder = config if stage.refreshed else teacher
        times = (stage.steps - 1) // REFRESH_EVERY + 1 if stage.refreshed else 1
        refresh = times * refresh_seconds(encoder, stage, shape, machine)
        hours = (train + refresh) / 3600
        spent = {"train_hours": train / 3600, "refresh_hours": refresh / 3600, "hours": hours}
        stages.append({**stage._asdict(), **spent, "dollars": hours * machine.devices * machine.dollars})
    return {
        "chip": dataclasses.asdict(machine.chip) | {"dollars": machine.dollars, "prices_as_of": PRICES_AS_OF},
        "devices": machine.devices,
        "shape": {name: value for name, value in dataclasses.asdict(shape).items() if name != "objective"},
        "assumptions": dataclasses.asdict(machine.assumptions),
        "steps": steps,
        "stages": stages,
    }
