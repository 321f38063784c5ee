# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax plan`: what the paper's training takes on given chips, before anyone pays for them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from class_jax.commands.printing import AsJson, show


def plan(
    size: Annotated[str, typer.Option(help="file of gin/models")] = "large",
    chip: Annotated[str, typer.Option(help="v4, v5e, v5p, v6e, a100, h100, h200 or b200")] = "h200",
    devices: Annotated[int, typer.Option(help="number of chips", min=1)] = 8,
    mesh: Annotated[
        str | None, typer.Option(help="data,fsdp,tensor in place of the best (tensor is never chosen)")
    ] = None,
    micro_batches: Annotated[int | None, typer.Option(help="pieces of a device's part of the batch", min=1)] = None,
    remat: Annotated[str | None, typer.Option(help="none, dots or full")] = None,
    batch: Annotated[int, typer.Option(help="questions (stage 1: pairs) a step", min=1)] = 64,
    passages: Annotated[int, typer.Option(help="passages of a question", min=1)] = 100,
    question_tokens: Annotated[int, typer.Option(help="to which questions are padded", min=1)] = 50,
    passage_tokens: Annotated[int, typer.Option(help="to which passages are padded", min=1)] = 200,
    answer_tokens: Annotated[int, typer.Option(help="to which answers are padded", min=1)] = 50,
    dtype: Annotated[str, typer.Option(help="of the matrix products: bfloat16 or float32")] = "bfloat16",
    efficiency: Annotated[
        float, typer.Option(help="share of the peak that a step's products reach", min=0.01, max=1)
    ] = 0.5,
    encode_efficiency: Annotated[float, typer.Option(help="the same for encoding", min=0.01, max=1)] = 0.55,
    price: Annotated[
        float | None, typer.Option(help="dollars of a chip for an hour, in place of a rough one", min=0)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON to write")] = None,
    as_json: AsJson = False,
) -> None:
    """Recommends mesh, micro-batches and remat; estimates memory, time and cost of the paper's stages by a roofline."""
    import dataclasses

    from class_jax.common.files import write_json
    from class_jax.errors import InputError, nearest
    from class_jax.planning.chips import find_chip
    from class_jax.planning.memory import Shape
    from class_jax.planning.plan import REMAT, Machine, make_plan
    from class_jax.planning.roofline import Assumptions
    from class_jax.planning.sizes import model_config

    config = dataclasses.replace(model_config(size), dtype=dtype, dropout_rate=0.0)
    if remat is not None and remat not in REMAT:
        raise InputError(f"unknown value {remat!r}", key="--remat", remedy=nearest(remat, REMAT))
    found = find_chip(chip)
    dollars = found.dollars if price is None else price
    assumptions = Assumptions(efficiency=efficiency, encode_efficiency=encode_efficiency)
    machine = Machine(found, devices, dollars, assumptions, _mesh(mesh), micro_batches, remat)
    shape = Shape("end_to_end", batch, passages, question_tokens, passage_tokens, answer_tokens)
    made = {"size": size, **make_plan(config, machine, shape)}
    if out is not None:
        write_json(out, made)
    show(made, lambda: _print(made), as_json)


def _mesh(text: str | None) -> dict[str, int] | None:
    from class_jax.distributed.sharding import MESH_AXES
    from class_jax.errors import InputError

    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != len(MESH_AXES) or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"is {text!r}", key="--mesh", remedy="give data,fsdp,tensor, such as 1,8,1")
    return dict(zip(MESH_AXES, map(int, parts), strict=True))


def _print(made: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=118)
    chip, shape, assumed = made["chip"], made["shape"], made["assumptions"]
    table = Table(
        title=f"{made['size']} on {made['devices']} x {chip['name']}: a step of {shape['batch']} x {shape['passages']}"
    )
    for column in (
        "objective",
        "data, fsdp, tensor",
        "micro-batches",
        "remat",
        "GB a device",
        "step s",
        "limit",
        "MFU",
    ):
        table.add_column(column, justify="right")
    for objective, step in made["steps"].items():
        layout = ", ".join(str(ways) for ways in step["mesh"].values())
        numbers = (f"{step['memory_gb']['total']:.1f} of {chip['hbm_gb']}", f"{step['seconds']:.2f}", step["limit"])
        table.add_row(objective, layout, str(step["micro_batches"]), step["remat"], *numbers, f"{step['mfu']:.0%}")
    console.print(table)
    table = Table(title="the paper's stages")
    for column in ("stage", "steps", "training h", "refresh h", "in all h", "dollars"):
        table.add_column(column, justify="right")
    names = ("train_hours", "refresh_hours", "hours")
    for stage in made["stages"]:
        table.add_row(
            stage["name"], str(stage["steps"]), *(f"{stage[name]:.1f}" for name in names), f"{stage['dollars']:.0f}"
        )
    totals = [sum(stage[name] for stage in made["stages"]) for name in (*names, "dollars")]
    table.add_row("in all", "", *(f"{value:.1f}" for value in totals[:3]), f"{totals[3]:.0f}")
    console.print(table)
    console.print(
        f"Projected, not measured: lengths padded to {shape['question_tokens']}/{shape['passage_tokens']}/"
        f"{shape['answer_tokens']}; products reach "
        f"{assumed['efficiency']:.0%} of {chip['tflops']:g} TFLOP/s in training, "
        f"{assumed['encode_efficiency']:.0%} in encoding; ${chip['dollars']:g} a chip-hour (round figures of "
        f"{chip['prices_as_of']}; set --price)."
    )
