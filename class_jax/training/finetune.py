# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Fine-tuning from Python, from folder to folder."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from class_jax.checkpoints.convert import Source, open_source
from class_jax.checkpoints.hub import local_folder
from class_jax.distributed.sharding import MeshConfig
from class_jax.errors import InputError
from class_jax.objectives.batch import Stage
from class_jax.objectives.objectives import ObjectiveConfig
from class_jax.questions.question import Question
from class_jax.questions.readers import read_anchor_questions, read_xor
from class_jax.training.config import PREFETCH, CheckpointConfig, RefreshConfig, TrainConfig
from class_jax.training.data import DataConfig
from class_jax.training.evaluator import EvaluationConfig
from class_jax.training.loop import train
from class_jax.training.optimizer import OptimizerConfig

_JSON_LINES = (".jsonl", ".json")


def finetune(
    model: str | os.PathLike,
    questions: str | os.PathLike | Iterable[Question],
    passages: str | os.PathLike,
    out: str | os.PathLike,
    *,
    steps: int,
    batch_size: int = 64,
    num_passages: int = 100,
    learning_rate: float = 5e-5,
    refresh_every: int = 1000,
    evaluation: EvaluationConfig | None = None,
    evaluate_every: int = 1000,
    checkpoint_every: int = 1000,
    best_metric: str | None = None,
    micro_batches: int = 1,
    dtype: str | None = None,
    mesh: MeshConfig | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> dict[str, float]:
    """Trains a model end to end on question-answer pairs (paper, section 3.2.2).

    The defaults are the paper's. `CLASS.from_pretrained(out)` opens the result. The same call resumes a run that was
    interrupted.

    Args:
      model: a folder of any layout, a run's folder, or a hub id. It must have its vocabulary.
      questions: JSON lines as of XOR-TyDi QA (`.jsonl`, `.json`); a TSV of id, question and answer, whose ids start
        with the language (`ko-17`); or the questions themselves.
      passages: a token store's folder, or the public TSV of id, text and title, from which one is built in `out`.
      out: the run's folder.
      steps: of training, with warm-up over the first tenth.
      batch_size: questions a step. num_passages: passages that each is read with.
      learning_rate: the peak.
      refresh_every: steps after which the passages are searched again with newer weights.
      evaluation: what is measured on held-out questions; None measures nothing.
      evaluate_every: steps between two evaluations; the last step is always evaluated.
      checkpoint_every: steps between two checkpoints.
      best_metric: the score, such as "eval/f1/macro", whose best checkpoint is exported to `out/model`; None exports
        the last.
      micro_batches: pieces in which a batch is computed, to save memory.
      dtype: what the model computes in, such as "bfloat16"; None keeps the model's own.
      mesh: how the devices are used; None shares each batch among all.
      seed: of everything random.
      progress: True shows a progress bar, False hides it, None shows it on a terminal.

    Returns:
      The last evaluation's scores; empty without evaluation.

    Raises:
      InputError: for a model, questions or passages that can't be used, or a setting that does not fit them.
    """
    folder = local_folder(model)
    source = open_source(folder)
    if source.vocabulary is None:
        raise InputError("has no vocabulary", file=folder, key="spiece.model", remedy="put the model's own there")
    out = Path(out)
    config = TrainConfig(
        model=source.config if dtype is None else dataclasses.replace(source.config, dtype=dtype),
        objective=Stage.END_TO_END,
        optimizer=OptimizerConfig(total_steps=steps, learning_rate=learning_rate),
        data=_data_config(source, questions, Path(passages), out),
        losses=ObjectiveConfig(micro_batches=micro_batches),
        refresh=_refresh_config(steps, refresh_every, num_passages),
        evaluation=evaluation,
        evaluate_every=evaluate_every,
        batch_size=batch_size,
        num_passages=num_passages,
        question_buckets=_buckets((16, 32, 50), source.texts.max_question_tokens),
        passage_buckets=_buckets((64, 128, 200), source.texts.max_passage_tokens),
        init_from=str(folder),
        mesh=mesh or MeshConfig(),
        checkpoints=CheckpointConfig(every=checkpoint_every, best_metric=best_metric),
        seed=seed,
        tensorboard=False,
        progress=progress,
    )
    return train(str(out), config)


def _data_config(
    source: Source, questions: str | os.PathLike | Iterable[Question], passages: Path, out: Path
) -> DataConfig:
    if isinstance(questions, str | os.PathLike):
        is_json = Path(str(questions).removesuffix(".gz")).suffix in _JSON_LINES
        questions = read_xor(questions, needs_answers=True) if is_json else read_anchor_questions(questions)
    is_store = passages.is_dir()
    return DataConfig(
        vocabulary=str(source.vocabulary),
        store=str(passages if is_store else out / "store"),
        questions=questions,
        passages=None if is_store else str(passages),
        max_question_tokens=source.texts.max_question_tokens,
        max_passage_tokens=source.texts.max_passage_tokens,
    )


def _refresh_config(steps: int, every: int, num_passages: int) -> RefreshConfig | None:
    """None where the first refresh could not take effect before the end."""
    delay = max(min(50, every), PREFETCH + 2)
    return RefreshConfig(every, delay, num_passages) if every + delay < steps else None


def _buckets(sizes: tuple[int, ...], longest: int) -> tuple[int, ...]:
    """The usual padded lengths below the longest text, and that of the longest."""
    return (*(size for size in sizes if size < longest), longest)
