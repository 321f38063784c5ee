# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The hooks of a run by themselves: what each does, at which step, and with which step's values."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from class_jax.training.config import PREFETCH, CheckpointConfig, RefreshConfig
from class_jax.training.hooks import (
    Boundary,
    CheckpointHook,
    EvaluateHook,
    LogHook,
    NonFiniteLossError,
    RefreshHook,
)
from class_jax.training.optimizer import OptimizerConfig, schedule


class Recorder:
    """A metrics log, feed, refresher and checkpoints that record the calls to them."""

    finished = True

    def __init__(self):
        self.lines, self.lists, self.begun, self.saved, self.losses = [], [], [], [], []

    # The log.
    def write(self, step, metrics):
        self.lines.append((step, metrics))

    def advance(self, loss):
        self.losses.append(loss)

    def print_line(self, message):
        pass

    # The feed.
    def set_lists(self, lists, from_step):
        self.lists.append((lists.version, from_step))

    def rows_between(self, start, stop):
        return start, stop

    def lists_step(self, step):
        return step - 7

    def question_rows(self, step):
        return np.array([step, step + 1])

    def state(self, step):
        return {"step": step}

    # The refresher.
    def start(self, step, params, version, rows):
        self.begun.append((step, params, version, rows))

    def wait(self):
        return types.SimpleNamespace(version=self.begun[-1][2], step=self.begun[-1][0])

    # The checkpoints.
    def save(self, step, arrays, host, metrics):
        self.saved.append((step, arrays, host, metrics))


def opened(record, **config):
    """A run of 20 steps."""
    settings = {
        "optimizer": OptimizerConfig(total_steps=20, learning_rate=1.0),
        "refresh": RefreshConfig(every=6, delay=5, list_length=3),
        "checkpoints": CheckpointConfig(every=4),
        "log_every": 2,
        "evaluate_every": 5,
        "evaluate_first": False,
        "model": "model",
    }
    placement = types.SimpleNamespace(retrievers=lambda params: f"copy of {params}", own=lambda params, model: params)
    return types.SimpleNamespace(
        folder="runs/x",
        total_steps=20,
        config=types.SimpleNamespace(**settings | config),
        feed=record,
        refresher=record,
        checkpoints=record,
        evaluator=lambda params: {"eval/f1/macro": 0.5, "of": params},
        fingerprints={"model": "m"},
        placement=placement,
        data=types.SimpleNamespace(table=types.SimpleNamespace(id=lambda row: f"q{row}")),
    )


class State(types.SimpleNamespace):
    def _asdict(self):
        return {"params": self.params}


def at(done, save=False, **changes):
    return Boundary(done, State(params=f"weights {done}"), save=save, **changes)


class TestLog:
    @staticmethod
    def metrics(loss):
        return {"loss": jnp.float32(loss), "reader": jnp.float32(10 * loss), "per_question": jnp.array([1.0, loss])}

    def test_each_line_has_the_metrics_rate_and_staleness_of_its_own_step(self):
        record = Recorder()
        hook = LogHook(opened(record), record)
        for step in range(4):
            hook.after_step(step, self.metrics(step))
            assert record.losses == list(range(step))  # one step late
        hook.flush()
        hook.flush()  # nothing is left
        assert record.losses == [0, 1, 2, 3]
        rate = schedule(OptimizerConfig(total_steps=20, learning_rate=1.0))
        assert [step for step, _ in record.lines] == [2, 4]  # every second step, counted from 1
        for done, values in record.lines:
            step = done - 1
            assert (values["loss"], values["reader"], values["staleness"]) == (step, 10 * step, 7)
            assert values["learning_rate"] == pytest.approx(float(rate(step)))
            assert "per_question" not in values
        assert float(rate(1)) != float(rate(2)) != float(rate(3))

    def test_the_last_step_is_always_logged(self):
        record = Recorder()
        hook = LogHook(opened(record, log_every=7), record)
        hook.after_step(19, self.metrics(1.5))
        hook.flush()
        assert [step for step, _ in record.lines] == [20]

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_a_loss_that_is_not_finite_names_step_and_questions(self, bad):
        record = Recorder()
        hook = LogHook(opened(record), record)
        hook.after_step(3, self.metrics(bad))
        with pytest.raises(NonFiniteLossError, match=r"runs/x: .* step 4 .*q4"):
            hook.after_step(4, self.metrics(1.0))
        assert not record.lines and not record.losses


class TestRefresh:
    def test_lists_take_effect_at_the_step_fixed_when_they_were_begun(self):
        record = Recorder()
        hook = RefreshHook(opened(record), record)
        for step in range(20):
            hook.before_batch(step)
            # The feed is PREFETCH batches ahead of the step, and has one more in its thread.
            adopted = [from_step for _, from_step in record.lists]
            assert adopted == [first for first in (11, 17) if step + PREFETCH + 1 >= first]
            if hook.is_due(step + 1):
                boundary = at(step + 1)
                hook.run(boundary)
                assert boundary.refreshing == (step + 1 < 18)
        # After 18 steps a refresh could not take effect any more.
        assert record.begun == [
            (6, "copy of weights 6", 1, (11, 17)),
            (12, "copy of weights 12", 2, (17, 20)),
        ]
        assert record.lists == [(1, 11), (2, 17)]
        assert [(step, line["refresh/from_step"], line["refresh/staleness"]) for step, line in record.lines] == [
            (8, 11, 5),
            (14, 17, 5),
        ]

    def test_a_checkpoint_waits_for_a_refresh_that_did_not_begin_with_its_weights(self):
        record = Recorder()
        hook = RefreshHook(opened(record), record)
        hook.run(at(6))
        boundary = at(7)
        hook.run(boundary)
        assert boundary.refreshing and not record.lists
        boundary = at(8, save=True)
        hook.run(boundary)
        assert not boundary.refreshing and record.lists == [(1, 11)]
        boundary = at(12, save=True)  # saved and begun with the same weights
        hook.run(boundary)
        assert boundary.refreshing

    def test_without_refresh_nothing_is_done(self):
        record = Recorder()
        hook = RefreshHook(opened(record, refresh=None), record)
        hook.before_batch(3)
        boundary = at(6, save=True)
        hook.run(boundary)
        assert not hook.is_due(6) and not boundary.refreshing and not record.begun


class TestEvaluateAndCheckpoint:
    def test_evaluations_come_at_their_steps_and_at_the_end(self):
        record = Recorder()
        hook = EvaluateHook(opened(record), record)
        assert [done for done in range(21) if hook.is_due(done)] == [5, 10, 15, 20]
        boundary = at(10)
        hook.run(boundary)
        assert boundary.scores == hook.scores == {"eval/f1/macro": 0.5, "of": "weights 10"}
        assert record.lines == [(10, hook.scores)]
        boundary = at(11)
        hook.run(boundary)
        assert boundary.scores is None
        assert EvaluateHook(opened(record, evaluate_first=True), record).is_due(0)
        run = opened(record)
        run.evaluator = None
        assert not EvaluateHook(run, record).is_due(20)

    def test_a_checkpoint_has_state_position_and_scores_of_its_step(self):
        record = Recorder()
        hook = CheckpointHook(opened(record))
        assert [done for done in range(21) if done and hook.is_due(done)] == [4, 8, 12, 16, 20]
        hook.run(at(5))
        assert not record.saved
        hook.run(at(6, save=True, refreshing=True, scores={"f1": 1.0}))
        host = {"model": "m", "feed": {"step": 6}, "refreshing": True}
        assert record.saved == [(6, {"params": "weights 6"}, host, {"f1": 1.0})]
