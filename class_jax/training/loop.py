# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The training loop: feed, step, refresh, evaluation, checkpoints. Configured by gin; see `gin/runs`."""

import logging
import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from class_jax.checkpoints import weights
from class_jax.checkpoints.configs import TextConfig
from class_jax.checkpoints.pretrained import save_pretrained
from class_jax.checkpoints.runs import write_description
from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.distributed import ALONE, Hosts
from class_jax.distributed.placing import Placement, place
from class_jax.distributed.sharding import host_share, make_mesh, param_shardings
from class_jax.distributed.start import (
    check_agreement,
    check_shared_folder,
    data_values,
    failing_together,
    params_digest,
    settings_of,
)
from class_jax.errors import InputError
from class_jax.models import inference
from class_jax.models.class_model import Params
from class_jax.refresh.lists import PassageLists
from class_jax.refresh.refresher import Refresher
from class_jax.retrieval.bm25 import BM25
from class_jax.training.config import PREFETCH, RefreshConfig, TrainConfig, check_batch_size, check_teacher
from class_jax.training.data import TrainingData, open_data
from class_jax.training.evaluator import Evaluator
from class_jax.training.feed import Feed, prefetch
from class_jax.training.logs import MetricLog, NoLog
from class_jax.training.noise import short_pieces
from class_jax.training.optimizer import make_optimizer, schedule
from class_jax.training.profiling import ProfileConfig, StepProfiler
from class_jax.training.signals import caught_signals
from class_jax.training.step import TrainState, init_state, make_train_step, state_shapes
from class_jax.training.teacher import (
    ModelTeacher,
    ModelTeacherConfig,
    lists_by_model_teacher,
    lists_by_teacher,
    open_bm25_teacher,
    open_model_teacher,
)
from class_jax.training.token_slots import Packer

_log = logging.getLogger(__name__)


class NonFiniteLossError(InputError):
    """The loss is not a number; the message names the step and the batch's question ids."""


def train(
    model_dir: str, config: TrainConfig, on_start: Callable[[], None] | None = None, hosts: Hosts = ALONE
) -> dict[str, float]:
    """Trains, or goes on where `model_dir` stopped, and exports the weights to `model_dir/model`.

    The last step's weights, or the best step's where `CheckpointConfig.best_metric` says which is best.

    Args:
      model_dir: the run's folder: checkpoints, passage lists, metrics, exported weights.
      config: the run.
      on_start: called on host 0 once everything is open and the first step is about to be taken.
      hosts: those of the run (`class_jax.distributed.start.join_hosts`); all call this, with a folder that they share.

    Returns:
      The last evaluation's scores (empty without evaluation).

    Raises:
      InputError: for bad data or settings, a loss that is not finite (`NonFiniteLossError`), or a signal to stop
        (the state is saved first). On several hosts an error ends the processes of all, with its message.
    """
    folder = Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with failing_together(hosts):
        run = _Run(folder, config, hosts)
    try:
        with failing_together(hosts):
            return run.train(on_start)
    finally:
        run.close()


class _Run:
    """One process's part of a run: what it opens, the loop, and what happens between steps."""

    def __init__(self, folder: Path, config: TrainConfig, hosts: Hosts):
        self.folder, self.config, self.hosts = folder, config, hosts
        self.total = config.optimizer.total_steps
        check_agreement(hosts, "settings", settings_of(config))
        check_shared_folder(hosts, folder)
        self.mesh = make_mesh(config.mesh)
        self.placement = Placement(self.mesh, hosts)
        check_batch_size(config, self.mesh)
        check_teacher(config)
        self.data: TrainingData = open_data(config.data, config.model, hosts)
        self.optimizer = make_optimizer(config.optimizer)
        self.rate = schedule(config.optimizer)
        self.bm25: BM25 | None = None
        self.model_teacher: ModelTeacher | None = None
        if isinstance(config.teacher, ModelTeacherConfig):
            self.model_teacher = open_model_teacher(config.teacher, config.data, self.data, self.mesh, hosts)
        elif config.teacher is not None:
            self.bm25 = hosts.first("BM25", lambda: open_bm25_teacher(config.teacher, self.data, folder))
        self.step = make_train_step(
            config.model,
            config.objective,
            config.losses,
            self.optimizer,
            self.mesh,
            teacher=config.teacher.model if self.model_teacher else None,
            teacher_temperature=config.teacher.temperature if self.model_teacher else 1.0,
        )
        self.evaluator = None
        if config.evaluation is not None:
            given = config.evaluation, config.model, self.data.vocabulary, self.data.store, self.data.languages
            self.evaluator = Evaluator(*given, hosts=hosts, local=self.placement.local)
        taught_by = self.model_teacher and self.model_teacher.fingerprint
        check_agreement(hosts, "data", data_values(self.data, self.evaluator, taught_by, self.mesh))
        saving = config.checkpoints
        self.checkpoints = TrainCheckpoints(
            folder / "checkpoints", saving.keep_last, saving.keep_best, saving.best_metric
        )
        self.feed = self._make_feed()
        self.refresher = self._make_refresher()
        self.adopt_at: int | None = None  # the step from which the refresh under way takes effect
        self.scores: dict[str, float] = {}
        self.log: MetricLog | NoLog | None = None
        self.profiler = StepProfiler(config.profile and ProfileConfig(*config.profile), folder / "profile")

    def train(self, on_start: Callable[[], None] | None = None) -> dict[str, float]:
        """The loop; see the function `train`."""
        state, start = self._start()
        texts = TextConfig(self.config.data.max_question_tokens, self.config.data.max_passage_tokens)
        if self.hosts.index == 0:
            write_description(self.folder, self.config.model, self.data.vocabulary, texts)
        if on_start is not None and self.hosts.index == 0:
            on_start()
        self.log = self._make_log(start)
        if self.evaluator is not None and self.config.evaluate_first and start == 0:
            self._evaluate(0, state.params)
        batches = prefetch(self.feed, start, PREFETCH)
        teacher = (self.model_teacher.params,) if self.model_teacher else ()
        seen = stopping = None
        with caught_signals() as caught:
            for step in range(start, self.total):
                if self.adopt_at is not None and step + PREFETCH + 1 >= self.adopt_at:
                    self._adopt(step)  # before the batch of that step is built ahead
                batch = next(batches)
                batch = self.placement.batch(batch)
                state, metrics = self.profiler.step(step, self.step, state, batch, *teacher)
                if seen is not None:
                    self._report(*seen)  # one step late, so that the device never waits for the host
                seen = (step, metrics)
                done = step + 1
                stopping = self.hosts.stop_after(done, caught)
                if self._is_due(done) or stopping:
                    self._report(*seen)  # nothing is saved or published after a loss that is not finite
                    seen = None
                    self._between_steps(done, state, save=stopping is not None)
                if stopping:
                    break
        batches.close()
        self.checkpoints.wait()
        if stopping:
            self.hosts.meet("stopped")
            raise InputError(
                f"stopped by {stopping} at step {done}, which is saved",
                file=self.folder,
                remedy="the same command goes on from there",
            )
        best = weights.best_params(self.checkpoints, self.total, state.params)
        params = self.placement.to_host_0(best)
        if self.hosts.index == 0:
            save_pretrained(self.folder / "model", params, self.config.model, self.data.vocabulary, texts=texts)
        self.hosts.meet("exported")
        return self.scores

    def close(self) -> None:
        """Closes files, and ends what runs in the background."""
        self.profiler.close()
        if self.log is not None:
            self.log.close()
        self.refresher.close()
        self.checkpoints.close()

    def _start(self) -> tuple[TrainState, int]:
        """Restores the newest checkpoint, or makes the first state and the first passage lists."""
        config = self.config
        shapes = state_shapes(config.model, self.optimizer, self.mesh)
        restored = self.checkpoints.restore(shapes._asdict(), expect=self._fingerprints())
        if restored is not None:
            arrays, host, step = restored
            state = TrainState(**arrays)
            self.feed.restore(host["feed"], self.refresher.restore)
            if host["refreshing"]:
                # It had begun with just these weights: no other checkpoint is written while one is under way.
                self._begin_refresh(step, state.params)
            _log.info("going on at step %d of %d", step, self.total)
            return state, step
        params = None
        if config.init_from is not None:
            fingerprint = self.data.vocabulary.fingerprint
            params = weights.load_params(config.init_from, config.model, config.seed, vocabulary=fingerprint)
            if config.head_from_embedding is not None:
                params = weights.with_head_from_embedding(params, config.head_from_embedding)
            if self.hosts.count > 1:
                check_agreement(self.hosts, "first weights", {"TrainConfig.init_from": params_digest(params)})
                params = place(params, param_shardings(config.model, self.mesh))
        state = init_state(config.model, self.optimizer, self.mesh, seed=config.seed, params=params)
        self.feed.set_lists(self._first_lists(state.params), from_step=0)
        return state, 0

    def _first_lists(self, params: Params) -> PassageLists:
        config, data = self.config, self.data
        if config.lists is not None:
            ids = [data.table.id(row) for row in range(len(data.table))]
            return self._adopted(
                lambda: PassageLists.from_public(config.lists, ids, data.store, questions=data.table.fingerprint)
            )
        if self.bm25 is not None:
            return self._adopted(lambda: lists_by_teacher(config.teacher, self.bm25, data))
        refresh = config.refresh
        rows = None if refresh is None else self.feed.rows_between(0, min(refresh.every + refresh.delay, self.total))
        if self.model_teacher is not None:
            retriever = self.placement.retrievers(self.model_teacher.params)
            given = self.model_teacher, data, self.folder / "lists", rows
            return self.refresher.adopt(lists_by_model_teacher(*given, retriever=retriever, hosts=self.hosts))
        _log.info("searching passages with the first weights")
        self.refresher.start(0, self.placement.retrievers(params), 0, rows)
        return self.refresher.wait()

    def _adopted(self, make: Callable[[], PassageLists]) -> PassageLists:
        """Publishes the first lists, made on host 0."""
        if self.hosts.index == 0:
            self.refresher.adopt(make())
        self.hosts.meet("first lists")
        return self.refresher.restore(0)

    def _is_due(self, done: int) -> bool:
        config = self.config
        every = [config.checkpoints.every]
        every += [config.refresh.every] if config.refresh else []
        every += [config.evaluate_every] if self.evaluator else []
        return done == self.total or any(done % period == 0 for period in every)

    def _between_steps(self, done: int, state: TrainState, *, save: bool) -> None:
        """Refresh, evaluation and checkpoint after `done` steps, where they are due."""
        config, last = self.config, done == self.total
        refresh = config.refresh
        save = save or last or done % config.checkpoints.every == 0
        if refresh is not None and done % refresh.every == 0 and done + refresh.delay < self.total:
            self._begin_refresh(done, state.params)
        elif save and self.adopt_at is not None:
            # A checkpoint names lists that lie on the disk, or a refresh that began with its own weights.
            self._adopt(done)
        metrics = None
        if self.evaluator is not None and (last or done % config.evaluate_every == 0):
            metrics = self._evaluate(done, state.params)
        if save:
            host = {
                **self._fingerprints(),
                "feed": self.feed.state(done),
                "refreshing": self.adopt_at is not None,
            }
            self.checkpoints.save(done, state._asdict(), host, metrics)

    def _evaluate(self, step: int, params: Params) -> dict[str, float]:
        self.scores = self.evaluator(self.placement.own(params, self.config.model))
        self.log.write(step, self.scores)
        self.log.say(f"step {step}: " + _summary(self.scores))
        return self.scores

    def _begin_refresh(self, step: int, params: Params) -> None:
        """Starts to make passage lists with the weights of `step`, for the interval in which they will be used."""
        refresh = self.config.refresh
        self.adopt_at = step + refresh.delay
        rows = self.feed.rows_between(self.adopt_at, min(self.adopt_at + refresh.every, self.total))
        self.refresher.start(step, self.placement.retrievers(params), step // refresh.every, rows)

    def _adopt(self, step: int) -> None:
        """Waits at `step` for the refresh under way and hands its lists to the feed, from the step fixed for it."""
        waited = not self.refresher.finished
        lists = self.refresher.wait()
        self.feed.set_lists(lists, from_step=self.adopt_at)
        self.log.write(
            step,
            {
                "refresh/version": lists.version,
                "refresh/from_step": self.adopt_at,
                "refresh/staleness": self.adopt_at - lists.step,
                "refresh/training_waited": float(waited),
            },
        )
        self.adopt_at = None

    def _report(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Shows and logs a step's metrics.

        Raises:
          NonFiniteLossError: if its loss is not finite.
        """
        loss = float(metrics["loss"])
        if not math.isfinite(loss):
            self._refuse(step, np.asarray(metrics["per_question"]))
        self.log.advance(loss)
        if (step + 1) % self.config.log_every == 0 or step + 1 == self.total:
            values = {name: float(value) for name, value in metrics.items() if name != "per_question"}
            values["learning_rate"] = float(self.rate(step))
            values["staleness"] = step - self.feed.lists_step(step)
            self.log.write(step + 1, values)

    def _refuse(self, step: int, per_question: np.ndarray) -> None:
        rows = self.feed.sampler.rows(step, self.config.batch_size)
        ids = [self.data.table.id(int(row)) for row in rows]
        bad = [id_ for id_, value in zip(ids, per_question, strict=False) if not math.isfinite(value)]
        raise NonFiniteLossError(
            f"the loss of step {step + 1} is not finite; questions {', '.join(bad or ids)}",
            file=self.folder,
            remedy="look at these questions, lower the learning rate, or start again from the last checkpoint",
        )

    def _fingerprints(self) -> dict[str, str]:
        found = {
            "model": self.config.model.fingerprint,
            "vocabulary": self.data.vocabulary.fingerprint,
            "corpus": self.data.store.fingerprint,
            "objective": self.config.objective,
        }
        return found | ({"teacher": self.model_teacher.fingerprint} if self.model_teacher else {})

    def _make_log(self, start: int) -> MetricLog | NoLog:
        if self.hosts.index:
            return NoLog()
        config = self.config
        shown = {"tensorboard": config.tensorboard, "progress": config.progress}
        return MetricLog(self.folder, self.total, start, config.batch_size, **shown)

    def _make_feed(self) -> Feed:
        config = self.config
        share, shares = host_share(self.mesh)
        return Feed(
            self.data.table,
            self.data.store,
            None,
            config.batch_size,
            config.num_passages,
            config.seed,
            stage=config.objective,
            host_index=share,
            host_count=shares,
            question_buckets=config.question_buckets,
            passage_buckets=config.passage_buckets,
            answer_buckets=config.answer_buckets,
            teacher=self.bm25,
            teacher_texts=self.model_teacher.texts if self.model_teacher else None,
            teacher_temperature=1.0 if config.teacher is None else config.teacher.temperature,
            exponent=config.data.language_exponent,
            packer=self._make_packer() if config.pack_tokens else None,
            noise=(short_pieces(self.data.vocabulary), config.question_noise) if config.question_noise else None,
        )

    def _make_packer(self) -> Packer:
        losses = self.config.losses
        ways = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        return Packer(ways, losses.micro_batches, losses.queries, losses.read_pairs)

    def _make_refresher(self) -> Refresher:
        config, table = self.config, self.data.table
        if config.lists is not None or config.teacher is not None:
            length = config.num_passages if config.teacher is None else config.teacher.list_length
        else:
            length = config.num_passages
        refresh = config.refresh or RefreshConfig(list_length=length)
        return Refresher(
            self.folder / "lists",
            [table.question_tokens[row] for row in range(len(table))],
            self.data.store,
            inference.encoder(config.model),
            refresh.list_length,
            backend=refresh.backend,
            allowed=self.data.allowed,
            own=table.own_passages,
            questions_fingerprint=table.fingerprint,
            # Lists that a kept checkpoint names must stay as long as it.
            keep=config.checkpoints.keep_last + config.checkpoints.keep_best + 1,
            hosts=self.hosts,
        )


def _summary(metrics: dict[str, float]) -> str:
    """The macro scores of an evaluation in one line."""
    macro = {name.split("/")[1]: value for name, value in metrics.items() if name.endswith("/macro")}
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in macro.items())
