# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stages of a pipeline: Apache Beam runs each once, whole or not at all, and its counts are kept.

A stage is a folder made by `class_jax.common.work`: its files and `stage.json`, which says what it was made from, what
was counted, and the digests of its files. A finished stage is not run again; an interrupted one leaves nothing behind.
"""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from class_jax.common.work import FOLDER_RECORD, Piece, WorkFolder
from class_jax.errors import InputError
from class_jax.pipelines.processes import run_in_processes
from class_jax.pipelines.runner import PROGRESS, REPORT_SECONDS, RunnerConfig, check_runner, run_beam

if TYPE_CHECKING:
    import apache_beam as beam

RECORD = FOLDER_RECORD
_HERE = RunnerConfig()
_REMEDY = "take another work folder, or --force to make it again"


def run_stage(
    folder: str | os.PathLike,
    name: str,
    build: Callable[["beam.Pipeline", Path], None],
    *,
    inputs: Mapping[str, Any],
    runner: RunnerConfig = _HERE,
    progress: bool | None = None,
    total: int | None = None,
    unit: str = "B",
    force: bool = False,
) -> dict[str, int]:
    """Runs one stage, or finds it finished.

    Args:
      folder: of the work; the stage becomes `folder/name` (`name` may have slashes).
      name: the stage's.
      build: adds transforms to a pipeline that write files under the folder that it is given; that folder takes the
        place of `folder/name` once the pipeline ended without an error. It and the transforms must be picklable.
        Workers write through plain paths: a cluster's machines need to share the file system.
      inputs: JSON-able: all that the stage depends on (settings, fingerprints of input stages).
      runner: what runs it.
      progress: show a progress bar; None shows it on a terminal only.
      total: sum of all that the transforms report by `advance`, for the time left.
      unit: of `total`; `B` is bytes, shown as MB/s, and per process.
      force: run it again where it was made from other inputs or its files were changed, instead of refusing.

    Returns:
      All counters (see `counter`) of the run that made the stage.

    Raises:
      InputError: the one that a transform raised, wherever it ran; or if the stage was made from other inputs, its
        files were changed, another process is making it, a worker died, or the runner isn't installed.
      RuntimeError: if a transform failed otherwise, with the worker's traceback.
    """

    def make(out: Path) -> dict[str, int]:
        with _progress(out, name, progress, total, unit, runner.processes):
            counts = _run(build, out, runner)
        shutil.rmtree(out / PROGRESS, ignore_errors=True)
        return counts

    work = WorkFolder(folder, _REMEDY)
    return work.run_folder(name, make, inputs=inputs, replace_other=force, replace_damaged=force).result


def read_stage(folder: str | os.PathLike) -> Piece:
    """Returns the record of a finished stage; its counts are the piece's `result`.

    Raises:
      InputError: if the folder is no finished stage.
    """
    path = Path(folder) / RECORD
    if not path.exists():
        raise InputError("is no finished stage", file=folder, remedy="run the stage that makes it")
    return Piece.read(path)


def stage_fingerprint(folder: str | os.PathLike) -> str:
    """Returns a digest of what a finished stage holds and was made from, to be put in the `inputs` of the next.

    Raises:
      InputError: if the folder is no finished stage.
    """
    return read_stage(folder).fingerprint


def _run(build: Callable, out: Path, runner: RunnerConfig) -> dict[str, int]:
    """Runs the pipeline and returns its counters; see `run_stage` for what it raises."""
    check_runner(runner)
    if runner.runner == "direct" and runner.processes > 1:
        return run_in_processes(build, out, runner)
    return run_beam(build, out, runner, None)


@contextlib.contextmanager
def _progress(
    out: Path, name: str, progress: bool | None, total: int | None, unit: str, processes: int
) -> Iterator[None]:
    """Shows a progress bar of what the workers reported by `advance`."""
    hidden = None if progress is None else not progress
    bar = tqdm(total=total, desc=name, unit=unit, unit_scale=True, disable=hidden)
    ended = threading.Event()
    begun = time.monotonic()

    def watch() -> None:
        while not ended.wait(REPORT_SECONDS):
            files = (out / PROGRESS).glob("*")
            done = sum(int(path.read_text() or 0) for path in files)
            if unit == "B" and done:
                rate = done / (time.monotonic() - begun) / processes / 1e6
                bar.set_postfix_str(f"{rate:.2f} MB/s per process", refresh=False)
            bar.update(done - bar.n)

    thread = threading.Thread(target=watch, daemon=True)
    with bar:
        if not bar.disable:
            thread.start()
        try:
            yield
            if total is not None:
                bar.update(total - bar.n)
        finally:
            ended.set()
            if thread.is_alive():
                thread.join()
