# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A run small enough for the tests: towns, their rivers and their dishes, in English and a made-up Finnish.

`write_data` makes files in the public formats and `write_gin` a gin file over them; `start` runs the real command in a
process of its own, `run_in_turn` several in one.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from class_jax.corpus.passages import Passage, write_passages
from class_jax.corpus.vocabulary import train_vocabulary

REPOSITORY = Path(__file__).resolve().parents[2]
SUPPORT = Path(__file__).resolve().parent
PIECES = 380
# Compiling takes most of a tiny run, and less of it without optimisations.
XLA_FLAGS = "--xla_backend_optimization_level=0"

_TOWNS = ("Asla", "Borun", "Celte", "Dimar", "Evosk", "Falun", "Gorda", "Helmi", "Ivrea", "Joska", "Kemal", "Lotus")
_RIVERS = ("Onar", "Pesk", "Quill", "Rauma", "Silva", "Tanew", "Ular", "Vorma", "Wisla", "Yukon", "Zeta", "Aare")
_DISHES = ("soup", "bread", "cake", "stew", "cheese", "pie", "salad", "fish", "rice", "beans", "honey", "tea")


def passages() -> list[Passage]:
    """Four passages for each town; a fact is in two of them."""
    found = []
    for i, (town, river, dish) in enumerate(zip(_TOWNS, _RIVERS, _DISHES, strict=True)):
        texts = (
            f"{town} is a town on the river {river}. Its people are fond of {dish}.",
            f"The market of {town} sells {dish} every morning, in summer and in winter.",
            f"The river {river} flows through {town} and on to the sea.",
            f"An old bridge and {i + 2} mills stand in {town}; visitors come for the {dish}.",
        )
        found += [Passage(f"{town.lower()}-{j}", text, town) for j, text in enumerate(texts)]
    return found


def write_data(folder: Path) -> None:
    """Writes passages, stage-1 pairs, stage-2 questions with their own passages, held-out questions, a vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = passages()
    write_passages(folder / "passages.tsv", corpus)
    pairs, questions, own, heldout, gold = [], [], [], [], []
    for i, (town, river, dish) in enumerate(zip(_TOWNS, _RIVERS, _DISHES, strict=True)):
        language = ("fi", "ar")[i % 2]
        name = town.lower()
        pairs.append((f"{language}-p{i}", f"_X_ is the river that flows through {town}", f"joki {town} virtaa", river))
        pairs.append((f"{language}-q{i}", f"the market of {town} sells _X_", f"tori {town} myy", dish))
        questions.append((f"{language}-r{i}", f"mika joki virtaa {town}", river))
        own.append((f"{language}-r{i}", f"{name}-0"))
        questions.append((f"{language}-d{i}", f"mita tori myy {town}", dish))
        own.append((f"{language}-d{i}", f"{name}-1"))
        if i < 6:
            written = " ar" if language == "ar" else language  # as the public training file has it
            heldout.append({"id": f"h{i}", "question": f"joki {town}", "answers": [river], "lang": written})
            gold.append({"id": f"h{i}", "passages": [f"{name}-0", f"{name}-2"]})
    for file, rows in (("parallel.tsv", pairs), ("questions.tsv", questions), ("own.tsv", own)):
        _write_lines(folder / file, ("\t".join(row) for row in rows))
    _write_lines(folder / "heldout.jsonl", map(json.dumps, heldout))
    _write_lines(folder / "gold.jsonl", map(json.dumps, gold))
    write_vocabulary(folder / "vocabulary.model")


def write_vocabulary(path: Path, size: int = PIECES) -> None:
    """Trains a vocabulary on the passages."""
    train_vocabulary((f"{p.title} {p.text}" for p in passages()), path, size, num_threads=1)


def _write_lines(path: Path, lines) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


_GIN = """
from __gin__ import dynamic_registration
from class_jax.questions import readers
from class_jax.models import config as model_config
from class_jax.training import data
from class_jax.training import evaluator
from class_jax.training import config
from class_jax.training import loop
from class_jax.objectives import objectives
from class_jax.training import optimizer
from class_jax.distributed import sharding
from class_jax.training import teacher

model_config.ModelConfig:
  vocab_size = {pieces}
  d_model = 32
  d_kv = 8
  d_ff = 32
  num_layers = 2
  num_decoder_layers = 1
  num_heads = 2
  retriever_head = 1
  dropout_rate = 0.1

data.DataConfig:
  vocabulary = '{folder}/vocabulary.model'
  store = '{folder}/store'
  passages = '{folder}/passages.tsv'

readers.read_parallel.path = '{folder}/parallel.tsv'
readers.read_anchor_questions.path = '{folder}/questions.tsv'
readers.read_xor.path = '{folder}/heldout.jsonl'
optimizer.OptimizerConfig:
  total_steps = 20
  learning_rate = 1e-2
teacher.Bm25TeacherConfig.list_length = 6
config.RefreshConfig:
  every = 6
  delay = 5
  list_length = 4
config.CheckpointConfig.every = 4
evaluator.EvaluationConfig:
  questions = @readers.read_xor()
  gold = '{folder}/gold.jsonl'
  ks = (1, 5)
  num_passages = 2
  max_answer_tokens = 3
  batch = 6
config.TrainConfig:
  model = @model_config.ModelConfig()
  optimizer = @optimizer.OptimizerConfig()
  data = @data.DataConfig()
  losses = @objectives.ObjectiveConfig()
  checkpoints = @config.CheckpointConfig()
  mesh = @sharding.MeshConfig()
  batch_size = 4
  num_passages = 2
  question_buckets = (50,)
  passage_buckets = (200,)
  answer_buckets = (16,)
  log_every = 1
  tensorboard = False
loop.train:
  model_dir = %MODEL_DIR
  config = @config.TrainConfig()
"""

_STAGES = {
    "stage1": """
data.DataConfig.questions = @readers.read_parallel()
config.TrainConfig.objective = 'stage1'
config.TrainConfig.teacher = @teacher.Bm25TeacherConfig()
""",
    "end_to_end": """
data.DataConfig.questions = @readers.read_anchor_questions()
data.DataConfig.own_passages = '{folder}/own.tsv'
config.TrainConfig.objective = 'end_to_end'
config.TrainConfig.refresh = @config.RefreshConfig()
""",
}


def write_gin(folder: Path, stage: str, path: Path | None = None) -> Path:
    """Writes the gin file of "stage1" or "end_to_end" over the data in `folder`; returns its path."""
    path = path or folder / f"{stage}.gin"
    text = (_GIN + _STAGES[stage]).replace("{folder}", str(folder)).replace("{pieces}", str(PIECES))
    path.write_text(text, encoding="utf-8")
    return path


def arguments(gin_file: Path, model_dir: Path, **bindings: object) -> list[str]:
    """The command line after `python`; double underscores in a name mean dots; a value of gin's like "@name()" is not quoted."""
    found = ["run_train.py", f"--gin_file={gin_file}", f"--gin.MODEL_DIR='{model_dir}'"]
    for name, value in bindings.items():
        is_reference = isinstance(value, str) and value[:1] in ("@", "%")
        found.append(f"--gin.{name.replace('__', '.')}={value if is_reference else repr(value)}")
    return found


# Runs run_train.py, and sends this process a signal at a point such as "write 7": when the metrics of step 7 are written.
_SIGNALLED = """
import os, runpy, signal, sys
from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.refresh.lists import PassageLists
from class_jax.training.logs import MetricLog

number, point, at = getattr(signal, sys.argv[1]), sys.argv[2], int(sys.argv[3])

def signalled(owner, name, where):
    method = getattr(owner, name)
    def wrapper(self, *args, **kwargs):
        result = method(self, *args, **kwargs)
        if where(self, args) == at:
            os.kill(os.getpid(), number)
        return result
    setattr(owner, name, wrapper)

if point == "write":
    signalled(MetricLog, "write", lambda self, args: args[0] if "loss" in args[1] else None)
elif point == "save":
    signalled(TrainCheckpoints, "save", lambda self, args: args[0])
elif point == "lists":
    signalled(PassageLists, "save", lambda self, args: self.version)
else:
    raise ValueError(point)
sys.argv = sys.argv[4:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(command: list[str], stop: str | None = None, cache: Path | None = None, devices: int = 1) -> subprocess.Popen:
    """Starts a command line of `arguments` in a process of its own; its standard error is a pipe of text.

    Args:
      command: the command line.
      stop: a signal that the process gets, and when: "SIGKILL write 7" (metrics of step 7 are on the disk),
        "SIGKILL save 8" (the save of step 8 has begun), "SIGKILL lists 1" (lists version 1 is on the disk).
      cache: folder of compiled programs, for a command that is run several times.
      devices: how many devices JAX sees.
    """
    shim = [] if stop is None else ["-c", _SIGNALLED, *stop.split()]
    return subprocess.Popen(
        [sys.executable, *shim, *command],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(cache, devices),
    )


def _environment(cache: Path | None, devices: int = 1) -> dict[str, str]:
    flags = f"{XLA_FLAGS} --xla_force_host_platform_device_count={devices}"
    found = os.environ | {
        "XLA_FLAGS": flags,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{SUPPORT}",
    }
    if cache is not None:
        found |= {"JAX_COMPILATION_CACHE_DIR": str(cache)}
        found |= {f"JAX_PERSISTENT_CACHE_MIN_{what}": "0" for what in ("COMPILE_TIME_SECS", "ENTRY_SIZE_BYTES")}
    return found


class Ended(NamedTuple):
    """How a command ended: its exit status, and the last lines that it wrote to standard error."""

    status: int
    error: str


# Runs several command lines one after the other in one process: starting one takes longer than a tiny run.
_IN_TURN = """
import contextlib, io, json, resource, sys, traceback
from class_jax.training.main import main

limits = resource.getrlimit(resource.RLIMIT_FSIZE)
ended = []
for command, limit in json.load(sys.stdin):
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    with contextlib.redirect_stderr(io.StringIO()) as error:
        try:
            status = main(command)
        except BaseException:
            traceback.print_exc()
            status = 1
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    ended.append((status, error.getvalue()))
json.dump(ended, sys.stdout)
"""


def run_in_turn(
    commands: list[list[str]],
    *,
    file_limits: dict[int, int] | None = None,
    cache: Path | None = None,
    devices: int = 1,
) -> list[Ended]:
    """Runs command lines of `arguments` in turn, in one process.

    Args:
      commands: the command lines.
      file_limits: for the command of this place in the list, the bytes after which a file can't grow.
      cache: folder of compiled programs.
      devices: how many devices JAX sees.

    Returns:
      How each ended.
    """
    work = [(command, (file_limits or {}).get(i)) for i, command in enumerate(commands)]
    done = subprocess.run(
        [sys.executable, "-c", _IN_TURN],
        cwd=REPOSITORY,
        input=json.dumps(work),
        capture_output=True,
        text=True,
        env=_environment(cache, devices),
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return [Ended(*pair) for pair in json.loads(done.stdout.splitlines()[-1])]


def metrics(model_dir: Path) -> list[dict]:
    """Every whole line of a run's metrics."""
    file = model_dir / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def losses(model_dir: Path) -> dict[int, float]:
    """The loss of every step so far; fails where a step has two."""
    found = {}
    for line in metrics(model_dir):
        if "loss" in line:
            assert line["step"] not in found, f"step {line['step']} is there twice"
            found[line["step"]] = line["loss"]
    return found
