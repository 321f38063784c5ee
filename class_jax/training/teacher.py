# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The English teacher of stage 1, and the first passage lists of a run (paper, section 3.1 and appendix A.1.3).

A teacher is a model of the same kind, such as ReAtt, or BM25 where there is no English model.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from class_jax.checkpoints import weights
from class_jax.corpus.store import TokenStore
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.distributed import SINGLE_PROCESS, ProcessGroup, sharding
from class_jax.errors import InputError
from class_jax.models import inference
from class_jax.models.class_model import Params
from class_jax.models.config import ModelConfig
from class_jax.questions.table import QuestionTable
from class_jax.refresh.lists import PassageLists
from class_jax.refresh.refresher import Refresher
from class_jax.retrieval.bm25 import BM25
from class_jax.training.data import DataConfig, TrainingData, check_vocabulary, open_store
from class_jax.training.feed import TeacherTexts

_log = logging.getLogger(__name__)
_SEARCH_BATCH = 256
# Files of the token store that hold what the passages are, whatever vocabulary tokenised them.
_TEXT_FILES = [f"{name}{part}.bin" for name in ("id", "title", "text") for part in ("s", "_offsets")]


@dataclasses.dataclass(frozen=True)
class Bm25TeacherConfig:
    """BM25 as the English teacher, where there is no English model.

    It scores the English questions against the batch's passages on the CPU, and retrieves each question's passages
    before training. It does not read, so stage 1's term on the teacher's cross-attention is left out.

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


@dataclasses.dataclass(frozen=True)
class ModelTeacherConfig:
    """A model as the English teacher: in the paper ReAtt (T5 v1.1 large, multi-vector), trained on NQ.

    It retrieves each question's passages before training; in the step it scores the English questions against the
    batch's passages and reads each with its own. It is never trained.

    Attributes:
      weights: as `TrainConfig.init_from` takes them: a run's folder, a folder in the Hugging Face layout, or a hub id.
      model: its configuration; `dtype` is what it computes in.
      vocabulary: its SentencePiece model, by path or hub id.
      store: folder of the passages as tokens of that vocabulary; built from `DataConfig.passages` where it is missing.
        None where the vocabulary is the student's own: then the student's store serves both.
      list_length: passages retrieved for a question.
      temperature: divides the scores before the softmax.
      backend: how it retrieves, "exact" or "scann".
    """

    weights: str
    model: ModelConfig
    vocabulary: str
    store: str | None = None
    list_length: int = 100
    temperature: float = 1.0
    backend: str = "exact"


class ModelTeacher(NamedTuple):
    """An opened teacher that is a model.

    Attributes:
      config: its settings.
      params: its parameters, sharded as the student's.
      texts: its vocabulary, and the passages in it.
      fingerprint: of weights, configuration and vocabulary: what a checkpoint has of its teacher.
    """

    config: ModelTeacherConfig
    params: Params
    texts: TeacherTexts
    fingerprint: str


def open_bm25_teacher(config: Bm25TeacherConfig, data: TrainingData, folder: Path) -> BM25:
    """Loads the run's BM25 index, or builds and keeps it in `folder/bm25`."""
    path = folder / "bm25"
    if path.exists():
        return BM25.load(path, corpus=data.store.fingerprint)
    _log.info("indexing %d passages for BM25", data.store.num_passages)
    teacher = BM25.from_store(data.store, stem=config.stem, k1=config.k1, b=config.b)
    teacher.save(path)
    return teacher


def lists_by_bm25(config: Bm25TeacherConfig, teacher: BM25, data: TrainingData) -> PassageLists:
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


def open_model_teacher(
    config: ModelTeacherConfig,
    data_config: DataConfig,
    data: TrainingData,
    mesh: Mesh,
    hosts: ProcessGroup = SINGLE_PROCESS,
) -> ModelTeacher:
    """Opens a teacher's vocabulary, token store (built where missing) and weights; the same limits of tokens hold.

    Raises:
      InputError: for an unusable vocabulary, one that the teacher's embedding can't hold, a store of other passages,
        weights that are missing or of other shapes, or a mesh that does not divide them.
    """
    vocabulary = Vocabulary.load(config.vocabulary)
    check_vocabulary(vocabulary, config.model)
    store = hosts.first("teacher's token store", lambda: _open_store(config, vocabulary, data_config, data))
    params = weights.load_params(config.weights, config.model, vocabulary=vocabulary.fingerprint)
    fingerprint = hashlib.sha256((config.model.fingerprint + vocabulary.fingerprint).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        fingerprint.update(jax.tree_util.keystr(path).encode())
        fingerprint.update(np.ascontiguousarray(leaf).view(np.uint8))
    return ModelTeacher(
        config,
        _place(params, config.model, mesh),
        TeacherTexts(vocabulary, store, data_config.max_question_tokens),
        fingerprint.hexdigest(),
    )


def lists_by_model_teacher(
    teacher: ModelTeacher,
    data: TrainingData,
    folder: Path,
    rows: np.ndarray | None = None,
    *,
    retriever: Params | list[Params] | None = None,
    hosts: ProcessGroup = SINGLE_PROCESS,
) -> PassageLists:
    """Each English question's best passages by the teacher, published as version 0 in `folder`.

    Reuses lists that an interrupted run already wrote.

    Args:
      teacher: the teacher.
      data: what the run trains on.
      folder: of the run's passage lists.
      rows: question rows that need lists, or None for all.
      retriever: the teacher's weights as `Refresher.start` takes them; None takes them with their shardings.
      hosts: those of the run.

    Raises:
      InputError: if there are fewer passages than asked for, or the disk refuses the lists.
    """
    _log.info("searching passages with the teacher")
    refresher = Refresher(
        folder,
        _EnglishQuestions(data.table, teacher.texts),
        _TeacherPassages(teacher.texts.store, data.store),
        inference.encoder(teacher.config.model),
        teacher.config.list_length,
        backend=teacher.config.backend,
        allowed=data.allowed,
        own=data.table.own_passages,
        questions_fingerprint=data.table.fingerprint,
        protected=lambda: (0,),
        hosts=hosts,
    )
    with refresher:
        refresher.start(0, inference.retriever_params(teacher.params) if retriever is None else retriever, 0, rows)
        return refresher.wait()


class _EnglishQuestions(Sequence):
    """The English questions of a table by row, as the teacher's tokens; made when asked for."""

    def __init__(self, table: QuestionTable, texts: TeacherTexts):
        self._table, self._texts = table, texts

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, row: int) -> np.ndarray:
        return self._texts.question(self._table.english(row))


class _TeacherPassages:
    """The teacher's token store under the name of the student's: lists of its rows are the run's own."""

    def __init__(self, store: TokenStore, named: TokenStore):
        self.num_passages, self.lengths, self.batch = store.num_passages, store.lengths, store.batch
        self.fingerprint = named.fingerprint


def _open_store(
    config: ModelTeacherConfig, vocabulary: Vocabulary, data_config: DataConfig, data: TrainingData
) -> TokenStore:
    if config.store is None:
        if vocabulary.fingerprint != data.vocabulary.fingerprint:
            raise InputError(
                "must be set, since the teacher's vocabulary is not the student's",
                key="ModelTeacherConfig.store",
                remedy="name a folder: the passages are tokenised there for the teacher",
            )
        return data.store
    store = open_store(config.store, vocabulary, data_config)
    files, wanted = store.manifest["files"], data.store.manifest["files"]
    if store.num_passages != data.store.num_passages or any(files[name] != wanted[name] for name in _TEXT_FILES):
        raise InputError(
            f"holds other passages than the student's token store {data.store.folder}",
            file=config.store,
            key="ModelTeacherConfig.store",
            remedy="build both from the same TSV",
        )
    return store


def _place(params: Params, config: ModelConfig, mesh: Mesh) -> Params:
    """Puts host arrays [global shapes] onto the mesh; each device gets only its part.

    Matrices are kept in the type that they are used in, which changes no result: half the memory under bfloat16.
    """
    try:
        places = sharding.param_shardings(config, mesh)
    except InputError as error:
        raise InputError(str(error), key="ModelTeacherConfig.model") from error

    def place(path: tuple, array: np.ndarray, where: jax.sharding.NamedSharding) -> jax.Array:
        names = [part.key for part in path]
        exact = names[-1] == "scale" or "relative_bias" in names or names[0] == "dense_head"
        array = np.asarray(array).astype(np.float32 if exact else config.dtype, copy=False)
        return jax.make_array_from_callback(array.shape, where, lambda index: array[index])

    return jax.tree_util.tree_map_with_path(place, params, places)
