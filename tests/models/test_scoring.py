# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""MaxSim and dense scores against slow loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from class_jax.models import Encoded, scoring

pytestmark = pytest.mark.core

TOLERANCE = dict(rtol=1e-5, atol=1e-5)
B, Q, N, P, K = 3, 4, 2, 5, 6
M = B * N


@pytest.fixture(scope="module")
def sides():
    """Question vectors and lengths, passage vectors and lengths."""
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(B, Q, K)).astype(np.float32),
        np.array([4, 1, 3]),
        rng.normal(size=(M, P, K)).astype(np.float32),
        np.array([5, 2, 1, 4, 5, 3]),
    )


def mask(lengths, size):
    return np.arange(size) < lengths[:, None]


def slow(queries, query_lengths, passages, passage_lengths, mean=False):
    scores = np.zeros((len(queries), len(passages)))
    for b, q_length in enumerate(query_lengths):
        for m, p_length in enumerate(passage_lengths):
            best = [max(float(q @ p) for p in passages[m, :p_length]) for q in queries[b, :q_length]]
            scores[b, m] = sum(best) / (q_length if mean else 1)
    return scores


def every(queries, q_lengths, passages, p_lengths, **settings):
    return scoring.maxsim(queries, mask(q_lengths, Q), passages, mask(p_lengths, P), **settings)


@pytest.mark.parametrize("mean", [False, True])
def test_maxsim(sides, mean):
    np.testing.assert_allclose(every(*sides, mean=mean), slow(*sides, mean=mean), **TOLERANCE)


def test_padding_never_wins_where_all_scores_are_negative(sides):
    queries, q_lengths, passages, p_lengths = sides
    queries, passages = abs(queries), -abs(passages)
    expected = slow(queries, q_lengths, passages, p_lengths)
    assert (expected < 0).all()
    # Padding of zeros would score 0, of large vectors more.
    for padding in (0.0, 100.0):
        q = np.where(mask(q_lengths, Q)[..., None], queries, padding)
        p = np.where(mask(p_lengths, P)[..., None], passages, padding)
        np.testing.assert_allclose(every(q, q_lengths, p, p_lengths), expected, **TOLERANCE)
        own = scoring.maxsim_own(q, mask(q_lengths, Q), p.reshape(B, N, P, K), mask(p_lengths, P).reshape(B, N, P))
        np.testing.assert_allclose(own, expected.reshape(B, B, N)[np.arange(B), np.arange(B)], **TOLERANCE)


def weighted(function, weights):
    """The function, and the gradients of its scores' weighted sum with respect to both sides."""
    return function, jax.grad(lambda *vectors: (function(*vectors) * weights).sum(), argnums=(0, 1))


# 4 does not divide the six passages; 6 and 9 are one chunk.
@pytest.mark.parametrize("chunk", [1, 4, 6, 9])
def test_chunked_equals_unchunked(sides, chunk):
    queries, q_lengths, passages, p_lengths = sides
    weights = np.random.default_rng(1).normal(size=(B, M))

    def scores(chunk):
        return lambda q, p: every(q, q_lengths, p, p_lengths, mean=True, chunk=chunk)

    (whole, whole_gradient), (pieces, pieces_gradient) = (
        weighted(scores(None), weights),
        weighted(scores(chunk), weights),
    )
    np.testing.assert_allclose(pieces(queries, passages), whole(queries, passages), **TOLERANCE)
    for actual, expected in zip(pieces_gradient(queries, passages), whole_gradient(queries, passages), strict=True):
        np.testing.assert_allclose(actual, expected, **TOLERANCE)


def test_gradient_is_that_of_the_maximum(sides):
    queries, q_lengths, passages, p_lengths = sides
    weights = np.random.default_rng(1).normal(size=(B, M))

    def plain(q, p):
        match = jnp.where(mask(p_lengths, P)[:, None], jnp.einsum("bqk,mpk->bmqp", q, p), -1e9).max(-1)
        return jnp.where(mask(q_lengths, Q)[:, None], match, 0).sum(-1)

    expected = weighted(plain, weights)[1](queries, passages)
    actual = weighted(lambda q, p: every(q, q_lengths, p, p_lengths), weights)[1](queries, passages)
    for side, (a, e) in enumerate(zip(actual, expected, strict=True)):
        np.testing.assert_allclose(a, e, **TOLERANCE)
        padded = ~mask(sides[2 * side + 1], a.shape[1])
        assert padded.any() and (np.asarray(a)[padded] == 0).all()


@pytest.mark.parametrize("mean", [False, True])
def test_own_scores_are_the_diagonal_blocks(sides, mean):
    queries, q_lengths, passages, p_lengths = sides
    weights = np.random.default_rng(1).normal(size=(B, N))

    def own(q, p):
        p_mask = mask(p_lengths, P).reshape(B, N, P)
        return scoring.maxsim_own(q, mask(q_lengths, Q), p.reshape(B, N, P, K), p_mask, mean=mean)

    def blocks(q, p):
        return every(q, q_lengths, p, p_lengths, mean=mean).reshape(B, B, N)[jnp.arange(B), jnp.arange(B)]

    (actual, actual_gradient), (expected, expected_gradient) = weighted(own, weights), weighted(blocks, weights)
    np.testing.assert_allclose(actual(queries, passages), expected(queries, passages), **TOLERANCE)
    for a, e in zip(actual_gradient(queries, passages), expected_gradient(queries, passages), strict=True):
        np.testing.assert_allclose(a, e, **TOLERANCE)


def test_what_is_not_a_number_stays_visible(sides):
    queries, q_lengths, passages, p_lengths = sides
    passages = passages.copy()
    passages[2, 0, 0] = np.nan
    broken = np.isnan(every(queries, q_lengths, passages, p_lengths))
    assert broken[:, 2].all() and not np.delete(broken, 2, axis=1).any()


def test_dense_scores():
    rng = np.random.default_rng(0)
    queries, passages = rng.normal(size=(B, K)), rng.normal(size=(M, K))
    expected = [[sum(x * y for x, y in zip(q, p, strict=True)) for p in passages] for q in queries]
    np.testing.assert_allclose(scoring.dense(queries, passages), expected, **TOLERANCE)
    own = np.reshape(expected, (B, B, N))[np.arange(B), np.arange(B)]
    np.testing.assert_allclose(scoring.dense_own(queries, passages.reshape(B, N, K)), own, **TOLERANCE)


@pytest.mark.parametrize("kind", ["multi_vector", "dense"])
def test_encoded_sides_are_scored_by_their_kind(sides, kind):
    queries, q_lengths, passages, p_lengths = sides
    if kind == "dense":
        queries, passages, expected = queries[:, 0], passages[:, 0], queries[:, 0] @ passages[:, 0].T
    else:
        expected = slow(*sides)
    questions = Encoded(np.zeros((B, Q, 1)), q_lengths, queries)
    flat = Encoded(np.zeros((M, P, 1)), p_lengths, passages)
    nested = jax.tree.map(lambda x: x.reshape(B, N, *x.shape[1:]), flat)
    np.testing.assert_allclose(scoring.score_all(questions, flat), expected, **TOLERANCE)
    np.testing.assert_allclose(scoring.score_all(questions, nested, chunk=4), expected, **TOLERANCE)
    own = expected.reshape(B, B, N)[np.arange(B), np.arange(B)]
    np.testing.assert_allclose(scoring.score_own(questions, nested), own, **TOLERANCE)
    mean = scoring.score_own(questions, nested, mean=True)
    np.testing.assert_allclose(mean, own / q_lengths[:, None] if kind == "multi_vector" else own, **TOLERANCE)
