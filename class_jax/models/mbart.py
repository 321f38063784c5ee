# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""mBART and mBART-50 (Liu et al. 2020; Tang et al. 2020): pre-norm layers with biases and learnt positions.

Shapes by the legend in `class_jax.models`. T5's layers of `class_jax.models.layers` lend what the two have in common:
stacks, scans, products and the attention's softmax. For inference: no dropout.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from class_jax.errors import InputError, nearest
from class_jax.models import layers as nn
from class_jax.models.class_model import length_mask
from class_jax.models.search import Cache, Hypotheses, SpecialTokens, Step, hypotheses

# Row of the first position in the tables of positions: the rows before it are of no use.
POSITION_OFFSET = 2
_EPSILON = 1e-5
_INIT_STD = 0.02
# mBART has GELU, mBART-50 ReLU.
_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_new": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}
_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class MBartConfig:
    """Sizes of an mBART.

    Attributes:
      vocab_size: V. d_model: D.
      encoder_layers, decoder_layers: their numbers.
      encoder_heads, decoder_heads: H of each side.
      encoder_ffn, decoder_ffn: F of each side.
      max_positions: tokens of the longest sequence.
      activation: "gelu" (exact), "gelu_new" or "relu".
      scale_embedding: whether embeddings are multiplied by sqrt(D).
      pad_id, eos_id, start_id: special tokens; the decoder is given `start_id` first.
      dtype: type of the matrix products; parameters, softmax and norms stay float32.

    Raises:
      InputError: for an unknown activation or type, or heads that don't divide D.
    """

    vocab_size: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    encoder_ffn: int
    decoder_ffn: int
    max_positions: int = 1024
    activation: str = "gelu"
    scale_embedding: bool = True
    pad_id: int = 1
    eos_id: int = 2
    start_id: int = 2
    dtype: str = "float32"

    def __post_init__(self):
        for key, known in (("activation", _ACTIVATIONS), ("dtype", _DTYPES)):
            value = getattr(self, key)
            if value not in known:
                raise InputError(f"unknown value {value!r}", key=f"MBartConfig.{key}", remedy=nearest(value, known))
        for key in ("encoder_heads", "decoder_heads"):
            if self.d_model % getattr(self, key):
                raise InputError(f"{getattr(self, key)} heads can't share {self.d_model} features", key=key)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides what the parameters mean."""
        shape = dataclasses.asdict(self)
        del shape["dtype"]
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()


class MBartMemory(NamedTuple):
    """What the decoder attends to, projected once for all that decode from it.

    Attributes:
      keys, values: of every decoder layer, [L, M, H, P, K].
      mask: True where a token is not padding, [M, P].
    """

    keys: jax.Array
    values: jax.Array
    mask: jax.Array


class Linear(nnx.Module):
    """A product with a bias."""

    def __init__(self, inputs: int, outputs: int, axes: tuple[str, str], rngs: nnx.Rngs):
        self.kernel = nnx.Param(_INIT_STD * jax.random.normal(rngs.params(), (inputs, outputs), jnp.float32), axes=axes)
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32), axes=axes[1:])

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., in] -> [..., out]."""
        return nn.matmul(x, self.kernel[...].astype(x.dtype)) + self.bias[...].astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer norm with scale and bias, computed in float32."""

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features, jnp.float32), axes=("embed",))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32), axes=("embed",))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises the last axis."""
        wide = x.astype(jnp.float32)
        wide = wide - wide.mean(axis=-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(jnp.square(wide).mean(axis=-1, keepdims=True) + _EPSILON)
        return (wide * self.scale[...] + self.bias[...]).astype(x.dtype)


class MBartAttention(nnx.Module):
    """Multi-head attention with its norm: dot products scaled by K^-0.5, biases in the projections."""

    def __init__(self, config: MBartConfig, heads: int, *, rngs: nnx.Rngs):
        D = config.d_model
        self.heads = heads
        self.norm = LayerNorm(D)
        self.q = Linear(D, D, ("embed", "heads"), rngs)
        self.k = Linear(D, D, ("embed", "heads"), rngs)
        self.v = Linear(D, D, ("embed", "heads"), rngs)
        self.o = Linear(D, D, ("heads", "embed"), rngs)

    def queries(self, x: jax.Array) -> jax.Array:
        """[..., T, D] -> [..., H, T, K], scaled."""
        return self._heads(self.q(x) * (x.shape[-1] // self.heads) ** -0.5)

    def keys_values(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[..., S, D] -> two of [..., H, S, K]."""
        return self._heads(self.k(x)), self._heads(self.v(x))

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask_bias: jax.Array | None) -> jax.Array:
        """[R,H,T,K] over [R,H,S,K] -> [R, T, D]; `mask_bias` [R, 1, T or 1, S] is added to the scores."""
        mixed = nn.mix(nn.attention_probabilities(q, k, None, mask_bias), v)
        return self.o(mixed.swapaxes(-2, -3).reshape(*mixed.shape[:-3], mixed.shape[-2], -1))

    def _heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, -1).swapaxes(-2, -3)


class MBartFeedForward(nnx.Module):
    """Two products with their norm."""

    def __init__(self, config: MBartConfig, features: int, *, rngs: nnx.Rngs):
        self.activation = config.activation
        self.norm = LayerNorm(config.d_model)
        self.wi = Linear(config.d_model, features, ("embed", "mlp"), rngs)
        self.wo = Linear(features, config.d_model, ("mlp", "embed"), rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Residual: [..., D] -> [..., D]."""
        return x + self.wo(_ACTIVATIONS[self.activation](self.wi(self.norm(x))))


class MBartEncoderLayer(nnx.Module):
    """Self-attention and feed-forward."""

    def __init__(self, config: MBartConfig, *, rngs: nnx.Rngs):
        self.attention = MBartAttention(config, config.encoder_heads, rngs=rngs)
        self.mlp = MBartFeedForward(config, config.encoder_ffn, rngs=rngs)

    def __call__(self, x: jax.Array, mask_bias: jax.Array) -> jax.Array:
        """[M, P, D] -> [M, P, D]; `mask_bias` [M, 1, 1, P]."""
        normed = self.attention.norm(x)
        k, v = self.attention.keys_values(normed)
        return self.mlp(x + self.attention.attend(self.attention.queries(normed), k, v, mask_bias))


class MBartDecoderLayer(nnx.Module):
    """Causal self-attention, cross-attention over keys and values that were projected in advance, feed-forward."""

    def __init__(self, config: MBartConfig, *, rngs: nnx.Rngs):
        self.self_attention = MBartAttention(config, config.decoder_heads, rngs=rngs)
        self.cross_attention = MBartAttention(config, config.decoder_heads, rngs=rngs)
        self.mlp = MBartFeedForward(config, config.decoder_ffn, rngs=rngs)

    def __call__(self, x: jax.Array, causal: jax.Array, memory: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        """Whole sequences: [R, A, D] -> [R, A, D].

        Args:
          x: [R, A, D]. causal: additive mask [1, 1, A, A].
          memory: keys [R, H, P, K], values [R, H, P, K] and additive mask [R, 1, 1, P].
        """
        own = self.self_attention
        normed = own.norm(x)
        x = x + own.attend(own.queries(normed), *own.keys_values(normed), causal)
        return self._cross(x, memory)

    def step(
        self, x: jax.Array, causal: jax.Array, cache: tuple[jax.Array, jax.Array], position: jax.Array, memory: tuple
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """One position of each of a sequence's W beams, with cached keys and values.

        Args:
          x: [B, W, D]. causal: additive mask [1, 1, 1, A] of positions after `position`.
          cache: keys and values of the positions so far, two of [B, W, H, A, K].
          position: index of this position, scalar.
          memory: as in `__call__`, with B rows: one copy for all beams.

        Returns:
          [B, W, D], and the new cache.
        """
        own = self.self_attention
        B, W, D = x.shape
        normed = own.norm(x.reshape(B * W, 1, D))
        cache = tuple(
            jax.lax.dynamic_update_slice_in_dim(old, new.reshape(B, W, *new.shape[1:]), position, axis=3)
            for old, new in zip(cache, own.keys_values(normed), strict=True)
        )
        keys, values = (part.reshape(B * W, *part.shape[2:]) for part in cache)
        x = x + own.attend(own.queries(normed), keys, values, causal).reshape(B, W, D)
        return self._cross(x, memory), cache

    def _cross(self, x: jax.Array, memory: tuple) -> jax.Array:
        cross = self.cross_attention
        return self.mlp(x + cross.attend(cross.queries(cross.norm(x)), *memory))


class MBartSide(nnx.Module):
    """What encoder and decoder have alike: positions, the embeddings' norm, layers, the last norm."""

    def __init__(self, config: MBartConfig, layer: type[nnx.Module], count: int, *, rngs: nnx.Rngs):
        shape = (config.max_positions + POSITION_OFFSET, config.d_model)
        self.positions = nn.Embedding(shape, ("positions", "embed"), _INIT_STD, rngs)
        self.embedding_norm = LayerNorm(config.d_model)
        self.layers = nn.stack(lambda rngs: layer(config, rngs=rngs), count, rngs)
        self.norm = LayerNorm(config.d_model)

    def place(self, embedded: jax.Array, first: int | jax.Array = 0) -> jax.Array:
        """Adds positions `first`, `first` + 1, ... to [..., T, D], and normalises."""
        rows = jax.lax.dynamic_slice_in_dim(
            self.positions.embedding[...], first + POSITION_OFFSET, embedded.shape[-2], axis=0
        )
        return self.embedding_norm(embedded + rows.astype(embedded.dtype))


class MBart(nnx.Module):
    """The whole model; embedding and output head are one table."""

    def __init__(self, config: MBartConfig, *, rngs: nnx.Rngs):
        self.config = config
        V, D = config.vocab_size, config.d_model
        self.embed = nn.Embedding((V, D), ("vocab", "embed"), _INIT_STD, rngs)
        self.encoder = MBartSide(config, MBartEncoderLayer, config.encoder_layers, rngs=rngs)
        self.decoder = MBartSide(config, MBartDecoderLayer, config.decoder_layers, rngs=rngs)
        self.logits_bias = nnx.Param(jnp.zeros(V, jnp.float32), axes=("vocab",))

    def encode(self, ids: jax.Array, lengths: jax.Array) -> jax.Array:
        """Encodes rows [M, P] of [M] tokens: [M, P, D]."""
        mask_bias = _mask_bias(length_mask(lengths, ids.shape[-1]))
        x = nn.scan_layers(
            self.encoder.layers, lambda layer, x, _: layer(x, mask_bias), self.encoder.place(self._embed(ids)), None
        )
        return self.encoder.norm(x)

    def project(self, states: jax.Array, lengths: jax.Array) -> MBartMemory:
        """Projects encoded rows [M, P, D] of [M] tokens to the keys and values of every decoder layer."""
        graph, params = nnx.split(self.decoder.layers.cross_attention)
        _, (keys, values) = jax.lax.scan(lambda _, p: (None, nnx.merge(graph, p).keys_values(states)), None, params)
        return MBartMemory(keys, values, length_mask(lengths, states.shape[-2]))

    def decode(self, memory: MBartMemory, inputs: jax.Array, rows: jax.Array | None = None) -> jax.Array:
        """Teacher-forced decoding; `logits` of the result predict each position's next token.

        Args:
          memory: of M encoded rows.
          inputs: what the decoder is given, [R, A]: the start token, then the target except for its last token.
          rows: row of `memory` that each of the R sequences is decoded from; the same ones in order if None.

        Returns:
          [R, A, D].
        """
        A = inputs.shape[-1]
        causal = jnp.where(jnp.tril(jnp.ones((A, A), bool)), 0.0, nn.MASKED)[None, None]
        mask_bias = _mask_bias(memory.mask)
        rows = jnp.arange(len(inputs)) if rows is None else rows
        graph, params = nnx.split(self.decoder.layers)

        def body(x: jax.Array, xs: tuple) -> tuple[jax.Array, None]:
            layer, keys, values = xs
            return nnx.merge(graph, layer)(x, causal, (keys[rows], values[rows], mask_bias[rows])), None

        x = self.decoder.place(self._embed(inputs))
        x, _ = jax.lax.scan(body, x, (params, memory.keys, memory.values))
        return self.decoder.norm(x)

    def logits(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., V], float32."""
        table = self.embed.embedding[...].astype(x.dtype)
        return jnp.einsum("...d,vd->...v", x, table, preferred_element_type=jnp.float32) + self.logits_bias[...]

    def step(self, memory: MBartMemory, max_tokens: int, beams: int) -> tuple[Step, Cache]:
        """The decoder as `class_jax.models.search` wants it, and its empty cache: two of [L, B, beams, H, A, K]."""
        L, B, H, _, K = memory.keys.shape
        empty = jnp.zeros((L, B, beams, H, max_tokens, K), memory.keys.dtype)
        mask_bias = _mask_bias(memory.mask)
        graph, params = nnx.split(self.decoder.layers)

        def step(tokens: jax.Array, position: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
            causal = jnp.where(jnp.arange(max_tokens) <= position, 0.0, nn.MASKED)[None, None, None]

            def body(x: jax.Array, xs: tuple) -> tuple:
                layer, layer_cache, keys, values = xs
                return nnx.merge(graph, layer).step(x, causal, layer_cache, position, (keys, values, mask_bias))

            x = self.decoder.place(self._embed(tokens)[:, :, None], position)[:, :, 0]
            x, cache = jax.lax.scan(body, x, (params, cache, memory.keys, memory.values))
            return self.logits(self.decoder.norm(x)), cache

        return step, (empty, empty)

    def _embed(self, ids: jax.Array) -> jax.Array:
        x = self.embed.embedding[...][ids].astype(self.config.dtype)
        return x * self.config.d_model**0.5 if self.config.scale_embedding else x


def generate(
    model: MBart,
    memory: MBartMemory,
    max_tokens: int,
    beams: int = 1,
    *,
    language_id: int | None = None,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
) -> Hypotheses:
    """Greedy search (one beam) or beam search with Hugging Face's rules; the last place is forced to end.

    Args:
      model: the model.
      memory: of B encoded rows.
      max_tokens: without the start token.
      beams: beams of a row.
      language_id: token forced as the first one, or None.
      length_penalty, early_stopping: see `class_jax.models.search.beam_search`.
    """
    config, B = model.config, len(memory.mask)
    tokens = SpecialTokens(
        start=config.start_id, eos=config.eos_id, pad=config.pad_id, first=language_id, last=config.eos_id
    )
    step, cache = model.step(memory, max_tokens, beams)
    penalty = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    return hypotheses(step, cache, B, max_tokens, beams, tokens=tokens, **penalty)


def _mask_bias(mask: jax.Array) -> jax.Array:
    """[R, S] booleans -> additive [R, 1, 1, S]."""
    return jnp.where(mask, 0.0, nn.MASKED)[:, None, None, :]


def abstract_mbart(config: MBartConfig) -> MBart:
    """A model of shapes and types in the place of parameters; allocates none."""
    return nnx.eval_shape(lambda: MBart(config, rngs=nnx.Rngs(0)))


@functools.cache
def mbart_graph(config: MBartConfig) -> Any:
    """The structure that `class_jax.models.class_model.merge` joins with parameters; allocates none."""
    return nnx.split(abstract_mbart(config), nnx.Param)[0]
