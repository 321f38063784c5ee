# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The state that a run begins with: the newest checkpoint, or first weights and first passage lists."""

import logging
from collections.abc import Callable
from typing import NamedTuple

from class_jax.checkpoints import weights
from class_jax.distributed.placing import place
from class_jax.distributed.sharding import param_shardings
from class_jax.distributed.start import check_agreement, params_digest
from class_jax.models.class_model import Params
from class_jax.refresh.lists import PassageLists
from class_jax.training.builder import OpenRun
from class_jax.training.step import TrainState, init_state, state_shapes
from class_jax.training.teacher import lists_by_bm25, lists_by_model_teacher

_log = logging.getLogger(__name__)


class Start(NamedTuple):
    """Where a run begins.

    Attributes:
      state: the training state.
      step: steps that are done.
      refreshing: whether a refresh with these weights was in progress when they were saved.
    """

    state: TrainState
    step: int
    refreshing: bool


def first_state(run: OpenRun) -> Start:
    """Restores the newest checkpoint, or makes the first state; the feed has its passage lists afterwards.

    Raises:
      InputError: for a checkpoint of another model, data or stage, weights or lists that do not fit.
    """
    config = run.config
    shapes = state_shapes(config.model, run.optimizer, run.mesh)
    restored = run.checkpoints.restore(shapes._asdict(), expect=run.fingerprints)
    if restored is not None:
        arrays, host, step = restored
        run.feed.restore(host["feed"], run.refresher.restore)
        _log.info("resuming at step %d of %d", step, run.total_steps)
        return Start(TrainState(**arrays), step, host["refreshing"])
    state = init_state(config.model, run.optimizer, run.mesh, seed=config.seed, params=_first_params(run))
    run.feed.set_lists(_first_lists(run, state.params), from_step=0)
    return Start(state, 0, refreshing=False)


def _first_params(run: OpenRun) -> Params | None:
    """Weights of another model to begin with; None begins with random ones."""
    config = run.config
    if config.init_from is None:
        return None
    params = weights.load_params(
        config.init_from, config.model, config.seed, vocabulary=run.data.vocabulary.fingerprint
    )
    if config.head_from_embedding is not None:
        params = weights.with_head_from_embedding(params, config.head_from_embedding)
    if run.hosts.count > 1:
        check_agreement(run.hosts, "first weights", {"TrainConfig.init_from": params_digest(params)})
        params = place(params, param_shardings(config.model, run.mesh))
    return params


def _first_lists(run: OpenRun, params: Params) -> PassageLists:
    """Passage lists from a public file, the teacher, or a search with the first weights."""
    config, data, refresh = run.config, run.data, run.config.refresh
    if config.lists is not None:
        ids = [data.table.id(row) for row in range(len(data.table))]
        return _published(
            run, lambda: PassageLists.from_public(config.lists, ids, data.store, questions=data.table.fingerprint)
        )
    if run.bm25 is not None:
        return _published(run, lambda: lists_by_bm25(config.teacher, run.bm25, data))
    # Only the questions of the first interval need lists.
    stop = None if refresh is None else min(refresh.every + refresh.delay, run.total_steps)
    rows = None if stop is None else run.feed.rows_between(0, stop)
    if run.teacher is not None:
        retriever = run.placement.retrievers(run.teacher.params)
        found = lists_by_model_teacher(
            run.teacher, data, run.folder / "lists", rows, retriever=retriever, hosts=run.hosts
        )
        return run.refresher.adopt(found)
    _log.info("searching passages with the first weights")
    run.refresher.start(0, run.placement.retrievers(params), 0, rows)
    return run.refresher.wait()


def _published(run: OpenRun, make: Callable[[], PassageLists]) -> PassageLists:
    """Publishes the first lists, made on host 0."""
    if run.hosts.index == 0:
        run.refresher.adopt(make())
    run.hosts.meet("first lists")
    return run.refresher.restore(0)
