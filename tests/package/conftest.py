# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The wheel, built once for all test processes, and clean environments into which it is installed."""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from clean_environment import REPOSITORY, call, uv

SOURCES = ("class_jax", "gin", "tasks", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """One folder for the processes of a parallel run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def _once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Makes a folder by the first process that wants it."""
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / "done").touch()
    return folder


@pytest.fixture(scope="session")
def wheel(shared_folder) -> Path:
    """The wheel, built from a copy of the sources, so that no leftover of an earlier build gets in."""

    def make(folder: Path) -> None:
        for name in SOURCES:
            if (REPOSITORY / name).is_dir():
                shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(REPOSITORY / name, folder / name)
        call([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder / "dist"), str(folder)])

    [path] = (_once(shared_folder / "wheel", make) / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel, shared_folder) -> Path:
    """`bin` of a clean environment with the wheel and all extras, at the versions of requirements.txt."""
    return _installed(shared_folder / "installed", f"{wheel}[all]")


@pytest.fixture(scope="session")
def core(wheel, shared_folder) -> Path:
    """`bin` of a clean environment with the wheel and no extra."""
    return _installed(shared_folder / "core", str(wheel))


def _installed(folder: Path, requirement: str) -> Path:
    def make(folder: Path) -> None:
        constraints = ["--constraint", str(REPOSITORY / "requirements.txt")]
        if found := uv():
            call([found, "venv", "--python", sys.executable, str(folder / "venv")])
            python = ["--python", str(folder / "venv")]
            call([found, "pip", "install", *python, *constraints, requirement])
        else:
            call([sys.executable, "-m", "venv", str(folder / "venv")])
            call([str(folder / "venv" / "bin" / "pip"), "install", "--quiet", *constraints, requirement])

    return _once(folder, make) / "venv" / "bin"
