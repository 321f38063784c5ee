# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Traces of a few training steps, for TensorBoard's profile plugin and for Perfetto.

A trace is written to `FOLDER/plugins/profile/TIME/`: `*.xplane.pb` (`tensorboard --logdir FOLDER`, with its profile
plugin), which names the scope of every operation ("questions", "passages", "scores", "read", "decode", "head",
"teacher", and the gradients of each), and `*.trace.json.gz`, which https://ui.perfetto.dev opens: steps and operations;
on a CPU operations have only the compiler's names there.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from class_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """Which steps of a run are traced.

    Attributes:
      first_step: steps done before the trace begins; the first ones compile, and are of no interest.
      steps: how many are traced. A trace of many is slow to open.

    Raises:
      InputError: if nothing would be traced.
    """

    first_step: int = 10
    steps: int = 3

    def __post_init__(self):
        if self.first_step < 0:
            raise InputError(f"is {self.first_step}", key="ProfileConfig.first_step", remedy="use 0 or more")
        if self.steps < 1:
            raise InputError(f"is {self.steps}", key="ProfileConfig.steps", remedy="trace 1 step or more")


class StepProfiler:
    """Traces the chosen steps of a training loop, once in a run.

    The loop calls `step` in place of the compiled step, and `close` at its end; a run that begins after `first_step`
    (it was resumed) traces its first steps. Not thread-safe.

    Args:
      config: which steps; None traces none.
      folder: where the trace goes; made when it begins.
    """

    def __init__(self, config: ProfileConfig | None, folder: Path):
        self.config, self.folder = config, folder
        self._left: int | None = None  # steps to trace, once the trace has started
        self._result: Any = None

    def step(self, number: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs `function(*arguments)` as step `number` (from 0), inside the trace if it is one of those chosen."""
        if self.config is None or self._left == 0 or (self._left is None and number < self.config.first_step):
            return function(*arguments)
        if self._left is None:
            start(self.folder)
            self._left, self._result = self.config.steps, ()
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            self._result = function(*arguments)
        result, self._left = self._result, self._left - 1
        if self._left == 0:
            self.close()
        return result

    def close(self) -> None:
        """Ends a trace in progress, after the device has finished its work."""
        if self._result is None:
            return
        # A step that failed may have taken the buffers of the result before it.
        jax.block_until_ready([x for x in jax.tree.leaves(self._result) if not x.is_deleted()])
        self._result, self._left = None, 0
        jax.profiler.stop_trace()

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def start(folder: Path) -> None:
    """Begins a trace; Python's own calls are left out, which would be most of it.

    Raises:
      InputError: if a trace is in progress already.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    try:
        jax.profiler.start_trace(folder, profiler_options=options)
    except RuntimeError as error:
        raise InputError(f"no trace could be started: {error}", file=folder) from error


def traces(folder: Path) -> list[Path]:
    """Traces under a folder, oldest first: the `*.xplane.pb` that TensorBoard reads."""
    return sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
