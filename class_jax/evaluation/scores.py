# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Scores, one value a question, and their averages by language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from class_jax.errors import InputError
from class_jax.questions.question import Question


@dataclass(frozen=True)
class Scores:
    """What a metric says about each question, in the questions' order.

    Attributes:
      ids: ids of the questions scored, [B].
      languages: their languages, [B].
      values: by metric, one fraction in 0..1 a question, [B].
      left_out: how many questions the metric does not apply to.
      missing: ids of the questions that nothing was predicted for; they count as wrong.
      notes: sentences for the reader of the report.
    """

    ids: Sequence[str]
    languages: Sequence[str]
    values: Mapping[str, np.ndarray]
    left_out: int = 0
    missing: Sequence[str] = ()
    notes: Sequence[str] = field(default_factory=tuple)

    def summary(self) -> dict[str, Any]:
        """Averages by language, and over languages.

        Returns:
          `languages`: by language in alphabetical order, `count` and the mean of each metric;
          `macro`: the mean over languages of each metric, and `count`, the number of questions;
          `left_out`, `missing`, `notes`: as above. All of it can be written as JSON.

        Raises:
          InputError: if no question was scored.
        """
        if not self.ids:
            raise InputError("no question to score" + (f" ({self.left_out} left out)" if self.left_out else ""))
        codes = np.asarray(self.languages)
        languages: dict[str, dict[str, float | int]] = {}
        for language in sorted(set(self.languages)):
            mine = codes == language
            means = {name: float(np.mean(values[mine])) for name, values in self.values.items()}
            languages[language] = {"count": int(mine.sum()), **means}
        macro = {name: float(np.mean([row[name] for row in languages.values()])) for name in self.values}
        notes, total = list(self.notes), len(self.ids) + self.left_out
        if self.missing:
            notes.append(f"without a prediction, counted as wrong: {len(self.missing)} of {len(self.ids)} questions")
        if self.left_out:
            notes.append(f"left out, the metric does not apply: {self.left_out} of {total} questions")
        return {
            "languages": languages,
            "macro": {"count": len(self.ids), **macro},
            "left_out": self.left_out,
            "missing": list(self.missing),
            "notes": notes,
        }


def check_ids(questions: Sequence[Question], predicted: Mapping[str, Any]) -> None:
    """Checks that questions have ids of their own and that nothing was predicted for other questions.

    Raises:
      InputError: naming the first duplicate or unknown id.
    """
    known: set[str] = set()
    for question in questions:
        if question.id in known:
            raise InputError("two questions have this id", key=question.id, remedy="give each question its own id")
        known.add(question.id)
    unknown = next((id for id in predicted if id not in known), None)
    if unknown is not None:
        raise unknown_id(unknown, len(known))


def unknown_id(id: str, known: int, file: str | None = None, line: int | None = None) -> InputError:
    """The error for a prediction whose id is not among the `known` questions' ids."""
    return InputError(
        f"none of the {known} questions has this id",
        file=file,
        line=line,
        key=id,
        remedy="are these the predictions for this question file?",
    )
