# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax make-data`: Wikipedia dumps to training data."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from class_jax.commands.printing import AsJson, note, show
from class_jax.errors import InputError

if TYPE_CHECKING:
    from class_jax.synthesis.make_data import MakeDataConfig

DAMAGED = 3
"""Exit status where all was made of what could be read, but a part of the input could not."""


def make_data(
    config: Annotated[list[Path], typer.Option(help="gin file; may be given several times")],
    out: Annotated[Path, typer.Option(help="work folder")] = Path("runs/data"),
    gin: Annotated[list[str] | None, typer.Option(help="a further gin binding")] = None,
    workers: Annotated[int | None, typer.Option(help="processes; one for each 16 MB of XML if left out", min=1)] = None,
    runner: Annotated[str | None, typer.Option(help="direct, flink, spark or dataflow")] = None,
    beam: Annotated[list[str] | None, typer.Option(help="a further Beam flag: --beam=--flink_master=...")] = None,
    force: Annotated[bool, typer.Option("--force", help="make again what was made from other inputs")] = False,
    as_json: AsJson = False,
) -> None:
    """Makes pages, passages and training questions from Wikipedia dumps.

    Steps that are done are not run again: after an error, a spent budget or an endpoint that is down, the same command
    resumes. Counts are shown by stage and written to counts.json. Ends with status 3 if a part of the input was
    damaged: what is left out is counted, and reported with its byte offset in rejects-*.tsv beside the pages.
    """
    from class_jax.corpus.wikipedia.make_corpus import damage
    from class_jax.synthesis import make_data as room

    chosen = {"runner": runner, "workers": workers, "options": None if beam is None else tuple(beam)}
    configured = room.read_configuration([str(path) for path in config], gin or [], chosen)
    counts: dict[str, Mapping[str, int]] = {}
    try:
        for step, found in room.run_steps(configured, out, force=force):
            counts |= found
            note(f"{step}: done", as_json)
    except InputError:
        if counts and not as_json:
            _print(counts, configured, out)
        if counts:
            note(f"What is finished stays in {out}; the same command resumes from there.", as_json=True)
        raise
    room.keep_configuration(out)
    damaged = damage(counts)
    value = {"out": out, "counts": counts, "damaged": damaged}
    show(value, lambda: _print(counts, configured, out), as_json)
    for problem, count in damaged.items():
        typer.echo(f"damaged input: {problem} {count}", err=True)
    if damaged:
        typer.echo(f"see {out}/pages/*/rejects-*.tsv and {out}/links/rejects-*.tsv", err=True)
        raise typer.Exit(DAMAGED)


def _print(counts: Mapping[str, Mapping[str, int]], config: "MakeDataConfig", out: Path) -> None:
    from rich.console import Console

    from class_jax.synthesis.count_table import count_table, stage_count_rows
    from class_jax.synthesis.make_data import read_rate

    if counts:
        Console().print(count_table(stage_count_rows(counts, config.dumps)))
    rate = read_rate(out)
    if rate is not None:
        typer.echo(f"pages were made at {rate:.2f} MB/s per core")
