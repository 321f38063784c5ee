# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Selections of questions: some languages, a random sample, several readers joined; sampling rates of languages."""

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping

from class_jax.errors import InputError, nearest
from class_jax.questions.question import Question, rereadable
from class_jax.questions.readers import KNOWN_LANGUAGES


@rereadable
def of_languages(questions: Iterable[Question], languages: Collection[str]) -> Iterator[Question]:
    """The questions in some languages.

    Raises:
      InputError: for an unknown language code, before the first question.
    """
    wanted = set(languages)
    for language in sorted(wanted - KNOWN_LANGUAGES):
        raise InputError(f"unknown language {language!r}", key="languages", remedy=nearest(language, KNOWN_LANGUAGES))
    yield from (question for question in questions if question.language in wanted)


@rereadable
def joined(*parts: Iterable[Question]) -> Iterator[Question]:
    """The questions of several readers, one after the other."""
    for part in parts:
        yield from part


@rereadable
def sample(
    questions: Iterable[Question], count: int, *, per_language: bool = False, seed: int = 0
) -> Iterator[Question]:
    """A random sample: it does not depend on the order of the questions, and it contains every smaller sample.

    Args:
      questions: to draw from.
      count: how many.
      per_language: whether `count` is of each language, not in all.
      seed: of the sample.

    Yields:
      The questions drawn, in the order in which they are given.

    Raises:
      InputError: if there are fewer; when the first one is asked for, as the readers of files do.
    """
    if count < 1:
        raise InputError(f"is {count}", key="count", remedy="choose 1 or more")
    everything = list(questions)
    places: dict[str, list[tuple[bytes, int]]] = {}
    for place, question in enumerate(everything):
        drawn = hashlib.sha256(f"{seed}:{question.id}".encode()).digest()
        places.setdefault(question.language if per_language else "", []).append((drawn, place))
    if not places:
        raise InputError("no questions to draw from", key="questions")
    chosen: list[int] = []
    for group, here in places.items():
        if len(here) < count:
            of = f" in {group!r}" if group else ""
            raise InputError(f"is {count}, but there are {len(here)} questions{of}", key="count", remedy="choose less")
        chosen += [place for _, place in sorted(here)[:count]]
    yield from (everything[place] for place in sorted(chosen))


def sampling_probabilities(counts: Mapping[str, int], exponent: float = 0.5) -> dict[str, float]:
    """Returns p_i = f_i^exponent / sum of f_j^exponent, with f_i = n_i / sum of n_j (appendix A.1.1).

    Languages without pairs have probability 0, whatever the exponent.

    Raises:
      InputError: if a count is negative.
    """
    for language, count in counts.items():
        if count < 0:
            raise InputError(f"{count} pairs", key=language, remedy="counts can't be negative")
    total = sum(counts.values())
    powers = {language: (count / total) ** exponent if count else 0.0 for language, count in counts.items()}
    norm = math.fsum(powers.values()) or 1.0
    return {language: power / norm for language, power in powers.items()}
