# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of speed write, and how two of their files are compared."""

import contextlib
import importlib.metadata
import os
import platform
import statistics
import sys
from pathlib import Path

# Numbers of a row that are worth comparing, by the end of their names.
_COMPARED = ("seconds", "_per_second", "mfu", "hfu", "ratio", "ours", "reference", "idle")


def spread(seconds):
    """Median, fastest, slowest and all of a list of times."""
    return {
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "runs": list(seconds),
    }


def utilisation(flops, seconds, peak):
    """MFU and HFU, where the peak (FLOP/s of all devices together) is known; flops as `class_jax.planning.flops`."""
    if peak is None:
        return {}
    return {"mfu": flops.model / seconds / peak, "hfu": flops.hardware / seconds / peak}


def settings(given, left_out=("worker", "out", "compare")):
    """The arguments, for the file."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(given).items()
        if name not in left_out
    }


def versions():
    """What it ran on."""
    found = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found["processor"] = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    for name in ("jax", "jaxlib", "flax", "optax", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def devices():
    """JAX's devices: kind and number. Starts the back end."""
    import jax

    found = jax.devices()
    return {"platform": found[0].platform, "kind": found[0].device_kind, "count": len(found)}


def flat(result):
    """The numbers of a file that can be compared, by name: of every list of rows, by the row's own texts."""
    found = {}
    for rows in result.values():
        for row in rows if isinstance(rows, list) else ():
            name = " ".join(value for value in row.values() if isinstance(value, str))
            found |= _numbers(name, {key: value for key, value in row.items() if key != "sides"})
            for side, one in row.get("sides", {}).items():
                found |= _numbers(f"{name} {side}", one)
    return found


def _numbers(name, row):
    return {
        f"{name} {key}": value
        for key, value in row.items()
        if isinstance(value, int | float) and key.endswith(_COMPARED)
    }


def write(given, found):
    """Writes what was found, with the settings and what it ran on, where `--out` was given."""
    from class_jax.common.files import write_json

    if given.out is not None:
        write_json(given.out, {"settings": settings(given), "versions": versions(), **found})


def exit_status(work):
    """Does the work of a `main`, and returns its exit status: bad input is one line and 2."""
    from class_jax.errors import InputError

    try:
        work()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compare(before, after):
    """Prints how two files' numbers differ; rows that only one of them has are left out."""
    from rich.console import Console
    from rich.table import Table

    from class_jax.common.files import read_json

    table = Table(title=f"{before.name} -> {after.name}")
    for column in ("", "before", "after", "after/before"):
        table.add_column(column, justify="right" if column else "left")
    old, new = flat(read_json(before)), flat(read_json(after))
    for name in old:
        if name in new and old[name]:
            table.add_row(name, f"{old[name]:.4g}", f"{new[name]:.4g}", f"{new[name] / old[name]:.3f}")
    Console(width=110).print(table)
