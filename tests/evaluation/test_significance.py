# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Paired bootstrap and t-test: against known values, and by how often they cry wolf."""

import math

import numpy as np
import pytest

from class_jax.errors import InputError
from class_jax.evaluation.significance import paired_bootstrap, paired_t_test


def test_t_test_is_scipys():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(3)
    a = rng.normal(0, 1, 40)
    b = a + rng.normal(0.3, 0.8, 40)
    found, wanted = paired_t_test(a, b), ttest_rel(b, a)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-9)
    interval = wanted.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.mean == pytest.approx((b - a).mean())


def test_the_two_agree_on_many_questions():
    rng = np.random.default_rng(4)
    a = (rng.random(800) < 0.5).astype(float)
    b = np.where(rng.random(800) < 0.06, 1 - a, a)
    first, second = paired_bootstrap(a, b, 4000), paired_t_test(a, b)
    assert first.mean == second.mean
    assert first.p == pytest.approx(second.p, abs=0.05)
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=0.003)


def test_direction_seed_and_extremes():
    rng = np.random.default_rng(5)
    a = rng.random(60)
    better = a + 0.1 + 0.05 * rng.random(60)
    found = paired_bootstrap(a, better, 500)
    assert found.low > 0 and found.p == pytest.approx(2 / 501)
    swapped = paired_bootstrap(better, a, 500)
    assert (swapped.mean, swapped.p) == pytest.approx((-found.mean, found.p)) and swapped.high < 0
    assert paired_bootstrap(a, a[::-1], 500) == paired_bootstrap(a, a[::-1], 500)
    assert paired_bootstrap(a, a[::-1], 500, seed=1) != paired_bootstrap(a, a[::-1], 500)
    assert paired_bootstrap(a, a).p == 1.0 and paired_t_test(a, a).p == 1.0
    assert paired_t_test([0.0, 0.0], [1.0, 1.0]) == (1.0, 1.0, 1.0, 0.0)
    assert math.isnan(paired_t_test([0.0], [1.0]).p)


def test_false_alarms_are_as_rare_as_promised():
    rng = np.random.default_rng(6)
    alarms = np.zeros(2)
    for _ in range(1000):
        a, b = (rng.random((2, 100)) < 0.4).astype(float)
        alarms += [paired_bootstrap(a, b, 200).p < 0.05, paired_t_test(a, b).p < 0.05]
    # 5% of 1000 is 50 with a standard deviation of 6.9; 200 samples make the bootstrap's p a little too large.
    assert (alarms > 20).all() and (alarms < 80).all(), alarms


@pytest.mark.parametrize("test", [paired_bootstrap, paired_t_test])
def test_bad_input(test):
    for a, b in (([1.0], [1.0, 2.0]), ([], []), ([math.nan], [1.0]), ([[1.0]], [[1.0]])):
        with pytest.raises(InputError):
            test(a, b)
