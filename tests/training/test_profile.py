# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A trace of training steps names the operations' scopes, covers the steps asked for, and is written once."""

import gzip
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from class_jax.distributed.sharding import MeshConfig, make_mesh
from class_jax.errors import InputError
from class_jax.models import ModelConfig
from class_jax.objectives.objectives import ObjectiveConfig
from class_jax.training import profiling
from class_jax.training.optimizer import OptimizerConfig, make_optimizer
from class_jax.training.profiling import ProfileConfig, StepProfiler
from class_jax.training.step import init_state, make_train_step

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import step_time

CONFIG = ModelConfig(
    vocab_size=96, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=1, num_heads=2, retriever_head=1
)
SHAPE = {"B": 2, "N": 2, "Q": 5, "P": 9, "A": 3, "Q bucket": 8, "P bucket": 16, "A bucket": 4}
SHAPE |= {"vocab_size": 96, "objective": "end_to_end"}


@pytest.fixture(scope="module")
def training():
    """The compiled step, and a function that makes its first state."""
    mesh, optimizer = make_mesh(MeshConfig(1, 1, 1)), make_optimizer(OptimizerConfig(total_steps=100))
    step = make_train_step(CONFIG, "end_to_end", ObjectiveConfig(), optimizer, mesh)
    first = init_state(CONFIG, optimizer, mesh)
    return step, lambda: jax.tree.map(jnp.copy, first)  # a step takes its state's buffers


def run(training, profiler, steps, first=0):
    step, start = training
    state = start()
    for number in range(first, first + steps):
        state, _ = profiler.step(number, step, state, step_time.random_batch(SHAPE, number))


def steps_in(trace):
    """Numbers of the steps that a trace marks."""
    events = json.loads(gzip.decompress(next(trace.parent.glob("*.trace.json.gz")).read_bytes()))["traceEvents"]
    return sorted(int(event["args"]["step_num"]) for event in events if event.get("name") == "train")


def test_a_trace_names_scopes_and_covers_the_steps_asked_for(training, tmp_path):
    with StepProfiler(ProfileConfig(first_step=2, steps=2), tmp_path) as profiler:
        run(training, profiler, 6)
    (trace,) = profiling.traces(tmp_path)
    assert steps_in(trace) == [2, 3]
    content = trace.read_bytes()
    for scope in ("questions", "passages", "read", "decode"):
        assert f"jvp({scope})".encode() in content, scope
        assert f"transpose(jvp({scope}))".encode() in content, scope  # its gradient
    assert b"/scores/" in content or b"(scores)" in content
    assert b"/head/" in content


def test_a_run_that_ends_or_begins_inside_the_steps_is_traced(training, tmp_path):
    with StepProfiler(ProfileConfig(first_step=1, steps=5), tmp_path / "ends") as profiler:
        run(training, profiler, 3)
    assert steps_in(*profiling.traces(tmp_path / "ends")) == [1, 2]
    with StepProfiler(ProfileConfig(first_step=1, steps=1), tmp_path / "resumed") as profiler:
        run(training, profiler, 3, first=50)
    assert steps_in(*profiling.traces(tmp_path / "resumed")) == [50]


def test_a_step_that_fails_ends_the_trace(training, tmp_path):
    step, start = training

    def failing(state, batch):
        step(state, batch)  # takes the state's buffers
        raise FloatingPointError

    with (
        pytest.raises(FloatingPointError),
        StepProfiler(ProfileConfig(first_step=0), tmp_path) as profiler,
    ):
        state, _ = profiler.step(0, step, start(), step_time.random_batch(SHAPE, 0))
        profiler.step(1, failing, state, step_time.random_batch(SHAPE, 1))
    assert len(profiling.traces(tmp_path)) == 1
    profiling.start(tmp_path / "next")  # the first is over
    jax.profiler.stop_trace()


def test_without_a_configuration_nothing_is_written(training, tmp_path):
    with StepProfiler(None, tmp_path / "none") as profiler:
        run(training, profiler, 2)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("key", "value"), [("first_step", -1), ("steps", 0)])
def test_settings_that_trace_nothing_are_refused(key, value):
    with pytest.raises(InputError, match=f"ProfileConfig.{key}"):
        ProfileConfig(**{key: value})
