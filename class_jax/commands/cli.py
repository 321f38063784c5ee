# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The command `class-jax`: one subcommand for each job that is not configured by gin, and the trainer."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.adapt import question_quality, rerank_adapt
from class_jax.commands.answer import answer
from class_jax.commands.compare import compare
from class_jax.commands.convert import convert
from class_jax.commands.convert_mkqa import convert_mkqa
from class_jax.commands.embed import embed, index
from class_jax.commands.evaluate import evaluate
from class_jax.commands.few_shot import few_shot
from class_jax.commands.make_data import make_data
from class_jax.commands.pipeline import pipeline
from class_jax.commands.plan import plan
from class_jax.commands.reader_length import reader_length
from class_jax.commands.report import report
from class_jax.commands.reproduce import reproduce
from class_jax.commands.rerank import rerank
from class_jax.commands.search import search
from class_jax.commands.statistics import statistics
from class_jax.commands.translate import translate
from class_jax.errors import InputError

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)


@app.command()
def vocabulary(
    passages: Annotated[Path, typer.Option(help="passage TSV to train on")],
    out: Annotated[Path, typer.Option(help="the SentencePiece model to write")],
    size: Annotated[int, typer.Option(help="number of pieces", min=260)] = 32000,
) -> None:
    """Trains a SentencePiece vocabulary on passages."""
    from class_jax.corpus.inputs import PREFIXES, passage_text
    from class_jax.corpus.passages import read_passages
    from class_jax.corpus.vocabulary import train_vocabulary

    made = train_vocabulary((passage_text(passage) for passage in read_passages(passages)), out, size, symbols=PREFIXES)
    typer.echo(f"{out}: {made.size} pieces, fingerprint {made.fingerprint[:12]}")


@app.command()
def store(
    passages: Annotated[Path, typer.Option(help="passage TSV: id, text, title")],
    vocabulary: Annotated[str, typer.Option(help="SentencePiece model, by path or hub id")],
    out: Annotated[Path, typer.Option(help="folder to write")],
    max_tokens: Annotated[int, typer.Option(help="longer passages are cut", min=2)] = 200,
) -> None:
    """Streams passages into a memory-mapped token store."""
    from class_jax.corpus.store import build_store
    from class_jax.corpus.vocabulary import Vocabulary

    made = build_store(passages, Vocabulary.load(vocabulary), out, max_tokens)
    typer.echo(f"{out}: {made.num_passages} passages, fingerprint {made.fingerprint[:12]}")


@app.command()
def passages(
    dump: Annotated[Path, typer.Option(help="pages-articles XML, plain or bz2")],
    out: Annotated[Path, typer.Option(help="passage TSV to write")],
    words: Annotated[int, typer.Option(help="words of a passage", min=10)] = 100,
) -> None:
    """Cuts a Wikipedia dump into passages."""
    from class_jax.corpus.wikipedia.dump import passages_from_dump

    typer.echo(f"{out}: {passages_from_dump(dump, out, words)}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(context: typer.Context) -> None:
    """Trains from gin files: the arguments of run_train.py."""
    from class_jax.training.main import main as train_main

    raise typer.Exit(train_main(["class-jax train", *context.args]))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("runs/demo"),
    gin: Annotated[list[str] | None, typer.Option(help="a further gin binding for both stages")] = None,
) -> None:
    """Runs the embedded main job."""
    from rich.console import Console

    from class_jax.demo.run import run

    run(out, gin or [], Console())


_DATA = (make_data, statistics, translate, convert_mkqa)
_USE = (convert, embed, index, search, rerank, answer, pipeline)
_JUDGE = (evaluate, compare, report, reproduce, few_shot, rerank_adapt, question_quality, reader_length, plan)
for command in (*_DATA, *_USE, *_JUDGE):
    app.command()(command)


def main() -> None:
    """Runs the command line; bad input ends it with one line and status 2."""
    try:
        app()
    except InputError as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
