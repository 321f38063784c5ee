# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Opens what a run needs: mesh, data, teacher, compiled step, evaluator, checkpoints, feed and refresher."""

import dataclasses
from pathlib import Path

import jax
import optax
from jax.sharding import Mesh

from class_jax.checkpoints.configs import TextConfig
from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.distributed import ProcessGroup
from class_jax.distributed.placing import Placement
from class_jax.distributed.sharding import host_share, make_mesh
from class_jax.distributed.start import check_agreement, check_shared_folder, data_values, settings_of
from class_jax.models import inference
from class_jax.models.class_model import Params
from class_jax.refresh.refresher import Refresher
from class_jax.retrieval.bm25 import BM25
from class_jax.training.config import RefreshConfig, TrainConfig, check_batch_size, check_teacher
from class_jax.training.data import TrainingData, open_data
from class_jax.training.evaluator import Evaluator
from class_jax.training.feed import Feed
from class_jax.training.noise import short_pieces
from class_jax.training.optimizer import make_optimizer
from class_jax.training.step import TrainStep, make_train_step
from class_jax.training.teacher import ModelTeacher, ModelTeacherConfig, open_bm25_teacher, open_model_teacher
from class_jax.training.token_slots import Packer


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """One process's part of a run, opened.

    Attributes:
      folder: the run's folder. config: the run. hosts: its processes.
      mesh: its devices. placement: puts arrays on them.
      data: vocabulary, passages and questions.
      optimizer: updates the parameters. step: the compiled training step.
      teacher: the teacher of stage 1 that is a model; bm25: the one that is BM25. Both None end to end.
      evaluator: None without evaluation.
      checkpoints: of the run. feed: makes its batches. refresher: makes its passage lists.
    """

    folder: Path
    config: TrainConfig
    hosts: ProcessGroup
    mesh: Mesh
    placement: Placement
    data: TrainingData
    optimizer: optax.GradientTransformation
    step: TrainStep
    teacher: ModelTeacher | None
    bm25: BM25 | None
    evaluator: Evaluator | None
    checkpoints: TrainCheckpoints
    feed: Feed
    refresher: Refresher

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.optimizer.total_steps

    @property
    def teacher_params(self) -> tuple[Params, ...]:
        """What the step takes after state and batch."""
        return () if self.teacher is None else (self.teacher.params,)

    @property
    def texts(self) -> TextConfig:
        """How texts are cut."""
        return TextConfig(self.config.data.max_question_tokens, self.config.data.max_passage_tokens)

    @property
    def fingerprints(self) -> dict[str, str]:
        """What a checkpoint must have been made with to be resumed."""
        found = {
            "model": self.config.model.fingerprint,
            "vocabulary": self.data.vocabulary.fingerprint,
            "corpus": self.data.store.fingerprint,
            "objective": self.config.objective.value,
        }
        return found | ({} if self.teacher is None else {"teacher": self.teacher.fingerprint})

    def close(self) -> None:
        """Ends what runs in the background."""
        self.refresher.close()
        self.checkpoints.close()


def build_run(folder: Path, config: TrainConfig, hosts: ProcessGroup) -> OpenRun:
    """Opens a run; all its hosts call this.

    Raises:
      InputError: for bad data or settings, or hosts whose data or settings differ.
    """
    check_agreement(hosts, "settings", settings_of(config))
    check_shared_folder(hosts, folder)
    mesh = make_mesh(config.mesh)
    placement = Placement(mesh, hosts)
    check_batch_size(config, mesh)
    check_teacher(config)
    data = open_data(config.data, config.model, hosts)
    optimizer = make_optimizer(config.optimizer)
    teacher = bm25 = None
    if isinstance(config.teacher, ModelTeacherConfig):
        teacher = open_model_teacher(config.teacher, config.data, data, mesh, hosts)
    elif config.teacher is not None:
        bm25 = hosts.first("BM25", lambda: open_bm25_teacher(config.teacher, data, folder))
    step = make_train_step(
        config.model,
        config.objective,
        config.losses,
        optimizer,
        mesh,
        teacher=None if teacher is None else config.teacher.model,
        teacher_temperature=1.0 if teacher is None else config.teacher.temperature,
    )
    evaluator = None
    if config.evaluation is not None:
        opened = config.evaluation, config.model, data.vocabulary, data.store, data.languages
        evaluator = Evaluator(*opened, hosts=hosts, local=placement.local)
    check_agreement(hosts, "data", data_values(data, evaluator, teacher and teacher.fingerprint, mesh))
    saving = config.checkpoints
    return OpenRun(
        folder=folder,
        config=config,
        hosts=hosts,
        mesh=mesh,
        placement=placement,
        data=data,
        optimizer=optimizer,
        step=step,
        teacher=teacher,
        bm25=bm25,
        evaluator=evaluator,
        checkpoints=TrainCheckpoints(folder / "checkpoints", saving.keep_last, saving.keep_best, saving.best_metric),
        feed=_make_feed(config, data, mesh, teacher, bm25),
        refresher=_make_refresher(folder, config, data, hosts),
    )


def _make_feed(
    config: TrainConfig, data: TrainingData, mesh: Mesh, teacher: ModelTeacher | None, bm25: BM25 | None
) -> Feed:
    share, shares = host_share(mesh)
    return Feed(
        data.table,
        data.store,
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
        teacher=bm25,
        teacher_texts=None if teacher is None else teacher.texts,
        teacher_temperature=1.0 if config.teacher is None else config.teacher.temperature,
        exponent=config.data.language_exponent,
        packer=_make_packer(config, mesh) if config.pack_tokens else None,
        noise=(short_pieces(data.vocabulary), config.question_noise) if config.question_noise else None,
    )


def _make_packer(config: TrainConfig, mesh: jax.sharding.Mesh) -> Packer:
    losses = config.losses
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    return Packer(ways, losses.micro_batches, losses.queries, losses.read_pairs)


def _make_refresher(folder: Path, config: TrainConfig, data: TrainingData, hosts: ProcessGroup) -> Refresher:
    table = data.table
    length = config.num_passages if config.teacher is None else config.teacher.list_length
    refresh = config.refresh or RefreshConfig(list_length=length)
    return Refresher(
        folder / "lists",
        [table.question_tokens[row] for row in range(len(table))],
        data.store,
        inference.encoder(config.model),
        refresh.list_length,
        backend=refresh.backend,
        allowed=data.allowed,
        own=table.own_passages,
        questions_fingerprint=table.fingerprint,
        # Lists that a kept checkpoint names must stay as long as it.
        keep=config.checkpoints.keep_last + config.checkpoints.keep_best + 1,
        hosts=hosts,
    )
