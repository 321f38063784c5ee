# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Ranked passages scored by passage id (R@k, MRR) and by answer string (R^L@N, R^M@N)."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from class_jax.errors import InputError
from class_jax.evaluation.scores import Scores, check_ids
from class_jax.evaluation.text import get_tokeniser, join_passages, span_answers
from class_jax.questions.question import Question

Ranked = np.ndarray | Sequence[Sequence[Any]]


def first_ranks(rows: Ranked, gold: Sequence[Collection[Any]]) -> np.ndarray:
    """Returns the rank, counted from 1, of the first gold passage of each question; inf where there is none.

    Args:
      rows: passage rows or ids, best first, [B, N]; lists may be ragged or padded with -1.
      gold: passage rows or ids that answer the question, [B] sets.

    Returns:
      Ranks, float64 [B].

    Raises:
      InputError: if there are not as many lists as sets.
    """
    lists = rows.tolist() if isinstance(rows, np.ndarray) else rows
    if len(lists) != len(gold):
        raise InputError(f"{len(lists)} passage lists for {len(gold)} sets of gold passages")
    ranks = np.full(len(lists), np.inf)
    for b, (ranked, right) in enumerate(zip(lists, gold, strict=True)):
        ranks[b] = next((i for i, row in enumerate(ranked, start=1) if row in right), np.inf)
    return ranks


def score_passages(
    questions: Sequence[Question], rows: Ranked, gold: Sequence[Collection[Any]], at: Sequence[int] = (1, 5, 20)
) -> Scores:
    """Recall@k and reciprocal rank by passage id, question by question.

    Args:
      questions: the questions, [B].
      rows: passage rows or ids, best first, [B, N].
      gold: passage rows or ids that answer the question, [B] sets; questions with an empty set are left out.
      at: the depths k.

    Returns:
      `R@1`, `R@5`, ... and `MRR` for each question.

    Raises:
      InputError: if the lengths differ, or all lists are shorter than the largest k.
    """
    if len(questions) != len(rows):
        raise InputError(f"{len(rows)} passage lists for {len(questions)} questions")
    longest = max((len(ranked) for ranked in rows), default=0)
    if len(questions) and longest < max(at):
        raise InputError(
            f"the passage lists hold {longest} passages, fewer than R@{max(at)} needs", remedy="retrieve more"
        )
    kept = [b for b, right in enumerate(gold) if right]
    ranks = first_ranks(rows, gold)[kept]
    values = {f"R@{k}": (ranks <= k).astype(np.float64) for k in at} | {"MRR": 1.0 / ranks}
    ids = [questions[b].id for b in kept]
    languages = [questions[b].language.strip() for b in kept]
    return Scores(ids, languages, values, len(questions) - len(kept))


def evaluate_passages(
    questions: Sequence[Question], rows: Ranked, gold: Sequence[Collection[Any]], at: Sequence[int] = (1, 5, 20)
) -> dict[str, Any]:
    """R@k and MRR by language and macro: `score_passages(...).summary()`; see there for arguments and errors."""
    return score_passages(questions, rows, gold, at).summary()


def parallel_id(id: str, language: str) -> str:
    """The part of an id that the same question has in all languages: `123-ar` and `ar-123` -> `123`."""
    return id.removesuffix(f"-{language}").removeprefix(f"{language}-")


def score_containment(
    questions: Sequence[Question],
    passages: Mapping[str, Sequence[str]],
    at: Sequence[int] = (1, 5, 20, 100),
    tokeniser: str = "auto",
) -> Scores:
    """Whether one of the first N passages contains an answer, question by question.

    R^L@N looks for the answers in the question's language, R^M@N for those of the same question in any
    language (questions whose ids agree except for the language are the same; see `parallel_id`).

    Args:
      questions: the questions; those with no answer but yes or no are left out.
      passages: by question id, the texts retrieved, best first; a question without any counts as wrong.
      at: the depths N.
      tokeniser: texts are tokenised before the look-up, as in the official script; see `text.get_tokeniser`.

    Returns:
      `R^L@N` and `R^M@N` for each N and each question.

    Raises:
      InputError: for lists of unknown questions, or two questions with one id.
    """
    check_ids(questions, passages)
    splitter = get_tokeniser(tokeniser)
    in_any_language: defaultdict[str, list[str]] = defaultdict(list)
    for question in questions:
        in_any_language[parallel_id(question.id, question.language.strip())] += span_answers(question.answers)
    ids, languages, missing = [], [], []
    needed: list[tuple[float, float]] = []
    for question in questions:
        language = question.language.strip()
        answers = span_answers(question.answers)
        if not answers:
            continue
        ids.append(question.id)
        languages.append(language)
        if question.id not in passages:
            missing.append(question.id)
        joined = join_passages(passages.get(question.id, ())[: max(at)], splitter)
        found = [joined.find(a) for a in (answers, in_any_language[parallel_id(question.id, language)])]
        needed.append(tuple(place[1] if place else np.inf for place in found))
    columns = np.array(needed, np.float64).reshape(-1, 2)
    values = {
        f"{name}@{n}": (columns[:, i] <= n).astype(np.float64) for i, name in enumerate(("R^L", "R^M")) for n in at
    }
    notes = [f"passages split by the tokeniser {splitter.name!r}"]
    return Scores(ids, languages, values, len(questions) - len(ids), missing, notes)
