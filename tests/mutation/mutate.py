# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Changes modules in small ways, one at a time, and reports the changes that their tests do not notice.

Cosmic Ray makes the changes, in a copy of the checkout under a temporary folder. See docs/MUTATION.md.
"""

import argparse
import ast
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from cosmic_ray import plugins
from cosmic_ray.commands import execute, init
from cosmic_ray.config import ConfigDict
from cosmic_ray.mutating import mutate_code
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkItem, WorkResult
from operators import OPERATORS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = tomllib.loads((Path(__file__).parent / "mutation.toml").read_text(encoding="utf-8"))

Span = tuple[tuple[int, int], tuple[int, int]]

plugins.OPERATOR_PROVIDERS["arrays"] = OPERATORS


def check_operators() -> None:
    """Fails where the operators of this folder do not make the changes of their examples."""
    for operator in OPERATORS.values():
        for example in operator.examples():
            made = mutate_code(example.pre_mutation_code, operator(), example.occurrence)
            if made != example.post_mutation_code:
                raise AssertionError(f"{operator.__name__} makes {made!r}, not {example.post_mutation_code!r}")


def copy_checkout(to: Path) -> None:
    """Copies the files that git tracks or would track, as they are in the working tree."""
    listed = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, text=True)
    for name in listed.split("\0")[:-1]:
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def annotations(source: str) -> list[Span]:
    """Where types are written: a change there changes nothing, or stops the import."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if part is not None:
                found.append(((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)))
    return found


def is_wanted(mutation: MutationSpec, lines: list[str], types: list[Span]) -> bool:
    """Whether a change is worth a run of the tests."""
    name = mutation.operator_name.split("/")[1]
    if not re.fullmatch("|".join(CONFIG["operators"]), name):
        return False
    row, column = mutation.start_pos
    # Of a matrix, axes 1 and -1 are the same; NumberReplacer changes the axis.
    if "UnaryOperator" in name and lines[row - 1][:column].endswith("axis="):
        return False
    return not any(start <= mutation.start_pos < end for start, end in types)


def sample_work(database: WorkDB, module: Path, size: int, seed: int) -> int:
    """Fills the session with a random sample of a module's changes; returns how many there are to choose from."""
    init([module], database, {})
    source = module.read_text(encoding="utf-8")
    lines, types = source.splitlines(), annotations(source)
    items = [item for item in database.work_items if is_wanted(item.mutations[0], lines, types)]
    items.sort(
        key=lambda item: (item.mutations[0].start_pos, item.mutations[0].operator_name, item.mutations[0].occurrence)
    )
    database.clear()
    database.add_work_items(random.Random(seed).sample(items, min(size, len(items))))
    return len(items)


def was_stopped(result: WorkResult) -> bool:
    """Whether no test failed but the run ended: an endless loop, a busy machine, a process that was killed."""
    return result.test_outcome == TestOutcome.KILLED and not re.search(r"\b\d+ (failed|error)", result.output)


def left_of(session: Path) -> list[WorkItem]:
    """The changes that an earlier session's tests did not notice, or where they were stopped."""
    with use_db(session, WorkDB.Mode.open) as database:
        return [
            item
            for item, result in database.completed_work_items
            if result.test_outcome == TestOutcome.SURVIVED or was_stopped(result)
        ]


def environment(checkout: Path, out: Path) -> dict[str, str]:
    """What the tests of the copy need: its modules before the installed ones, and compiled programs kept."""
    return {
        "PYTHONPATH": str(checkout),
        "JAX_COMPILATION_CACHE_DIR": str(out / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def report(database: WorkDB, choice: int | None) -> str:
    """The counts, and what survived or was stopped as changed lines."""
    done = database.completed_work_items
    survived = [result.test_outcome == TestOutcome.SURVIVED for _, result in done]
    stopped = [was_stopped(result) for _, result in done]
    killed = sum(result.test_outcome == TestOutcome.KILLED for _, result in done) - sum(stopped)
    total = f"{len(done)} mutants" + ("" if choice is None else f" of {choice}")
    lines = [f"{total}: {killed} killed, {sum(survived)} survived, {sum(stopped)} stopped"]
    for (item, result), lives, halted in zip(done, survived, stopped, strict=True):
        if lives or halted:
            mutation = item.mutations[0]
            place = f"{mutation.module_path}:{mutation.start_pos[0]} in {mutation.definition_name}"
            lines.append(f"\n{place} ({mutation.operator_name}){', stopped' if halted else ''}")
            lines += [x for x in result.diff.splitlines() if x[:1] in "+-" and x[:3] not in ("+++", "---")]
    return "\n".join(lines)


def main() -> int:
    """Mutates one module; returns 1 if a change survives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", choices=sorted(CONFIG["tests"]), metavar="MODULE", help="a key of mutation.toml")
    parser.add_argument("--python", default=".venv/bin/python", help="runs the tests")
    parser.add_argument("--size", type=int, default=40, help="mutants; more than there are takes all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/mutation"), help="of sessions, reports, compiled programs"
    )
    parser.add_argument(
        "--again", type=Path, help="a session: tests what survived or was stopped in it, and nothing else"
    )
    parser.add_argument("--only", help="pytest's -k: the tests that must notice, of the module's")
    given = parser.parse_args()
    check_operators()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    again = None if given.again is None else left_of(given.again.resolve())
    python = (ROOT / given.python).absolute()
    session = out / f"{given.module.replace('/', '.')}{'' if again is None else '.again'}.sqlite"
    session.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        checkout = Path(folder) / "checkout"
        copy_checkout(checkout)
        os.chdir(checkout)
        os.environ |= environment(checkout, out)
        only = "" if given.only is None else f" -k {shlex.quote(given.only)}"
        command = (
            f"{python} -m pytest -x -p no:cacheprovider --durations=0{only} {' '.join(CONFIG['tests'][given.module])}"
        )
        start = time.monotonic()
        outcome, output = run_tests(command, CONFIG["first_run_s"])
        seconds = time.monotonic() - start
        if outcome != TestOutcome.SURVIVED:
            sys.exit(f"the tests fail without any change:\n{output}")
        print(f"{command}\nwithout any change: {seconds:.0f} s", flush=True)
        with use_db(session) as database:
            choice = None
            if again is None:
                choice = sample_work(database, Path("class_jax", f"{given.module}.py"), given.size, given.seed)
            else:
                database.add_work_items(again)
            config = ConfigDict(
                {"test-command": command, "timeout": 120 + 10 * seconds, "distributor": {"name": "local"}}
            )
            execute(database, config)
            text = report(database, choice)
    print(text)
    session.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    return int(" 0 survived" not in text.splitlines()[0])


if __name__ == "__main__":
    sys.exit(main())
