# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax doctor`: what is installed, and what is missing for which purpose."""

from typing import Any

import typer

from class_jax.commands.printing import AsJson, show

BROKEN = 1
"""Exit status where something that the core needs is missing or does not fit."""


def doctor(as_json: AsJson = False) -> None:
    """Prints versions, devices, the optional packages that are there, and the compilation cache.

    Ends with status 1 if something that loading a model and answering needs is missing or of a wrong version.
    """
    from class_jax.common.installation import inspect

    found = inspect()
    show(found, lambda: _print(found), as_json)
    if not found["ok"]:
        raise typer.Exit(BROKEN)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    def rows(pairs: list[tuple[str, str]]) -> Table:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name, text in pairs:
            table.add_row(name, text)
        return table

    console = Console(highlight=False)
    versions = [(name, version or "[dim]not installed[/dim]") for name, version in found["versions"].items()]
    console.print(rows([("Python", found["python"]), *versions]))
    console.print()
    devices = [f"{d['kind']}{_memory(d['memory_bytes'])}" for d in found["devices"]]
    cache = found["compilation_cache"]
    kept = "off" if cache is None else f"{escape(cache['folder'])}, {cache['bytes'] / 1e6:.1f} MB"
    about = [("platform", found["platform"] or "none"), ("devices", "; ".join(devices) or "none")]
    console.print(rows([*about, ("CPUs", str(found["cpus"])), ("compilation cache", kept)]))
    console.print()
    table = Table("extra", "for", box=None, padding=(0, 2, 0, 0))
    table.add_column("state", overflow="fold")
    for name, extra in found["extras"].items():
        missing = "; ".join(extra["missing"])
        state = "[green]there[/green]" if not missing else f"{escape(missing)}\n{escape(extra['install'])}"
        table.add_row(name, extra["purpose"], state)
    console.print(table)
    console.print()
    for problem in found["problems"]:
        console.print(f"[bold red]problem[/bold red] {escape(problem)}")
    if found["ok"]:
        versions = found["versions"]
        pair = f"Python {found['python']}, jax {versions['jax']} and flax {versions['flax']} work together"
        console.print(f"[green]{pair}; the core is whole[/green]")


def _memory(size: int | None) -> str:
    return "" if size is None else f", {size / 2**30:.1f} GiB"
