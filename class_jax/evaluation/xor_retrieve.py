# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""XOR-Retrieve: is an answer among the first n tokens retrieved? R@2kt, R@5kt (XOR-TyDi QA, Asai et al. 2021)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from class_jax.errors import InputError
from class_jax.evaluation.scores import Scores, check_ids
from class_jax.evaluation.text import get_tokeniser, join_passages, span_answers
from class_jax.questions.question import Question

TOKEN_BUDGETS = (2000, 5000)


def metric_name(tokens: int) -> str:
    """The paper's name of recall within that many tokens: 2000 -> `R@2kt`, 500 -> `R@500t`."""
    return f"R@{tokens // 1000}kt" if tokens % 1000 == 0 else f"R@{tokens}t"


def score_retrieval(
    questions: Sequence[Question],
    passages: Mapping[str, Sequence[str]],
    tokens: Sequence[int] = TOKEN_BUDGETS,
    tokeniser: str = "auto",
    progress: bool | None = None,
) -> Scores:
    """Scores ranked passages by whether an answer string is within the first n tokens, question by question.

    Args:
      questions: the questions; those with no answer but yes or no are left out.
      passages: by question id, the texts retrieved, best first; a question without any counts as wrong.
      tokens: the budgets n.
      tokeniser: `line`, `punkt` or `auto`; see `text.get_tokeniser`. The notes say which it was.
      progress: show a progress bar; by default only in a terminal.

    Returns:
      `R@2kt`, `R@5kt`, ... for each question.

    Raises:
      InputError: for lists of unknown questions, two questions with one id, budgets below 1.
    """
    if not tokens or min(tokens) < 1:
        raise InputError(f"budgets must be at least 1 token, not {list(tokens)}", key="tokens")
    check_ids(questions, passages)
    splitter = get_tokeniser(tokeniser)
    ids, languages, missing = [], [], []
    needed: list[float] = []
    hidden = None if progress is None else not progress
    for question in tqdm(questions, desc="answer recall", unit="question", disable=hidden, leave=False):
        answers = span_answers(question.answers)
        if not answers:
            continue
        ids.append(question.id)
        languages.append(question.language.strip())
        if question.id not in passages:
            missing.append(question.id)
        found = join_passages(passages.get(question.id, ()), splitter, max(tokens)).find(answers)
        needed.append(found[0] if found else np.inf)
    # One search serves all budgets: an answer within the first n tokens is within any longer prefix.
    values = {metric_name(n): (np.array(needed) <= n).astype(np.float64) for n in tokens}
    notes = [f"tokens counted by the tokeniser {splitter.name!r}"]
    return Scores(ids, languages, values, len(questions) - len(ids), missing, notes)


def evaluate_retrieval(
    questions: Sequence[Question],
    passages: Mapping[str, Sequence[str]],
    tokens: Sequence[int] = TOKEN_BUDGETS,
    tokeniser: str = "auto",
    progress: bool | None = None,
) -> dict[str, Any]:
    """R@n tokens by language and macro: `score_retrieval(...).summary()`; see there for arguments and errors."""
    return score_retrieval(questions, passages, tokens, tokeniser, progress).summary()
