# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The wheel in a clean environment and an empty folder: what the checkout can do, it can do."""

import json
import re
from pathlib import Path

import pytest
import short_demo
from clean_environment import REPOSITORY, call

import class_jax
from class_jax.configuration.gin_files import gin_files
from class_jax.demo import run
from class_jax.demo.miniatures import TABLES

QUESTION = "Minkä maan pääkaupunki on Pariisi?"
# The README's names of files that a reader has.
STAND_INS = {
    "psgs_w100.tsv": "runs/demo/data/passages/passages.tsv",
    "google/mt5-large": "runs/demo/data/vocabulary.model",
    "spiece.model": "runs/demo/data/vocabulary.model",
    "xor_train_full.jsonl": "runs/demo/data/heldout.jsonl",
    "32000": str(run.VOCABULARY_SIZE),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def demo(installed, folder):
    """What `class-jax demo` prints, in its short form."""
    bindings = [part for binding in short_demo.SHORT for part in ("--gin", binding)]
    return call([installed / "class-jax", "demo", *bindings], folder).stdout


def python(installed, folder, program):
    return call([installed / "python", "-c", program], folder).stdout


def test_the_installed_package_is_used(installed, folder):
    program = "import class_jax; print(class_jax.__version__, class_jax.__file__)"
    version, file = python(installed, folder, program).split()
    assert version == class_jax.__version__
    assert Path(file).is_relative_to(installed.parent)


def test_every_gin_file_is_read_by_its_short_name(installed, folder):
    """With a value for each macro that the file leaves open."""
    program = """
import re
from class_jax.configuration import gin_files
from class_jax.errors import InputError

def read(name, *bindings):
    try:
        gin_files.parse([name], bindings)
    except InputError as error:
        unset = re.match(rf"{re.escape(name)}: ([A-Z_]+): ", str(error))
        if not unset or len(bindings) > 20:
            raise
        read(name, *bindings, f"{unset[1]} = 'somewhere'")

for name in gin_files.gin_files():
    read(name)
    print(name)
"""
    assert python(installed, folder, program).split() == gin_files()


def test_demo(demo, folder):
    for name in ("results.md", "results.json", "curves.png", "stage2/model/model.safetensors"):
        assert (folder / "runs" / "demo" / name).stat().st_size > 0
    table = json.loads((folder / "runs" / "demo" / "results.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in table["rows"]] == ["BM25", "untrained", "after stage 1", "after stage 2"]
    assert re.search(r"^right: \d+ of \d+$", demo, re.MULTILINE)


def test_train_by_short_name(installed, folder, demo):
    bindings = [*run.bindings(Path("runs/demo"), "stage1"), *short_demo.SHORT, "STEPS = 2", "MODEL_DIR = 'runs/mine'"]
    flags = [f"--gin_bindings={binding}" for binding in bindings]
    call([installed / "class-jax", "train", "runs/demo_stage1.gin", *flags], folder)
    lines = (folder / "runs" / "mine" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [line["step"] for line in map(json.loads, lines) if "loss" in line][-1] == 2


def test_answer_from_the_demo_s_run(installed, folder, demo):
    options = ["--store", "runs/demo/data/store", "--passages", "2", "--language", "fi", "--max-answer-tokens", "3"]
    done = call([installed / "class-jax", "answer", "--model", "runs/demo/stage2", *options, QUESTION], folder)
    assert QUESTION in done.stdout and "log-probability" in done.stdout


def test_plan(installed, folder):
    done = call([installed / "class-jax", "plan", "--size", "large", "--chip", "h200", "--devices", "8"], folder)
    assert "h200" in done.stdout.lower()


def test_reproduce_lists_the_papers_rows(installed, folder):
    done = call([installed / "class-jax", "reproduce", "--list"], folder)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == list(TABLES)


def snippets():
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_readme_has_python():
    assert snippets()


@pytest.mark.parametrize("number", range(len(snippets())))
def test_the_readme_s_python(installed, folder, demo, number):
    program = snippets()[number]
    for name, stand_in in STAND_INS.items():
        program = program.replace(name, stand_in)
    python(installed, folder, program)
