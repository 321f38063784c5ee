# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Few-shot adaptation of a scorer (arXiv 2501.04153, open question 1), by likelihood or by contrast.

Axes: B questions, N passages of one question (the right one first), R = B * N pairs, P passage and A question tokens.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from class_jax.errors import InputError, nearest
from class_jax.reranking.ranked import Candidate, RankedList
from class_jax.reranking.score import Scorer, SourcePassage
from class_jax.training.optimizer import OptimizerConfig, schedule

_log = logging.getLogger(__name__)

OBJECTIVES = ("likelihood", "contrastive")


@dataclasses.dataclass(frozen=True)
class AdaptConfig:
    """How a scorer is adapted.

    Attributes:
      objective: "likelihood": the mean log-probability of a question's tokens given its right passage is raised;
        "contrastive": that of the right passage against those of the negatives, by a softmax over the N scores.
      steps: of the optimizer.
      batch: questions of a step.
      negatives: wrong passages of a question, N - 1; for the contrastive objective.
      temperature: the scores are divided by it before the softmax.
      learning_rate: at its highest; it rises over a tenth of the steps and falls to 0.
      seed: of the order.
    """

    objective: str = "contrastive"
    steps: int = 100
    batch: int = 4
    negatives: int = 3
    temperature: float = 0.5
    learning_rate: float = 1e-4
    seed: int = 0

    def __post_init__(self):
        if self.objective not in OBJECTIVES:
            remedy = nearest(self.objective, OBJECTIVES)
            raise InputError(f"unknown objective {self.objective!r}", key="objective", remedy=remedy)
        for key in ("steps", "batch", "negatives", "temperature", "learning_rate"):
            if getattr(self, key) <= 0:
                raise InputError(f"is {getattr(self, key)}", key=key, remedy="give more than 0")


class Pair(NamedTuple):
    """A question with a passage that answers it, and passages of its list that don't."""

    question: str
    language: str
    right: Candidate
    wrong: tuple[Candidate, ...]


def choose_pairs(
    lists: Sequence[RankedList], right: Sequence[frozenset[str] | None], count: int, negatives: int
) -> list[Pair]:
    """The first `count` questions that have a right passage and enough wrong ones in their lists, languages in turn.

    Args:
      lists: B lists. right: ids of each one's right passages, of `class_jax.reranking.rerank.relevant`.
      count: of pairs.
      negatives: wrong passages of each, the highest ranked.

    Raises:
      InputError: if there are fewer.
    """
    by_language: dict[str, list[Pair]] = {}
    for ranked, ids in zip(lists, right, strict=True):
        good = [c for c in ranked.passages if ids and c.id in ids]
        bad = [c for c in ranked.passages if not ids or c.id not in ids][:negatives]
        if good and len(bad) == negatives:
            q = ranked.question
            by_language.setdefault(q.language, []).append(Pair(q.text, q.language, good[0], tuple(bad)))
    longest = max(map(len, by_language.values()), default=0)
    turns = [pairs[i] for i in range(longest) for pairs in by_language.values() if i < len(pairs)]
    if len(turns) < count:
        raise InputError(
            f"{len(turns)} questions have a right passage and {negatives} wrong ones in their lists, not {count}",
            key="pairs",
            remedy="give more questions, or longer lists",
        )
    return turns[:count]


class _Tokens(NamedTuple):
    """All pairs as arrays: sources [B, N, P] and lengths [B, N]; inputs, labels, whether a label counts [B, A]."""

    ids: np.ndarray
    lengths: np.ndarray
    inputs: np.ndarray
    labels: np.ndarray
    counted: np.ndarray


def adapt(
    scorer: Scorer, pairs: Sequence[Pair], config: AdaptConfig, on_step: Callable[[int, float], None] | None = None
) -> tuple[Scorer, list[float]]:
    """Trains all parameters of a scorer on pairs.

    Args:
      scorer: of `class_jax.reranking.scorers`; it is not changed.
      pairs: of `choose_pairs`.
      config: how.
      on_step: called with step and loss.

    Returns:
      The adapted scorer, and the loss of each step.

    Raises:
      InputError: for a passage or question that the scorer can't take.
    """
    sources = 1 + config.negatives if config.objective == "contrastive" else 1
    tokens, forward = _tokens(scorer, pairs, sources), scorer.forward()
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(schedule(OptimizerConfig(config.steps, config.learning_rate))),
    )

    def loss(params: Any, batch: _Tokens) -> jax.Array:
        B, N, P = batch.ids.shape
        rows = jnp.arange(B * N)
        inputs, labels, counted = (jnp.repeat(x, N, axis=0) for x in batch[2:])
        found = forward(params, batch.ids.reshape(B * N, P), batch.lengths.reshape(-1), rows, inputs, labels)
        scores = (jnp.where(counted, found, 0).sum(axis=1) / counted.sum(axis=1)).reshape(B, N)
        if N == 1:
            return -scores.mean()
        return -jax.nn.log_softmax(scores / config.temperature, axis=1)[:, 0].mean()

    @jax.jit
    def step(params: Any, state: Any, batch: _Tokens) -> tuple[Any, Any, jax.Array]:
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    params, losses = scorer.params, []
    state = optimizer.init(params)
    order = _order(len(pairs), config)
    for i, members in enumerate(order):
        params, state, value = step(params, state, _Tokens(*(x[members] for x in tokens)))
        losses.append(float(value))
        if on_step is not None:
            on_step(i, losses[-1])
    return scorer.with_params(params), losses


def _order(count: int, config: AdaptConfig) -> np.ndarray:
    """Pairs of each step, [steps, batch]: every pair once before any comes again."""
    rng, wanted = np.random.default_rng(config.seed), config.steps * config.batch
    rounds = [rng.permutation(count) for _ in range(-(-wanted // count))]
    return np.concatenate(rounds)[:wanted].reshape(config.steps, config.batch)


def _tokens(scorer: Scorer, pairs: Sequence[Pair], sources: int) -> _Tokens:
    """Pads all to one shape, so that one step is compiled."""
    passages = [(p.right, *p.wrong)[:sources] for p in pairs]
    rows = [[scorer.source(SourcePassage(c.id, c.title, c.text, c.language))[0] for c in given] for given in passages]
    targets = [scorer.target(p.question, p.language)[0] for p in pairs]
    B, P, A = len(pairs), max(len(ids) for row in rows for ids in row), max(len(t.labels) for t in targets)
    ids, lengths = np.zeros((B, sources, P), np.int32), np.zeros((B, sources), np.int32)
    labels, starts = np.zeros((B, A), np.int32), np.array([[t.start] for t in targets], np.int32)
    counted = np.zeros((B, A), bool)
    for b, (row, target) in enumerate(zip(rows, targets, strict=True)):
        for n, one in enumerate(row):
            ids[b, n, : len(one)], lengths[b, n] = one, len(one)
        labels[b, : len(target.labels)] = target.labels
        counted[b, target.skip : len(target.labels)] = True
    return _Tokens(ids, lengths, np.concatenate([starts, labels[:, :-1]], axis=1), labels, counted)
