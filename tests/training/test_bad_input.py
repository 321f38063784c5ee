# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Bad input to the trainer: one line that names file, line or key and the remedy, and nothing half-written."""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_run

from class_jax.errors import InputError
from class_jax.training.logs import MetricLog


def append(file: str, line: str) -> Callable[[Path], None]:
    """Adds a line to a file of the data."""

    def change(data: Path) -> None:
        with open(data / file, "a", encoding="utf-8") as f:
            f.write(line + "\n")

    return change


def append_bytes(file: str, line: bytes) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        with open(data / file, "ab") as f:
            f.write(line + b"\n")

    return change


def keep_lines(file: str, count: int) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        lines = (data / file).read_text(encoding="utf-8").splitlines(keepends=True)
        (data / file).write_text("".join(lines[:count]), encoding="utf-8")

    return change


def truncate_largest(folder: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        largest = max((data / folder).iterdir(), key=lambda path: path.stat().st_size)
        os.truncate(largest, largest.stat().st_size // 2)

    return change


@dataclasses.dataclass(frozen=True)
class Bad:
    """A run that must be refused.

    Attributes:
      error: pattern of the line; DATA and RUN are replaced by the folders of the data and of the run.
      change: what spoils the data. built: whether the data has its token store already.
      stage: of the gin file. gin: lines added to it. bindings: of the command line. command: takes its place.
      file_limit: bytes after which a file can't grow, as on a full disk.
    """

    error: str
    change: Callable[[Path], None] | None = None
    built: bool = True
    stage: str = "end_to_end"
    gin: str = ""
    bindings: dict = dataclasses.field(default_factory=dict)
    command: Callable[[list[str]], list[str]] = lambda command: command
    file_limit: int | None = None


# The passage TSV has a header and 48 rows; the questions' files have 24 rows, the held-out ones 6.
CASES = {
    "passage row with two columns": Bad(
        r"DATA/passages.tsv:50: 2 columns, not 3; rows are id<TAB>text<TAB>title.*",
        append("passages.tsv", "new\ta text"),
        built=False,
    ),
    "question row with too many columns": Bad(
        r"DATA/questions.tsv:25: 4 columns instead of 3; write id<TAB>question<TAB>answer",
        append("questions.tsv", "fi-1\tmika\tOnar\tmore"),
    ),
    "pair with too few columns": Bad(
        r"DATA/parallel.tsv:25: 3 columns instead of 4; write id<TAB>english<TAB>question<TAB>answer",
        append("parallel.tsv", "fi-1\twhat\tmika"),
        stage="stage1",
    ),
    "duplicate passage id": Bad(
        r"DATA/passages.tsv:50: .*'?asla-0'?.*duplicate.*;.*",
        append("passages.tsv", "asla-0\ta text\ta title"),
        built=False,
    ),
    "duplicate question id": Bad(
        r"DATA/questions.tsv:25: fi-r0: duplicate id \(first on line 1\); remove one of the two",
        append("questions.tsv", "fi-r0\tmika\tOnar"),
    ),
    "unknown own passage": Bad(
        r"DATA/own.tsv:25: nowhere-7: unknown passage id; use the corpus's ids", append("own.tsv", "fi-9\tnowhere-7")
    ),
    "own passages with one column": Bad(
        r"DATA/own.tsv:25: 1 columns instead of 2; question<TAB>passage", append("own.tsv", "fi-9")
    ),
    "own passages that are not UTF-8": Bad(
        r"DATA/own.tsv:25: not valid UTF-8; convert the file to UTF-8", append_bytes("own.tsv", b"fi-9\t\xff")
    ),
    "own passages that are not there": Bad(
        r"DATA/own.tsv: can't be read \(No such file or directory\); check the path",
        lambda data: (data / "own.tsv").unlink(),
    ),
    "unknown passage in a public list": Bad(
        r"DATA/lists.jsonl:1: .*nowhere-7.*",
        append("lists.jsonl", '{"qid": "fi-r0", "pids": ["asla-1", "nowhere-7"]}'),
        bindings={"config__TrainConfig__lists": "DATA/lists.jsonl"},
    ),
    "unknown gold passage": Bad(
        r"DATA/gold.jsonl:7: unusable line \(.*nowhere-7.*\); write .*",
        append("gold.jsonl", '{"id": "h0", "passages": ["nowhere-7"]}'),
        bindings={"config__TrainConfig__evaluation": "@evaluator.EvaluationConfig()"},
    ),
    "passage without text": Bad(
        r"DATA/passages.tsv:50: passage 'new': empty text; remove the row",
        append("passages.tsv", "new\t \ta title"),
        built=False,
    ),
    "question without text": Bad(
        r"DATA/questions.tsv:25: question: empty text; fill it in or remove the row",
        append("questions.tsv", "fi-1\t \tOnar"),
    ),
    "passages that are not UTF-8": Bad(
        r"DATA/passages.tsv:50: .*UTF-8.*", append_bytes("passages.tsv", b"new\t\xff\xfe\ttitle"), built=False
    ),
    "questions that are not UTF-8": Bad(
        r"DATA/questions.tsv:25: not valid UTF-8 \(byte 6\); convert the file to UTF-8",
        append_bytes("questions.tsv", b"fi-1\t\xff\tOnar"),
    ),
    "unknown language of a question": Bad(
        r"DATA/questions.tsv:25: id: unknown language 'fj'; known: .*\bfi\b.*",
        append("questions.tsv", "fj-1\tmika\tOnar"),
    ),
    "unknown language of a held-out question": Bad(
        r"DATA/heldout.jsonl:7: lang: unknown language 'arr'; did you mean 'ar'.*",
        append("heldout.jsonl", '{"id": "h7", "question": "joki", "answers": ["Onar"], "lang": "arr"}'),
        bindings={"config__TrainConfig__evaluation": "@evaluator.EvaluationConfig()"},
    ),
    "lists shorter than num_passages": Bad(
        r"lists version 0: passage lists of 4 for num_passages 5; make longer lists or lower num_passages",
        bindings={"config__TrainConfig__num_passages": 5},
    ),
    "corpus smaller than num_passages": Bad(
        r"k: 4 passages a question asked for where 3 may be retrieved; ask for fewer or add passages",
        keep_lines("passages.tsv", 4),
        built=False,
        bindings={"data__DataConfig__own_passages": None},
    ),
    "no questions": Bad(r"questions: there is no question to train on; .*", keep_lines("questions.tsv", 0)),
    "weights of another size": Bad(
        r"\S+/weights: shared.weight has shape \(380, 32\) in the checkpoint but shape \(380, 16\) in the configuration; .*; use .*",
        bindings={
            "config__TrainConfig__init_from": "RUN/../weights",
            "model_config__ModelConfig__d_model": 16,
        },
    ),
    "checkpoint of another size": Bad(
        r"\S+/trained/checkpoints/4: .*params/encoder/reader_layers/mlp/wi_0/kernel has shape \(1, 32, 32\) float32 in "
        r"the checkpoint but shape \(1, 32, 64\) float32 in the target; .*; use the configuration it was trained with",
        bindings={
            "config__TrainConfig__init_from": "RUN/../trained",
            "model_config__ModelConfig__d_ff": 64,
        },
    ),
    "resumed run of another size": Bad(
        r"\S+/trained/checkpoints/4: .*params/encoder/reader_layers/mlp/wi_0/kernel has shape \(1, 32, 32\) float32 in "
        r"the checkpoint but shape \(1, 32, 64\) float32 in the target; .*; use the configuration it was trained with",
        bindings={"MODEL_DIR": "RUN/../trained", "model_config__ModelConfig__d_ff": 64},
    ),
    "checkpoint of another vocabulary": Bad(
        r"\S+/trained/checkpoints/4: vocabulary: '\w+' in the checkpoint but '\w+' in this run; use the vocabulary "
        "that it was trained with, or another folder",
        bindings={
            "config__TrainConfig__init_from": "RUN/../trained",
            "data__DataConfig__vocabulary": "RUN/../other.model",
            "data__DataConfig__store": "RUN/../other_store",
        },
    ),
    "resumed run with another batch size": Bad(
        r"feed.batch_size: the saved run has 4, this one 8; continue with the saved run's data and settings, or .*",
        bindings={"MODEL_DIR": "RUN/../trained", "config__TrainConfig__batch_size": 8},
    ),
    "vocabulary larger than the model's": Bad(
        r"DATA/vocabulary.model: embed/embedding: has shape \(300, 32\), the vocabulary needs \(380, 32\); "
        r"set ModelConfig.vocab_size to at least 380, .*",
        bindings={"model_config__ModelConfig__vocab_size": 300},
    ),
    "token store of another vocabulary": Bad(
        r"DATA/store: made with the vocabulary \w+, not \w+ .*; give that vocabulary, or .*",
        lambda data: shutil.copy(data.parent / "other.model", data / "vocabulary.model"),
    ),
    "truncated token store": Bad(r"DATA/store.*: .*;.*", truncate_largest("store")),
    "weights that are not there": Bad(r".*RUN/nothing.*", bindings={"config__TrainConfig__init_from": "RUN/nothing"}),
    "unknown setting": Bad(
        r"config.TrainConfig: has no setting 'batch_sise'; did you mean 'batch_size'\?",
        bindings={"config__TrainConfig__batch_sise": 4},
    ),
    "unknown setting in the file": Bad(
        r"DATA/run.gin:\d+: config.TrainConfig: has no setting 'batch_sise'; did you mean 'batch_size'\?",
        gin="config.TrainConfig.batch_sise = 4",
    ),
    "unknown configurable": Bad(
        r"DATA/run.gin:\d+: class_jax.training.config: has no 'TrainConfigg'; did you mean 'TrainConfig'.*",
        gin="config.TrainConfigg.batch_size = 4",
    ),
    "unknown module": Bad(
        r"DATA/run.gin:\d+: looop: is not imported in this file; import it, or check its spelling",
        gin="looop.TrainConfig.batch_size = 4",
    ),
    "module that is not there": Bad(
        r"DATA/run.gin:\d+: No module named 'class_jax.nothing'; .*", gin="import class_jax.nothing"
    ),
    "syntax error": Bad(
        r"DATA/run.gin:\d+: .*; look for a bracket or quote that is not closed",
        gin="config.TrainConfig.batch_size = (4",
    ),
    "gin file that is not there": Bad(
        r"runs/demo_stage3.gin: no such gin file; did you mean 'runs/demo_stage[12].gin'.*",
        command=lambda command: [command[0], "--gin_file=runs/demo_stage3.gin", *command[2:]],
    ),
    "included file that is not there": Bad(
        r"DATA/run.gin:\d+: includes nothing.gin, which is not there; check the path", gin="include 'nothing.gin'"
    ),
    "no gin file": Bad(r"--gin_file: no gin file is given; .*", command=lambda command: [command[0], *command[2:]]),
    "no MODEL_DIR": Bad(
        r"DATA/run.gin: MODEL_DIR: is not set; set it in the file, or by --gin.MODEL_DIR=VALUE .*",
        command=lambda command: command[:2],
    ),
    "unknown flag": Bad(r".*gin_fil.*", command=lambda command: [*command, "--gin_fil=x"]),
    "argument that is no flag": Bad(r"STEPS=3: no such gin file; .*", command=lambda command: [*command, "STEPS=3"]),
    "setting that must be set": Bad(
        r"DATA/run.gin: OptimizerConfig.total_steps: must be set; set it in the file, or by .*",
        gin="optimizer.OptimizerConfig.total_steps = %gin.REQUIRED",
    ),
    "setting without a value": Bad(
        r"DATA/run.gin: STEPS: is not set; set it in the file, or by --gin.STEPS=VALUE .*",
        gin="optimizer.OptimizerConfig.total_steps = %STEPS",
    ),
    "setting that was left out": Bad(
        r"DATA/run.gin: read_nq: needs 'path'; bind them in the file",
        gin="data.DataConfig.questions = @readers.read_nq()",
    ),
    "unknown objective": Bad(
        r"TrainConfig.objective: unknown value 'stage2'; did you mean 'stage1'\?",
        bindings={"config__TrainConfig__objective": "stage2"},
    ),
    "mesh that does not divide the devices": Bad(
        r"MeshConfig: \{'data': 3, 'fsdp': 1, 'tensor': 1\} does not divide the 2 devices; make the axes multiply to 2",
        bindings={"sharding__MeshConfig__data": 3},
    ),
    "mesh that does not divide the batch": Bad(
        r"TrainConfig.batch_size: is 5, for 2 devices that share a batch and micro_batches 1; use a multiple of 2",
        bindings={"config__TrainConfig__batch_size": 5},
    ),
    "mesh that does not divide a parameter": Bad(
        r"\S+: vocab = 381 is not divisible by the mesh's 2.*",
        bindings={"sharding__MeshConfig__tensor": 2, "model_config__ModelConfig__vocab_size": 381},
    ),
    "disk that fills during a save": Bad(
        r"RUN/checkpoints/4: could not be written \(File too large\); free some space; nothing has been saved",
        # The vocabulary (246 kB) fits, a checkpoint of this wide a model (megabytes) does not.
        bindings={"model_config__ModelConfig__d_ff": 2048},
        file_limit=300_000,
    ),
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """Runs every case: its name -> (how it ended, the folder of its data, the folder of its run)."""
    folder = tmp_path_factory.mktemp("bad")
    whole = folder / "whole"
    tiny_run.write_data(whole)
    gin_file = tiny_run.write_gin(whole, "end_to_end")
    trained = tiny_run.arguments(gin_file, folder / "trained", optimizer__OptimizerConfig__total_steps=4)
    [ended] = tiny_run.run_in_turn([trained], devices=2)
    assert ended.status == 0, ended.error
    shutil.copytree(folder / "trained" / "model", folder / "weights")
    tiny_run.write_vocabulary(folder / "other.model", tiny_run.PIECES - 10)
    places, commands, limits = {}, [], {}
    for number, (name, case) in enumerate(CASES.items()):
        data, run = folder / f"data{number}", folder / f"run{number}"
        shutil.copytree(whole, data)
        if not case.built:
            shutil.rmtree(data / "store")
        if case.change is not None:
            case.change(data)
        gin_file = tiny_run.write_gin(data, case.stage, data / "run.gin")
        with open(gin_file, "a", encoding="utf-8") as f:
            f.write(case.gin + "\n")
        bindings = {
            key: value.replace("DATA", str(data)).replace("RUN", str(run)) if isinstance(value, str) else value
            for key, value in case.bindings.items()
        }
        commands.append(case.command(tiny_run.arguments(gin_file, run, **bindings)))
        if case.file_limit is not None:
            limits[number] = case.file_limit
        places[name] = data, run
    ended = tiny_run.run_in_turn(commands, file_limits=limits, devices=2)
    return {name: (end, *place) for end, (name, place) in zip(ended, places.items(), strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_in_one_line(name, refused):
    ended, data, run = refused[name]
    *before, last = ended.error.splitlines()
    assert ended.status == 2, ended.error
    assert [line for line in before if not re.match("[IW] ", line)] == []
    pattern = CASES[name].error.replace("DATA", re.escape(str(data))).replace("RUN", re.escape(str(run)))
    assert re.fullmatch("error: " + pattern, last), last
    assert [path for path in (*data.rglob("*"), *run.rglob("*")) if path.name.endswith(".tmp")] == []
    assert not (run / "model").exists()
    assert (run / "config.gin").exists() is (CASES[name].file_limit is not None)  # only a run that began keeps it
    assert "passages.tsv:" not in last or not (data / "store").exists()
    saved = run / "checkpoints"
    assert not saved.exists() or list(saved.iterdir()) == []


def test_metrics_that_the_disk_refuses_are_one_line(tmp_path):
    log = MetricLog(tmp_path, 10, 0, 1, tensorboard=False, progress=False)
    log._file.close()
    log._file = open("/dev/full", "a", encoding="utf-8")  # noqa: SIM115
    with pytest.raises(InputError, match=r"metrics.jsonl: could not be written \(No space left on device\); free some"):
        log.write(1, {"loss": 0.5})
    log.close()


@pytest.mark.parametrize(
    ("arguments", "key"),
    [((), "--gin_file"), (("--gin_fil=x",), "gin_fil"), (("x.gin", "--processes=2"), "--coordinator")],
)
def test_wrong_arguments_are_reported_before_anything_heavy_is_imported(arguments, key):
    code = (
        "import sys\n"
        "for name in ('jax', 'gin', 'flax', 'optax', 'orbax', 'tensorflow'): sys.modules[name] = None\n"
        "import runpy\n"
        f"sys.argv = ['run_train.py', *{arguments!r}]\n"
        "runpy.run_path('run_train.py', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tiny_run.REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ") and key in line
