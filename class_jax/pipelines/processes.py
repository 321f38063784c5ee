# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Beam's direct runner with several worker processes, which reports a killed worker instead of waiting for it.

The runner is started in a process of its own and starts the workers from there. All of them form one process group,
which is killed on an error, on Ctrl-C, and when the process that started it ends. Beam's own runner would wait
for a killed worker without end.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from class_jax.errors import InputError
from class_jax.pipelines.runner import RunnerConfig, input_error_in, run_beam

_POLL_SECONDS = 0.2
_GRACE_POLLS = 15  # how long the runner may take to end by itself once a worker is dead
_LOG_TAIL = 4000


def run_in_processes(build: Callable, out: Path, runner: RunnerConfig) -> dict[str, int]:
    """Runs a pipeline with several worker processes and returns its counters; see `stages.run_stage`.

    Raises:
      InputError: the one that a transform raised; or if a worker was killed.
      RuntimeError: for any other failure, with the end of the workers' log.
    """
    import cloudpickle

    with tempfile.TemporaryDirectory(prefix="class_jax_stage_") as scratch:
        folder = Path(scratch)
        (folder / "task").write_bytes(cloudpickle.dumps((build, out, runner)))
        with open(folder / "log", "wb") as log:
            # Workers import what this process could import.
            path = os.pathsep.join(p or os.getcwd() for p in sys.path)
            child = subprocess.Popen(
                [sys.executable, "-m", __name__, str(folder)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,
            )
            try:
                _wait(child, folder)
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                child.stdin.close()
        return _result(folder, child.returncode)


def _wait(child: subprocess.Popen, folder: Path) -> None:
    """Waits until the runner has ended, or a worker died."""
    polls = 0
    while not (folder / "result").exists():
        try:
            child.wait(_POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            polls += (folder / "died").exists()
            if polls > _GRACE_POLLS:
                return


def _result(folder: Path, status: int) -> dict[str, int]:
    if (folder / "result").exists():
        result = json.loads((folder / "result").read_text(encoding="utf-8"))
        if "counts" in result:
            return result["counts"]
        if "input_error" in result:
            raise InputError(result["input_error"])
        raise RuntimeError(result["error"])
    died = (folder / "died").read_text().strip() if (folder / "died").exists() else str(status)
    if died in ("137", "-9"):
        raise InputError("a worker process was killed", key="workers", remedy="out of memory? take fewer --workers")
    with open(folder / "log", "rb") as log:
        log.seek(max(0, os.fstat(log.fileno()).st_size - _LOG_TAIL))
        tail = log.read().decode(errors="replace")
    raise RuntimeError(f"a worker process ended with status {died}:\n{tail}")


def _serve(folder: Path) -> None:
    """Runs the pipeline of `folder/task`, in the process that `run_in_processes` started."""
    import cloudpickle

    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        build, out, runner = cloudpickle.loads((folder / "task").read_bytes())
        died = shlex.quote(str(folder / "died"))
        command = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main"
        counts = run_beam(build, out, runner, f"{command} || echo $? > {died}")
        result: dict[str, Any] = {"counts": counts}
    except Exception as error:
        known = input_error_in(error)
        result = {"input_error": str(known)} if known else {"error": f"{type(error).__name__}: {error}"}
    # Renamed, so that the waiting process never reads half of it.
    (folder / "result.part").write_text(json.dumps(result), encoding="utf-8")
    os.replace(folder / "result.part", folder / "result")


def _end_with_parent() -> None:
    """Ends the process group when the pipe from the process that asked for it closes."""
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
