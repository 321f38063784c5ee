# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Every gin file of `gin/runs` says what it is for, makes a configuration, and its step can be traced at full size.

The files of `gin/runs/paper` have tests of their own.
"""

import dataclasses
import re

import pytest
from gin_runs import MACRO, RUNS, header, resolved, trace_step

import gin
from class_jax.configuration.gin_files import parse
from class_jax.training.config import TrainConfig

# A part that others include says so in its first line.
PARTS = {path.name for path in RUNS.glob("*.gin") if "not run by itself" in path.read_text().splitlines()[0]}
FILES = sorted(path.name for path in RUNS.glob("*.gin") if path.name not in PARTS)
HEADER = ("Reproduces", "Command", "Expected", "Must be set", "Commonly overridden")


def settings(name: str) -> str:
    """The text of a file and of those that it includes."""
    text = (RUNS / name).read_text(encoding="utf-8")
    included = re.findall(r"^include 'runs/(.*)'$", text, flags=re.MULTILINE)
    return "".join([*(settings(other) for other in included), text])


def test_there_are_files():
    assert {"demo_stage1.gin", "demo_stage2.gin", "real_parallel.gin"} <= set(FILES)
    for part in PARTS:
        including = [name for name in FILES if f"include 'runs/{part}'" in (RUNS / name).read_text()]
        assert including, f"{part} is included by no file"


@pytest.mark.parametrize("name", FILES)
def test_the_header_says_what_it_is_for(name):
    text = header(name)
    assert len(text.splitlines()[0]) > 20
    for part in HEADER:
        assert re.search(rf"^# {part}: ?\S", text, flags=re.MULTILINE) or f"# {part}:\n#   " in text, part
    assert f"class-jax train runs/{name}" in text and "--gin.MODEL_DIR=" in text
    [overridden] = re.findall(r"^# Commonly overridden: (.*)$", text, flags=re.MULTILINE)
    for macro in MACRO.findall(overridden):
        assert f"\n{macro} = " in settings(name), f"{macro} is not in the file"


@pytest.mark.parametrize("name", FILES)
def test_the_file_makes_a_configuration(name):
    with resolved(name) as config:
        assert isinstance(config, TrainConfig)
        assert config.batch_size % config.losses.micro_batches == 0
        assert gin.query_parameter("%MODEL_DIR") == "runs/test"
        retrieved = (
            config.teacher.list_length if config.teacher else config.refresh.list_length if config.refresh else 0
        )
        assert not retrieved or retrieved >= config.num_passages


@pytest.mark.parametrize("name", FILES)
def test_the_step_traces_at_full_size(name):
    with resolved(name) as config:
        trace_step(config)


def test_a_typo_would_be_seen():
    """The check above is as strict as a run: an unknown setting does not pass."""
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert "batch_sise" not in fields
    with resolved(FILES[0]), pytest.raises(ValueError, match="has no setting 'batch_sise'; did you mean 'batch_size'"):
        parse([f"runs/{FILES[0]}"], ["MODEL_DIR = 'runs/test'", "config.TrainConfig.batch_sise = 4"])
