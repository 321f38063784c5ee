# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Settings of a run that must fit each other, checked before anything long begins."""

from typing import TYPE_CHECKING

import jax

from class_jax.errors import InputError
from class_jax.retrieval.spaces import OWN_LANGUAGE

if TYPE_CHECKING:
    from class_jax.training.loop import TrainConfig


def check_teacher(config: "TrainConfig") -> None:
    """Raises InputError for a teacher too few or too many, or lists that don't fit."""
    teacher, refresh = config.teacher, config.refresh
    if (teacher is not None) != (config.objective == "stage1"):
        problem, remedy = "is not set", "stage 1 is taught by a model or by BM25"
        if teacher is not None:
            problem, remedy = f"is set, but the objective is {config.objective!r}", "only stage 1 has a teacher"
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


def check_batch_size(config: "TrainConfig", mesh: jax.sharding.Mesh) -> None:
    """Raises InputError for a batch that devices and micro-batches don't divide."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    pieces = ways * config.losses.micro_batches
    if config.batch_size < 1 or config.batch_size % pieces:
        raise InputError(
            f"is {config.batch_size}, for {ways} devices that share a batch and micro_batches {pieces // ways}",
            key="TrainConfig.batch_size",
            remedy=f"use a multiple of {pieces}",
        )
