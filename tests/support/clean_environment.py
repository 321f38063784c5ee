# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Commands in environments that do not depend on the checkout."""

import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def uv() -> str | None:
    """uv of the PATH, or the one that make installs; without it pip does the same more slowly."""
    own = REPOSITORY / ".venv-uv" / "bin" / "uv"
    return shutil.which("uv") or (str(own) if own.exists() else None)


def call(command: list[str | Path], cwd: Path | None = None, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a command without access to the checkout; fails with its output if it ends otherwise than expected."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "COVERAGE"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == status, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done
