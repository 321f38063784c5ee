# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax answer`: one question, readably, or a file of questions into the official prediction format."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from class_jax.common.files import replacing
from class_jax.common.work_log import WorkLog
from class_jax.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from class_jax.api import CLASS, Answer, Searcher
    from class_jax.questions.readers import Question

# Questions whose answers are kept at once; with an index they are searched together, too.
_BLOCK = 64
_SNIPPET = 160
_SHOWN_PASSAGES = 5


def answer(
    model: Annotated[str, typer.Option(help="folder of a model or of a training run, or a hub id")],
    store: Annotated[Path, typer.Option(help="token store of the passages")],
    question: Annotated[str | None, typer.Argument(help="the question")] = None,
    index: Annotated[Path | None, typer.Option(help="of the store; without it the store is embedded anew")] = None,
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
) -> None:
    """Answers one question, or every question of a file; the latter goes on where an earlier start was stopped."""
    if (question is None) == (questions is None):
        raise InputError("give one question or a file of them", remedy='"question", or --questions FILE --out FILE')
    if (questions is None) != (out is None):
        raise InputError("--questions and --out go together", remedy="give both or none")
    if question is not None and not question.strip():
        raise InputError("the question is empty", remedy="ask something")
    from rich.console import Console

    from class_jax.api import CLASS, Searcher

    loaded = CLASS.from_pretrained(model, vocabulary=vocabulary)
    corpus = Searcher.open(store, index, vocabulary=loaded.vocabulary, allow_other_weights=allow_other_weights)
    settings = {"beams": beams, "max_answer_tokens": max_answer_tokens}
    if question is not None:
        found = loaded.answer([question], corpus, passages, language, batch=batch, progress=False, **settings)
        show(found[0], Console())
        return
    count = answer_file(loaded, corpus, questions, out, passages=passages, language=language, batch=batch, **settings)
    typer.echo(f"{out}: {count} answers; passages and scores are in {log_path(out)}")


def show(answer: "Answer", console: "Console", count: int = _SHOWN_PASSAGES) -> None:
    """Prints an answer and the passages that the reader attended to most."""
    from rich.markup import escape
    from rich.table import Table

    console.print(f"[bold]{escape(answer.question)}[/bold]", highlight=False)
    text = escape(answer.answer) or "(empty)"
    console.print(f"[bold green]{text}[/bold green]  log-probability {answer.log_probability:.2f}", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("attention", justify="right")
    table.add_column("score", justify="right")
    table.add_column("passage")
    for passage in sorted(answer.passages, key=lambda p: -p.attention)[:count]:
        snippet = passage.text[:_SNIPPET] + ("..." if len(passage.text) > _SNIPPET else "")
        named = f"[bold]{escape(passage.title)}[/bold] [dim]{escape(passage.id)}[/dim]\n{escape(snippet)}"
        table.add_row(f"{passage.attention:.3f}", f"{passage.score:.2f}", named)
    console.print(table, highlight=False)
    seconds = ", ".join(f"{name} {value:.2f} s" for name, value in answer.timings.items())
    console.print(f"[dim]{len(answer.passages)} passages read; {seconds}[/dim]", highlight=False)


def log_path(out: Path) -> Path:
    """Where the answers are kept one by one, with passages and scores, while a file is being answered and after."""
    return out.with_name(f"{out.stem}.log.jsonl")


def answer_file(
    model: "CLASS",
    corpus: "Searcher",
    questions: Path,
    out: Path,
    *,
    passages: int,
    beams: int,
    max_answer_tokens: int,
    language: str | None = None,
    batch: int | None = None,
) -> int:
    """Answers a file of questions; returns how many predictions `out` holds.

    Each answer goes to `log_path(out)` as soon as its batch is done; a second start with the same model, corpus and
    settings keeps what lies there, even if the first was killed while it wrote.

    Raises:
      InputError: for a bad question file, a log of another model, corpus or setting, a disk that refuses a write; and
        see `CLASS.answer`.
    """
    from class_jax.questions.readers import read_xor

    asked = list(read_xor(questions))
    if not asked:
        raise InputError("no questions", file=questions, remedy='write {"id": ..., "question": ..., "lang": ...}')
    made_with = {
        "model": model.fingerprint,
        "corpus": corpus.store.fingerprint,
        "index": None if corpus.index is None else f"{corpus.index.kind} {corpus.index.model}",
        "passages": passages,
        "beams": beams,
        "max_answer_tokens": max_answer_tokens,
        "language": language,
    }
    settings = {"beams": beams, "max_answer_tokens": max_answer_tokens, "batch": batch}
    return answer_logged(
        asked, out, made_with, lambda left: _answers(model, corpus, left, passages, language, settings)
    )


def answer_logged(
    questions: "list[Question]",
    out: Path,
    made_with: dict[str, Any],
    answering: "Callable[[list[Question]], Iterable[tuple[Question, Answer]]]",
    log_file: Path | None = None,
) -> int:
    """Answers questions that the log of `out` has no answer of, then writes all predictions; returns how many.

    Args:
      questions: all of them.
      out: predictions to write.
      made_with: what decides the answers; a log made with something else is refused.
      answering: yields questions with their answers, in any order, of those it is given.
      log_file: where the log is; `log_path(out)` if None.
    """
    from tqdm import tqdm

    with WorkLog(log_file or log_path(out), made_with, "answers", ("question", "answer")) as log:
        left = [q for q in questions if log.entries.get(q.id, {}).get("question") != _digest(q)]
        done = len(questions) - len(left)
        with tqdm(total=len(questions), initial=done, unit="question", desc="answer", disable=None) as bar:
            for question, given in answering(left):
                log.write(question.id, _entry(question, given))
                bar.update()
    predictions = {q.id: log.entries[q.id]["answer"] for q in questions}
    with replacing(out) as f:
        json.dump(predictions, f, ensure_ascii=False, indent=0)
        f.write("\n")
    return len(predictions)


def _answers(
    model: "CLASS",
    corpus: "Searcher",
    questions: list["Question"],
    passages: int,
    language: str | None,
    settings: Mapping[str, Any],
) -> Iterator[tuple["Question", "Answer"]]:
    """Answers as batches are done. Without an index all is retrieved first: a search reads the whole corpus."""
    block = _BLOCK if corpus.index is not None else max(1, len(questions))
    for start in range(0, len(questions), block):
        part = questions[start : start + block]
        texts, languages = [q.text for q in part], [language or q.language for q in part]
        found = model.retrieve(texts, corpus, passages, languages)
        for i, given in model.read(texts, found, corpus.store, **settings):
            yield part[i], given


def _entry(question: "Question", answer: "Answer") -> dict[str, Any]:
    """What the log keeps of an answer."""
    return {
        "question": _digest(question),
        "answer": answer.answer,
        "log_probability": answer.log_probability,
        "passages": [[p.id, p.score, p.attention] for p in answer.passages],
        "timings": answer.timings,
    }


def _digest(question: "Question") -> str:
    """Tells a question from another one that has its id."""
    return hashlib.sha256(f"{question.language}\t{question.text}".encode()).hexdigest()[:16]
