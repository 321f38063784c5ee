# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stages of a pipeline: Apache Beam runs each once, whole or not at all, and keeps its counts.

A stage is a folder that holds its files and `stage.json`: what it was made from, what was counted, and the digests of
its files. A stage that is there is not run again; one that broke off, however it broke off, has left nothing behind.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from class_jax.common.files import digest_file, read_json, replacing_folder, write_json
from class_jax.errors import InputError
from class_jax.pipelines.processes import run_in_processes
from class_jax.pipelines.runner import PROGRESS, REPORT_SECONDS, RunnerConfig, check_runner, run_pipeline

if TYPE_CHECKING:
    import apache_beam as beam

RECORD = "stage.json"
_HERE = RunnerConfig()


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
    """Runs one stage, or finds it done.

    Args:
      folder: of the work; the stage becomes `folder/name` (`name` may have slashes).
      name: the stage's.
      build: adds transforms to a pipeline that write files under the folder that it is given; that folder takes the
        place of `folder/name` once the pipeline ended well. It and the transforms must be picklable. Workers write
        through plain paths: a cluster's machines need to share the file system.
      inputs: JSON-able: all that the stage depends on (settings, fingerprints of input stages).
      runner: what runs it.
      progress: show a bar; None shows it on a terminal only.
      total: of what the transforms tell `advance`, for the time left.
      unit: of `total`; `B` is bytes, shown as MB/s, and per process.
      force: run it again where it was made from other inputs, instead of refusing.

    Returns:
      All counters (see `counter`) of the run that made the stage.

    Raises:
      InputError: the one that a transform raised, wherever it ran; or if the stage was made from other inputs, its
        files were changed, another process is making it, a worker died, or the runner isn't installed.
      RuntimeError: if a transform failed otherwise, with the worker's traceback.
    """
    folder = Path(folder)
    target = folder / name
    inputs = json.loads(json.dumps(inputs, sort_keys=True))
    found = _finished(target, inputs, force)
    if found is None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            # Another process may have made it between the two looks.
            found = _finished(target, inputs, force)
            if found is None:
                with replacing_folder(target) as aside:
                    begun = time.monotonic()
                    with _watching(aside, name, progress, total, unit, runner.processes):
                        found = _run(build, aside, runner)
                    _write_record(aside, name, inputs, found, time.monotonic() - begun)
    return found


def stage_record(folder: str | os.PathLike) -> dict[str, Any]:
    """Returns `stage.json` of a finished stage: name, inputs, counts, files, seconds.

    Raises:
      InputError: if the folder is no finished stage.
    """
    path = Path(folder) / RECORD
    if not path.exists():
        raise InputError("is no finished stage", file=folder, remedy="run the stage that makes it")
    record = read_json(path)
    if not (isinstance(record, dict) and {"name", "inputs", "counts", "files"} <= record.keys()):
        raise InputError("is no record of a stage", file=path, remedy="remove the folder and make it again")
    return record


def stage_fingerprint(folder: str | os.PathLike) -> str:
    """Returns a digest of what a finished stage holds and was made from, to be put in the `inputs` of the next.

    Raises:
      InputError: if the folder is no finished stage.
    """
    record = stage_record(folder)
    return _digest({key: record[key] for key in ("name", "inputs", "files")})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _finished(target: Path, inputs: Any, force: bool) -> dict[str, int] | None:
    """The counts of a stage that is there; None if it has to be run."""
    if not (target / RECORD).exists():
        if target.exists() and not force:
            raise InputError(
                "is there, but was not made by this command", file=target, remedy="take another folder, or --force"
            )
        return None
    record = stage_record(target)
    if record["inputs"] != inputs:
        if force:
            return None
        raise InputError(
            f"was made from other inputs ({_difference(record['inputs'], inputs)})",
            file=target,
            remedy="take another work folder, or --force to make it again",
        )
    for file, (size, _) in record["files"].items():
        path = target / file
        if not path.exists() or path.stat().st_size != size:
            if force:
                return None
            raise InputError("changed since the stage was made", file=path, remedy="--force to make it again")
    return record["counts"]


def _difference(old: Any, new: Any, key: str = "") -> str:
    """The first key at which two JSON values differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name) or (name in old) != (name in new):
                return _difference(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    return f"{key or 'inputs'}: {_short(old)} then, {_short(new)} now"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _write_record(aside: Path, name: str, inputs: Any, counts: dict[str, int], seconds: float) -> None:
    shutil.rmtree(aside / PROGRESS, ignore_errors=True)
    paths = sorted(path for path in aside.rglob("*") if path.is_file())
    files = {path.relative_to(aside).as_posix(): [path.stat().st_size, digest_file(path)] for path in paths}
    record = {"name": name, "inputs": inputs, "counts": counts, "files": files, "seconds": round(seconds, 1)}
    write_json(aside / RECORD, record)


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Holds the stage's lock and clears what a killed run left beside it."""
    lock = target.with_name(f".{target.name}.lock")
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError("another process is making it", file=target, remedy="wait for it, or end it") from error
        for left in target.parent.glob(f".{target.name}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _run(build: Callable, out: Path, runner: RunnerConfig) -> dict[str, int]:
    """Runs the pipeline and returns its counters; see `run_stage` for what it raises."""
    check_runner(runner)
    if runner.runner == "direct" and runner.processes > 1:
        return run_in_processes(build, out, runner)
    return run_pipeline(build, out, runner, None)


@contextlib.contextmanager
def _watching(
    out: Path, name: str, progress: bool | None, total: int | None, unit: str, processes: int
) -> Iterator[None]:
    """Shows a bar of what the workers have told `advance`."""
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
