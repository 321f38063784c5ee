# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Rooms import only from lower floors; the model and its training step run with only jax, flax and optax."""

import ast
import os
import subprocess
import sys
import textwrap
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

pytestmark = pytest.mark.core

PACKAGE = Path(__file__).resolve().parents[1] / "class_jax"
TASKS = PACKAGE.parent / "tasks"

# From the ground up: a room imports from rooms on lower floors only, and from those before it on its own.
FLOORS = (
    "errors",
    "common storage configuration models llm",
    "objectives distributed pipelines",
    "corpus",
    "checkpoints retrieval questions",
    "refresh evaluation translation tasks",
    "training reports",
    "api synthesis planning",
    "reranking serving demo",
    "commands",
    "class_jax",
)
ORDER = " ".join(FLOORS).split()
LOOSE = {"__init__", "api", "errors"}

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
import class_jax.objectives.losses, class_jax.models, class_jax.models.generation, class_jax.models.scoring
from class_jax.objectives import objectives
from class_jax.objectives.batch import Batch
from class_jax.training import optimizer, step
from class_jax.distributed import sharding

config = class_jax.models.ModelConfig(
    vocab_size=16, d_model=8, d_kv=4, d_ff=8, num_layers=2, num_decoder_layers=1, num_heads=2, retriever_head=1
)
mesh = sharding.make_mesh(sharding.MeshConfig())
adamw = optimizer.make_optimizer(optimizer.OptimizerConfig(total_steps=2))
train = step.make_train_step(config, "end_to_end", objectives.ObjectiveConfig(), adamw, mesh)
batch = Batch(
    question_ids=jnp.ones((1, 2), int), question_lengths=jnp.full(1, 2),
    passage_ids=jnp.ones((1, 2, 3), int), passage_lengths=jnp.full((1, 2), 3),
    answer_ids=jnp.ones((1, 2), int), answer_lengths=jnp.full(1, 2),
)
state, metrics = train(step.init_state(config, adamw, mesh), batch)
print("step", int(state.step), "finite", bool(jnp.isfinite(metrics["loss"])))
"""


def python(script):
    # Compiling takes most of the time here, and less of it without optimisations.
    environment = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
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


def room(path, package=PACKAGE):
    """The dotted room of a file: its folder below the package; a loose file is a room of its own."""
    if path.is_relative_to(TASKS):
        return "tasks"
    parts = path.relative_to(package).with_suffix("").parts
    if len(parts) == 1:
        return "class_jax" if parts[0] == "__init__" else parts[0]
    return ".".join(parts[:-1])


def room_of_module(module, package=PACKAGE):
    """The dotted room of an imported module."""
    parts = module.split(".")[1:]
    while parts and not package.joinpath(*parts).is_dir():
        if len(parts) == 1:
            break  # a loose module
        parts = parts[:-1]
    return ".".join(parts) or "class_jax"


def crossings(package=PACKAGE, tasks=TASKS):
    """(room, room that it imports from) -> the places where it does."""
    found = defaultdict(list)
    for path in [*sorted(package.rglob("*.py")), *sorted(tasks.rglob("*.py"))]:
        own = room(path, package)
        for line, module in imports(path):
            if (other := room_of_module(module, package)) != own:
                found[own, other].append(f"{path.relative_to(package.parent)}:{line} imports {module}")
    return found


def upward(found):
    """Places that import from a room that does not come before their own."""
    rank = {name: i for i, name in enumerate(ORDER)}
    wrong = []
    for (own, other), places in sorted(found.items()):
        a, b = own.split(".")[0], other.split(".")[0]
        if a != b and not rank[b] < rank[a]:
            wrong += places
    return wrong


def circle(found):
    """Rooms, sub-rooms among them, that import each other in one or several steps; empty if none do."""
    after = defaultdict(set)
    for own, other in found:
        after[own].add(other)
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        path.append(name)
        for other in sorted(after[name]):
            if around := visit(other):
                return around
        path.pop()
        done.add(name)
        return []

    return next((around for name in sorted(after) if (around := visit(name))), [])


def test_rooms_import_only_from_lower_floors():
    assert not upward(crossings())


def test_no_rooms_import_each_other():
    assert not circle(crossings())


def test_no_files_of_a_room_import_each_other():
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        own = ".".join(["class_jax", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
        for _, module in imports(path):
            candidates = [module, module.rpartition(".")[0]]
            target = next(
                (m for m in candidates if PACKAGE.parent.joinpath(*m.split(".")).with_suffix(".py").exists()), None
            )
            if target and target != own:
                found[own, target] = []
    assert not circle(found)


def after(start, found):
    """Rooms that are imported from a room, in one or several steps."""
    reached, left = set(), [start]
    while left:
        name = left.pop()
        for own, other in found:
            if own.split(".")[0] == name and other.split(".")[0] not in reached:
                reached.add(other.split(".")[0])
                left.append(other.split(".")[0])
    return reached


def test_the_user_s_face_and_the_trainer_do_not_know_each_other():
    found = crossings()
    assert "models" in after("api", found) and "models" in after("training", found)
    assert "training" not in after("api", found)
    assert "api" not in after("training", found)


ANSWER = """
import sys, tempfile
from pathlib import Path
import tiny_run
from tiny_model import CONFIG, random_params
from class_jax import CLASS
from class_jax.corpus.store import build_store
from class_jax.corpus.vocabulary import Vocabulary

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    tiny_run.write_vocabulary(folder / "spiece.model")
    tiny_run.write_passages(folder / "passages.tsv", tiny_run.passages()[:6])
    vocabulary = Vocabulary.load(folder / "spiece.model")
    store = build_store(folder / "passages.tsv", vocabulary, folder / "store", progress=False)
    CLASS(CONFIG, random_params(), vocabulary).save_pretrained(folder / "model")
    model = CLASS.from_pretrained(folder / "model")
    [found] = model.answer(["Asla"], store, passages=2, languages="en", max_answer_tokens=2, progress=False)
assert len(found.passages) == 2
print(sorted(n for n in sys.modules if n.startswith("class_jax.training") or n in ("gin", "tensorflow", "torch")))
"""


def test_an_answer_takes_nothing_of_the_trainer():
    done = python(f"import sys; sys.path.insert(0, {str(Path(__file__).parent / 'support')!r})\n" + ANSWER)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def made_package(tmp_path, **files):
    package = tmp_path / "class_jax"
    for name, text in files.items():
        path = package / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(text)
    return crossings(package, tmp_path / "tasks")


def test_an_import_from_above_is_found(tmp_path):
    text = "def f():\n    from class_jax import reranking\n    import class_jax.errors, class_jax.common.x\n"
    found = made_package(tmp_path, corpus__odd=text, reranking__a="", common__x="")
    assert upward(found) == ["class_jax/corpus/odd.py:2 imports class_jax.reranking"]


def test_a_circle_through_a_sub_room_is_found(tmp_path):
    down, up = "from class_jax.corpus.wikipedia import dump", "from class_jax.corpus import passages"
    found = made_package(tmp_path, corpus__passages=down, corpus__wikipedia__dump=up)
    assert circle(found) == ["corpus", "corpus.wikipedia", "corpus"]


def test_every_room_has_a_floor_and_no_file_is_loose():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert rooms <= set(ORDER)
    assert {path.stem for path in PACKAGE.glob("*.py")} == LOOSE


def test_no_source_file_evaluates_text_or_unpickles():
    for path in [*PACKAGE.rglob("*.py"), *TASKS.rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            assert not (isinstance(called, ast.Name) and called.id in ("eval", "exec")), f"{path}:{node.lineno}"
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert "pickle" not in named, f"{path}:{node.lineno}"


def test_the_package_lists_every_room():
    listed = set(tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    rooms = {".".join(path.relative_to(PACKAGE.parent).parts[:-1]) for path in PACKAGE.rglob("*.py")}
    assert listed == rooms | {"class_jax.gin", "class_jax.tasks"}
