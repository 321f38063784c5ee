# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The model and its training step run where jax, flax and optax are all there is."""

import os
import subprocess
import sys
import textwrap

# Not rich: flax imports it.
BLOCKED = ("tensorflow", "seqio", "transformers", "torch", "clu", "scann", "bm25s", "gin", "tqdm")

BLOCK = f"""
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError("blocked: " + name, name=name)

sys.meta_path.insert(0, Blocker())
"""

TRAIN = """
import jax.numpy as jnp
import class_jax.losses, class_jax.models, class_jax.models.generation, class_jax.scoring
from class_jax.training import objectives, optimiser, sharding, step

config = class_jax.models.ModelConfig(
    vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_decoder_layers=1, num_heads=2, retriever_head=1
)
mesh = sharding.make_mesh(sharding.MeshConfig())
adamw = optimiser.make_optimiser(optimiser.OptimiserConfig(total_steps=2))
train = step.make_train_step(config, "end_to_end", objectives.ObjectiveConfig(), adamw, mesh)
batch = {
    "question_ids": jnp.ones((1, 2), int), "question_lengths": jnp.full(1, 2),
    "passage_ids": jnp.ones((1, 2, 3), int), "passage_lengths": jnp.full((1, 2), 3),
    "answer_ids": jnp.ones((1, 2), int), "answer_lengths": jnp.full(1, 2),
}
state, metrics = train(step.init_state(config, adamw, mesh), batch)
print("step", int(state.step), "finite", bool(jnp.isfinite(metrics["loss"])))
"""


def python(script):
    # Compiling takes most of the time here, and less of it without optimisations.
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_training_step_without_optional_packages():
    done = python(BLOCK + TRAIN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "step 1 finite True"


def test_the_block_works():
    done = python(BLOCK + "import tqdm.auto")
    assert done.returncode == 1 and "blocked: tqdm" in done.stderr
