# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Every gin file of `gin/runs` says what it is for, makes a configuration, and its step can be traced at full size."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
import tiny_run

import gin
from class_jax.models.class_model import merge, model_graph, param_shapes
from class_jax.training import loop
from class_jax.training.main import parse
from class_jax.training.objectives import OBJECTIVES

RUNS = tiny_run.REPOSITORY / "gin" / "runs"
# A part that others include says so in its first line.
PARTS = {path.name for path in RUNS.glob("*.gin") if "not run by itself" in path.read_text().splitlines()[0]}
FILES = sorted(path.name for path in RUNS.glob("*.gin") if path.name not in PARTS)
HEADER = ("Reproduces", "Command", "Expected", "Must be set", "Commonly overridden")


@pytest.fixture
def resolved(monkeypatch):
    """Makes the configuration of a file of `gin/runs`, with what its header says must be set; opens no data."""
    monkeypatch.chdir(tiny_run.REPOSITORY)

    def resolve(name: str) -> loop.TrainConfig:
        bindings = {"MODEL_DIR": "'runs/test'"}
        [must] = re.findall(r"^# Must be set: (.*)$", header(name), flags=re.MULTILINE)
        for macro in re.findall(r"\b[A-Z][A-Z_]+\b", must):
            bindings.setdefault(macro, "'somewhere'")
        parse([f"gin/runs/{name}"], [f"{macro} = {value}" for macro, value in bindings.items()])
        return gin.get_configurable(loop.TrainConfig)()

    yield resolve
    gin.clear_config()


def header(name: str) -> str:
    lines = (RUNS / name).read_text(encoding="utf-8").splitlines()
    count = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:count])


def batch_shapes(config: loop.TrainConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """The largest batch that the buckets allow."""
    B, N = config.batch_size, config.num_passages
    Q, P, A = config.question_buckets[-1], config.passage_buckets[-1], config.answer_buckets[-1]
    readings = 2 * B if config.objective == "stage1" else B
    shapes = {"question": (readings, Q), "passage": (B, N, P), "answer": (readings, A)}
    batch = {f"{name}_ids": jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}
    batch |= {f"{name}_lengths": jax.ShapeDtypeStruct(shape[:-1], jnp.int32) for name, shape in shapes.items()}
    if config.objective == "stage1":
        batch["teacher_scores"] = jax.ShapeDtypeStruct((B, B * N), jnp.float32)
    return batch


def test_there_are_files():
    assert {"demo_stage1.gin", "demo_stage2.gin", "real_parallel.gin"} <= set(FILES)
    for part in PARTS:
        including = [name for name in FILES if f"include 'gin/runs/{part}'" in (RUNS / name).read_text()]
        assert including, f"{part} is included by no file"


@pytest.mark.parametrize("name", FILES)
def test_the_header_says_what_it_is_for(name):
    text = header(name)
    assert len(text.splitlines()[0]) > 20
    for part in HEADER:
        assert re.search(rf"^# {part}: ?\S", text, flags=re.MULTILINE) or f"# {part}:\n#   " in text, part
    assert f"--gin_file=gin/runs/{name}" in text and "--gin.MODEL_DIR=" in text
    settings = (RUNS / name).read_text(encoding="utf-8")
    [overridden] = re.findall(r"^# Commonly overridden: (.*)$", text, flags=re.MULTILINE)
    for macro in re.findall(r"\b[A-Z][A-Z_]+\b", overridden):
        assert f"\n{macro} = " in settings, f"{macro} is not in the file"


@pytest.mark.parametrize("name", FILES)
def test_the_file_makes_a_configuration(name, resolved):
    config = resolved(name)
    assert isinstance(config, loop.TrainConfig)
    assert config.batch_size % config.losses.micro_batches == 0
    assert gin.query_parameter("%MODEL_DIR") == "runs/test"
    retrieved = config.teacher.list_length if config.teacher else config.refresh.list_length if config.refresh else 0
    assert not retrieved or retrieved >= config.num_passages


@pytest.mark.parametrize("name", FILES)
def test_the_step_traces_at_full_size(name, resolved):
    config = resolved(name)
    graph = model_graph(config.model)
    objective = OBJECTIVES[config.objective]

    def loss(params, batch, seed):
        key = jax.random.key(seed) if config.model.dropout_rate else None
        return objective(merge(graph, params), batch, config.losses, key)

    gradients = jax.eval_shape(jax.grad(loss, has_aux=True), param_shapes(config.model), batch_shapes(config), 0)
    assert jax.tree.map(lambda x: x.shape, gradients[0]) == jax.tree.map(lambda x: x.shape, param_shapes(config.model))
    assert gradients[1]["per_question"].shape == (config.batch_size,)


def test_a_typo_would_be_seen(resolved, monkeypatch):
    """The check above is as strict as a run: an unknown setting does not pass."""
    resolved(FILES[0])
    fields = {field.name for field in dataclasses.fields(loop.TrainConfig)}
    assert "batch_sise" not in fields
    with pytest.raises(ValueError, match="has no setting 'batch_sise'; did you mean 'batch_size'"):
        parse([f"gin/runs/{FILES[0]}"], ["MODEL_DIR = 'runs/test'", "loop.TrainConfig.batch_sise = 4"])
