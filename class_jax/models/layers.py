# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""T5 v1.1 layers: parameters and the maths of one layer. Shapes by the legend in `class_jax.models`."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from class_jax.models.config import ModelConfig

# Scores of masked positions. Finite, so that a row that is all padding gives numbers and not NaN.
MASKED = -1e9


class Kernel(nnx.Module):
    """A matrix without bias, [in, out...], with the logical axis names of its dimensions."""

    def __init__(self, shape: tuple[int, ...], axes: tuple[str, ...], stddev: float, rngs: nnx.Rngs):
        self.kernel = nnx.Param(stddev * jax.random.normal(rngs.params(), shape, jnp.float32), axes=axes)


class Embedding(nnx.Module):
    """A table of vectors, [rows, features]."""

    def __init__(self, shape: tuple[int, int], axes: tuple[str, str], stddev: float, rngs: nnx.Rngs):
        self.embedding = nnx.Param(stddev * jax.random.normal(rngs.params(), shape, jnp.float32), axes=axes)


def rms_norm(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    """T5's layer norm over the last axis: no mean, no bias; computed in float32."""
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + epsilon)
    return (wide * scale).astype(x.dtype)


class RMSNorm(nnx.Module):
    """The scale of `rms_norm`."""

    def __init__(self, features: int, epsilon: float, axes: tuple[str, ...] = ("embed",)):
        self.scale = nnx.Param(jnp.ones(features, jnp.float32), axes=axes)
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis."""
        return rms_norm(x, self.scale[...], self.epsilon)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Inverted dropout; the identity where `key` is None (evaluation) or the rate is 0."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0).astype(x.dtype)


def keys_for(key: jax.Array | None, count: int) -> list[jax.Array | None]:
    """Splits a dropout key, or returns as many Nones."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def relative_buckets(targets: int, sources: int, *, bidirectional: bool, buckets: int, max_distance: int) -> np.ndarray:
    """Bucket of every (target, source) pair of positions, [targets, sources] (Raffel et al. 2020, section 2.1).

    Half of the buckets (per direction) hold one distance each, the rest grow logarithmically up to `max_distance`.
    """
    distance = np.arange(sources)[None, :] - np.arange(targets)[:, None]
    start = np.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        start = np.where(distance > 0, buckets, 0)
        distance = np.abs(distance)
    else:
        distance = -np.minimum(distance, 0)
    exact = buckets // 2
    # float32 throughout, as in the reference: a bucket edge must not move with the precision.
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        math.log(max_distance / exact)
    )
    far = np.minimum(exact + (ratio * np.float32(buckets - exact)).astype(np.int32), buckets - 1)
    return (start + np.where(distance < exact, distance, far)).astype(np.int32)


class RelativeBias(nnx.Module):
    """Relative position bias, learnt once per stack and shared by its layers."""

    def __init__(self, config: ModelConfig, *, bidirectional: bool, rngs: nnx.Rngs):
        self.buckets = config.relative_attention_num_buckets
        self.max_distance = config.relative_attention_max_distance
        self.bidirectional = bidirectional
        shape = (self.buckets, config.num_heads)
        self.embedding = nnx.Param(
            config.d_model**-0.5 * jax.random.normal(rngs.params(), shape, jnp.float32), axes=("buckets", "heads")
        )

    def __call__(self, targets: int, sources: int) -> jax.Array:
        """Returns the bias [1, H, targets, sources], float32."""
        buckets = relative_buckets(
            targets,
            sources,
            bidirectional=self.bidirectional,
            buckets=self.buckets,
            max_distance=self.max_distance,
        )
        return self.embedding[...][buckets].transpose(2, 0, 1)[None]


class Attention(nnx.Module):
    """Multi-head attention with its norm: unscaled dot products, no biases in the projections."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        D, H, K = config.d_model, config.num_heads, config.d_kv
        self.norm = RMSNorm(D, config.layer_norm_epsilon)
        # T5's initialisation: the scale that attention lacks is folded into the queries.
        self.q = Kernel((D, H, K), ("embed", "heads", "kv"), (D * K) ** -0.5, rngs)
        self.k = Kernel((D, H, K), ("embed", "heads", "kv"), D**-0.5, rngs)
        self.v = Kernel((D, H, K), ("embed", "heads", "kv"), D**-0.5, rngs)
        self.o = Kernel((H, K, D), ("heads", "kv", "embed"), (H * K) ** -0.5, rngs)
        self.rate = config.dropout_rate

    def queries(self, x: jax.Array) -> jax.Array:
        """[..., T, D] -> [..., H, T, K]."""
        return jnp.einsum("...td,dhk->...htk", x, self.q.kernel[...].astype(x.dtype))

    def keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[..., S, D] -> two of [..., H, S, K]."""
        k = jnp.einsum("...sd,dhk->...hsk", x, self.k.kernel[...].astype(x.dtype))
        v = jnp.einsum("...sd,dhk->...hsk", x, self.v.kernel[...].astype(x.dtype))
        return k, v

    def output(self, x: jax.Array) -> jax.Array:
        """[..., H, T, K] -> [..., T, D]."""
        return jnp.einsum("...htk,hkd->...td", x, self.o.kernel[...].astype(x.dtype))

    def self_attend(self, x: jax.Array, bias: jax.Array, key: jax.Array | None) -> jax.Array:
        """Residual self-attention over rows [R, T, D] with `bias` [1 or R, H, T, T] (positions and mask)."""
        weights_key, out_key = keys_for(key, 2)
        normed = self.norm(x)
        k, v = self.keys_values(normed)
        probabilities = attention_probabilities(self.queries(normed), k, bias)
        mixed = mix(dropout(probabilities, self.rate, weights_key), v)
        return x + dropout(self.output(mixed), self.rate, out_key)


def attention_probabilities(q: jax.Array, k: jax.Array, bias: jax.Array) -> jax.Array:
    """Softmax over sources in float32: q [R,H,T,K], k [R,H,S,K], bias [1 or R, 1 or H, 1 or T, S] -> [R,H,T,S]."""
    scores = jnp.einsum("rhtk,rhsk->rhts", q, k, preferred_element_type=jnp.float32)
    return jax.nn.softmax(scores + bias, axis=-1)


def mix(probabilities: jax.Array, v: jax.Array) -> jax.Array:
    """Weighted values: [R,H,T,S], [R,H,S,K] -> [R,H,T,K]."""
    return jnp.einsum("rhts,rhsk->rhtk", probabilities.astype(v.dtype), v)


class FeedForward(nnx.Module):
    """Gated-GELU feed-forward layer with its norm."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        D, F = config.d_model, config.d_ff
        self.norm = RMSNorm(D, config.layer_norm_epsilon)
        self.wi_0 = Kernel((D, F), ("embed", "mlp"), D**-0.5, rngs)
        self.wi_1 = Kernel((D, F), ("embed", "mlp"), D**-0.5, rngs)
        self.wo = Kernel((F, D), ("mlp", "embed"), F**-0.5, rngs)
        self.rate = config.dropout_rate

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Residual: [..., D] -> [..., D]."""
        hidden_key, out_key = keys_for(key, 2)
        normed = self.norm(x)
        gate = jax.nn.gelu(normed @ self.wi_0.kernel[...].astype(x.dtype), approximate=True)
        hidden = dropout(gate * (normed @ self.wi_1.kernel[...].astype(x.dtype)), self.rate, hidden_key)
        return x + dropout(hidden @ self.wo.kernel[...].astype(x.dtype), self.rate, out_key)


class EncoderLayer(nnx.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention = Attention(config, rngs=rngs)
        self.mlp = FeedForward(config, rngs=rngs)

    def __call__(self, x: jax.Array, bias: jax.Array, key: jax.Array | None) -> jax.Array:
        """[R, T, D] -> [R, T, D]; `bias` as in `Attention.self_attend`."""
        attention_key, mlp_key = keys_for(key, 2)
        return self.mlp(self.attention.self_attend(x, bias, attention_key), mlp_key)


class DecoderLayer(nnx.Module):
    """Causal self-attention, cross-attention over the memory, feed-forward."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.self_attention = Attention(config, rngs=rngs)
        self.cross_attention = Attention(config, rngs=rngs)
        self.mlp = FeedForward(config, rngs=rngs)
        self.rate = config.dropout_rate

    def __call__(
        self, x: jax.Array, bias: jax.Array, memory: jax.Array, memory_bias: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """One layer over whole answers.

        Args:
          x: [B, A, D]. bias: causal bias [1, H, A, A]. memory: [B, S, D]. memory_bias: [B, 1, 1, S].
          key: dropout key or None.

        Returns:
          [B, A, D], and the cross-attention probabilities of the first position, [B, H, S] (before dropout).
        """
        self_key, weights_key, out_key, mlp_key = keys_for(key, 4)
        x = self.self_attention.self_attend(x, bias, self_key)
        cross = self.cross_attention
        k, v = cross.keys_values(memory)
        probabilities = attention_probabilities(cross.queries(cross.norm(x)), k, memory_bias)
        mixed = mix(dropout(probabilities, self.rate, weights_key), v)
        x = x + dropout(cross.output(mixed), self.rate, out_key)
        return self.mlp(x, mlp_key), probabilities[:, :, 0]

    def step(
        self, x: jax.Array, bias: jax.Array, cache: tuple[jax.Array, jax.Array], position: jax.Array, memory: tuple
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """One position with cached keys and values.

        Args:
          x: [B, 1, D]. bias: [1, H, 1, A], masking positions after `position`.
          cache: keys and values of the positions so far, two of [B, H, A, K].
          position: index of this position, scalar.
          memory: (keys [B,H,S,K], values [B,H,S,K], bias [B,1,1,S]) of the cross-attention.

        Returns:
          [B, 1, D] and the new cache.
        """
        attention = self.self_attention
        normed = attention.norm(x)
        k, v = attention.keys_values(normed)
        keys = jax.lax.dynamic_update_slice_in_dim(cache[0], k, position, axis=2)
        values = jax.lax.dynamic_update_slice_in_dim(cache[1], v, position, axis=2)
        x = x + attention.output(mix(attention_probabilities(attention.queries(normed), keys, bias), values))
        cross = self.cross_attention
        memory_keys, memory_values, memory_bias = memory
        probabilities = attention_probabilities(cross.queries(cross.norm(x)), memory_keys, memory_bias)
        x = x + cross.output(mix(probabilities, memory_values))
        return self.mlp(x, None), (keys, values)


def stack(make: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs) -> nnx.Module:
    """Makes `count` like layers as one module whose parameters have a leading layer axis."""
    keys = jax.random.split(rngs.params(), count)
    graph = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))[0]
    return nnx.merge(graph, jax.vmap(lambda key: nnx.split(make(nnx.Rngs(key)))[1])(keys))


_POLICIES = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


def scan_layers(
    layers: nnx.Module, apply: Callable, carry: jax.Array | tuple, key: jax.Array | None, *, remat: str = "none"
) -> tuple:
    """Runs `carry = apply(layer, carry, key)` over stacked layers as one scan: compile time is flat in depth."""
    graph, params = nnx.split(layers)
    count = jax.tree.leaves(params)[0].shape[0]
    keys = None if key is None else jax.random.split(key, count)

    def body(carry: jax.Array | tuple, xs: tuple) -> tuple:
        layer_params, layer_key = xs
        return apply(nnx.merge(graph, layer_params), carry, layer_key), None

    if remat != "none":
        body = jax.checkpoint(body, prevent_cse=False, policy=_POLICIES[remat])
    return jax.lax.scan(body, carry, (params, keys))[0]
