# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax demo` and `class-jax real`: the main job, on the embedded encyclopaedia and on public data."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from class_jax.commands.printing import AsJson, console, is_quiet, show

if TYPE_CHECKING:
    from class_jax.reports.tables import Table

_GIN = "a further gin binding, such as STEPS=100"


def demo(
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("runs/demo"),
    gin: Annotated[list[str] | None, typer.Option(help="a further gin binding for both stages")] = None,
    as_json: AsJson = False,
) -> None:
    """Makes data from the embedded encyclopaedia, trains both stages, evaluates them and answers a question.

    Interrupted, the same command resumes.
    """
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.demo.run import run_demo

    made = run_demo(out, gin or [], console(as_json))
    _show(made, as_json)


def real(
    data: Annotated[Path, typer.Option(help="public data: xor_parallel/, xquad/ and wiki/ with a dump")],
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("runs/real_parallel"),
    gin: Annotated[list[str] | None, typer.Option(help=_GIN)] = None,
    as_json: AsJson = False,
) -> None:
    """Trains stage 1 on parallel questions and compares it with BM25 and the untrained model on XQuAD.

    DATA holds xor_parallel/{lang}-en.{lang,en} (XOR-TyDi QA's human translations), xquad/xquad.{en,ar,de,ru}.json and
    wiki/*-pages-articles.xml.bz2. Interrupted, the same command resumes.
    """
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.demo.real import run_real

    made = run_real(data, out, gin or [], console(as_json))
    _show(made, as_json)


def _show(made: "Table", as_json: bool) -> None:
    """Prints the table where the job's console did not: it is quiet, or the result is wanted as JSON."""
    if as_json or is_quiet():
        show(json.loads(made.json()), made.print, as_json)
