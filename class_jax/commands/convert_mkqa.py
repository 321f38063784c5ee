# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax convert-mkqa`: MKQA's public file to one question file a language."""

from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.options import entries
from class_jax.commands.printing import AsJson, show


def convert_mkqa(
    mkqa: Annotated[Path, typer.Argument(help="the public file, mkqa.jsonl or mkqa.jsonl.gz")],
    out: Annotated[Path, typer.Option(help="folder to write: mkqa-fi.jsonl, ...")],
    languages: Annotated[str | None, typer.Option(help="only these, such as da,zh_cn; by default all 26")] = None,
    unanswerable: Annotated[bool, typer.Option("--unanswerable", help="keep questions without an answer")] = False,
    as_json: AsJson = False,
) -> None:
    """Writes MKQA as XOR-TyDi QA JSON lines, which every other command reads.

    `class-jax evaluate mkqa` reads the public file itself: this is for searching and answering with it.
    """
    from class_jax.evaluation import mkqa as room

    wanted = entries(languages) or room.MKQA_LANGUAGES
    counts = room.convert_mkqa(mkqa, out, wanted, unanswerable)
    text = f"{out}: {sum(counts.values()):,} questions in {len(counts)} languages"
    show({"out": out, "questions": counts}, text, as_json)
