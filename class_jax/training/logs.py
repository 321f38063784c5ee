# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The metrics log of a run: a progress bar, a JSON-lines file, and TensorBoard files where CLU is installed."""

import contextlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from class_jax.common.files import replacing
from class_jax.errors import InputError

_log = logging.getLogger(__name__)
_REMEDY = "free some space; the same command resumes from the last checkpoint"


class MetricLog:
    """Writes metrics by step to `folder/metrics.jsonl` and to TensorBoard files beside it, and shows progress.

    Args:
      folder: the run's folder.
      total_steps: for the bar's time left.
      start: steps done before; lines of later steps that a killed process left are dropped, so that a resumed run has
        each step once.
      questions_per_step: for the rate shown.
      tensorboard: whether to write TensorBoard files; needs clu.
      progress: True shows the bar, False hides it, None shows it on a terminal.
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        start: int,
        questions_per_step: int,
        *,
        tensorboard: bool = True,
        progress: bool | None = None,
    ):
        self._path = folder / "metrics.jsonl"
        # A run that starts again evaluates step 0 again.
        _drop_after(self._path, start if start else -1)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
        self._writer = _tensorboard(folder) if tensorboard else None
        self._questions = questions_per_step
        disable = None if progress is None else not progress
        self._bar = tqdm(total=total_steps, initial=start, unit="step", disable=disable, dynamic_ncols=True)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records metrics of a step."""
        values = {name: float(value) for name, value in metrics.items()}
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
        except OSError as error:
            raise InputError(f"could not be written ({error.strerror})", file=self._path, remedy=_REMEDY) from error
        if self._writer is not None:
            self._writer.write_scalars(step, {name: v for name, v in values.items() if math.isfinite(v)})

    def advance(self, loss: float) -> None:
        """Moves the bar by one step."""
        self._bar.update(1)
        rate = self._bar.format_dict["rate"] or 0.0
        self._bar.set_postfix_str(f"loss {loss:.3f}, {rate * self._questions:.1f} questions/s", refresh=False)

    def print_line(self, message: str) -> None:
        """Prints a line above the bar."""
        self._bar.write(message)

    def close(self) -> None:
        """Flushes and closes everything."""
        self._bar.close()
        with contextlib.suppress(OSError):  # every line was flushed when it was written
            self._file.close()
        if self._writer is not None:
            self._writer.close()


class NoLog:
    """Used instead of `MetricLog` on hosts other than host 0, which logs for all."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Does nothing."""

    def advance(self, loss: float) -> None:
        """Does nothing."""

    def print_line(self, message: str) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


def _tensorboard(folder: Path):
    try:
        import tensorflow as tf
        from clu import metric_writers
    except ImportError:
        _log.warning("no TensorBoard files: pip install 'class-jax[train]'")
        return None
    # TensorFlow only writes files here: it must not see the accelerator.
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return metric_writers.AsyncWriter(metric_writers.SummaryWriter(str(folder)))


def _drop_after(path: Path, start: int) -> None:
    """Cuts the file after the last line of a step before or at `start`; a torn last line goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= start and line.endswith("\n"):
                kept.append(line)
        except (json.JSONDecodeError, KeyError):
            continue
    with replacing(path) as f:
        f.writelines(kept)
