# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What a run does besides its steps: refresh, evaluate, checkpoint, log. (`profiling.StepProfiler` is the fifth.)

Between two steps the loop calls `run` of each hook in a fixed order, where at least one is due; a `Boundary` carries
what the earlier hooks found to the later ones.
"""

import dataclasses
import math
from typing import Protocol

import jax
import numpy as np

from class_jax.errors import InputError
from class_jax.training.builder import OpenRun
from class_jax.training.config import PREFETCH
from class_jax.training.logs import MetricLog, NoLog
from class_jax.training.optimizer import schedule
from class_jax.training.step import TrainState


class NonFiniteLossError(InputError):
    """The loss is not a number; the message names the step and the batch's question ids."""


@dataclasses.dataclass
class Boundary:
    """A point between two steps.

    Attributes:
      done: steps done.
      state: the training state.
      save: whether a checkpoint is written here.
      refreshing: set by the refresh hook: whether a refresh is in progress.
      scores: set by the evaluation hook, where it ran.
    """

    done: int
    state: TrainState
    save: bool
    refreshing: bool = False
    scores: dict[str, float] | None = None


class Hook(Protocol):
    """Runs between steps."""

    def is_due(self, done: int) -> bool:
        """Whether there is something to do after `done` steps."""

    def run(self, at: Boundary) -> None:
        """Does it; called at every boundary where some hook is due."""


class RefreshHook:
    """Starts refreshes, and hands their passage lists to the feed at the step fixed for each.

    Args:
      run: the run. log: where the refreshes are logged.
    """

    def __init__(self, run: OpenRun, log: MetricLog | NoLog):
        self._run, self._log, self._config = run, log, run.config.refresh
        self._adopt_at: int | None = None  # the step from which the refresh in progress takes effect

    def begin(self, step: int, state: TrainState) -> None:
        """Starts a search with the weights of `step`, for the questions of the interval in which it takes effect."""
        run, config = self._run, self._config
        self._adopt_at = step + config.delay
        rows = run.feed.rows_between(self._adopt_at, min(self._adopt_at + config.every, run.total_steps))
        run.refresher.start(step, run.placement.retrievers(state.params), step // config.every, rows)

    def before_batch(self, step: int) -> None:
        """Adopts new lists before the first batch that uses them is built ahead."""
        if self._adopt_at is not None and step + PREFETCH + 1 >= self._adopt_at:
            self._adopt(step)

    def is_due(self, done: int) -> bool:
        """Every `RefreshConfig.every` steps."""
        return self._config is not None and done % self._config.every == 0

    def run(self, at: Boundary) -> None:
        """Starts a refresh that can still take effect; else adopts the one in progress before a checkpoint."""
        if self.is_due(at.done) and at.done + self._config.delay < self._run.total_steps:
            self.begin(at.done, at.state)
        elif at.save and self._adopt_at is not None:
            # A checkpoint names lists that are on the disk, or a refresh that began with its own weights.
            self._adopt(at.done)
        at.refreshing = self._adopt_at is not None

    def _adopt(self, step: int) -> None:
        """Waits at `step` for the refresh in progress and hands its lists to the feed."""
        refresher = self._run.refresher
        waited = not refresher.finished
        lists = refresher.wait()
        self._run.feed.set_lists(lists, from_step=self._adopt_at)
        self._log.write(
            step,
            {
                "refresh/version": lists.version,
                "refresh/from_step": self._adopt_at,
                "refresh/staleness": self._adopt_at - lists.step,
                "refresh/training_waited": float(waited),
            },
        )
        self._adopt_at = None


class EvaluateHook:
    """Measures the weights on held-out questions.

    Args:
      run: the run. log: where the scores are logged.

    Attributes:
      scores: of the last evaluation; empty before the first.
    """

    def __init__(self, run: OpenRun, log: MetricLog | NoLog):
        self._run, self._log = run, log
        self.scores: dict[str, float] = {}

    def is_due(self, done: int) -> bool:
        """Every `evaluate_every` steps, and at the end; before the first step where `evaluate_first` is set."""
        config = self._run.config
        if self._run.evaluator is None:
            return False
        if done == 0:
            return config.evaluate_first
        return done == self._run.total_steps or done % config.evaluate_every == 0

    def run(self, at: Boundary) -> None:
        """Evaluates where it is due."""
        if not self.is_due(at.done):
            return
        run = self._run
        self.scores = at.scores = run.evaluator(run.placement.own(at.state.params, run.config.model))
        self._log.write(at.done, self.scores)
        self._log.print_line(f"step {at.done}: {_summary(self.scores)}")


class CheckpointHook:
    """Saves the state.

    Args:
      run: the run.
    """

    def __init__(self, run: OpenRun):
        self._run = run

    def is_due(self, done: int) -> bool:
        """Every `CheckpointConfig.every` steps, and at the end."""
        return done == self._run.total_steps or done % self._run.config.checkpoints.every == 0

    def run(self, at: Boundary) -> None:
        """Saves where the boundary says so; writing continues in the background."""
        if not at.save:
            return
        run = self._run
        host = {**run.fingerprints, "feed": run.feed.state(at.done), "refreshing": at.refreshing}
        run.checkpoints.save(at.done, at.state._asdict(), host, at.scores)


class LogHook:
    """Logs each step's metrics one step late, so that the device never waits for Python.

    Args:
      run: the run. log: where metrics are logged.
    """

    def __init__(self, run: OpenRun, log: MetricLog | NoLog):
        self._run, self._log = run, log
        self._rate = schedule(run.config.optimizer)
        self._pending: tuple[int, dict[str, jax.Array]] | None = None

    def after_step(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Logs the step before, and keeps this one's metrics, which may not be computed yet.

        Raises:
          NonFiniteLossError: if the loss of the step before is not finite.
        """
        self.flush()
        self._pending = (step, metrics)

    def flush(self) -> None:
        """Logs the metrics that are kept, if any: nothing is saved or published after a loss that is not finite.

        Raises:
          NonFiniteLossError: if their loss is not finite.
        """
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        loss, done = float(metrics["loss"]), step + 1
        if not math.isfinite(loss):
            raise self._non_finite(step, np.asarray(metrics["per_question"]))
        self._log.advance(loss)
        if done % self._run.config.log_every == 0 or done == self._run.total_steps:
            values = {name: float(value) for name, value in metrics.items() if name != "per_question"}
            values["learning_rate"] = float(self._rate(step))
            values["staleness"] = step - self._run.feed.lists_step(step)
            self._log.write(done, values)

    def _non_finite(self, step: int, per_question: np.ndarray) -> NonFiniteLossError:
        run = self._run
        ids = [run.data.table.id(int(row)) for row in run.feed.question_rows(step)]
        bad = [id_ for id_, value in zip(ids, per_question, strict=False) if not math.isfinite(value)]
        return NonFiniteLossError(
            f"the loss of step {step + 1} is not finite; questions {', '.join(bad or ids)}",
            file=run.folder,
            remedy="look at these questions, lower the learning rate, or start again from the last checkpoint",
        )


def _summary(scores: dict[str, float]) -> str:
    """The macro scores of an evaluation in one line."""
    macro = {name.split("/")[1]: value for name, value in scores.items() if name.endswith("/macro")}
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in macro.items())
