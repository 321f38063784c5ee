# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What is installed beside the package, by the package's own metadata, and what of it is missing or does not fit."""

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "class-jax"

PURPOSES = {
    "train": "train from seqio tasks and TensorFlow datasets",
    "retrieve": "ScaNN and BM25 indexes",
    "data": "make training data from Wikipedia dumps",
    "evaluate": "Japanese F1, BLEU, significance tests, plots and pages",
    "llm": "language models at an OpenAI-compatible endpoint",
    "all": "everything above",
    "gpu": "NVIDIA GPUs",
    "tpu": "Google TPUs",
    "torch": "other people's encoders, entity finders and local language models",
}
"""What each extra is for."""

# Shown with their versions; of other packages only what does not fit is shown.
_SHOWN = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow", "seqio", "scann", "transformers")


@dataclasses.dataclass(frozen=True)
class Unmet:
    """A requirement that is not met.

    Attributes:
      requirement: as in the metadata, without its marker.
      installed: the version that is there; None if none is.
    """

    requirement: str
    installed: str | None

    def __str__(self) -> str:
        there = "is not installed" if self.installed is None else f"is wanted, {self.installed} is installed"
        return f"{self.requirement} {there}"


def version_of(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def extras(package: str = PACKAGE) -> list[str]:
    """The names of a distribution's extras."""
    return importlib.metadata.metadata(package).get_all("Provides-Extra") or []


def unmet(package: str = PACKAGE, extra: str = "") -> list[Unmet]:
    """Requirements of a distribution that are not met here; with `extra`, only those that the extra adds.

    Requirements whose markers exclude this Python or platform are left out. Those of another distribution's extra, such
    as `jax[cuda12]`, are followed.
    """
    return list(dict.fromkeys(_unmet(package, extra, set())))


def _unmet(package: str, extra: str, seen: set[tuple[str, str]]) -> Iterator[Unmet]:
    if (canonicalize_name(package), extra) in seen:
        return
    seen.add((canonicalize_name(package), extra))
    for text in importlib.metadata.requires(package) or ():
        wanted = Requirement(text)
        marker = wanted.marker
        if marker is not None and not marker.evaluate({"extra": extra}):
            continue
        if extra and (marker is None or marker.evaluate({"extra": ""})):
            continue
        found = version_of(wanted.name)
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            yield Unmet(f"{wanted.name}{wanted.specifier}", found)
        if found is not None:
            for inner in sorted(wanted.extras):
                yield from _unmet(wanted.name, inner, seen)


def _works_together(problems: list[Unmet]) -> str | None:
    """Which of Python, jax and flax don't work together, in a line; None if they do."""
    pair = [problem for problem in problems if problem.requirement.startswith(("jax", "flax"))]
    if not pair:
        return None
    given = f"Python {platform.python_version()}, jax {version_of('jax')}, flax {version_of('flax')}"
    return f"{given} do not work together: {'; '.join(map(str, pair))}"


def _jax() -> dict[str, Any]:
    """The accelerators that JAX sees and the folder of its compilation cache, or what went wrong."""
    try:
        import flax  # noqa: F401 (a wrong pair of jax and flax fails here)
        import jax

        from class_jax.common.compilation_cache import use_compilation_cache

        cache = use_compilation_cache()
        found = jax.devices()
    except Exception as error:  # whatever a broken installation raises
        problem = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return {"platform": None, "devices": [], "cache": None, "error": problem}
    devices = []
    for device in found:
        stats = device.memory_stats() or {}
        devices.append({"id": device.id, "kind": device.device_kind, "memory_bytes": stats.get("bytes_limit")})
    return {"platform": jax.default_backend(), "devices": devices, "cache": cache, "error": None}


def folder_bytes(folder: Path) -> int:
    """The size of the files under a folder; 0 if it is missing."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def inspect() -> dict[str, Any]:
    """What `class-jax doctor` reports.

    Returns:
      JSON-able: `python`, `versions`, `cpus`, `platform`, `devices`, `extras` (of each: purpose, what is missing, the
      command that installs it), `compilation_cache` (None if it is off), `problems` (what the core lacks, in lines),
      `ok`.
    """
    core = unmet()
    jax = _jax()
    pair = _works_together(core)
    problems = [pair] if pair else []
    problems += [str(problem) for problem in core if not problem.requirement.startswith(("jax", "flax"))]
    problems += [f"JAX does not start: {jax['error']}"] if jax["error"] else []
    return {
        "python": platform.python_version(),
        "versions": {"class-jax": version_of(PACKAGE)} | {name: version_of(name) for name in _SHOWN},
        "cpus": os.cpu_count(),
        "platform": jax["platform"],
        "devices": jax["devices"],
        "extras": {name: _extra(name) for name in extras()},
        "compilation_cache": _cache(jax["cache"]),
        "problems": problems,
        "ok": not problems,
    }


def _cache(folder: Path | None) -> dict[str, Any] | None:
    return None if folder is None else {"folder": str(folder), "bytes": folder_bytes(folder)}


def _extra(name: str) -> dict[str, Any]:
    missing = [str(problem) for problem in unmet(extra=name)]
    command = f"pip install '{PACKAGE}[{name}]'"
    return {"purpose": PURPOSES.get(name, ""), "missing": missing, "install": command if missing else None}
