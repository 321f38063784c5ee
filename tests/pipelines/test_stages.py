# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stages: run once, whole or not at all, by one process or several; what fails says why."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from class_jax.errors import InputError
from class_jax.pipelines.runner import RunnerConfig, advance, counter, input_error_in
from class_jax.pipelines.stages import read_stage, run_stage, stage_fingerprint

beam = pytest.importorskip("apache_beam")

HERE = RunnerConfig(workers=1)
TWO = RunnerConfig(workers=2)


class Square(beam.DoFn):
    """Writes each number's square to a file, and the number of the process that did it."""

    def __init__(self, out, bad=None, problem=""):
        self.out, self.bad, self.problem = Path(out), bad, problem

    def process(self, number):
        if number == self.bad:
            if self.problem == "input":
                raise InputError("not a number", file="/data/numbers.txt", line=number, remedy="correct it")
            if self.problem == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.problem == "slow":
                (self.out.parent / "started").touch()
                time.sleep(60)
            raise KeyError("missing")
        counter("squares").inc()
        counter("sum").inc(number)
        advance(self.out, 1)
        (self.out / f"{number}.txt").write_text(str(number**2))
        (self.out / f"{number}.pid").write_text(str(os.getpid()))


class Build:
    """Squares of 0 to 5."""

    def __init__(self, bad=None, problem=""):
        self.bad, self.problem = bad, problem

    def __call__(self, pipeline, out):
        numbers = pipeline | beam.Create(range(6)) | beam.Reshuffle()
        _ = numbers | beam.ParDo(Square(out, self.bad, self.problem))


def left_behind(folder):
    """All that is under a folder but locks."""
    return sorted(p.name for p in Path(folder).rglob("*") if p.suffix != ".lock")


def test_a_stage_is_run_once(tmp_path):
    counts = run_stage(tmp_path, "numbers/squares", Build(), inputs={"n": 6}, runner=HERE)
    assert counts == {"squares": 6, "sum": 15}
    folder = tmp_path / "numbers" / "squares"
    assert [(folder / f"{i}.txt").read_text() for i in range(6)] == ["0", "1", "4", "9", "16", "25"]
    record = read_stage(folder)
    assert record.inputs == {"n": 6} and record.files["3.txt"][0] == 1
    before = stage_fingerprint(folder), (folder / "3.txt").stat().st_mtime_ns
    # A build that would fail: it is not called.
    assert run_stage(tmp_path, "numbers/squares", Build(0, "input"), inputs={"n": 6}, runner=HERE) == counts
    assert (stage_fingerprint(folder), (folder / "3.txt").stat().st_mtime_ns) == before
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_input_has_as_many_processes_as_it_keeps_busy():
    cores = RunnerConfig().processes
    assert RunnerConfig().fitted(1_000_000).workers == 1
    assert RunnerConfig().fitted(10**12).workers == cores
    assert RunnerConfig(workers=3).fitted(1).workers == 3
    assert RunnerConfig(runner="flink").fitted(1).workers is None


def test_several_processes_share_the_work(tmp_path):
    counts = run_stage(tmp_path, "s", Build(), inputs={}, runner=TWO)
    assert counts == {"squares": 6, "sum": 15}
    pids = {(tmp_path / "s" / f"{i}.pid").read_text() for i in range(6)}
    assert len(pids) == 2 and str(os.getpid()) not in pids


def test_other_inputs_are_named(tmp_path):
    run_stage(tmp_path, "s", Build(), inputs={"words": 100, "dumps": ["a"]}, runner=HERE)
    before = stage_fingerprint(tmp_path / "s")
    with pytest.raises(InputError, match=r"s: words: .*100, not 90; .*--force"):
        run_stage(tmp_path, "s", Build(), inputs={"words": 90, "dumps": ["a"]}, runner=HERE)
    run_stage(tmp_path, "s", Build(), inputs={"words": 90, "dumps": ["a"]}, runner=HERE, force=True)
    assert read_stage(tmp_path / "s").inputs["words"] == 90
    assert stage_fingerprint(tmp_path / "s") != before


def test_changed_files_are_seen(tmp_path):
    run_stage(tmp_path, "s", Build(), inputs={}, runner=HERE)
    (tmp_path / "s" / "2.txt").write_text("five")
    with pytest.raises(InputError, match=r"2\.txt: .*--force"):
        run_stage(tmp_path, "s", Build(), inputs={}, runner=HERE)
    run_stage(tmp_path, "s", Build(), inputs={}, runner=HERE, force=True)
    assert (tmp_path / "s" / "2.txt").read_text() == "4"


def test_a_folder_of_other_origin_is_not_overwritten(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "mine").touch()
    with pytest.raises(InputError, match="was not made by this command"):
        run_stage(tmp_path, "s", Build(), inputs={}, runner=HERE)
    assert left_behind(tmp_path) == ["mine", "s"]


@pytest.mark.parametrize("runner", [HERE, TWO])
def test_an_input_error_stays_one_line(tmp_path, runner):
    with pytest.raises(InputError) as caught:
        run_stage(tmp_path, "s", Build(3, "input"), inputs={}, runner=runner)
    assert str(caught.value) == "/data/numbers.txt:3: not a number; correct it"
    assert left_behind(tmp_path) == []


def test_other_errors_show_where(tmp_path):
    with pytest.raises(Exception, match="missing") as caught:
        run_stage(tmp_path, "s", Build(3), inputs={}, runner=HERE)
    assert not isinstance(caught.value, InputError)
    assert left_behind(tmp_path) == []


def test_a_killed_worker_is_noticed(tmp_path):
    with pytest.raises(InputError, match="a worker process was killed"):
        run_stage(tmp_path, "s", Build(3, "killed"), inputs={}, runner=TWO)
    assert left_behind(tmp_path) == []


def test_killed_in_the_middle(tmp_path):
    script = (
        "from test_stages import *\n"
        f"run_stage({str(tmp_path)!r}, 's', Build(5, 'slow'), inputs={{}}, runner=RunnerConfig(workers=1))"
    )
    child = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parent)
    try:
        while not (tmp_path / "started").exists():
            assert child.poll() is None
            time.sleep(0.1)
        with pytest.raises(InputError, match="another process is making it"):
            run_stage(tmp_path, "s", Build(), inputs={}, runner=HERE)
    finally:
        child.kill()
        child.wait()
    assert not (tmp_path / "s").exists() and list(tmp_path.glob(".s.*.tmp"))
    assert run_stage(tmp_path, "s", Build(), inputs={}, runner=HERE)["squares"] == 6
    assert not list(tmp_path.glob(".s.*.tmp"))


def test_progress_is_shown(tmp_path, capsys):
    run_stage(tmp_path, "s", Build(), inputs={}, runner=HERE, progress=True, total=6, unit=" numbers")
    assert "6.00/6.00" in capsys.readouterr().err
    assert not (tmp_path / "s" / ".progress").exists()


@pytest.mark.parametrize(
    ("runner", "words"),
    [
        (RunnerConfig("flnk"), "runner flnk: is not known; did you mean 'flink'"),
        (RunnerConfig(workers=0), "workers: 0 processes"),
        (RunnerConfig("NoRunner"), "runner NoRunner"),
    ],
)
def test_a_runner_that_is_not_there(tmp_path, runner, words):
    with pytest.raises(InputError, match=words):
        run_stage(tmp_path, "s", Build(), inputs={}, runner=runner)
    assert left_behind(tmp_path) == []


def test_what_a_runner_needs_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "apitools", None)
    with pytest.raises(InputError, match="runner flink: its job server needs Java"):
        run_stage(tmp_path, "s", Build(), inputs={}, runner=RunnerConfig("flink"))
    with pytest.raises(InputError, match=r"pip install 'apache-beam\[gcp\]'"):
        run_stage(tmp_path, "s", Build(), inputs={}, runner=RunnerConfig("dataflow"))


def test_errors_without_an_input_error_in_them():
    assert input_error_in(RuntimeError("ValueError: class_jax.errors.InputError of old")) is None


def test_a_folder_that_is_no_stage(tmp_path):
    with pytest.raises(InputError, match="is no finished stage"):
        stage_fingerprint(tmp_path)
