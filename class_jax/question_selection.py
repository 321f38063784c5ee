# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Parts of a question file: some languages, or a few questions drawn at random (for gin files and few-shot prompts)."""

import hashlib
from collections.abc import Collection, Iterable, Iterator

from class_jax.errors import InputError, nearest
from class_jax.questions import KNOWN_LANGUAGES, Question


def in_languages(questions: Iterable[Question], languages: Collection[str]) -> Iterator[Question]:
    """Yields the questions in some languages.

    Raises:
      InputError: for an unknown language code, before the first question.
    """
    wanted = set(languages)
    for language in sorted(wanted - KNOWN_LANGUAGES):
        raise InputError(f"unknown language {language!r}", key="languages", remedy=nearest(language, KNOWN_LANGUAGES))
    return (question for question in questions if question.language in wanted)


def sample(
    questions: Iterable[Question], count: int, *, per_language: bool = False, seed: int = 0
) -> Iterator[Question]:
    """Draws a few questions at random: the same ones whatever their order, and among them those of a smaller sample.

    Args:
      questions: to draw from.
      count: how many.
      per_language: so many of each language, not in all.
      seed: another one draws others.

    Yields:
      The questions drawn, in the order in which they were given.

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
