# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""T5 v1.1 layers: parameters and the maths of one layer. Shapes by the legend in `class_jax.models`."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec

from class_jax.models.config import ModelConfig
from class_jax.models.functions import add_bias, gated_gelu, matmul, rms_norm, softmax
from class_jax.models.packing import Packing, Slots, pack, packing, unpack

# Scores of masked positions. Finite, so that a row that is all padding gives numbers and not NaN.
MASKED = -1e9

# Mesh axes over which a batch is cut.
BATCH_AXES = ("data", "fsdp")


class Kernel(nnx.Module):
    """A matrix without bias, [in, out...], with the logical axis names of its dimensions."""

    def __init__(self, shape: tuple[int, ...], axes: tuple[str, ...], stddev: float, rngs: nnx.Rngs):
        self.kernel = nnx.Param(stddev * jax.random.normal(rngs.params(), shape, jnp.float32), axes=axes)


class Embedding(nnx.Module):
    """A table of vectors, [rows, features]."""

    def __init__(self, shape: tuple[int, int], axes: tuple[str, str], stddev: float, rngs: nnx.Rngs):
        self.embedding = nnx.Param(stddev * jax.random.normal(rngs.params(), shape, jnp.float32), axes=axes)


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
            config.initializer_factor * config.d_model**-0.5 * jax.random.normal(rngs.params(), shape, jnp.float32),
            axes=("buckets", "heads"),
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
        factor = config.initializer_factor
        self.q = Kernel((D, H, K), ("embed", "heads", "kv"), factor * (D * K) ** -0.5, rngs)
        self.k = Kernel((D, H, K), ("embed", "heads", "kv"), factor * D**-0.5, rngs)
        self.v = Kernel((D, H, K), ("embed", "heads", "kv"), factor * D**-0.5, rngs)
        self.o = Kernel((H, K, D), ("heads", "kv", "embed"), factor * (H * K) ** -0.5, rngs)
        self.rate = config.dropout_rate

    def queries(self, x: jax.Array) -> jax.Array:
        """[..., T, D] -> [..., H, T, K]."""
        return self._heads(x, self.q)

    def keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[..., S, D] -> two of [..., H, S, K]."""
        return self._heads(x, self.k), self._heads(x, self.v)

    def output(self, x: jax.Array, where: Packing | None = None) -> jax.Array:
        """[..., H, T, K] -> [..., T, D]; with `where` rows [M, H, T, K] -> packed tokens."""
        H, K, D = self.o.kernel.shape
        joined = x.swapaxes(-2, -3).reshape(*x.shape[:-3], x.shape[-2], H * K)
        if where is not None:
            joined = pack(joined, where)
        return matmul(joined, self.o.kernel[...].reshape(H * K, D).astype(x.dtype))

    def _heads(self, x: jax.Array, projection: Kernel, where: Packing | None = None) -> jax.Array:
        D, H, K = projection.kernel.shape
        projected = matmul(x, projection.kernel[...].reshape(D, H * K).astype(x.dtype))
        if where is not None:
            projected = unpack(projected, where)
        return projected.reshape(*projected.shape[:-1], H, K).swapaxes(-2, -3)

    def self_attend(
        self,
        x: jax.Array,
        bias: jax.Array,
        mask_bias: jax.Array | None,
        key: jax.Array | None,
        where: Packing | None = None,
    ) -> jax.Array:
        """Residual self-attention over rows [R, T, D], or over the rows of packed tokens [G, C, D] placed by `where`.

        `bias` and `mask_bias` as in `attention_probabilities`.
        """
        weights_key, out_key = keys_for(key, 2)
        normed = self.norm(x)
        q, k, v = (self._heads(normed, projection, where) for projection in (self.q, self.k, self.v))
        mixed = mix(dropout(attention_probabilities(q, k, bias, mask_bias), self.rate, weights_key), v)
        return x + dropout(self.output(mixed, where), self.rate, out_key)

    def cross_attend(
        self, x: jax.Array, memory: jax.Array, memory_bias: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Residual attention of targets over a memory that all of them share.

        With few targets (an answer beside a hundred passages), queries go through the keys' kernel and the weighted
        memory through the values': the same sums in another order, without a key and a value for each of the memory's
        tokens. Per head and token of the memory that takes A * D multiplications instead of (D + A) * K.

        Args:
          x: [B, A, D]. memory: [B, S, D]. memory_bias: of padding, [B, 1, 1, S].
          key: dropout key or None.

        Returns:
          [B, A, D], and the attention probabilities before dropout, [B, H, A, S].
        """
        weights_key, out_key = keys_for(key, 2)
        D, H, K = self.k.kernel.shape
        B, A, _ = x.shape
        q = self.queries(self.norm(x))
        if A * D < K * (D + A):
            through_keys = jnp.einsum("bhak,dhk->bhad", q, self.k.kernel[...].astype(q.dtype)).reshape(B, H * A, D)
            scores = jnp.einsum("brd,bsd->brs", through_keys, memory, preferred_element_type=jnp.float32)
            probabilities = softmax(scores.reshape(B, H, A, -1) + memory_bias)
            weights = dropout(probabilities, self.rate, weights_key).astype(memory.dtype).reshape(B, H * A, -1)
            weighted = jnp.einsum("brs,bsd->brd", weights, memory).reshape(B, H, A, D)
            mixed = jnp.einsum("bhad,dhk->bhak", weighted, self.v.kernel[...].astype(weighted.dtype))
        else:
            k, v = self.keys_values(memory)
            probabilities = attention_probabilities(q, k, None, memory_bias)
            mixed = mix(dropout(probabilities, self.rate, weights_key), v)
        return x + dropout(self.output(mixed), self.rate, out_key), probabilities


def attention_probabilities(
    q: jax.Array, k: jax.Array, bias: jax.Array | None, mask_bias: jax.Array | None
) -> jax.Array:
    """Softmax over sources, in float32.

    The two biases stay apart: their sum would be as large as the scores, and so would its gradient in every layer.

    Args:
      q: [R, H, T, K]. k: [R, H, S, K].
      bias: of positions, [1, H, T, S], or None.
      mask_bias: of padding, [R, 1, 1, S], or None.

    Returns:
      [R, H, T, S].
    """
    scores = jnp.einsum("rhtk,rhsk->rhts", q, k, preferred_element_type=jnp.float32)
    scores = scores if bias is None else add_bias(scores, bias)
    scores = scores if mask_bias is None else scores + mask_bias
    return softmax(scores)


def mix(probabilities: jax.Array, v: jax.Array) -> jax.Array:
    """Weighted values: [R,H,T,S], [R,H,S,K] -> [R,H,T,K]."""
    return jnp.einsum("rhts,rhsk->rhtk", probabilities.astype(v.dtype), v)


class FeedForward(nnx.Module):
    """Gated-GELU feed-forward layer with its norm."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        D, F = config.d_model, config.d_ff
        self.norm = RMSNorm(D, config.layer_norm_epsilon)
        factor = config.initializer_factor
        self.wi_0 = Kernel((D, F), ("embed", "mlp"), factor * D**-0.5, rngs)
        self.wi_1 = Kernel((D, F), ("embed", "mlp"), factor * D**-0.5, rngs)
        self.wo = Kernel((F, D), ("mlp", "embed"), factor * F**-0.5, rngs)
        self.rate = config.dropout_rate

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Residual: [..., D] -> [..., D]."""
        hidden_key, out_key = keys_for(key, 2)
        normed = self.norm(x)
        gate, linear = (matmul(normed, wi.kernel[...].astype(x.dtype)) for wi in (self.wi_0, self.wi_1))
        hidden = dropout(gated_gelu(gate, linear), self.rate, hidden_key)
        return x + dropout(matmul(hidden, self.wo.kernel[...].astype(x.dtype)), self.rate, out_key)


class EncoderLayer(nnx.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention = Attention(config, rngs=rngs)
        self.mlp = FeedForward(config, rngs=rngs)

    def __call__(
        self,
        x: jax.Array,
        bias: jax.Array,
        mask_bias: jax.Array,
        key: jax.Array | None,
        where: Packing | None = None,
    ) -> jax.Array:
        """Rows [R, T, D] or packed tokens [G, C, D] to the same; see `Attention.self_attend`."""
        attention_key, mlp_key = keys_for(key, 2)
        return self.mlp(self.attention.self_attend(x, bias, mask_bias, attention_key, where), mlp_key)


class DecoderLayer(nnx.Module):
    """Causal self-attention, cross-attention over the memory, feed-forward."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.self_attention = Attention(config, rngs=rngs)
        self.cross_attention = Attention(config, rngs=rngs)
        self.mlp = FeedForward(config, rngs=rngs)

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
        self_key, cross_key, mlp_key = keys_for(key, 3)
        x = self.self_attention.self_attend(x, bias, None, self_key)
        x, probabilities = self.cross_attention.cross_attend(x, memory, memory_bias, cross_key)
        return self.mlp(x, mlp_key), probabilities[:, :, 0]

    def step(
        self, x: jax.Array, bias: jax.Array, cache: tuple[jax.Array, jax.Array], position: jax.Array, memory: tuple
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array], jax.Array]:
        """One position of each of a question's W beams, with cached keys and values.

        Args:
          x: [B, W, D]. bias: [1, H, 1, A], masking positions after `position`.
          cache: keys and values of the positions so far, two of [B, W, H, A, K].
          position: index of this position, scalar.
          memory: (keys [B,H,S,K], values [B,H,S,K], bias [B,1,1,S]) of the cross-attention: one copy for all beams,
            which are to it what the positions of an answer are in `__call__`.

        Returns:
          [B, W, D], the new cache, and the cross-attention probabilities [B, H, W, S].
        """
        attention = self.self_attention
        B, W, D = x.shape
        normed = attention.norm(x.reshape(B * W, 1, D))
        k, v = attention.keys_values(normed)
        cache = tuple(
            jax.lax.dynamic_update_slice_in_dim(old, new.reshape(B, W, *new.shape[1:]), position, axis=3)
            for old, new in zip(cache, (k, v), strict=True)
        )
        keys, values = (part.reshape(B * W, *part.shape[2:]) for part in cache)
        own = mix(attention_probabilities(attention.queries(normed), keys, bias, None), values)
        x = x + attention.output(own).reshape(B, W, D)
        cross = self.cross_attention
        memory_keys, memory_values, memory_bias = memory
        probabilities = attention_probabilities(cross.queries(cross.norm(x)), memory_keys, None, memory_bias)
        x = x + cross.output(mix(probabilities, memory_values))
        return self.mlp(x, None), cache, probabilities


def batch_ways() -> int:
    """Devices over which a batch is cut, by the current mesh (`jax.set_mesh`); 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES if axis in mesh.axis_names)


def over_batch(x: jax.Array) -> jax.Array:
    """Keeps the leading axis of an activation cut over the devices that share a batch.

    Left to itself, the partitioner may follow the parameters instead: it cuts activations along the model width, holds
    the whole batch on every device and sums every layer's results over all of them. The identity where the devices
    don't divide the axis, or there is no mesh.
    """
    ways = batch_ways()
    if ways == 1 or x.shape[0] % ways:
        return x
    axes = tuple(axis for axis in BATCH_AXES if axis in jax.sharding.get_abstract_mesh().axis_names)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes))


def stack(make: Callable[[nnx.Rngs], nnx.Module], count: int, rngs: nnx.Rngs) -> nnx.Module:
    """Makes `count` like layers as one module whose parameters have a leading layer axis."""
    keys = jax.random.split(rngs.params(), count)
    graph = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))[0]
    return nnx.merge(graph, jax.vmap(lambda key: nnx.split(make(nnx.Rngs(key)))[1])(keys))


_POLICIES = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


def scan_layers(
    layers: nnx.Module, apply: Callable, carry: jax.Array | tuple, key: jax.Array | None, *, remat: str = "none"
) -> tuple:
    """Runs `carry = apply(layer, carry, key)` over stacked layers as one scan: compile time is flat in depth.

    Every array of the carry has the batch as its leading axis.
    """
    graph, params = nnx.split(layers)
    count = jax.tree.leaves(params)[0].shape[0]
    keys = None if key is None else jax.random.split(key, count)

    def body(carry: jax.Array | tuple, xs: tuple) -> tuple:
        layer_params, layer_key = xs
        made = apply(nnx.merge(graph, layer_params), jax.tree.map(over_batch, carry), layer_key)
        return jax.tree.map(over_batch, made), None

    if remat != "none":
        body = jax.checkpoint(body, prevent_cse=False, policy=_POLICIES[remat])
    return jax.lax.scan(body, carry, (params, keys))[0]


def encode_rows(
    layers: nnx.Module,
    x: jax.Array,
    lengths: jax.Array,
    bias: jax.Array,
    key: jax.Array | None,
    *,
    remat: str = "none",
    slots: Slots | None = None,
) -> jax.Array:
    """Runs rows [M, T, D] of [M] tokens through stacked encoder layers.

    Args:
      layers: from `stack`. x, lengths: the rows. bias: of positions, [1, H, T, T]. key: of dropout, or None.
      remat: see `ModelConfig`.
      slots: packs the rows' tokens, which must fit, unless that would not save any. The result is the same, but
        for padding and for which features dropout takes.

    Returns:
      [M, T, D].
    """
    M, T, _ = x.shape
    mask_bias = jnp.where(jnp.arange(T) < lengths[:, None], 0.0, MASKED)[:, None, None]
    where = None
    if slots is not None and slots.groups * slots.size < M * T:
        where = packing(lengths, T, slots)
        x = pack(x, where)

    def apply(layer: EncoderLayer, x: jax.Array, layer_key: jax.Array | None) -> jax.Array:
        return layer(x, bias, mask_bias, layer_key, where)

    x = scan_layers(layers, apply, x, key, remat=remat)
    return x if where is None else unpack(x, where)
