# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Confidence intervals and differences by language and macro, against SciPy's and closed forms."""

import math

import numpy as np
import pytest
from scipy import stats

from class_jax.errors import InputError
from class_jax.evaluation.scores import Scores
from class_jax.evaluation.significance import paired_bootstrap, paired_t_test
from class_jax.evaluation.uncertainty import (
    compare_scores,
    confidence_interval,
    intervals,
    macro_bootstrap,
    macro_t_test,
)


@pytest.fixture
def pair():
    random = np.random.default_rng(3)
    a = random.random(200)
    return a, np.clip(a + random.normal(0.02, 0.2, 200), 0, 1)


def test_one_language_is_the_plain_case(pair):
    one = ["fi"] * 200
    assert macro_t_test(*pair, one) == pytest.approx(paired_t_test(*pair))
    assert macro_bootstrap(*pair, one) == pytest.approx(paired_bootstrap(*pair), abs=0.005)
    assert macro_bootstrap(*pair, one) == macro_bootstrap(*pair, one) != macro_bootstrap(*pair, one, seed=1)


def test_macro_t_test_adds_variances_over_languages(pair):
    d = pair[1] - pair[0]
    fi, ja = d[:150], d[150:]
    # The sum of two independent means is Welch's difference of one from the other negated.
    welch = stats.ttest_ind(fi, -ja, equal_var=False)
    mine = macro_t_test(*pair, ["fi"] * 150 + ["ja"] * 50)
    assert mine.mean == pytest.approx((fi.mean() + ja.mean()) / 2) and mine.p == pytest.approx(welch.pvalue)
    ends = welch.confidence_interval()
    assert (mine.low, mine.high) == pytest.approx((ends.low / 2, ends.high / 2))
    drawn = macro_bootstrap(*pair, ["fi"] * 150 + ["ja"] * 50)
    assert drawn == pytest.approx(mine, abs=0.02)


def test_the_macro_average_weighs_languages_alike():
    a, b = np.zeros(100), np.r_[np.ones(90), np.zeros(10)]
    languages = ["fi"] * 90 + ["ja"] * 10
    assert macro_bootstrap(a, b, languages, 100).mean == pytest.approx(0.5) != paired_bootstrap(a, b, 100).mean
    assert confidence_interval(b, languages, 100) == pytest.approx((0.5, 0.5))
    assert macro_t_test(a, b, languages).p == 0 and macro_t_test(a, a, languages).p == 1


def test_both_ways_of_drawing_have_one_distribution():
    hits = np.arange(100) < 30
    many = hits + np.arange(100) * 1e-12  # all values distinct: questions are drawn one by one
    few, each = confidence_interval(hits), confidence_interval(many)
    exact = stats.binom.ppf([0.025, 0.975], 100, 0.3) / 100
    assert few == pytest.approx(each, abs=0.011) and few == pytest.approx(exact, abs=0.011)


def scores(values, ids=("1", "2", "3", "4")):
    return Scores(list(ids), ["fi", "fi", "fi", "ja"], {"f1": np.array(values, np.float64)})


def test_runs_are_compared_question_by_question():
    a = Scores(["4", "3", "2", "1"], ["ja", "fi", "fi", "fi"], {"f1": np.array([0.0, 0.0, 1.0, 0.0])})
    result = compare_scores(a, scores([1, 1, 0, 1]), "f1", 100)
    assert list(result) == ["fi", "ja", "macro"] and [row["count"] for row in result.values()] == [3, 1, 4]
    assert result["fi"]["difference"] == pytest.approx(1 / 3) and result["ja"]["difference"] == 1
    assert result["macro"]["difference"] == pytest.approx((1 / 3 + 1) / 2)
    assert math.isnan(result["ja"]["p_t_test"]) and math.isnan(result["macro"]["p_t_test"])
    assert result["fi"]["p_t_test"] == pytest.approx(stats.ttest_rel([1, 1, 0], [0, 1, 0]).pvalue)


def test_every_average_has_an_interval():
    found = intervals(scores([1, 0, 0.5, 1]), 500)
    low, high = found["languages"]["fi"]["f1"]
    assert 0 <= low < 0.5 < high <= 1 and found["languages"]["ja"]["f1"] == [1, 1]
    assert found["macro"]["f1"][0] >= 0.5 and found["level"] == 0.95


def test_bad_input_is_named():
    with pytest.raises(InputError, match="against"):
        macro_bootstrap([1, 2], [1], ["fi"])
    with pytest.raises(InputError, match="no question"):
        macro_t_test([], [], [])
    with pytest.raises(InputError, match="question 1"):
        confidence_interval([1, math.nan])
    with pytest.raises(InputError, match="samples"):
        confidence_interval([1, 0], samples=0)
    with pytest.raises(InputError, match="level"):
        confidence_interval([1, 0], level=95)
    with pytest.raises(InputError, match="different questions"):
        compare_scores(scores([1, 1, 1, 1]), scores([1, 1, 1, 1], ("1", "2", "3", "zzz")), "f1")
    with pytest.raises(InputError, match="em"):
        compare_scores(scores([1, 1, 1, 1]), scores([1, 1, 1, 1]), "em")
