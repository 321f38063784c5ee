# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Shared fixtures: the parity fixtures, the real public data where it is there, and a demo run's data."""

import fcntl
import os
from pathlib import Path

import pytest

# Tests spend their time in XLA's compiler, on tiny shapes: compile less, in this process and in those it starts.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

SHARED = Path(__file__).resolve().parents[2] / "shared"


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
    from class_jax.demo.run import prepare

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with open(shared / "demo.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepare(shared / "demo")
    return shared / "demo"
