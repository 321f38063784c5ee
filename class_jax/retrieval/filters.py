# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Which passages each question may retrieve: all, those in some languages, or those in the question's own language."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from class_jax.corpus.inputs import language_code
from class_jax.errors import InputError

OWN_LANGUAGE = "question"
"""In a list of languages: the language of the question that is asked."""

Found = tuple[np.ndarray, np.ndarray]


class SearchFilters(NamedTuple):
    """Several filters of passages, and which of them each question searches with.

    Attributes:
      masks: for each filter, which of the M passages it lets through, [M] bool.
      of: [B] int, the place in `masks` of each question's filter.
    """

    masks: tuple[np.ndarray, ...]
    of: np.ndarray

    def search(self, rows: np.ndarray, search: Callable[[np.ndarray, np.ndarray], Found]) -> Found:
        """Searches for some questions, filter by filter.

        Args:
          rows: [n] question rows.
          search: from question rows [m] of one filter and its mask [M] to passage rows and scores, each [m, k].

        Returns:
          Passage rows and scores, each [n, k], in the order of `rows`.
        """
        parts = [(places, search(rows[places], mask)) for places, mask in self._by_filter(rows)]
        order = np.argsort(np.concatenate([places for places, _ in parts]))
        return tuple(np.concatenate([found[i] for _, found in parts])[order] for i in range(2))

    def _by_filter(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, mask in enumerate(self.masks):
            places = np.flatnonzero(self.of[rows] == number)
            if places.size:
                yield places, mask


Allowed = np.ndarray | SearchFilters | None
"""A filter of all questions ([M] bool), several filters, or None for all passages."""


def in_languages(
    languages: np.ndarray | None, wanted: Sequence[str] | None, question_languages: Sequence[str] | np.ndarray = ()
) -> Allowed:
    """Passages in the wanted languages.

    Args:
      languages: language of each passage, [M], or None where not known.
      wanted: languages; `OWN_LANGUAGE` means each question's own. None for all.
      question_languages: language of each question, [B].

    Returns:
      What the questions may retrieve; the same filter for all unless `OWN_LANGUAGE` is wanted.

    Raises:
      InputError: if languages are wanted but the corpus's are not known, or no passage is in them.
    """
    if wanted is None:
        return None
    if languages is None:
        raise InputError("needs the passages' languages", key="search_languages", remedy="set passage_languages")
    named = [language_code(code) for code in wanted if code != OWN_LANGUAGE]
    if len(named) == len(wanted):
        return _mask(languages, named)
    asked, of = np.unique(np.asarray(question_languages), return_inverse=True)
    return SearchFilters(tuple(_mask(languages, [*named, str(code)]) for code in asked), of)


def _mask(languages: np.ndarray, wanted: Sequence[str]) -> np.ndarray:
    mask = np.isin(languages, wanted)
    if not mask.any():
        raise InputError(f"no passage is in {tuple(wanted)}", key="search_languages")
    return mask
