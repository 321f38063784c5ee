# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax answer`: one question, readably, or a file of questions into the official prediction format."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from class_jax.commands.printing import AsJson, is_quiet, show
from class_jax.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from class_jax.api import Answer

_SNIPPET = 160
_SHOWN_PASSAGES = 5


def answer(
    model: Annotated[str, typer.Option(help="folder of a model or of a training run, or a hub id")],
    store: Annotated[Path, typer.Option(help="token store of the passages")],
    question: Annotated[str | None, typer.Argument(help="the question")] = None,
    index: Annotated[Path | None, typer.Option(help="of the store; without it the store is embedded again")] = None,
    questions: Annotated[Path | None, typer.Option(help="XOR-TyDi QA JSON lines: id, question, lang")] = None,
    out: Annotated[Path | None, typer.Option(help="predictions to write: a JSON object, id -> answer")] = None,
    passages: Annotated[int, typer.Option(help="passages to read", min=1)] = 100,
    beams: Annotated[int, typer.Option(help="1: greedy, as in the paper", min=1)] = 1,
    language: Annotated[str | None, typer.Option(help="code of the question's language")] = None,
    batch: Annotated[int | None, typer.Option(help="questions at once; chosen by memory if left out", min=1)] = None,
    max_answer_tokens: Annotated[int, typer.Option(help="longer answers are cut", min=1)] = 50,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
    allow_other_weights: Annotated[
        bool,
        typer.Option(
            "--allow-other-weights", "--allow-other-model", help="use an index although other weights made it"
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Answers one question, or every question of a file; interrupted on a file, the same command resumes.

    Of one question it prints the answer, its confidence (the probability that the model gives to the whole answer),
    and whether a passage that was read holds the answer's text.
    """
    if (question is None) == (questions is None):
        raise InputError("give one question or a file of them", remedy='"question", or --questions FILE --out FILE')
    if (questions is None) != (out is None):
        raise InputError("--questions and --out go together", remedy="give both or none")
    if question is not None and not question.strip():
        raise InputError("the question is empty", remedy="ask something")
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.api import CLASS, Searcher
    from class_jax.evaluation import answer_files

    loaded = CLASS.from_pretrained(model, vocabulary=vocabulary)
    corpus = Searcher.open(store, index, vocabulary=loaded.vocabulary, allow_other_weights=allow_other_weights)
    settings = {"beams": beams, "max_answer_tokens": max_answer_tokens, "batch": batch}
    if question is not None:
        given = loaded.answer([question], corpus, passages, language, progress=False, **settings)[0]
        show(answer_files.answer_record(given), lambda: show_answer(given), as_json)
        return
    count = answer_files.answer_file(loaded, corpus, questions, out, passages=passages, language=language, **settings)
    log = answer_files.log_path(out)
    value = {"out": out, "answers": count, "log": log}
    show(value, f"{out}: {count} answers; passages and scores are in {log}", as_json)


def show_answer(answer: "Answer", console: "Console | None" = None, count: int = _SHOWN_PASSAGES) -> None:
    """Prints an answer, how far to trust it, and the passages that the reader attended to most."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from class_jax.evaluation.answer_files import confidence, supported_by

    console = console or Console()
    places = supported_by(answer.answer, answer.passages)
    # Green is for answers that a passage supports.
    style = "bold green" if places else "bold"
    console.print(f"[bold]{escape(answer.question)}[/bold]", highlight=False)
    console.print(f"[{style}]{escape(answer.answer) or '(empty)'}[/{style}]", highlight=False)
    sure = f"confidence {confidence(answer):.2f}, log-probability {answer.log_probability:.2f}"
    console.print(f"{sure}; {_support(places)}", highlight=False)
    if is_quiet():
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", "attention", "score"):
        table.add_column(heading, justify="right")
    table.add_column("passage")
    numbered = sorted(enumerate(answer.passages, start=1), key=lambda pair: -pair[1].attention)
    for place, passage in numbered[:count]:
        snippet = passage.text[:_SNIPPET] + ("..." if len(passage.text) > _SNIPPET else "")
        named = f"[bold]{escape(passage.title)}[/bold] [dim]{escape(passage.id)}[/dim]\n{escape(snippet)}"
        table.add_row(str(place), f"{passage.attention:.3f}", f"{passage.score:.2f}", named)
    console.print(table, highlight=False)
    seconds = ", ".join(f"{name} {value:.2f} s" for name, value in answer.timings.items())
    console.print(f"[dim]{len(answer.passages)} passages read; {seconds}[/dim]", highlight=False)


def _support(places: list[int]) -> str:
    if not places:
        return "[yellow]in none of the passages read[/yellow]"
    shown = ", ".join(map(str, places[:3])) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
    return f"found in passage{'s' * (len(places) > 1)} {shown}"
