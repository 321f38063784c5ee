# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The English teacher of stage 1, and the first passage lists of a run (paper, section 3.1 and appendix A.1.3)."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
from tqdm import tqdm

from class_jax.errors import InputError
from class_jax.retrieval.bm25 import BM25
from class_jax.retrieval.lists import PassageLists
from class_jax.training.data import TrainingData

_log = logging.getLogger(__name__)
_SEARCH_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Bm25TeacherConfig:
    """BM25 as the English teacher, where no English model is at hand.

    It scores the English questions against the batch's passages on the host, and retrieves each question's passages
    at once before training. It does not read, so stage 1's term on the teacher's cross-attention is left out.

    Attributes:
      list_length: passages retrieved for a question.
      temperature: divides the scores before the softmax.
      stem: whether English words are stemmed.
      k1, b: of BM25.
    """

    list_length: int = 100
    temperature: float = 1.0
    stem: bool = True
    k1: float = 1.5
    b: float = 0.75


def open_bm25_teacher(config: Bm25TeacherConfig, data: TrainingData, folder: Path) -> BM25:
    """Loads the run's BM25 index, or builds and keeps it in `folder/bm25`."""
    path = folder / "bm25"
    if path.exists():
        return BM25.load(path, corpus=data.store.fingerprint)
    _log.info("indexing %d passages for BM25", data.store.num_passages)
    teacher = BM25.from_store(data.store, stem=config.stem, k1=config.k1, b=config.b)
    teacher.save(path)
    return teacher


def lists_by_teacher(config: Bm25TeacherConfig, teacher: BM25, data: TrainingData) -> PassageLists:
    """Each English question's best passages by the teacher.

    Raises:
      InputError: if a question has no English text.
    """
    texts = [data.table.english(row) for row in range(len(data.table))]
    if "" in texts:
        raise InputError("has no English text", key=data.table.id(texts.index("")), remedy="use parallel questions")
    # One English question has a row for each language: it is searched once.
    unique, place = np.unique(np.array(texts, dtype=object), return_inverse=True)
    rows, scores = [], []
    for start in tqdm(range(0, len(unique), _SEARCH_BATCH), desc="teacher's passages", unit="batch", disable=None):
        batch = list(unique[start : start + _SEARCH_BATCH])
        found = teacher.search(batch, config.list_length, allowed=data.allowed)
        rows.append(found[0])
        scores.append(found[1])
    return PassageLists(
        rows=np.concatenate(rows)[place],
        scores=np.concatenate(scores)[place],
        version=0,
        step=0,
        corpus=data.store.fingerprint,
        questions=data.table.fingerprint,
    )
