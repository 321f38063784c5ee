# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Functions whose gradients are spelt out have autodiff's gradients, and keep no more than they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from class_jax.models import functions

pytestmark = pytest.mark.core


def plain_rms_norm(x, scale):
    wide = x.astype(jnp.float32)
    normed = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + 1e-6)
    return (normed * scale).astype(x.dtype)


R, T, D, F = 3, 5, 8, 12
CASES = {
    "add_bias": (functions.add_bias, lambda x, bias: x + bias, ((R, 2, T, T), (1, 2, T, T))),
    "rms_norm": (lambda x, scale: functions.rms_norm(x, scale, 1e-6), plain_rms_norm, ((R, T, D), (D,))),
    "softmax": (functions.softmax, lambda x: jax.nn.softmax(x, axis=-1), ((R, 2, T, T),)),
    "gated_gelu": (
        functions.gated_gelu,
        lambda gate, linear: jax.nn.gelu(gate, approximate=True) * linear,
        ((R, T, F), (R, T, F)),
    ),
    "matmul, wider": (functions.matmul, jnp.matmul, ((R, T, D), (D, F))),
    "matmul, narrower": (functions.matmul, jnp.matmul, ((R, T, F), (F, D))),
    "matmul, few rows": (functions.matmul, jnp.matmul, ((2, 3, F), (F, D))),
    "matmul, one row": (functions.matmul, jnp.matmul, ((F,), (F, D))),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_plain_function(name):
    function, plain, shapes = CASES[name]
    keys = jax.random.split(jax.random.key(1), len(shapes) + 1)
    given = [2 * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=False)]
    expected, pull = jax.vjp(plain, *given)
    found, pull_back = jax.vjp(function, *given)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    towards = jax.random.normal(keys[-1], expected.shape)
    for one, other in zip(pull_back(towards), pull(towards), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_gradients_have_the_types_of_what_they_are_of():
    x, scale = jnp.ones((T, D), jnp.bfloat16), jnp.ones(D, jnp.float32)
    value, pull = jax.vjp(lambda x, scale: functions.rms_norm(x, scale, 1e-6), x, scale)
    assert value.dtype == jnp.bfloat16
    assert [one.dtype for one in pull(value)] == [jnp.bfloat16, jnp.float32]
    value, pull = jax.vjp(functions.matmul, x, jnp.ones((D, F), jnp.bfloat16))
    assert [one.dtype for one in pull(value)] == [jnp.bfloat16, jnp.bfloat16]
    value, pull = jax.vjp(lambda x, kernel: functions.matmul(x, kernel, jnp.float32), x, jnp.ones((D, F), jnp.bfloat16))
    assert value.dtype == jnp.float32
    assert [one.dtype for one in pull(value)] == [jnp.bfloat16, jnp.bfloat16]


@pytest.mark.parametrize(("name", "arrays"), [("rms_norm", 1), ("softmax", 1), ("gated_gelu", 2)])
def test_what_is_kept_for_the_gradient(name, arrays):
    """Arrays of the input's size: the input itself, the result, both halves."""
    function, _, shapes = CASES[name]
    given = [jnp.ones(shape) for shape in shapes]
    kept = jax.tree.leaves(jax.eval_shape(lambda *x: jax.vjp(function, *x)[1], *given))
    assert sum(x.size == given[0].size for x in kept) == arrays
