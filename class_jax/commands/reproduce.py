# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax reproduce TABLE`: a table of the paper in miniature, on the embedded encyclopaedia."""

import json
from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.printing import AsJson, console, note, show


def _list_tables(wanted: bool) -> None:
    if wanted:
        from class_jax.demo.miniatures import list_tables

        for name, title, runs in list_tables():
            typer.echo(f"{name}\t{title}\t{runs} runs a seed")
        raise typer.Exit


def reproduce(
    table: Annotated[str, typer.Argument(help="1, 4 or figure5")],
    scale: Annotated[str, typer.Option(help="demo: the embedded encyclopaedia")] = "demo",
    seeds: Annotated[int, typer.Option(help="runs of each row", min=1)] = 3,
    steps: Annotated[int | None, typer.Option(help="of both stages; by default 300 and 600", min=1)] = None,
    out: Annotated[Path, typer.Option(help="folder to write; tables share their runs there")] = Path("runs/reproduce"),
    gin: Annotated[list[str] | None, typer.Option(help="a further gin binding for all runs")] = None,
    as_json: AsJson = False,
    _list: Annotated[
        bool, typer.Option("--list", callback=_list_tables, is_eager=True, help="print the tables that there are")
    ] = False,
) -> None:
    """Trains every row of a table over several seeds, and prints mean and spread beside the paper's numbers.

    A run takes about two thirds as long as a stage of `make demo`. Interrupted, the same command resumes.
    """
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.demo.reproduce import reproduce as run

    made = run(table, out, scale=scale, seeds=seeds, steps=steps, extra=gin or (), console=console(as_json))
    show(json.loads(made.json()), made.print, as_json)
    note(str(out / f"table{table}.md"), as_json)
