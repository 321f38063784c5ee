# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Answers of the CLASS model: greedy and beam search over one decoder step with cached keys and values."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from class_jax.models import layers as nn
from class_jax.models.class_model import ClassModel, Memory
from class_jax.models.search import Cache, Hypotheses, SpecialTokens, Step, hypotheses


class Answers(NamedTuple):
    """Generated answers.

    Attributes:
      ids: tokens [B, A], end-of-sequence included, then padding.
      lengths: tokens up to and with the end-of-sequence, [B].
      log_probabilities: sum over those tokens, [B].
      passage_attention: P_ca, [B, N]; see `CLASS.decode`.
    """

    ids: jax.Array
    lengths: jax.Array
    log_probabilities: jax.Array
    passage_attention: jax.Array


class CrossMemory(NamedTuple):
    """What the decoder's layers attend to: projected once, shared by the beams of a question.

    Attributes:
      keys, values: of every decoder layer, [L, B, H, N * T, K].
      mask: True where a token is not padding, [B, N, T].
    """

    keys: jax.Array
    values: jax.Array
    mask: jax.Array


def decode(
    model: ClassModel,
    cross: CrossMemory,
    max_tokens: int,
    beams: int = 1,
    *,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    eos_id: int = 1,
) -> Answers:
    """Answers from a projected memory: greedily with one beam, by beam search with more."""
    B = cross.mask.shape[0]
    step, cache = decoder_step(model, cross, max_tokens, beams)
    penalty = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    found = hypotheses(step, cache, B, max_tokens, beams, tokens=SpecialTokens(eos=eos_id), **penalty)
    return best_answers(found, passage_attention(model, cross))


def best_answers(found: Hypotheses, attention: jax.Array) -> Answers:
    """The first hypothesis of each question, with its P_ca [B, N]."""
    return Answers(found.ids[:, 0], found.lengths[:, 0], found.log_probabilities[:, 0], attention)


def project(model: ClassModel, memory: Memory) -> CrossMemory:
    """Projects the memory to the keys and values of every decoder layer."""
    B, N, T, D = memory.states.shape
    states = memory.states.reshape(B, N * T, D)
    graph, params = nnx.split(model.decoder.layers.cross_attention)
    _, (keys, values) = jax.lax.scan(lambda _, p: (None, nnx.merge(graph, p).keys_values(states)), None, params)
    return CrossMemory(keys, values, memory.mask)


def decoder_step(model: ClassModel, cross: CrossMemory, max_tokens: int, beams: int) -> tuple[Step, Cache]:
    """The decoder as the search wants it, and its empty cache: keys and values, two of [L, B, beams, H, A, K]."""
    config = model.config
    shape = (config.num_decoder_layers, cross.mask.shape[0], beams, config.num_heads, max_tokens, config.d_kv)
    cache = (jnp.zeros(shape, cross.keys.dtype), jnp.zeros(shape, cross.keys.dtype))
    bias = model.decoder.relative_bias(max_tokens, max_tokens)
    bias += jnp.where(jnp.tril(jnp.ones((max_tokens, max_tokens), bool)), 0.0, nn.MASKED)

    def step(tokens: jax.Array, position: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
        row = jax.lax.dynamic_slice_in_dim(bias, position, 1, axis=2)
        x, cache, _ = _layers(model, tokens, row, position, cache, cross)
        return model.logits(model.decoder.norm(x)), cache

    return step, cache


def passage_attention(model: ClassModel, cross: CrossMemory) -> jax.Array:
    """P_ca [B, N] (paper, section 3.2.2): the first position sees only the start token, whatever the answer is."""
    config, (B, N, _) = model.config, cross.mask.shape
    empty = jnp.zeros((config.num_decoder_layers, B, 1, config.num_heads, 1, config.d_kv), cross.keys.dtype)
    start, position = jnp.zeros((B, 1), jnp.int32), jnp.zeros((), jnp.int32)
    probabilities = _layers(model, start, model.decoder.relative_bias(1, 1), position, (empty, empty), cross)[2]
    return probabilities.reshape(B, N, -1).sum(axis=-1)


def _layers(
    model: ClassModel, tokens: jax.Array, bias: jax.Array, position: jax.Array, cache: Cache, cross: CrossMemory
) -> tuple[jax.Array, Cache, jax.Array]:
    """One position of W beams through all layers.

    Args:
      tokens: [B, W]. bias: [1, H, 1, A]. position: scalar. cache: two of [L, B, W, H, A, K].

    Returns:
      [B, W, D]; the new cache; the last layer's cross-attention probabilities of beam 0, averaged over heads [B, S].
    """
    graph, params = nnx.split(model.decoder.layers)
    x = model.embed.embedding[...][tokens].astype(model.config.dtype)
    memory_bias = jnp.where(cross.mask, 0.0, nn.MASKED).reshape(len(tokens), 1, 1, -1)
    attention = jnp.zeros((len(tokens), memory_bias.shape[-1]), jnp.float32)

    def body(carry: tuple, xs: tuple) -> tuple:
        layer_params, layer_cache, keys, values = xs
        layer = nnx.merge(graph, layer_params)
        x, layer_cache, probabilities = layer.step(carry[0], bias, layer_cache, position, (keys, values, memory_bias))
        # Each layer overwrites it: only the last layer's is wanted.
        return (x, probabilities[:, :, 0].mean(axis=1)), layer_cache

    (x, attention), cache = jax.lax.scan(body, (x, attention), (params, cache, cross.keys, cross.values))
    return x, cache, attention
