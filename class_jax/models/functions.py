# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The functions of T5's layers whose gradients are spelt out: what autodiff makes of them is slower or holds more.

Autodiff keeps every intermediate result of a function for its gradient: eight arrays of a feed-forward layer's hidden
size, two of the attention's scores. Here a function keeps its inputs or its result. And XLA's CPU back end compiles
some of what autodiff asks for into loops many times slower than the products beside them.
"""

import functools
import math

import jax
import jax.numpy as jnp


def _sum_leading(x: jax.Array, keep: int) -> jax.Array:
    """Sums all but the last `keep` axes, as a product with ones: a reduction over leading axes is 50 times slower."""
    rows = x.reshape(-1, math.prod(x.shape[x.ndim - keep :]))
    ones = jnp.ones((1, rows.shape[0]), x.dtype)
    return jnp.matmul(ones, rows, preferred_element_type=jnp.float32).reshape(x.shape[x.ndim - keep :])


@jax.custom_vjp
def add_bias(scores: jax.Array, bias: jax.Array) -> jax.Array:
    """[R, ...] + [1, ...], with the bias's gradient as a product."""
    return scores + bias


add_bias.defvjp(
    lambda scores, bias: (scores + bias, None),
    lambda _, gradient: (gradient, _sum_leading(gradient, gradient.ndim - 1)[None]),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    """T5's layer norm over the last axis: no mean, no bias; computed in float32. [..., D], [D] -> [..., D]."""
    return _rms_norm_forward(x, scale, epsilon)[0]


def _rms_norm_forward(x: jax.Array, scale: jax.Array, epsilon: float) -> tuple:
    wide = x.astype(jnp.float32)
    factor = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
    return (wide * factor * scale).astype(x.dtype), (x, scale, factor)


def _rms_norm_backward(epsilon: float, saved: tuple, gradient: jax.Array) -> tuple:
    x, scale, factor = saved
    wide = gradient.astype(jnp.float32)
    normed = x.astype(jnp.float32) * factor
    scaled = wide * scale
    inner = scaled - normed * jnp.mean(scaled * normed, axis=-1, keepdims=True)
    return (factor * inner).astype(x.dtype), _sum_leading(wide * normed, 1).astype(scale.dtype)


rms_norm.defvjp(_rms_norm_forward, _rms_norm_backward)


@jax.custom_vjp
def softmax(scores: jax.Array) -> jax.Array:
    """Softmax over the last axis, whose gradient needs only the result."""
    return jax.nn.softmax(scores, axis=-1)


def _softmax_forward(scores: jax.Array) -> tuple:
    probabilities = jax.nn.softmax(scores, axis=-1)
    return probabilities, probabilities


softmax.defvjp(
    _softmax_forward,
    lambda saved, gradient: (saved * (gradient - (gradient * saved).sum(axis=-1, keepdims=True)),),
)


@jax.custom_vjp
def gated_gelu(gate: jax.Array, linear: jax.Array) -> jax.Array:
    """GELU of the gate (tanh's approximation, as in T5 v1.1) times the linear half; the gradient keeps these two.

    `jax.checkpoint` would keep no more, but a step of a tiny model takes a tenth longer with what it makes of this.
    """
    return jax.nn.gelu(gate, approximate=True) * linear


def _gated_gelu_backward(saved: tuple, gradient: jax.Array) -> tuple:
    gate, linear = saved
    square = gate * gate
    slope = math.sqrt(2 / math.pi)
    tanh = jnp.tanh(slope * (gate + 0.044715 * square * gate))
    half = 0.5 * (1 + tanh)
    of_gelu = half + 0.5 * gate * (1 - tanh * tanh) * slope * (1 + 3 * 0.044715 * square)
    return gradient * linear * of_gelu, gradient * gate * half


gated_gelu.defvjp(
    lambda gate, linear: (jax.nn.gelu(gate, approximate=True) * linear, (gate, linear)), _gated_gelu_backward
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(x: jax.Array, kernel: jax.Array, dtype: jnp.dtype | None = None) -> jax.Array:
    """[..., in] x [in, out] -> [..., out] of type `dtype` (None: that of `x`), its two gradients in the quicker order.

    Plain autodiff asks for gradient^T x input: what made the gradient (a GELU's derivative, say) is then computed once
    more, in transposed order.
    """
    return jnp.matmul(x, kernel, preferred_element_type=dtype)


def _matmul_forward(x: jax.Array, kernel: jax.Array, dtype: jnp.dtype | None) -> tuple:
    return jnp.matmul(x, kernel, preferred_element_type=dtype), (x, kernel)


def _matmul_backward(dtype: jnp.dtype | None, saved: tuple, gradient: jax.Array) -> tuple:
    x, kernel = saved
    leading = (tuple(range(x.ndim - 1)),) * 2
    # A CPU copies the first factor, transposed. If that is the wider one it is much the slower copy.
    if x.shape[-1] > gradient.shape[-1]:
        of_kernel = _dot(gradient, x, leading, kernel.dtype).T
    else:
        of_kernel = _dot(x, gradient, leading, kernel.dtype)
    last = (gradient.ndim - 1,), (1,)
    if math.prod(x.shape[:-1]) < kernel.shape[0]:
        # Few rows: the kernel first, or a CPU copies all of it, transposed, into the second factor. Without the
        # barrier the compiler turns the two around again.
        turned = jax.lax.optimization_barrier(_dot(kernel, gradient, last[::-1], x.dtype))
        return jnp.moveaxis(turned, 0, -1), of_kernel
    return _dot(gradient, kernel, last, x.dtype), of_kernel


def _dot(left: jax.Array, right: jax.Array, contracted: tuple, dtype: jnp.dtype) -> jax.Array:
    return jax.lax.dot_general(left, right, (contracted, ((), ())), preferred_element_type=dtype)


matmul.defvjp(_matmul_forward, _matmul_backward)
