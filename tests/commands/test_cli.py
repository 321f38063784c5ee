# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The command line: its commands and groups, help and errors without heavy imports, real commands on small files."""

import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from class_jax import commands
from class_jax.commands import cli
from class_jax.corpus.passages import Passage, write_passages
from class_jax.corpus.store import TokenStore
from class_jax.reranking import rerank as ranks
from class_jax.reranking.ranked import FORMATS

COMMANDS = {
    "Data": ("passages", "vocabulary", "store", "make-data", "translate", "convert-mkqa", "statistics"),
    "Train": ("train", "demo", "real", "reproduce"),
    "Retrieve": ("embed", "index", "search", "rerank", "rerank-adapt", "question-quality"),
    "Answer": ("answer", "pipeline", "few-shot", "reader-length"),
    "Evaluate": ("evaluate", "compare", "report"),
    "Tools": ("convert", "plan", "doctor"),
}
NAMES = [name for names in COMMANDS.values() for name in names]
HEAVY = ("jax", "numpy", "tensorflow", "torch", "flax", "gin")
# Runs several command lines in one fresh process, and prints of each its status and the heavy modules that are there.
ALONE = f"""
import contextlib, io, json, sys
from class_jax.commands.cli import run
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(arguments)
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    print(json.dumps([arguments, status, heavy, out.getvalue(), err.getvalue()]))
"""


@pytest.fixture(scope="module")
def alone():
    """Results by command line, in words: of the help of each command, and of wrong options of each."""
    lines = [["--help"], ["--version"], ["anwser"], ["train"], ["evaluate", "x"]]
    lines += [
        ["answer", "--model", "m", "--store", "s", "q", *given] for given in (["--beams", "0"], ["--pasages", "9"])
    ]
    lines += [[name, option] for name in NAMES for option in ("--help", "--no-such-option")]
    lines += [[name] for name in NAMES if name not in ("demo", "plan", "doctor")]
    lines += [["evaluate", "xor", "--questions", "x"], ["rerank", "x", "--model", "m", "--out", "o", "--format", "odd"]]
    done = subprocess.run([sys.executable, "-c", ALONE, json.dumps(lines)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {" ".join(arguments): rest for arguments, *rest in found}


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["class-jax", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code or 0


def test_the_commands_and_their_groups():
    found = {group: tuple(cli.command_name(f) for f, _ in listed) for group, listed in cli.GROUPS.items()}
    assert found == COMMANDS
    registered = cli.make_app().registered_commands
    assert [(info.rich_help_panel, info.name) for info in registered] == [
        (group, name) for group, names in COMMANDS.items() for name in names
    ]


def test_every_file_with_a_command_is_reached():
    """A function named as its file, or whose parameters are options, is a command."""
    registered = {function for listed in cli.GROUPS.values() for function, _ in listed}
    for module_info in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f"class_jax.commands.{module_info.name}")
        own = [f for _, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__]
        made = [f for f in own if "Info object" in str(inspect.signature(f)) or f.__name__ == module_info.name]
        assert set(made) - {cli._everywhere} <= registered, module_info.name


def test_the_help_lists_groups_with_one_line_each(alone):
    status, _, shown, _ = alone["--help"]
    assert status == 0
    for group, names in COMMANDS.items():
        panel = shown[shown.index(f"─ {group} ─") :].split("╰")[0]
        rows = [line.strip("│ ").split()[0] for line in panel.splitlines()[1:] if line.strip("│ ")]
        assert tuple(rows) == names, group


def test_nothing_heavy_is_imported_before_arguments_are_checked(alone):
    assert {line: heavy for line, (_, heavy, _, _) in alone.items() if heavy} == {}


def test_helps_succeed_and_mistakes_end_with_status_2_and_one_line(alone):
    for line, (status, _, out, err) in alone.items():
        if line.endswith(("--help", "--version")):
            assert status == 0 and not err and out, line
        else:
            assert status == 2 and err.startswith("error: ") and err.count("\n") == 1 and not out, (line, out, err)


def test_all_that_is_missing_is_said_at_once(alone):
    assert re.search(r"missing: --model, --store; .*class-jax answer --help", alone["answer"][3])
    assert "missing: TASK, --questions" in alone["evaluate"][3]
    assert "missing: --questions;" in alone["evaluate x"][3]
    assert "--gin_file" in alone["train"][3]


def test_the_nearest_spelling_is_named(alone):
    assert "'answer'" in alone["anwser"][3]
    assert "--passages" in alone["answer --model m --store s q --pasages 9"][3]
    assert "'--beams'" in alone["answer --model m --store s q --beams 0"][3]
    assert "xor-full" in alone["evaluate xor --questions x"][3]


def test_choices_are_those_of_the_rooms():
    """Repeated beside the commands, so that a wrong one is refused without importing the rooms."""
    from class_jax.commands import embed, evaluate, rerank
    from class_jax.reports.published import TASKS
    from class_jax.retrieval.index import KINDS

    assert (rerank.FORMATS, rerank.METRICS) == (FORMATS, ranks.METRICS)
    assert set(TASKS) <= set(evaluate.TASKS) and set(embed.KINDS) <= set(KINDS)


def test_a_vocabulary_and_a_store_are_made(tmp_path, monkeypatch, capsys):
    write_passages(
        tmp_path / "passages.tsv",
        [Passage(str(i), f"the river number {i} is long and flows to the sea", f"River {i}") for i in range(40)],
    )
    model = tmp_path / "vocabulary.model"
    made = ("vocabulary", "--passages", tmp_path / "passages.tsv", "--out", model, "--size", 296, "--json")
    assert call(monkeypatch, *made) == 0
    assert json.loads(capsys.readouterr().out)["pieces"] == 296
    store = tmp_path / "store"
    arguments = ("--passages", tmp_path / "passages.tsv", "--vocabulary", model, "--out", store)
    assert call(monkeypatch, "store", *arguments) == 0
    assert "40 passages" in capsys.readouterr().out
    assert TokenStore.open(store).num_passages == 40


def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys):
    missing = tmp_path / "none.tsv"
    assert call(monkeypatch, "vocabulary", "--passages", missing, "--out", tmp_path / "v.model", "--size", 300) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and "none.tsv" in printed and "\n" not in printed


def test_the_version_is_the_packages(alone):
    import class_jax

    assert alone["--version"][2] == f"class-jax {class_jax.__version__}\n"


QUIET = """
import logging, sys
from class_jax.commands import cli, printing

def noting():
    logging.warning("warned")
    printing.note("noted")
    printing.show({}, "shown", False)

cli.GROUPS = {"Tools": ((noting, ""), (cli.doctor.doctor, ""))}
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.parametrize("options", [[], ["--quiet"]])
def test_quiet_leaves_results(options):
    done = subprocess.run([sys.executable, "-c", QUIET, *options, "noting"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert ("noted" in done.stdout, "warned" in done.stderr) == ((False, False) if options else (True, True))
    assert "shown" in done.stdout


def test_completion_is_there():
    environment = os.environ | {
        "_CLASS_JAX_COMPLETE": "complete_bash",
        "COMP_WORDS": "class-jax rer",
        "COMP_CWORD": "1",
    }
    code = "from class_jax.commands.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert set(done.stdout.split()) == {"rerank", "rerank-adapt"}


def test_the_docs_hold_every_command_with_options_that_it_has():
    text = (Path(__file__).resolve().parents[2] / "docs" / "COMMANDS.md").read_text(encoding="utf-8")
    parts = re.split(r"^## (\w+)$", text, flags=re.M)[1:]
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    for group, listed in cli.GROUPS.items():
        for function, line in listed:
            name = cli.command_name(function)
            (row,) = [row for row in sections[group].splitlines() if row.startswith(f"| `{name}` | {line} |")]
            options = set(re.findall(r"--[a-z-]+", row.rpartition(line)[2]))
            assert name == "train" or options <= _own_options(name), name


def _own_options(name):
    group = typer.main.get_command(cli.make_app())
    return {option for param in group.commands[name].params for option in (*param.opts, *param.secondary_opts)}
