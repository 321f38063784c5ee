# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax reader-length`: answers by the passage tokens that the reader is given (arXiv 2501.04153, 6.2)."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from class_jax.errors import InputError

if TYPE_CHECKING:
    from class_jax.reports.tables import Table

NUMERICAL_TITLE = "answers: numerical answers"


def reader_length(
    ranked: Annotated[Path, typer.Argument(help="retrieved lists with their questions' answers (`ctxs`)")],
    model: Annotated[list[str], typer.Option(help="reader; repeat it to compare, say trained with augmentation")],
    out: Annotated[Path, typer.Option(help="folder of answers, reports and the table")],
    input_tokens: Annotated[str, typer.Option(help="passage tokens of a question at most")] = "600,1000,2000",
    read: Annotated[int, typer.Option(help="passages of a question at most", min=1)] = 100,
    max_answer_tokens: Annotated[int, typer.Option(help="longer answers are cut", min=1)] = 50,
    samples: Annotated[int, typer.Option(help="of the bootstrap behind the intervals", min=1)] = 10_000,
) -> None:
    """Reads as many passages as fit, for each length and model; compares F1, also of numerical and other answers."""
    from class_jax.api import CLASS
    from class_jax.commands.answer import answer_logged
    from class_jax.commands.evaluate import evaluate_files, positive_numbers
    from class_jax.reports.reports import write_report
    from class_jax.reranking.pipeline import Reading, write_questions
    from class_jax.reranking.ranked import read_ranked

    lengths = positive_numbers(input_tokens, "input-tokens", "600,1000,2000", needed=True)
    lists = [one for one in read_ranked(ranked, "ctxs") if one.passages]
    asked = [one.question for one in lists]
    if not any(q.answers for q in asked):
        raise InputError("no question has answers", file=ranked, remedy="add `answers` to its questions")
    write_questions(out / "questions.jsonl", asked)
    rows = []
    for number, name in enumerate(model, start=1):
        loaded = CLASS.from_pretrained(name)
        for length in lengths:
            reading = Reading(loaded, lists, out / f"reading_{number}", read, length)
            content = [(id, reading.lists[id].passages[: len(rows)]) for id, rows in reading.rows.items()]
            made_with = {
                "model": loaded.fingerprint,
                "read": hashlib.sha256(repr(content).encode()).hexdigest(),
                "max_answer_tokens": max_answer_tokens,
            }
            digest = hashlib.sha256(json.dumps(made_with).encode()).hexdigest()[:12]
            path = out / f"predictions_{number}_{length}.json"
            log = out / "logs" / f"{digest}.jsonl"
            answer_logged(
                asked,
                path,
                made_with,
                lambda left, reading=reading: reading.answers(left, max_answer_tokens=max_answer_tokens),
                log,
            )
            label = f"{name} {length}"
            report = evaluate_files("xor-full", out / "questions.jsonl", label, predictions=path, samples=samples)
            write_report(out / f"report_{number}_{length}.json", report)
            rows.append((name, length, reading, report))
    table = length_table(rows)
    table.print()
    table.write(out / "lengths")


def length_table(rows: list[tuple[str, int, Any, dict[str, Any]]]) -> "Table":
    """One row for each model and length: what was read, macro F1 with its interval, F1 of both kinds of answers."""
    from class_jax.reports.breakdown import NUMERICAL, OTHER
    from class_jax.reports.tables import Column, Table

    columns = [Column("model"), Column("tokens at most", best=None), Column("tokens read", digits=0, best=None)]
    columns += [Column("passages read", best=None), Column("macro F1", percent=True)]
    columns += [Column(end, "macro F1", percent=True, best=None) for end in ("low", "high")]
    columns += [Column("macro EM", percent=True), *(Column(kind, "F1", percent=True) for kind in (NUMERICAL, OTHER))]
    found = []
    for name, length, reading, report in rows:
        part, count = report["parts"]["answers"], len(reading.rows)
        low, high = part["intervals"]["macro"]["f1"]
        kinds = report["breakdowns"].get(NUMERICAL_TITLE, {})
        by_kind = [kinds[kind]["mean"]["f1"] if kind in kinds else None for kind in (NUMERICAL, OTHER)]
        passages = sum(map(len, reading.rows.values())) / count
        macro = part["macro"]
        found.append(
            [name, length, reading.read_tokens / count, passages, macro["f1"], low, high, macro["em"], *by_kind]
        )
    notes = ("tokens and passages read: of a question, on average", "low and high: 95% interval, by bootstrap")
    return Table("Answers by the length of the reader's input", columns, found, notes)
