# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The configuration of a run, and the checks that its settings fit each other. Configured by gin; see `gin/runs`."""

import dataclasses

import jax

from class_jax.distributed.sharding import MeshConfig
from class_jax.errors import InputError
from class_jax.models.config import ModelConfig
from class_jax.objectives.batch import Stage
from class_jax.objectives.objectives import ObjectiveConfig
from class_jax.retrieval.filters import OWN_LANGUAGE
from class_jax.training.data import DataConfig
from class_jax.training.evaluator import EvaluationConfig
from class_jax.training.optimizer import OptimizerConfig
from class_jax.training.teacher import Bm25TeacherConfig, ModelTeacherConfig

# Batches that the feed builds ahead of the step; passage lists can only change for batches not yet built.
PREFETCH = 2


@dataclasses.dataclass(frozen=True)
class RefreshConfig:
    """How the passage lists follow the weights (section 3.2.2, asynchronous passage update).

    Attributes:
      every: steps between two refreshes (1000 in the paper).
      delay: steps after which refreshed lists take effect; training continues meanwhile and waits only if the refresh
        takes longer. Fixed, so that a run can be repeated.
      list_length: passages kept for a question (100 in the paper), its own passage left out.
      backend: "exact" (re-embed and score in a stream, nothing stored) or "scann".
    """

    every: int = 1000
    delay: int = 50
    list_length: int = 100
    backend: str = "exact"

    def __post_init__(self):
        if not PREFETCH + 2 <= self.delay <= self.every:
            raise InputError(
                f"is {self.delay}", key="RefreshConfig.delay", remedy=f"choose {PREFETCH + 2} to {self.every} steps"
            )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When weights are saved, and which stay.

    Attributes:
      every: steps between two saves. keep_last: newest steps that stay. keep_best: best steps that stay besides.
      best_metric: by which a step is best, such as "eval/R@2kt/macro" (XOR-Retrieve) or "eval/f1/macro" (XOR-Full).
    """

    every: int = 1000
    keep_last: int = 3
    keep_best: int = 1
    best_metric: str | None = None


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A run.

    Attributes:
      model: the model. objective: a `Stage`, or its name "stage1" or "end_to_end". losses: settings of the objective.
      optimizer: optimizer and schedule; its total_steps is the length of the run.
      data: what it trains on. teacher: of stage 1, a model or BM25. refresh: None keeps the first passage lists.
      lists: first passage lists, a public JSON of `{"qid", "pids"}`; None lets the teacher or the first weights make
        them.
      evaluation: None leaves it out. evaluate_every: steps; also at the end, and before the first step where
        evaluate_first is set.
      batch_size: questions (stage 1: parallel pairs) a step over all hosts. num_passages: passages of a question.
      question_buckets, passage_buckets, answer_buckets: lengths that batches are padded to.
      pack_tokens: whether passages and joint rows pass the layers without their padding (only attention has it).
        Saves a quarter of a step's work where lengths differ as in Wikipedia's passages, at the price of more shapes to
        compile; not worth it for tiny models or passages of one length.
      question_noise: runs of random short pieces to expect in a training question, 0 for none; for models that start
        from nothing, see `class_jax.training.noise`.
      init_from: weights to start from: another run's folder, or a Hugging Face folder; None starts at random.
      head_from_embedding: replaces the output head of `init_from` by its embeddings, scaled to this standard deviation;
        None leaves it. For weights whose reader has learnt nothing yet: retrieval has brought a name and its
        translations together in the embeddings, so that a reader can name what it attends to from the first step.
      mesh: devices. checkpoints: saving. seed: of everything random. log_every: steps between two lines of metrics.
      tensorboard: whether to write TensorBoard files. profile: (steps done before, steps) to trace
        into the run's folder `profile/`; see `class_jax.training.profiling`.
    """

    model: ModelConfig
    objective: Stage | str
    optimizer: OptimizerConfig
    data: DataConfig
    losses: ObjectiveConfig = ObjectiveConfig()
    teacher: Bm25TeacherConfig | ModelTeacherConfig | None = None
    refresh: RefreshConfig | None = None
    lists: str | None = None
    evaluation: EvaluationConfig | None = None
    evaluate_every: int = 1000
    evaluate_first: bool = False
    batch_size: int = 64
    num_passages: int = 100
    question_buckets: tuple[int, ...] = (16, 32, 50)
    passage_buckets: tuple[int, ...] = (64, 128, 200)
    answer_buckets: tuple[int, ...] = (8, 16, 24, 32, 40, 50)
    pack_tokens: bool = False
    question_noise: float = 0.0
    init_from: str | None = None
    head_from_embedding: float | None = None
    mesh: MeshConfig = MeshConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    seed: int = 0
    log_every: int = 10
    tensorboard: bool = True
    profile: tuple[int, int] | None = None
    progress: bool | None = None

    def __post_init__(self):
        object.__setattr__(self, "objective", Stage.parse(self.objective, "TrainConfig.objective"))


def check_teacher(config: TrainConfig) -> None:
    """Raises InputError for a teacher too few or too many, or lists that don't fit."""
    teacher, refresh = config.teacher, config.refresh
    if (teacher is not None) != (config.objective is Stage.STAGE1):
        problem, remedy = "is not set", "stage 1 is taught by a model or by BM25"
        if teacher is not None:
            problem, remedy = f"is set, but the objective is {config.objective.value!r}", "only stage 1 has a teacher"
        raise InputError(problem, key="TrainConfig.teacher", remedy=remedy)
    if teacher is not None and OWN_LANGUAGE in (config.data.search_languages or ()):
        problem = f"is {tuple(config.data.search_languages)}, but a pair of questions shares its passages"
        raise InputError(problem, key="DataConfig.search_languages", remedy="name the teacher's language")
    if teacher is not None and refresh is not None and refresh.list_length != teacher.list_length:
        raise InputError(
            f"is {teacher.list_length}, that of the refresh {refresh.list_length}",
            key="list_length of the teacher",
            remedy="set both to the same",
        )


def check_batch_size(config: TrainConfig, mesh: jax.sharding.Mesh) -> None:
    """Raises InputError for a batch that devices and micro-batches don't divide."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    pieces = ways * config.losses.micro_batches
    if config.batch_size < 1 or config.batch_size % pieces:
        raise InputError(
            f"is {config.batch_size}, for {ways} devices that share a batch and micro_batches {pieces // ways}",
            key="TrainConfig.batch_size",
            remedy=f"use a multiple of {pieces}",
        )
