# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Cloze queries: a sentence with the answer masked, and its parallel sentence (paper, section 3.1)."""

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import NamedTuple

from class_jax.questions.masking import MASK, mask_other, occurrences
from class_jax.synthesis.sources.entities import Entity


class ClozeQuery(NamedTuple):
    """A parallel cloze query {q_En, q_L, a}.

    Attributes:
      english: the English sentence with the answer masked.
      other: the sentence in the other language, masked by the rule of `mask_other`.
      answer: the English answer.
      type: its entity type, or None.
    """

    english: str
    other: str
    answer: str
    type: str | None = None


def cloze(sentence: str, entity: Entity) -> str | None:
    """Returns the English sentence with the entity masked, and with it every other mention in the same words.

    None where the answer still shows ("Brazil" in "Brazilian"), where nothing but the mask is left, or where the mask
    was in the text already.
    """
    answer = sentence[entity.start : entity.end]
    if MASK in sentence or not answer.strip():
        return None
    before, after = sentence[: entity.start], sentence[entity.end :]
    whole = re.compile(rf"(?<!\w){occurrences(answer).pattern}(?!\w)")
    before, after = whole.sub(MASK, before), whole.sub(MASK, after)
    if any(occurrences(answer).search(part) for part in (before, after)):
        return None
    masked = before + MASK + after
    return masked if any(c.isalpha() for c in masked.replace(MASK, "")) else None


def cloze_queries(
    english: str,
    other: str,
    language: str,
    entities: Iterable[Entity],
    reject: Callable[[str], None] = lambda reason: None,
) -> list[ClozeQuery]:
    """Returns a query for every entity of the English sentence; of equal ones, one.

    Args:
      english: the English sentence.
      other: its parallel sentence.
      language: of that sentence.
      entities: of the English sentence.
      reject: called with the reason of each entity that gives no query.
    """
    queries: dict[tuple[str, str], ClozeQuery] = {}
    for entity in entities:
        answer = english[entity.start : entity.end]
        masked = cloze(english, entity)
        if masked is None:
            reject("answer_shows")
            continue
        query = ClozeQuery(
            one_line(masked), one_line(mask_other(other, answer, language)), one_line(answer), entity.type
        )
        if not query.other or not any(c.isalpha() for c in query.other.replace(MASK, "")):
            reject("only_the_answer")
        elif (query.english, query.answer) in queries:
            reject("repeated_answer")
        else:
            queries[query.english, query.answer] = query
    return list(queries.values())


def one_line(text: str) -> str:
    """Returns a text as a cell of a TSV file: white space and control characters become single blanks."""
    spaced = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
    return " ".join(spaced.split())
