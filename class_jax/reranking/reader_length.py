# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Answers by the passage tokens that the reader is given (arXiv 2501.04153, 6.2)."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from class_jax.api import CLASS
from class_jax.errors import InputError
from class_jax.evaluation.answer_files import answer_logged
from class_jax.reports.breakdown import NUMERICAL, OTHER
from class_jax.reports.evaluate import Scoring, evaluate_files
from class_jax.reports.reports import write_report
from class_jax.reports.tables import Column, Table
from class_jax.reranking.pipeline import ListReader, write_questions
from class_jax.reranking.ranked import RankedList, read_ranked

NUMERICAL_TITLE = "answers: numerical answers"


def compare_lengths(
    ranked: Path,
    models: Iterable[str],
    out: Path,
    lengths: Sequence[int],
    *,
    passages: int = 100,
    max_answer_tokens: int = 50,
    samples: int = 10_000,
) -> Table:
    """Reads as many passages as fit, for each model and length, and compares the answers.

    Args:
      ranked: retrieved lists with their questions' answers (`ctxs`).
      models: readers: folders of models or runs, or hub ids.
      out: folder of answers, reports and the table.
      lengths: passage tokens of a question at most.
      passages: of a question at most.
      max_answer_tokens: longer answers are cut.
      samples: of the bootstrap behind the intervals.

    Raises:
      InputError: for a malformed file, or one whose questions have no answers.
    """
    lists = [one for one in read_ranked(ranked, "ctxs") if one.passages]
    asked = [one.question for one in lists]
    if not any(q.answers for q in asked):
        raise InputError("no question has answers", file=ranked, remedy="add `answers` to its questions")
    write_questions(out / "questions.jsonl", asked)
    rows = []
    for number, name in enumerate(models, start=1):
        model = CLASS.from_pretrained(name)
        for length in lengths:
            reading = ListReader(model, lists, out / f"reading_{number}", passages, length)
            path = out / f"predictions_{number}_{length}.json"
            _answer(model, reading, lists, path, max_answer_tokens)
            label, scoring = f"{name} {length}", Scoring(samples=samples)
            report = evaluate_files("xor-full", out / "questions.jsonl", label, predictions=path, scoring=scoring)
            write_report(out / f"report_{number}_{length}.json", report)
            rows.append((name, length, reading, report))
    table = length_table(rows)
    table.write(out / "lengths")
    return table


def _answer(model: CLASS, reading: ListReader, lists: list[RankedList], out: Path, max_answer_tokens: int) -> None:
    """Answers are kept by what was read: of two lengths that read the same passages, the second has them already."""
    content = [(id, reading.lists[id].passages[: len(rows)]) for id, rows in reading.rows.items()]
    made_with = {
        "model": model.fingerprint,
        "read": hashlib.sha256(repr(content).encode()).hexdigest(),
        "max_answer_tokens": max_answer_tokens,
    }
    digest = hashlib.sha256(json.dumps(made_with).encode()).hexdigest()[:12]
    asked, log = [one.question for one in lists], out.parent / "logs" / f"{digest}.jsonl"
    answer_logged(asked, out, made_with, lambda left: reading.answers(left, max_answer_tokens=max_answer_tokens), log)


def length_table(rows: list[tuple[str, int, Any, dict[str, Any]]]) -> Table:
    """One row for each model and length: what was read, macro F1 with its interval, F1 of both kinds of answers."""
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
