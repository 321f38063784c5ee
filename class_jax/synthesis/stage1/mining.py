# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Margin-based mining of parallel sentences and balanced sampling over languages (paper 3.1 and appendix A.1.1).

Pure functions of arrays. Axes here: E English sentences of a page, O sentences of the linked page, D features.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from class_jax.errors import InputError
from class_jax.questions.selection import sampling_probabilities

THRESHOLD = 1.5
"""The paper's margin threshold, for all languages but those of `THRESHOLDS`."""
THRESHOLDS = {"ja": 1.65, "zh": 1.65}
# English sentences compared with the other page at a time: bounds memory for pages of thousands of sentences.
_BLOCK = 1024


class Mined(NamedTuple):
    """A pair of sentences whose margin passes the threshold.

    Attributes:
      english, other: numbers of the sentences.
      margin: M(q_i, q_j).
    """

    english: int
    other: int
    margin: float


def mine(
    english: np.ndarray,
    other: np.ndarray,
    *,
    k: int,
    threshold: float,
    one_to_one: bool = False,
    min_similarity: float = 0.0,
) -> list[Mined]:
    """Returns the pairs whose margin surpasses the threshold, best first; equal margins by place.

    The ratio margin of the paper's section 3.1: M(i, j) = cos(i, j) / (sum of cos(i, z) over N_i / 2k + sum of
    cos(j, z) over N_j / 2k), where N_i are the k nearest sentences of i in the other language. A page with fewer than k
    sentences has them all for neighbours, and their number takes the place of k: the sums stay means. Where the
    neighbours' mean similarity is not positive there is no margin: the score is 0.

    Args:
      english: [E, D] unit vectors of the English page's sentences; a zero vector is near to nothing.
      other: [O, D] unit vectors of the linked page's.
      k: neighbours of the margin.
      threshold: T; a margin equal to it does not pass.
      one_to_one: keep a pair only if neither sentence is in a better one. The paper keeps all.
      min_similarity: cosine that a pair must reach besides; 0 leaves the choice to the margin, as in the paper.

    Raises:
      InputError: if k is not positive.
      ValueError: if a vector is not finite or the shapes don't fit.
    """
    if not len(english) or not len(other):
        return []
    english_means, other_means = _neighbour_means(english, other, k), _neighbour_means(other, english, k)
    found: list[Mined] = []
    for start in range(0, len(english), _BLOCK):
        block = slice(start, start + _BLOCK)
        near, scores = _margins(english[block], other, english_means[block], other_means)
        rows, columns = np.nonzero((scores > threshold) & (near >= min_similarity))
        found += [Mined(start + int(i), int(j), float(scores[i, j])) for i, j in zip(rows, columns, strict=True)]
    found.sort(key=lambda pair: (-pair.margin, pair.english, pair.other))
    return _greedy(found) if one_to_one else found


def threshold_of(language: str, thresholds: Mapping[str, float] | None = None, default: float = THRESHOLD) -> float:
    """Returns a language's margin threshold."""
    return (THRESHOLDS if thresholds is None else thresholds).get(language, default)


def sample_counts(counts: Mapping[str, int], *, exponent: float = 0.5, total: int | None = None) -> dict[str, int]:
    """Returns n'_i: how many of a language's n_i pairs are used, those of the highest margins (appendix A.1.1).

    n'_i is p_i times the total, rounded by largest remainders, but never more than the language has: no pair is used
    twice, and what a small language leaves is not given to the large ones, which would undo the balance.

    Args:
      counts: n_i by language.
      exponent: the paper's alpha; 1 keeps the languages' shares, 0 gives all the same.
      total: pairs to share out; None for all that there are, and no more than these in any case.

    Raises:
      InputError: if a count or the total is negative.
    """
    if total is not None and total < 0:
        raise InputError(f"is {total}", key="total", remedy="choose 0 or more, or None for all")
    everything = sum(counts.values())
    total = everything if total is None else min(total, everything)
    shares = {language: p * total for language, p in sampling_probabilities(counts, exponent).items()}
    given = {language: math.floor(share) for language, share in shares.items()}
    left = total - sum(given.values()) if everything else 0
    by_remainder = sorted((given[language] - share, language) for language, share in shares.items() if share > 0)
    for _, language in by_remainder[: max(0, left)]:
        given[language] += 1
    return {language: min(given[language], counts[language]) for language in counts}


def _checked(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ValueError(f"vectors must be [sentences, D] and finite, not {vectors.shape}")
    return vectors


def _neighbour_means(own: np.ndarray, others: np.ndarray, k: int) -> np.ndarray:
    """Mean similarity of each sentence [S, D] to its k nearest among the others [T, D]: [S] float32."""
    own, others = _checked(own), _checked(others)
    if k < 1:
        raise InputError(f"is {k}", key="neighbours", remedy="choose 1 or more")
    count = min(k, len(others))
    means = np.zeros(len(own), np.float32)
    if not count:
        return means
    for start in range(0, len(own), _BLOCK):
        near = own[start : start + _BLOCK] @ others.T
        means[start : start + _BLOCK] = np.partition(near, len(others) - count, axis=1)[:, -count:].mean(axis=1)
    return means


def _margins(
    english: np.ndarray, other: np.ndarray, english_means: np.ndarray, other_means: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and margins of all pairs, [E, O] each."""
    near = _checked(english) @ _checked(other).T
    between = (english_means[:, None] + other_means[None, :]) / 2
    return near, np.divide(near, between, out=np.zeros_like(near), where=between > 0)


def _greedy(found: list[Mined]) -> list[Mined]:
    english: set[int] = set()
    other: set[int] = set()
    kept = []
    for pair in found:
        if pair.english not in english and pair.other not in other:
            english.add(pair.english)
            other.add(pair.other)
            kept.append(pair)
    return kept
