# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: the parity fixtures, the real public data where it is there, and a demo run's data."""

import fcntl
import importlib.util
import os
from pathlib import Path

import pytest

# Tests spend their time in XLA's compiler, on tiny shapes: compile less, in this process and in those it starts.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Commands that tests call keep nothing in the user's cache folder.
os.environ.setdefault("CLASS_JAX_COMPILATION_CACHE", "off")

HAS_TORCH = importlib.util.find_spec("torch") is not None
# `.bin` files are read by the Python of the environment that `make test-torch` makes.
TORCH_PYTHON = Path(__file__).resolve().parents[1] / ".venv-torch" / "bin" / "python"
if not HAS_TORCH and TORCH_PYTHON.exists():
    os.environ.setdefault("CLASS_JAX_TORCH_PYTHON", str(TORCH_PYTHON))

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items):
    """Skips, with the command that helps, tests that need PyTorch where there is none."""
    for item in items:
        if item.get_closest_marker("torch") and not HAS_TORCH:
            item.add_marker(pytest.mark.skip("needs PyTorch: make test-torch"))
        if item.get_closest_marker("torch_file") and not HAS_TORCH and "CLASS_JAX_TORCH_PYTHON" not in os.environ:
            item.add_marker(
                pytest.mark.skip("reads a .bin file: make .venv-torch/.installed, or CLASS_JAX_TORCH_PYTHON")
            )


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the parity fixtures: what the PyTorch reference, T5X, mBART and the official metrics computed."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real public data; the test is skipped where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real public data (../shared/data) is not on this machine")
    return SHARED / "data"


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory) -> Path:
    """Folder of a demo run that has its data and no training yet; made once for all test processes."""
    from rich.console import Console

    from class_jax.demo.phases import Phases
    from class_jax.demo.run import make_demo_data

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with open(shared / "demo.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        make_demo_data(shared / "demo", Phases(shared / "demo", Console(quiet=True)))
    return shared / "demo"
