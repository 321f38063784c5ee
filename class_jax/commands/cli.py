# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""CLASS in JAX: one encoder-decoder that retrieves passages and answers questions in any language."""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from class_jax.commands import (
    adapt,
    answer,
    compare,
    convert,
    convert_mkqa,
    corpus,
    demo,
    doctor,
    embed,
    evaluate,
    few_shot,
    make_data,
    pipeline,
    plan,
    reader_length,
    report,
    reproduce,
    rerank,
    search,
    statistics,
    train,
    translate,
)
from class_jax.commands.printing import be_quiet
from class_jax.commands.usage import Command, describe
from class_jax.errors import InputError

GROUPS: dict[str, tuple[tuple[Callable[..., None], str], ...]] = {
    "Data": (
        (corpus.passages, "Cut a Wikipedia dump into passages."),
        (corpus.vocabulary, "Train a SentencePiece vocabulary on passages."),
        (corpus.store, "Tokenise passages into a memory-mapped store."),
        (make_data.make_data, "Make training questions from Wikipedia dumps."),
        (translate.translate, "Translate questions, passages or retrieved lists."),
        (convert_mkqa.convert_mkqa, "Split MKQA's public file by language."),
        (statistics.statistics, "Count training questions by language."),
    ),
    "Train": (
        (train.train, "Train from gin files, with T5X's flags."),
        (demo.demo, "Run both stages on the embedded encyclopaedia."),
        (demo.real, "Run stage 1 on public data, evaluated on XQuAD."),
        (reproduce.reproduce, "Reproduce a table of the paper in miniature."),
    ),
    "Retrieve": (
        (embed.embed, "Embed a token store."),
        (embed.index, "Build an index of embedded passages."),
        (search.search, "Find passages for one question or a file."),
        (rerank.rerank, "Re-rank passages by the question's likelihood."),
        (adapt.rerank_adapt, "Adapt a re-ranker to a few examples."),
        (adapt.question_quality, "Measure the questions that a re-ranker generates."),
    ),
    "Answer": (
        (answer.answer, "Answer one question or a file of questions."),
        (pipeline.pipeline, "Retrieve, re-rank, read and evaluate in one run."),
        (few_shot.few_shot, "Answer with a language model and a few examples."),
        (reader_length.reader_length, "Compare answers by the length of the input."),
    ),
    "Evaluate": (
        (evaluate.evaluate, "Score answers, ranked passages or a model."),
        (compare.compare, "Compare runs with each other and the paper."),
        (report.report, "Write a page about a run."),
    ),
    "Tools": (
        (convert.convert, "Convert weights between layouts."),
        (plan.plan, "Estimate memory, time and cost on given chips."),
        (doctor.doctor, "Check versions, devices and optional packages."),
    ),
}
"""The commands by the group under which the help lists them, each with its line there."""

_PASSES_FLAGS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True}


def command_name(function: Callable[..., None]) -> str:
    """The name by which a command is called."""
    return function.__name__.replace("_", "-")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"class-jax {version('class-jax')}")
        raise typer.Exit


def _everywhere(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print results and errors only")] = False,
    no_compilation_cache: Annotated[
        bool, typer.Option("--no-compilation-cache", help="compile again, and keep nothing of it")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    if quiet:
        be_quiet()
    if no_compilation_cache:
        os.environ["CLASS_JAX_COMPILATION_CACHE"] = "off"


def make_app() -> typer.Typer:
    """The command line with all commands in their groups."""
    app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
    app.callback(help=__doc__)(_everywhere)
    for group, commands in GROUPS.items():
        for function, line in commands:
            app.command(
                command_name(function),
                cls=Command,
                rich_help_panel=group,
                short_help=line,
                context_settings=_PASSES_FLAGS_THROUGH if function is train.train else None,
            )(function)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and ends the process: status 0, or 2 with one line where something given is wrong."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    try:
        status: Any = make_app()(arguments, prog_name="class-jax", standalone_mode=False)
    except InputError as error:
        message, status = str(error).splitlines()[0], 2
    except typer.TyperException as error:
        message, status = describe(error), error.exit_code
    except typer.Abort:
        message, status = "aborted", 1
    else:
        return status if isinstance(status, int) else 0
    if message:
        print(f"error: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
