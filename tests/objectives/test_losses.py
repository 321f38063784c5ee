# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Losses against slow float64 formulas; which side is the target; where gradients stop."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from class_jax.objectives import losses

pytestmark = pytest.mark.core

TOLERANCE = dict(rtol=1e-5, atol=1e-6)
B, N, M, A, V = 3, 4, 5, 3, 7


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def softmax(x):
    weights = np.exp(np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def kl(target, student):
    """KL(target || student) of two lists of probabilities."""
    return sum(t * math.log(t / s) for t, s in zip(target, student, strict=True) if t > 0)


def kls(targets, students):
    return np.array([kl(t, s) for t, s in zip(targets, students, strict=True)])


def test_direction_of_the_divergence():
    target, student = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    expected = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)  # 0.511; the other way round it is 0.368
    assert float(losses.kl_divergence(target, np.log(student))) == pytest.approx(expected, rel=1e-5)


def test_a_target_of_zero_costs_nothing_and_has_a_gradient():
    target = jnp.array([1.0, 0.0])
    value, gradient = jax.value_and_grad(losses.kl_divergence)(target, jnp.log(jnp.array([0.25, 0.75])))
    assert float(value) == pytest.approx(math.log(4))
    assert np.isfinite(gradient).all()
    student = jax.grad(losses.kl_divergence, argnums=1)(target, jnp.zeros(2))
    np.testing.assert_allclose(student, [-1, 0])


def test_cross_entropy_is_the_mean_over_each_answers_tokens(rng):
    logits, ids = rng.normal(size=(B, A, V)), rng.integers(0, V, (B, A))
    lengths = np.array([3, 1, 0])
    probabilities = softmax(logits)
    expected = [
        sum(-math.log(probabilities[b, a, ids[b, a]]) for a in range(length)) / max(length, 1)
        for b, length in enumerate(lengths)
    ]
    gradient = jax.grad(lambda x: losses.token_cross_entropy(x, ids, lengths).sum())(logits)
    np.testing.assert_allclose(losses.token_cross_entropy(logits, ids, lengths), expected, **TOLERANCE)
    assert expected[2] == 0
    padded = np.arange(A) >= lengths[:, None]
    assert (np.asarray(gradient)[padded] == 0).all() and (np.asarray(gradient)[~padded] != 0).all()


def test_reader_teaches_the_retriever(rng):
    attention, scores = softmax(rng.normal(size=(B, N))), rng.normal(size=(B, N))
    actual = losses.reader_retriever_divergence(attention, scores)
    np.testing.assert_allclose(actual, kls(attention, softmax(scores)), **TOLERANCE)
    to_attention, to_scores = jax.grad(lambda *x: losses.reader_retriever_divergence(*x).sum(), argnums=(0, 1))(
        jnp.asarray(attention), jnp.asarray(scores)
    )
    assert (np.asarray(to_attention) == 0).all()
    np.testing.assert_allclose(to_scores, softmax(scores) - attention, **TOLERANCE)


def test_distillation(rng):
    teacher, english, parallel = (jnp.asarray(rng.normal(size=(B, M)), jnp.float32) for _ in range(3))
    taught, aligned = losses.distillation(teacher, english, parallel)
    t, e, p = map(softmax, (teacher, english, parallel))
    assert float(taught) == pytest.approx((kls(t, e) + kls(t, p)).mean(), rel=1e-5)
    assert float(aligned) == pytest.approx(kls(e, p).mean(), rel=1e-5)

    taught_gradients = jax.grad(lambda *x: losses.distillation(*x)[0], argnums=(0, 1, 2))(teacher, english, parallel)
    aligned_gradients = jax.grad(lambda *x: losses.distillation(*x)[1], argnums=(0, 1, 2))(teacher, english, parallel)
    for actual, expected in zip(taught_gradients, (0 * t, (e - t) / B, (p - t) / B), strict=True):
        np.testing.assert_allclose(actual, expected, **TOLERANCE)
    # The English side of the alignment is a target: exactly no gradient.
    assert (np.asarray(taught_gradients[0]) == 0).all()
    assert (np.asarray(aligned_gradients[0]) == 0).all() and (np.asarray(aligned_gradients[1]) == 0).all()
    np.testing.assert_allclose(aligned_gradients[2], (p - e) / B, **TOLERANCE)


def test_answer_alignment(rng):
    english, parallel = (jnp.asarray(rng.normal(size=(B, A, V)), jnp.float32) for _ in range(2))
    lengths = np.array([2, 3, 0])
    e, p = softmax(english), softmax(parallel)
    expected = [sum(kl(e[b, a], p[b, a]) for a in range(n)) / max(n, 1) for b, n in enumerate(lengths)]
    np.testing.assert_allclose(losses.answer_alignment(english, parallel, lengths), expected, **TOLERANCE)
    to_english, to_parallel = jax.grad(lambda *x: losses.answer_alignment(*x, lengths).sum(), argnums=(0, 1))(
        english, parallel
    )
    assert (np.asarray(to_english) == 0).all()
    assert (np.asarray(to_parallel)[0, :2] != 0).all() and (np.asarray(to_parallel)[0, 2:] == 0).all()


def test_attention_distillation(rng):
    teacher, student = (jnp.asarray(softmax(rng.normal(size=(B, N))), jnp.float32) for _ in range(2))
    np.testing.assert_allclose(losses.attention_distillation(teacher, student), kls(teacher, student), **TOLERANCE)
    to_teacher, to_student = jax.grad(lambda *x: losses.attention_distillation(*x).sum(), argnums=(0, 1))(
        teacher, student
    )
    assert (np.asarray(to_teacher) == 0).all()
    np.testing.assert_allclose(to_student, -teacher / student, **TOLERANCE)


def test_attention_that_underflows_costs_much_but_finitely():
    teacher, student = jnp.array([[0.5, 0.5]]), jnp.array([[1.0, 0.0]])
    value, gradient = jax.value_and_grad(lambda x: losses.attention_distillation(teacher, x)[0])(student)
    assert 30 < float(value) < 40
    assert np.isfinite(gradient).all()
