# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Decoding of answers with cached keys and values."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from class_jax.models import layers as nn
from class_jax.models.class_model import CLASS, Memory


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


def greedy(model: CLASS, memory: Memory, max_tokens: int, *, eos_id: int = 1) -> Answers:
    """Greedy decoding of at most `max_tokens` tokens, as in the paper's experiments.

    The memory's keys and values are projected once; each step computes one position. The loop ends when every
    answer has.
    """
    B = memory.states.shape[0]
    config = model.config
    cross = _cross_keys_values(model, memory)
    shape = (config.num_decoder_layers, B, config.num_heads, max_tokens, config.d_kv)
    cache = (jnp.zeros(shape, memory.states.dtype), jnp.zeros(shape, memory.states.dtype))
    bias = model.decoder.relative_bias(max_tokens, max_tokens)
    bias += jnp.where(jnp.tril(jnp.ones((max_tokens, max_tokens), bool)), 0.0, nn.MASKED)

    def unfinished(carry: tuple) -> jax.Array:
        position, _, _, _, ended, _ = carry
        return (position < max_tokens) & ~ended.all()

    def step(carry: tuple) -> tuple:
        position, previous, ids, total, ended, cache = carry
        row = jax.lax.dynamic_slice_in_dim(bias, position, 1, axis=2)
        logits, cache = _step(model, previous, row, position, cache, cross)
        log_probabilities = jax.nn.log_softmax(logits, axis=-1)
        token = jnp.where(ended, 0, log_probabilities.argmax(axis=-1))
        gained = jnp.take_along_axis(log_probabilities, token[:, None], axis=-1)[:, 0]
        total += jnp.where(ended, 0.0, gained)
        ids = jax.lax.dynamic_update_slice_in_dim(ids, token[:, None].astype(ids.dtype), position, axis=1)
        return position + 1, token.astype(ids.dtype), ids, total, ended | (token == eos_id), cache

    start = (
        jnp.zeros((), jnp.int32),
        jnp.zeros(B, jnp.int32),
        jnp.zeros((B, max_tokens), jnp.int32),
        jnp.zeros(B, jnp.float32),
        jnp.zeros(B, bool),
        cache,
    )
    _, _, ids, total, ended, _ = jax.lax.while_loop(unfinished, step, start)
    lengths = jnp.where(ended, (ids == eos_id).argmax(axis=1) + 1, max_tokens)
    # The first position sees the start token alone, so one teacher-forced position gives P_ca exactly.
    passage_attention = model.decode(memory, ids[:, :1])[1]
    return Answers(ids, lengths, total, passage_attention)


def _cross_keys_values(model: CLASS, memory: Memory) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys and values of every decoder layer [L, B, H, S, K] and the mask's bias [B, 1, 1, S]."""
    B, N, T, D = memory.states.shape
    states = memory.states.reshape(B, N * T, D)
    graph, params = nnx.split(model.decoder.layers.cross_attention)
    keys, values = jax.vmap(lambda p: nnx.merge(graph, p).keys_values(states))(params)
    bias = jnp.where(memory.mask.reshape(B, 1, 1, N * T), 0.0, nn.MASKED)
    return keys, values, bias


def _step(
    model: CLASS, tokens: jax.Array, bias: jax.Array, position: jax.Array, cache: tuple, cross: tuple
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """One position through all layers: tokens [B] -> logits [B, V] and the new cache."""
    cross_keys, cross_values, cross_bias = cross
    graph, params = nnx.split(model.decoder.layers)
    x = model.embed.embedding[...][tokens][:, None].astype(model.config.dtype)

    def body(x: jax.Array, xs: tuple) -> tuple:
        layer_params, layer_cache, layer_keys, layer_values = xs
        layer = nnx.merge(graph, layer_params)
        return layer.step(x, bias, layer_cache, position, (layer_keys, layer_values, cross_bias))

    x, cache = jax.lax.scan(body, x, (params, cache, cross_keys, cross_values))
    return model.logits(model.decoder.norm(x))[:, 0], cache
