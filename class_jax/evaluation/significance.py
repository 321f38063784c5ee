# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Whether two systems' scores on the same questions differ by more than chance."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from class_jax.errors import InputError

_CHUNK_CELLS = 4_000_000


class Difference(NamedTuple):
    """How b differs from a.

    Attributes:
      mean: of b - a over the questions.
      low, high: its 95% confidence interval.
      p: two-sided p-value of "no difference".
    """

    mean: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, samples: int = 10_000, seed: int = 0
) -> Difference:
    """Paired bootstrap over questions (Efron and Tibshirani 1993; Koehn 2004).

    Questions are drawn with replacement `samples` times. The interval is that of percentiles; the p-value is twice the
    smaller share of samples on one side of no difference, those at it counted on both, and never below
    2 / (samples + 1).

    Args:
      a, b: one score a question and system, [B] each, in the same order.
      samples: draws.
      seed: of the draws.

    Raises:
      InputError: if the lengths differ, there is no question, or a score is not a number.
    """
    difference = _differences(a, b)
    if samples < 1:
        raise InputError(f"must be at least 1, not {samples}", key="samples")
    B, rng = len(difference), np.random.default_rng(seed)
    means = np.empty(samples)
    step = max(1, _CHUNK_CELLS // B)
    for start in range(0, samples, step):
        count = min(step, samples - start)
        means[start : start + count] = difference[rng.integers(0, B, (count, B))].mean(axis=1)
    # A sample at exactly 0 must not depend on the rounding of its mean.
    means[np.abs(means) < 1e-12] = 0.0
    low, high = np.percentile(means, (2.5, 97.5))
    side = min((means <= 0).sum(), (means >= 0).sum())
    return Difference(float(difference.mean()), float(low), float(high), min(1.0, 2 * (side + 1) / (samples + 1)))


def paired_t_test(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Difference:
    """Student's paired t-test; where all differences are equal, p is 1 if they are 0 and 0 if not.

    Args:
      a, b: one score a question and system, [B] each, in the same order.

    Raises:
      InputError: if the lengths differ, there is no question, or a score is not a number. With one question p and the
        interval are NaN.
    """
    from scipy.stats import t

    difference = _differences(a, b)
    B, mean = len(difference), float(difference.mean())
    if B == 1:
        return Difference(mean, float("nan"), float("nan"), float("nan"))
    error = float(difference.std(ddof=1)) / B**0.5
    if error == 0.0:
        return Difference(mean, mean, mean, 1.0 if mean == 0.0 else 0.0)
    margin = float(t.ppf(0.975, B - 1)) * error
    return Difference(mean, mean - margin, mean + margin, float(2 * t.sf(abs(mean) / error, B - 1)))


def _differences(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> np.ndarray:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"{a.shape} scores against {b.shape}", remedy="give one score a question and system")
    if not len(a):
        raise InputError("no question to compare")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("a score is not a number")
    return b - a
