# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Runs one Beam pipeline: the choice of runner, its counters, and how much its transforms have done."""

import functools
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from class_jax.errors import InputError, nearest

NAMESPACE = "class_jax"  # of the Beam counters
PROGRESS = ".progress"
REPORT_SECONDS = 0.5

# A process takes seconds to start, and then reads about a megabyte of XML in a second.
_WORTH_A_PROCESS = 16e6

RUNNERS = {"direct": "direct", "flink": "FlinkRunner", "spark": "SparkRunner", "dataflow": "DataflowRunner"}


@dataclass(frozen=True)
class RunnerConfig:
    """What runs the pipelines.

    Attributes:
      runner: `direct` (this machine), `flink`, `spark`, `dataflow`, or the name of a runner class that Beam knows.
      workers: processes of the direct runner; None takes all cores (see `fitted`), 1 runs in this process.
      options: further Beam flags, such as `--flink_master=host:8081`.
    """

    runner: str = "direct"
    workers: int | None = None
    options: tuple[str, ...] = ()

    @property
    def processes(self) -> int:
        """Processes of the direct runner."""
        if self.workers is None:
            return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if self.workers < 1:
            raise InputError(f"{self.workers} processes", key="workers", remedy="1 or more, or none for all cores")
        return self.workers

    def fitted(self, size: int) -> "RunnerConfig":
        """Returns these settings with as many workers as an input keeps busy, where no number is set.

        Args:
          size: of the input in bytes, as if it were not compressed.
        """
        if self.workers is not None or self.runner != "direct":
            return self
        return replace(self, workers=min(self.processes, max(1, int(size / _WORTH_A_PROCESS))))


def run_beam(build: Callable, out: Path, runner: RunnerConfig, worker_command: str | None) -> dict[str, int]:
    """Runs a pipeline from this process and returns its counters.

    Args:
      build, out: as in `run_stage`.
      runner: what runs it.
      worker_command: shell command of the direct runner's workers; None runs them in this process.

    Raises:
      InputError: the one that a transform raised.
      RuntimeError: for any other failure of a transform.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    flags = list(runner.options)
    if runner.runner == "direct":
        # Beam's own choice for "DirectRunner" would first try to fetch a program (Prism) from the net.
        environment = worker_command and SubprocessSDKEnvironment.from_command_string(worker_command)
        chosen = FnApiRunner(default_environment=environment or None)
        options = PipelineOptions(flags, direct_num_workers=runner.processes)
    else:
        chosen, options = None, PipelineOptions([f"--runner={RUNNERS.get(runner.runner, runner.runner)}", *flags])
    try:
        pipeline = beam.Pipeline(runner=chosen, options=options)
    except ValueError as error:
        raise InputError(f"{error}", key=f"runner {runner.runner}", remedy=nearest(runner.runner, RUNNERS)) from error
    build(pipeline, out)
    try:
        result = pipeline.run()
        result.wait_until_finish()
    except Exception as error:
        raise (input_error_in(error) or error) from error
    return _counters(result)


def input_error_in(error: BaseException) -> InputError | None:
    """Returns the InputError of a transform that Beam wrapped in errors of its own, if it is one."""
    if isinstance(error, InputError):
        text = str(error)
    else:
        found = re.findall(rf"^{InputError.__module__}\.InputError: (.*)$", str(error), re.MULTILINE)
        if not found:
            return None
        text = found[-1]
    return InputError(re.sub(r"( \[while running '[^']*'\])+$", "", text))


def _counters(result: Any) -> dict[str, int]:
    from apache_beam.metrics import MetricsFilter

    counts: dict[str, int] = {}
    for found in result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]:
        # Some runners know only what was attempted, retries included.
        value = found.committed if found.committed is not None else found.attempted
        name = found.key.metric.name
        counts[name] = counts.get(name, 0) + int(value or 0)
    return dict(sorted(counts.items()))


def check_runner(runner: RunnerConfig) -> None:
    """Refuses a runner whose needs are not installed, before any work.

    Raises:
      InputError: naming what to install.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # Beam warns of parts of it that are not installed
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise InputError("pipelines need apache-beam", remedy="pip install 'class-jax[data]'") from error
    finally:
        logging.disable(before)
    key = f"runner {runner.runner}"
    if runner.runner == "dataflow":
        try:
            import apitools  # noqa: F401
            from google.cloud import storage  # noqa: F401
        except ImportError as error:
            raise InputError("needs Google's packages", key=key, remedy="pip install 'apache-beam[gcp]'") from error
    elif runner.runner in ("flink", "spark"):
        submitted = any(flag.startswith(("--job_endpoint", "--artifact_endpoint")) for flag in runner.options)
        if not submitted and shutil.which("java") is None:
            raise InputError(
                "its job server needs Java", key=key, remedy="install Java 11, or name a server by --job_endpoint"
            )
    elif runner.runner != "direct" and not runner.runner.endswith("Runner"):
        raise InputError("is not known", key=key, remedy=nearest(runner.runner, RUNNERS))


def counter(name: str) -> Any:
    """Returns the Beam counter `name`: `counter("rejected/no_text").inc()` within a transform; see `run_stage`."""
    from apache_beam.metrics import Metrics

    return Metrics.counter(NAMESPACE, name)


def advance(out: str | os.PathLike, amount: int) -> None:
    """Adds `amount` to what the stage's progress bar shows as done; `out` is the folder that `build` was given."""
    _counted(os.fspath(out)).add(amount)


class _Done:
    """How much of a stage one process has done, written every half second to a file of its own."""

    def __init__(self, out: str) -> None:
        self.path = Path(out) / PROGRESS / uuid.uuid4().hex
        self.amount, self.written = 0, 0.0
        self.lock = threading.Lock()

    def add(self, amount: int) -> None:
        with self.lock:
            self.amount += amount
            if time.monotonic() - self.written >= REPORT_SECONDS:
                self.written = time.monotonic()
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_text(str(self.amount))


@functools.lru_cache(maxsize=64)
def _counted(out: str) -> _Done:
    return _Done(out)
