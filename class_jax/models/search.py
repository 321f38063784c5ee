# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Greedy and beam search over any decoder that computes one position at a time.

The decoder is a function `step(tokens, position, cache) -> (logits, cache)`: tokens [B, beams] of that position (a
scalar, from 0), logits [B, beams, V] of the next token (log-probabilities will do), and a cache whose leaves are
[L, B, beams, ...]. What the beams of a question share, such as its memory, belongs in the function's closure.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

Cache = Any
Step = Callable[[jax.Array, jax.Array, Cache], tuple[jax.Array, Cache]]

# Score of what must not be chosen. Finite, as in Hugging Face's search, whose results these must equal: beams that
# hold nothing yet keep an order among themselves.
_NEVER = -1e9


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """Token ids that steer a search; the defaults are T5's.

    Attributes:
      start: what the decoder is given at position 0.
      eos: ends an answer.
      pad: follows the end.
      first: forced as the first token (mBART's target language), or None.
      last: forced in the last place (mBART's end of sequence), or None.
    """

    start: int = 0
    eos: int = 1
    pad: int = 0
    first: int | None = None
    last: int | None = None


class Hypotheses(NamedTuple):
    """What a search found, best first; of a greedy search, `beams` is 1.

    Attributes:
      ids: tokens [B, beams, A] without the start token, the end of sequence included, then padding.
      lengths: tokens up to and with the end of sequence, [B, beams].
      log_probabilities: sum over those tokens, [B, beams]; a forced token counts nothing.
      scores: what beams are compared by, [B, beams]: log-probability / length ** length_penalty.
    """

    ids: jax.Array
    lengths: jax.Array
    log_probabilities: jax.Array
    scores: jax.Array


def _forced(logits: jax.Array, position: jax.Array, max_tokens: int, tokens: SpecialTokens) -> jax.Array:
    """Logits [..., V] that leave but the forced token where one is forced."""
    for token, where in ((tokens.first, 0), (tokens.last, max_tokens - 1)):
        if token is not None:
            only = jnp.where(jnp.arange(logits.shape[-1]) == token, 0.0, -jnp.inf)
            logits = jnp.where(position == where, only, logits)
    return logits


def _lengths(ids: jax.Array, eos: int) -> jax.Array:
    """[..., A] tokens -> [...] number of them up to and with the first `eos`, or A."""
    ended = ids == eos
    return jnp.where(ended.any(axis=-1), ended.argmax(axis=-1) + 1, ids.shape[-1])


def greedy_search(
    step: Step, cache: Cache, batch: int, max_tokens: int, tokens: SpecialTokens = SpecialTokens()
) -> Hypotheses:
    """Takes the most probable token at each position; ends when every answer has.

    Args:
      step: the decoder; see this module's first lines.
      cache: of no position yet, leaves [L, B, 1, ...].
      batch: B.
      max_tokens: A.
      tokens: special tokens.
    """

    def unfinished(carry: tuple) -> jax.Array:
        position, _, _, _, ended, _ = carry
        return (position < max_tokens) & ~ended.all()

    def advance(carry: tuple) -> tuple:
        position, previous, ids, total, ended, cache = carry
        logits, cache = step(previous, position, cache)
        logits = _forced(logits.astype(jnp.float32), position, max_tokens, tokens)
        token = jnp.where(ended, tokens.pad, logits.argmax(axis=-1).astype(jnp.int32))
        # The log-probability of the largest logit; the other V - 1 are never made.
        gained = logits.max(axis=-1) - jax.nn.logsumexp(logits, axis=-1)
        total += jnp.where(ended, 0.0, gained)
        ids = jax.lax.dynamic_update_slice_in_dim(ids, token[..., None], position, axis=2)
        return position + 1, token, ids, total, ended | (token == tokens.eos), cache

    start = (
        jnp.zeros((), jnp.int32),
        jnp.full((batch, 1), tokens.start, jnp.int32),
        jnp.full((batch, 1, max_tokens), tokens.pad, jnp.int32),
        jnp.zeros((batch, 1), jnp.float32),
        jnp.zeros((batch, 1), bool),
        cache,
    )
    _, _, ids, total, ended, _ = jax.lax.while_loop(unfinished, advance, start)
    lengths = jnp.where(ended, _lengths(ids, tokens.eos), max_tokens)
    return Hypotheses(ids, lengths, total, total / lengths)


class _Beams(NamedTuple):
    """State of a beam search: running beams, finished hypotheses (both best first), and whether to continue.

    Attributes:
      position: tokens generated so far, scalar.
      ids, scores: of the running beams, [B, beams, A] and [B, beams] (sums of log-probabilities).
      done_ids, done_scores, done: of the finished ones; `done` is False in a place that holds none yet.
      improvable: [B], whether a running beam may still beat the worst finished one.
      stuck: scalar, whether no candidate of the last step could be continued.
      cache: of the running beams.
    """

    position: jax.Array
    ids: jax.Array
    scores: jax.Array
    done_ids: jax.Array
    done_scores: jax.Array
    done: jax.Array
    improvable: jax.Array
    stuck: jax.Array
    cache: Cache


def beam_search(
    step: Step,
    cache: Cache,
    batch: int,
    max_tokens: int,
    beams: int,
    *,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    tokens: SpecialTokens = SpecialTokens(),
) -> Hypotheses:
    """Beam search with the rules of Hugging Face's `generate`: same tokens, same scores.

    Each step takes the 2 * beams best continuations: those of the first `beams` that end become hypotheses, the best
    `beams` that do not end run on. Hypotheses are compared by log-probability / length ** length_penalty.

    Args:
      step: the decoder; see this module's first lines.
      cache: of no position yet, leaves [L, B, beams, ...]; reordered as beams are chosen.
      batch: B.
      max_tokens: A.
      beams: beams of a question, and hypotheses kept.
      length_penalty: above 0 favours long answers, below 0 short ones.
      early_stopping: True ends a question once `beams` hypotheses are finished; False when the best running beam at its
        present length can't beat the worst of them; "never" when it could not at the greatest length either.
      tokens: special tokens.
    """
    start = _Beams(
        position=jnp.zeros((), jnp.int32),
        ids=jnp.full((batch, beams, max_tokens), tokens.pad, jnp.int32),
        # All beams are the same at first: only one of them may continue.
        scores=jnp.broadcast_to(jnp.where(jnp.arange(beams) == 0, 0.0, _NEVER), (batch, beams)),
        done_ids=jnp.full((batch, beams, max_tokens), tokens.pad, jnp.int32),
        done_scores=jnp.full((batch, beams), _NEVER, jnp.float32),
        done=jnp.zeros((batch, beams), bool),
        improvable=jnp.ones(batch, bool),
        stuck=jnp.zeros((), bool),
        cache=cache,
    )

    def unfinished(state: _Beams) -> jax.Array:
        full = state.done.all() & (early_stopping is True)
        return (state.position < max_tokens) & state.improvable.any() & ~full & ~state.stuck

    def advance(state: _Beams) -> _Beams:
        previous = jax.lax.dynamic_index_in_dim(state.ids, jnp.maximum(state.position - 1, 0), 2, keepdims=False)
        previous = jnp.where(state.position == 0, tokens.start, previous)
        logits, cache = step(previous, state.position, state.cache)
        logits = _forced(logits.astype(jnp.float32), state.position, max_tokens, tokens)
        scores, parents, chosen = _candidates(logits, state.scores)
        ids = jax.lax.dynamic_update_slice_in_dim(_take(state.ids, parents), chosen[..., None], state.position, axis=2)
        ends = (chosen == tokens.eos) | (state.position + 1 >= max_tokens)
        done = _finish(state, ids, scores, ends, length_penalty, early_stopping)
        running, keep = jax.lax.top_k(jnp.where(ends, scores + _NEVER, scores), beams)
        position = state.position + 1
        cache = jax.tree.map(lambda x: jax.vmap(_take, (0, None))(x, _take(parents, keep)), cache)
        improvable = state.improvable & _can_improve(
            running[:, 0], done, position, max_tokens, length_penalty, early_stopping
        )
        return _Beams(position, _take(ids, keep), running, *done, improvable, ends.all(), cache)

    state = jax.lax.while_loop(unfinished, advance, start)
    lengths = _lengths(state.done_ids, tokens.eos)
    return Hypotheses(state.done_ids, lengths, state.done_scores * lengths**length_penalty, state.done_scores)


def _take(x: jax.Array, at: jax.Array) -> jax.Array:
    """Picks beams: x [B, beams, ...], at [B, n] -> [B, n, ...]."""
    return jnp.take_along_axis(x, at.reshape(*at.shape, *(1,) * (x.ndim - 2)), axis=1)


def _candidates(logits: jax.Array, scores: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The 2 * beams best continuations of each question, best first.

    Args:
      logits: [B, beams, V]. scores: of the beams so far, [B, beams].

    Returns:
      Scores, parent beams and tokens, each [B, 2 * beams].
    """
    B, beams, V = logits.shape
    # The best of all are among the best of each beam: no array of V log-probabilities is made.
    best, token = jax.lax.top_k(logits, min(2 * beams, V))
    total = best - jax.nn.logsumexp(logits, axis=-1, keepdims=True) + scores[..., None]
    kept, at = jax.lax.top_k(total.reshape(B, -1), 2 * beams)
    return kept, at // best.shape[-1], jnp.take_along_axis(token.reshape(B, -1), at, axis=1).astype(jnp.int32)


def _finish(
    state: _Beams,
    ids: jax.Array,
    scores: jax.Array,
    ends: jax.Array,
    length_penalty: float,
    early_stopping: bool | str,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Merges the candidates [B, 2 * beams] that end into the finished hypotheses: ids, scores, done."""
    beams = state.done.shape[1]
    ended = ends & (jnp.arange(2 * beams) < beams)
    full = state.done.all(axis=1, keepdims=True) & (early_stopping is True)
    scores = scores / (state.position + 1).astype(jnp.float32) ** length_penalty
    # Summed, not chosen: where fewer than `beams` hypotheses are finished, the order of the rest is Hugging Face's.
    for refused in (full, ~state.improvable[:, None], ~ended):
        scores = scores + jnp.where(refused, _NEVER, 0.0)
    best, keep = jax.lax.top_k(jnp.concatenate([state.done_scores, scores], axis=1), beams)
    merged_ids, merged = jnp.concatenate([state.done_ids, ids], axis=1), jnp.concatenate([state.done, ended], axis=1)
    return _take(merged_ids, keep), best, _take(merged, keep)


def _can_improve(
    best_running: jax.Array,
    done: tuple[jax.Array, jax.Array, jax.Array],
    position: jax.Array,
    max_tokens: int,
    length_penalty: float,
    early_stopping: bool | str,
) -> jax.Array:
    """Whether the best running beam [B], at the length assumed for it, could beat the worst finished one: [B]."""
    _, done_scores, finished = done
    longest = early_stopping == "never" and length_penalty > 0
    length = (max_tokens if longest else position) * jnp.ones((), jnp.float32)
    worst = jnp.where(finished, done_scores.min(axis=1, keepdims=True), _NEVER)
    return ((best_running / length**length_penalty)[:, None] > worst).any(axis=1)


def hypotheses(
    step: Step,
    cache: Cache,
    batch: int,
    max_tokens: int,
    beams: int,
    *,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    tokens: SpecialTokens = SpecialTokens(),
) -> Hypotheses:
    """Searches greedily with one beam, by beam search with more; see `greedy_search` and `beam_search`."""
    if beams == 1:
        return greedy_search(step, cache, batch, max_tokens, tokens)
    penalty = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    return beam_search(step, cache, batch, max_tokens, beams, tokens=tokens, **penalty)
