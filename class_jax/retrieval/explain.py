# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Why a passage scored what it did: which of its tokens each question token matched.

Axes: Q question tokens, P passage tokens, K head dim.
"""

import dataclasses

import numpy as np

from class_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Match:
    """One question token's part in a MaxSim score.

    Attributes:
      question_token: its place in the question. passage_token: the place of the passage token that it matched.
      score: their dot product; the passage's score is the sum over question tokens.
      share: of that sum. Shares add up to 1; products may be negative, and shares beyond 0 to 1.
    """

    question_token: int
    passage_token: int
    score: float
    share: float


def explain(question: np.ndarray, passage: np.ndarray) -> list[Match]:
    """Takes the MaxSim score of a passage apart (paper, section 2.2).

    Args:
      question: [Q, K], real tokens only.
      passage: [P, K], real tokens only.

    Raises:
      InputError: if the vectors are dense: one for a whole text.
    """
    if question.ndim != 2 or passage.ndim != 2:
        raise InputError("a dense retriever has no token matches", key="explain", remedy="use a multi-vector model")
    products = np.asarray(question, np.float32) @ np.asarray(passage, np.float32).T  # [Q, P]
    best = products.argmax(axis=1)
    scores = products[np.arange(len(best)), best]
    total = float(scores.sum())
    return [
        Match(q, int(p), float(s), float(s) / total if total else 0.0)
        for q, (p, s) in enumerate(zip(best, scores, strict=True))
    ]
