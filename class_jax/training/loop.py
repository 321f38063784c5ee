# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The training loop. Configured by gin; see `gin/runs`."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from class_jax.checkpoints import weights
from class_jax.checkpoints.pretrained import save_pretrained
from class_jax.checkpoints.runs import write_description
from class_jax.distributed import SINGLE_PROCESS, ProcessGroup
from class_jax.distributed.start import failing_together
from class_jax.errors import InputError
from class_jax.training.builder import OpenRun, build_run
from class_jax.training.config import PREFETCH, TrainConfig
from class_jax.training.feed import prefetch
from class_jax.training.first_state import first_state
from class_jax.training.hooks import Boundary, CheckpointHook, EvaluateHook, Hook, LogHook, RefreshHook
from class_jax.training.logs import MetricLog, NoLog
from class_jax.training.profiling import ProfileConfig, StepProfiler
from class_jax.training.signals import caught_signals
from class_jax.training.step import TrainState


class StoppedError(InputError):
    """The run was stopped by a signal; its state is saved."""


class Hooks(NamedTuple):
    """The hooks of a run."""

    refresh: RefreshHook
    evaluate: EvaluateHook
    checkpoint: CheckpointHook
    log: LogHook
    profile: StepProfiler

    @property
    def between_steps(self) -> tuple[Hook, ...]:
        """Those that run between steps, in their order."""
        return self.refresh, self.evaluate, self.checkpoint


def train(
    model_dir: str,
    config: TrainConfig,
    on_start: Callable[[], None] | None = None,
    hosts: ProcessGroup = SINGLE_PROCESS,
) -> dict[str, float]:
    """Trains, resuming from the newest checkpoint in `model_dir`, and exports the weights to `model_dir/model`.

    The last step's weights, or the best step's where `CheckpointConfig.best_metric` is set.

    Args:
      model_dir: the run's folder: checkpoints, passage lists, metrics, exported weights.
      config: the run.
      on_start: called on host 0 once everything is open, before the first step.
      hosts: the processes of the run (`class_jax.distributed.start.join_process_group`); all call this, with a folder
        that they share.

    Returns:
      The last evaluation's scores (empty without evaluation).

    Raises:
      InputError: for bad data or settings, a loss that is not finite (`NonFiniteLossError`), or a signal to stop
        (`StoppedError`; the state is saved first). On several hosts an error ends the processes of all, with its
        message.
    """
    folder = Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as opened, failing_together(hosts):
        run = build_run(folder, config, hosts)
        opened.callback(run.close)
        state, start, refreshing = first_state(run)
        log = _open_log(run, start)
        opened.callback(log.close)
        profiler = StepProfiler(config.profile and ProfileConfig(*config.profile), folder / "profile")
        opened.callback(profiler.close)
        hooks = Hooks(RefreshHook(run, log), EvaluateHook(run, log), CheckpointHook(run), LogHook(run, log), profiler)
        if refreshing:
            # It started with these weights: while a refresh is in progress no other checkpoint is written.
            hooks.refresh.begin(start, state)
        if hosts.index == 0:
            write_description(folder, config.model, run.data.vocabulary, run.texts)
            if on_start is not None:
                on_start()
        if start == 0:
            hooks.evaluate.run(Boundary(0, state, save=False))
        state, stopped = _run_steps(run, hooks, state, start)
        run.checkpoints.wait()
        if stopped is not None:
            hosts.meet("stopped")
            raise stopped
        _export(run, state)
        return hooks.evaluate.scores


def _run_steps(run: OpenRun, hooks: Hooks, state: TrainState, start: int) -> tuple[TrainState, StoppedError | None]:
    """Takes the steps from `start` to the last, or until a signal; returns the state, and why it stopped early."""
    with caught_signals() as caught, contextlib.closing(prefetch(run.feed, start, PREFETCH)) as batches:
        for step in range(start, run.total_steps):
            hooks.refresh.before_batch(step)
            batch = run.placement.batch(next(batches))
            state, metrics = hooks.profile.step(step, run.step, state, batch, *run.teacher_params)
            hooks.log.after_step(step, metrics)
            done = step + 1
            signal = run.hosts.stop_after(done, caught)
            if signal or any(hook.is_due(done) for hook in hooks.between_steps):
                hooks.log.flush()
                boundary = Boundary(done, state, save=signal is not None or hooks.checkpoint.is_due(done))
                for hook in hooks.between_steps:
                    hook.run(boundary)
            if signal:
                return state, StoppedError(
                    f"stopped by {signal} at step {done}, which is saved",
                    file=run.folder,
                    remedy="the same command resumes from there",
                )
    return state, None


def _open_log(run: OpenRun, start: int) -> MetricLog | NoLog:
    """The metrics log; only host 0 writes one."""
    if run.hosts.index:
        return NoLog()
    config = run.config
    shown = {"tensorboard": config.tensorboard, "progress": config.progress}
    return MetricLog(run.folder, run.total_steps, start, config.batch_size, **shown)


def _export(run: OpenRun, state: TrainState) -> None:
    """Writes the weights of the best step, or of the last, to `model` in the run's folder."""
    best = weights.best_params(run.checkpoints, run.total_steps, state.params)
    params = run.placement.to_host_0(best)
    if run.hosts.index == 0:
        save_pretrained(run.folder / "model", params, run.config.model, run.data.vocabulary, texts=run.texts)
    run.hosts.meet("exported")
