# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A run that is killed, again and again, ends with the same losses and weights as one that never was."""

import signal

import pytest
import tiny_run

# Checkpoints every 4 steps; refreshes begin after steps 6 and 12 and are taken over two or three steps later.
KILLS = {
    "end_to_end": (
        "SIGKILL write 3",  # nothing saved yet
        "SIGKILL lists 1",  # version 1 is on the disk, but is not adopted
        "SIGKILL save 8",  # a checkpoint is being written
        "SIGKILL write 13",  # a refresh is under way that the checkpoint of step 12 names
        "SIGTERM write 13",  # likewise, but there is time to save
        "SIGKILL write 20",  # all steps are done, none after 16 is saved
    ),
    "stage1": ("SIGTERM write 9", "SIGKILL write 18"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny_run.write_data(folder)
    return folder


@pytest.mark.parametrize("stage", KILLS)
def test_a_killed_run_resumes_as_if_it_had_not_been_killed(stage, data, tmp_path):
    gin_file = tiny_run.write_gin(data, stage, tmp_path / "run.gin")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # Beside the other, with a token store and compiled programs of its own.
    never_killed = tiny_run.start(tiny_run.arguments(gin_file, whole, data__DataConfig__store=str(tmp_path / "store")))
    command = tiny_run.arguments(gin_file, killed, data__DataConfig__store=str(tmp_path / "another store"))
    for stop in KILLS[stage]:
        process = tiny_run.start(command, stop, tmp_path / "compiled")
        _, error = process.communicate(timeout=300)
        if stop.startswith("SIGKILL"):
            assert process.returncode == -signal.SIGKILL, error
        else:
            step = max(tiny_run.losses(killed))
            assert process.returncode == 2, error
            assert [line for line in error.splitlines() if line.startswith("error: ")] == [
                f"error: {killed}: stopped by SIGTERM at step {step}, which is saved; the same command resumes from there"
            ]
            assert (killed / "checkpoints" / str(step)).is_dir()
            assert any(line.startswith("SIGTERM: stopping after this step") for line in error.splitlines())
        assert not (killed / "model").exists()
    process = tiny_run.start(command, cache=tmp_path / "compiled")
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert "resuming at step 16 of 20" in error
    _, error = never_killed.communicate(timeout=300)
    assert never_killed.returncode == 0, error

    expected = tiny_run.losses(whole)
    assert list(expected) == list(range(1, 21))
    assert tiny_run.losses(killed) == expected  # bit for bit: JSON keeps every digit of a float
    staleness = [[line["staleness"] for line in tiny_run.metrics(run) if "loss" in line] for run in (whole, killed)]
    assert staleness[0] == staleness[1]
    files = sorted(path.name for path in (whole / "model").iterdir())
    assert any(name.endswith(".safetensors") for name in files)
    for name in files:
        assert (killed / "model" / name).read_bytes() == (whole / "model" / name).read_bytes(), name
