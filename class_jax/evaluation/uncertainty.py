# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Confidence intervals of scores, and differences between runs by language and macro.

The macro average weighs languages alike. Its uncertainty is that of a stratified sample: questions are redrawn within
each language, and variances add up over languages; languages themselves are taken as given. `significance` has the
tests for one language.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from class_jax.errors import InputError, nearest
from class_jax.evaluation.scores import Scores
from class_jax.evaluation.significance import Difference, paired_bootstrap, paired_t_test

LEVEL = 0.95
SAMPLES = 10_000
_CHUNK = 2_000_000  # redrawn values held at once
_FEW_VALUES = 8  # questions for each distinct value, from which on drawing counts is the faster way
_ROUNDING = 1e-12


def macro_bootstrap(
    a: Sequence[float], b: Sequence[float], languages: Sequence[str], samples: int = SAMPLES, seed: int = 0
) -> Difference:
    """Paired bootstrap of a macro average: `significance.paired_bootstrap` with questions redrawn in their language.

    Args:
      a, b: one score a question and system, [B] each, in the same order.
      languages: of the questions, [B].
      samples: draws.
      seed: of the draws: the same seed, the same result.

    Raises:
      InputError: for differing lengths, no question, a score that is not finite, or no sample.
    """
    differences, parts = _paired(a, b, languages)
    drawn = _macro_means([differences[part] for part in parts], samples, seed)
    drawn[np.abs(drawn) < _ROUNDING] = 0.0
    side = min(int(np.sum(drawn <= 0)), int(np.sum(drawn >= 0)))
    return Difference(_macro(differences, parts), *_ends(drawn, LEVEL), min(1.0, 2 * (side + 1) / (samples + 1)))


def macro_t_test(a: Sequence[float], b: Sequence[float], languages: Sequence[str]) -> Difference:
    """T-test of the difference of two macro averages, from paired differences.

    The variance is that of a mean of independent means, the degrees of freedom are Satterthwaite's. Where all
    differences are equal within each language, p is 1 if the macro averages agree and 0 if not; with a language of
    only one question, p and the interval are NaN. Arguments and errors as in `macro_bootstrap`.
    """
    differences, parts = _paired(a, b, languages)
    observed = _macro(differences, parts)
    if min(len(part) for part in parts) < 2:
        return Difference(observed, math.nan, math.nan, math.nan)
    # Variance of each language's mean, as a part of the mean over languages.
    each = np.array([np.var(differences[part], ddof=1) / len(part) for part in parts]) / len(parts) ** 2
    variance = float(each.sum())
    if variance < _ROUNDING**2:
        return Difference(observed, observed, observed, float(abs(observed) < _ROUNDING))
    from scipy.special import stdtr, stdtrit

    error = math.sqrt(variance)
    degrees = variance**2 / float((each**2 / [len(part) - 1 for part in parts]).sum())
    margin = float(stdtrit(degrees, (1 + LEVEL) / 2)) * error
    p = float(2 * stdtr(degrees, -abs(observed) / error))
    return Difference(observed, observed - margin, observed + margin, p)


def confidence_interval(
    values: Sequence[float],
    languages: Sequence[str] | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Bootstrap confidence interval (percentiles) of a mean, or of a macro average where languages are given.

    Where all scores of a language are the same, as with very few questions, the interval is too narrow.

    Args:
      values: scores, one a question, [B].
      languages: if given, of the questions, [B].
      samples: how often to redraw.
      seed: of the draws.
      level: of the interval.

    Raises:
      InputError: for no question, a score that is not finite, a bad number of samples or level.
    """
    if not 0 < level < 1:
        raise InputError(f"must be between 0 and 1, not {level}", key="level")
    array, parts = _paired(np.zeros(len(values)), values, languages or [""] * len(values))
    return _ends(_macro_means([array[part] for part in parts], samples, seed), level)


def intervals(scores: Scores, samples: int = SAMPLES, seed: int = 0, level: float = LEVEL) -> dict[str, Any]:
    """Confidence intervals of all that `Scores.summary` averages.

    Returns:
      `level`; `languages`, by language and metric `[low, high]`; `macro`, by metric `[low, high]`.

    Raises:
      InputError: as `confidence_interval`.
    """
    codes = np.asarray(scores.languages)
    languages: dict[str, dict[str, list[float]]] = {}
    for language in sorted(set(scores.languages)):
        mine = codes == language
        languages[language] = {
            name: list(confidence_interval(values[mine], None, samples, seed, level))
            for name, values in scores.values.items()
        }
    macro = {
        name: list(confidence_interval(values, scores.languages, samples, seed, level))
        for name, values in scores.values.items()
    }
    return {"level": level, "languages": languages, "macro": macro}


def compare_scores(
    a: Scores, b: Scores, metric: str, samples: int = SAMPLES, seed: int = 0
) -> dict[str, dict[str, float]]:
    """Compares two runs on the same questions, by language and macro.

    Args:
      a: scores of one run.
      b: scores of another.
      metric: the metric to compare by.
      samples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      By language, then `macro`: `difference` (b minus a), `low` and `high` (95%, by bootstrap), `p_bootstrap`,
      `p_t_test` (NaN with a single question in a language), `count`.

    Raises:
      InputError: if the runs scored different questions or lack the metric.
    """
    for scores in (a, b):
        if metric not in scores.values:
            raise InputError("not a metric of both runs", key=metric, remedy=nearest(metric, scores.values))
    place = {id: i for i, id in enumerate(b.ids)}
    if set(place) != set(a.ids):
        odd = min(set(place) ^ set(a.ids))
        raise InputError("the two runs scored different questions", key=odd, remedy="evaluate both on one file")
    left = np.asarray(a.values[metric], np.float64)
    right = np.asarray(b.values[metric], np.float64)[[place[id] for id in a.ids]]
    codes = np.asarray(a.languages)
    result = {}
    for language in sorted(set(a.languages)):
        mine = codes == language
        drawn = paired_bootstrap(left[mine], right[mine], samples, seed)
        result[language] = _row(drawn, paired_t_test(left[mine], right[mine]), int(mine.sum()))
    drawn = macro_bootstrap(left, right, a.languages, samples, seed)
    return result | {"macro": _row(drawn, macro_t_test(left, right, a.languages), len(left))}


def _row(drawn: Difference, t_test: Difference, count: int) -> dict[str, float]:
    return {
        "difference": drawn.mean,
        "low": drawn.low,
        "high": drawn.high,
        "p_bootstrap": drawn.p,
        "p_t_test": t_test.p,
        "count": count,
    }


def _paired(a: Sequence[float], b: Sequence[float], languages: Sequence[str]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Differences b - a [B] and, for each language, its rows."""
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if left.ndim != 1 or left.shape != right.shape or len(languages) != len(left):
        raise InputError(
            f"{left.shape} scores against {right.shape} in {len(languages)} languages",
            remedy="give one score a question and system, and each question's language",
        )
    if not len(left):
        raise InputError("no question to compare")
    differences = right - left
    if not np.isfinite(differences).all():
        raise InputError("a score is not a number", key=f"question {int(np.argmin(np.isfinite(differences)))}")
    codes = np.asarray(languages)
    return differences, [np.flatnonzero(codes == code) for code in sorted(set(codes.tolist()))]


def _macro(values: np.ndarray, parts: list[np.ndarray]) -> float:
    return float(np.mean([np.mean(values[part]) for part in parts]))


def _ends(drawn: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _macro_means(parts: list[np.ndarray], samples: int, seed: int) -> np.ndarray:
    """Means over languages of redrawn means within each, [samples]."""
    if samples < 1:
        raise InputError(f"must be at least 1, not {samples}", key="samples")
    random = np.random.default_rng(seed)
    return np.mean([np.concatenate(list(_means(part, samples, random))) for part in parts], axis=0)


def _means(values: np.ndarray, samples: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Means of `values` redrawn with replacement, `samples` of them, some at a time."""
    count = len(values)
    distinct, often = np.unique(values, return_counts=True)
    if len(distinct) * _FEW_VALUES <= count:
        # How often each distinct value is drawn follows the multinomial distribution: no need to draw questions.
        yield random.multinomial(count, often / count, size=samples) @ distinct / count
        return
    step = max(1, _CHUNK // count)
    for start in range(0, samples, step):
        yield values[random.integers(0, count, size=(min(step, samples - start), count))].mean(axis=1)
