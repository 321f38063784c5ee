# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What the tests of gin files share: a file's header, its configuration, and its step traced at full size."""

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import tiny_run

import gin
from class_jax.configuration.gin_files import parse
from class_jax.models.class_model import merge, model_graph, param_shapes
from class_jax.objectives.batch import Batch, Stage
from class_jax.objectives.objectives import OBJECTIVES
from class_jax.training.config import TrainConfig

RUNS = tiny_run.REPOSITORY / "gin" / "runs"
MACRO = re.compile(r"\b[A-Z][A-Z_]+\b")


def header(name: str, folder: Path = RUNS) -> str:
    """The comment that a gin file opens with."""
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    count = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:count])


def must_be_set(name: str) -> list[str]:
    """The macros that a file's header says must be set."""
    [must] = re.findall(r"^# Must be set: (.*)$", header(name), flags=re.MULTILINE)
    return MACRO.findall(must)


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """An empty working folder: what is found there is found by short name."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        try:
            yield
        finally:
            os.chdir(here)


@contextlib.contextmanager
def resolved(name: str) -> Iterator[TrainConfig]:
    """The configuration of a file, with what its header says must be set and nothing else; opens no data.

    By its short name, from an empty folder.
    """
    with elsewhere():
        try:
            macros = dict.fromkeys(must_be_set(name), "'somewhere'") | {"MODEL_DIR": "'runs/test'"}
            parse([f"runs/{name}"], [f"{macro} = {value}" for macro, value in macros.items()])
            yield gin.get_configurable(TrainConfig)()
        finally:
            gin.clear_config()


def batch_shapes(config: TrainConfig) -> Batch:
    """The largest batch that the buckets allow."""
    B, N = config.batch_size, config.num_passages
    Q, P, A = config.question_buckets[-1], config.passage_buckets[-1], config.answer_buckets[-1]
    readings = 2 * B if config.objective is Stage.STAGE1 else B
    shapes = {"question": (readings, Q), "passage": (B, N, P), "answer": (readings, A)}
    batch = {f"{name}_ids": jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}
    batch |= {f"{name}_lengths": jax.ShapeDtypeStruct(shape[:-1], jnp.int32) for name, shape in shapes.items()}
    if config.objective is Stage.STAGE1:
        batch["teacher_scores"] = jax.ShapeDtypeStruct((B, B * N), jnp.float32)
    return Batch(**batch)


def step_key(config: TrainConfig) -> tuple:
    """What decides a step's shapes: files with the same key need only one trace."""
    return config.objective, config.model, config.losses, batch_shapes(config)


_traced: set[tuple] = set()


def trace_step(config: TrainConfig) -> None:
    """Traces loss and gradients of a step on its largest batch; computes nothing, and each step once."""
    if step_key(config) in _traced:
        return
    graph = model_graph(config.model)
    objective = OBJECTIVES[config.objective]

    def loss(params, batch, seed):
        key = jax.random.key(seed) if config.model.dropout_rate else None
        return objective(merge(graph, params), batch, config.losses, key)

    gradients = jax.eval_shape(jax.grad(loss, has_aux=True), param_shapes(config.model), batch_shapes(config), 0)
    assert jax.tree.map(lambda x: x.shape, gradients[0]) == jax.tree.map(lambda x: x.shape, param_shapes(config.model))
    assert gradients[1]["per_question"].shape == (config.batch_size,)
    _traced.add(step_key(config))
