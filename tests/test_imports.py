# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Rooms import only from rooms above them; the model and its training step run with jax, flax and optax alone."""

import ast
import os
import subprocess
import sys
import textwrap
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "class_jax"

ALL_ABOVE = "all above"

# From the top down: a room (a package or module of class_jax), and the rooms above it that it imports from.
ROOMS = {
    "errors": "",
    "masking": "",
    "batching": "",
    "losses": "",
    "files": "errors",
    "hosts": "errors",
    "work_log": "errors files",
    "models": "errors",
    "scoring": "models",
    # A corpus has its vocabularies, and a converted model's folder holds one: checkpoints stand below.
    "corpus": "errors files",
    "checkpoints": "corpus errors files models",
    "questions": "corpus errors masking",
    "question_table": "corpus errors questions",
    "question_selection": "errors questions",
    "reply_cache": "errors",
    "llm": "errors reply_cache",
    "llm_local": "errors llm reply_cache",
    "translation": "errors files",
    "translators": "batching checkpoints corpus errors files llm models translation work_log",
    # Retrieval says what it needs of a model (`Encoder`) and imports none; inference makes that of the model.
    "retrieval": "batching corpus errors files hosts scoring",
    "inference": "models retrieval",
    # What is measured needs no model: training measures with it while it goes on.
    "evaluation": "corpus errors files llm question_selection questions reply_cache",
    "training": (
        "checkpoints corpus errors evaluation files hosts inference losses models question_table questions retrieval "
        "scoring"
    ),
    "planning": "errors models training",
    # Training data are made with a sentence encoder of the project's own, which is trained there.
    "synthesis": (
        "checkpoints corpus errors files inference llm llm_local masking models question_selection questions "
        "reply_cache retrieval training translation translators"
    ),
    "api": "batching checkpoints corpus errors inference models retrieval training",
    "reranking": "api batching checkpoints corpus errors evaluation files models questions training work_log",
    # What a user starts puts together all that is above it.
    "demo": ALL_ABOVE,
    "commands": ALL_ABOVE,
    "cli": ALL_ABOVE,
    "class_jax": "api",
}

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


def imports(path):
    """Modules of the project that a file imports anywhere, also inside functions and for type checkers."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: a relative import"
            named = [node.module]
            if node.module == "class_jax":
                named = [f"class_jax.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in named if name.split(".")[0] == "class_jax")


def room(module):
    """The first name under the package; the package itself is a room, too."""
    return module.split(".")[1] if "." in module else module


def crossings(package):
    """(room, room that it imports from) -> the places where it does."""
    found = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        parts = [part for part in path.relative_to(package).with_suffix("").parts if part != "__init__"]
        own = room(".".join(["class_jax", *parts]))
        for line, module in imports(path):
            if room(module) != own:
                found[own, room(module)].append(f"{path.relative_to(package.parent)}:{line} imports {module}")
    return found


def problems(found):
    """Imports that the table does not have, and entries of the table that no import needs."""
    needed = {(own, other) for own, others in ROOMS.items() if others != ALL_ABOVE for other in others.split()}
    order = list(ROOMS)
    free = {(own, other) for own in order if ROOMS[own] == ALL_ABOVE for other in order[: order.index(own)]}
    wrong = [place for crossing in sorted(set(found) - needed - free) for place in found[crossing]]
    return wrong + [f"{own} imports nothing from {other}" for own, other in sorted(needed - set(found))]


def test_rooms_import_only_from_rooms_above_them():
    order = list(ROOMS)
    for own, others in ROOMS.items():
        above = order[: order.index(own)]
        assert others == ALL_ABOVE or set(others.split()) <= set(above), f"{own} imports from below"
    assert not problems(crossings(PACKAGE))


def test_an_import_from_below_is_seen(tmp_path):
    (tmp_path / "class_jax" / "corpus").mkdir(parents=True)
    file = tmp_path / "class_jax" / "corpus" / "odd.py"
    file.write_text("def f():\n    from class_jax import reranking\n    import class_jax.errors, class_jax.files.x\n")
    found = problems(crossings(tmp_path / "class_jax"))
    assert found[0] == "class_jax/corpus/odd.py:2 imports class_jax.reranking"
    assert "corpus imports nothing from errors" not in found and "inference imports nothing from models" in found


def test_the_package_has_a_row_for_each_room():
    names = {path.stem if path.suffix else path.name for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert names == set(ROOMS) - {"class_jax"}
