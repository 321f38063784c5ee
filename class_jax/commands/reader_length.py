# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax reader-length`: answers by the passage tokens that the reader is given (arXiv 2501.04153, 6.2)."""

import json
from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.options import positive_numbers
from class_jax.commands.printing import AsJson, show


def reader_length(
    ranked: Annotated[Path, typer.Argument(help="retrieved lists with their questions' answers (`ctxs`)")],
    model: Annotated[list[str], typer.Option(help="reader; repeat it to compare, say trained with augmentation")],
    out: Annotated[Path, typer.Option(help="folder of answers, reports and the table")],
    input_tokens: Annotated[str, typer.Option(help="passage tokens of a question at most")] = "600,1000,2000",
    read: Annotated[int, typer.Option(help="passages of a question at most", min=1)] = 100,
    max_answer_tokens: Annotated[int, typer.Option(help="longer answers are cut", min=1)] = 50,
    samples: Annotated[int, typer.Option(help="of the bootstrap behind the intervals", min=1)] = 10_000,
    as_json: AsJson = False,
) -> None:
    """Reads as many passages as fit, for each length and model; compares F1, also of numerical and other answers."""
    lengths = positive_numbers(input_tokens, "input-tokens", "600,1000,2000", needed=True)
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.reranking.reader_length import compare_lengths

    table = compare_lengths(
        ranked, model, out, lengths, passages=read, max_answer_tokens=max_answer_tokens, samples=samples
    )
    show(json.loads(table.json()), table.print, as_json)
