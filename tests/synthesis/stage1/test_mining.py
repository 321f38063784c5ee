# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The margin against the formula written out, what passes a threshold, and balanced sampling."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from class_jax.errors import InputError
from class_jax.questions.selection import sampling_probabilities
from class_jax.synthesis.stage1 import mining
from class_jax.synthesis.stage1.mining import mine, sample_counts, threshold_of


def unit_vectors(rows, seed, D=6, shift=0.5):
    """Shifted, so that most cosines are positive, as a trained embedder's are."""
    vectors = np.random.default_rng(seed).normal(shift, 1, (rows, D))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def one_margin(english, other, k, i, j):
    """M(q_i, q_j) of the paper's section 3.1, one pair at a time."""

    def cos(a, b):
        return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))

    of_i = sorted((cos(english[i], z) for z in other), reverse=True)[:k]
    of_j = sorted((cos(other[j], z) for z in english), reverse=True)[:k]
    return cos(english[i], other[j]) / (sum(c / (2 * k) for c in of_i) + sum(c / (2 * k) for c in of_j))


def margin_scores(english, other, k):
    """The margins of all pairs, [E, O]."""
    scores = np.full((len(english), len(other)), np.nan)
    for i, j, margin in mine(english, other, k=k, threshold=-np.inf, min_similarity=-2.0):
        scores[i, j] = margin
    return scores


@pytest.mark.parametrize("k", [1, 2, 4])
def test_margins_follow_the_formula(k):
    english, other = unit_vectors(7, 0), unit_vectors(5, 1)
    scores = margin_scores(english, other, k)
    for i in range(7):
        for j in range(5):
            np.testing.assert_allclose(scores[i, j], one_margin(english, other, k, i, j), rtol=2e-5, atol=1e-6)


def test_a_page_of_fewer_sentences_than_k_has_them_all_for_neighbours():
    english, other = unit_vectors(3, 0), unit_vectors(2, 1)
    cosines = english @ other.T
    expected = cosines / ((cosines.mean(axis=1)[:, None] + cosines.mean(axis=0)) / 2)
    np.testing.assert_allclose(margin_scores(english, other, 9), expected, rtol=1e-5)
    # One sentence each: nothing to stand out from.
    np.testing.assert_allclose(margin_scores(english[:1], other[:1], 4), [[1.0]], rtol=1e-6)


def test_mining_keeps_what_surpasses_the_threshold_best_first():
    english, other = unit_vectors(9, 2), unit_vectors(8, 3)
    scores = margin_scores(english, other, 3)
    threshold = float(np.sort(scores.ravel())[-7])  # the seventh best is equal to it, and does not surpass it
    found = mine(english, other, k=3, threshold=threshold)
    assert [(m.english, m.other) for m in found] == [divmod(int(place), 8) for place in np.argsort(-scores.ravel())[:6]]
    assert [m.margin for m in found] == sorted((m.margin for m in found), reverse=True)


def test_blocks_change_nothing(monkeypatch):
    english, other = unit_vectors(23, 4), unit_vectors(17, 5)
    whole = mine(english, other, k=4, threshold=1.0)
    assert len(whole) > 20
    monkeypatch.setattr(mining, "_BLOCK", 5)
    blocked = mine(english, other, k=4, threshold=1.0)
    assert [m[:2] for m in blocked] == [m[:2] for m in whole]
    np.testing.assert_allclose([m.margin for m in blocked], [m.margin for m in whole], rtol=1e-5)


def test_one_to_one_uses_a_sentence_once():
    english, other = unit_vectors(12, 6), unit_vectors(9, 7)
    every = mine(english, other, k=4, threshold=0.9)
    once = mine(english, other, k=4, threshold=0.9, one_to_one=True)
    assert once[0] == every[0] and set(once) < set(every)
    for side in ("english", "other"):
        places = [getattr(m, side) for m in once]
        assert len(places) == len(set(places))


def test_a_sentence_without_features_and_an_empty_page_pair_with_nothing():
    english, other = unit_vectors(3, 0), unit_vectors(4, 1)
    english[1] = 0.0
    assert (margin_scores(english, other, 2)[1] == 0.0).all()
    assert all(m.english != 1 for m in mine(english, other, k=2, threshold=0.1))
    assert mine(english, np.zeros((0, 6), np.float32), k=2, threshold=0.1) == []
    zeros = np.zeros((2, 6), np.float32)
    assert (margin_scores(zeros, zeros, 1) == 0.0).all()


def test_a_pair_must_be_similar_at_all_where_that_is_asked():
    english = np.eye(3, 4, dtype=np.float32)
    other = np.eye(3, 4, dtype=np.float32)
    other[2] = [0, 0, 0.1, np.sqrt(0.99)]
    assert len(mine(english, other, k=3, threshold=1.5)) == 3
    assert [m[:2] for m in mine(english, other, k=3, threshold=1.5, min_similarity=0.2)] == [(0, 0), (1, 1)]


def test_bad_vectors_and_settings_are_refused():
    good, bad = unit_vectors(3, 0), unit_vectors(3, 1)
    bad[1, 2] = np.nan
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match="finite"):
            mine(*pair, k=2, threshold=1.5)
    with pytest.raises(InputError, match="neighbours: is 0"):
        mine(good, good, k=0, threshold=1.5)
    with pytest.raises(InputError, match="fi: -1 pairs"):
        sample_counts({"fi": -1})
    with pytest.raises(InputError, match="total"):
        sample_counts({"fi": 1}, total=-5)


def test_thresholds_of_the_paper():
    assert [threshold_of(language) for language in ("fi", "ja", "zh", "te")] == [1.5, 1.65, 1.65, 1.5]
    assert threshold_of("ja", {"ja": 1.2}) == 1.2 and threshold_of("fi", {}, 1.1) == 1.1


def test_sampling_as_in_the_paper():
    counts = {"de": 900, "te": 100}
    # sqrt(.9) : sqrt(.1) = 3 : 1
    assert sampling_probabilities(counts) == pytest.approx({"de": 0.75, "te": 0.25})
    assert sample_counts(counts) == {"de": 750, "te": 100}  # of 250 that Telugu might give it has 100
    assert sample_counts(counts, total=200) == {"de": 150, "te": 50}
    assert sample_counts(counts, exponent=1.0) == counts
    assert sample_counts({"de": 3, "te": 0}, exponent=0.0) == {"de": 3, "te": 0}
    assert sample_counts({}) == {} and sample_counts({"fi": 0}) == {"fi": 0}


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["ar", "bn", "fi", "ja", "ko", "ru", "te"]), st.integers(0, 10**7)),
    st.floats(0.0, 1.0),
    st.none() | st.integers(0, 10**7),
)
def test_sampling_properties(counts, exponent, total):
    given_ = sample_counts(counts, exponent=exponent, total=total)
    everything = sum(counts.values())
    wanted = everything if total is None else min(total, everything)
    assert given_.keys() == counts.keys()
    assert all(0 <= given_[language] <= counts[language] for language in counts)
    assert sum(given_.values()) <= wanted
    if all(given_[language] < counts[language] for language in counts):
        assert sum(given_.values()) == wanted
    for a in counts:  # a language with more pairs never gives fewer, except for the rounding of one pair
        for b in counts:
            if counts[a] > counts[b]:
                assert given_[a] >= given_[b] - 1
