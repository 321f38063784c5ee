# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Building an index of a kind from embedded passages, and adding passages to one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from class_jax.errors import InputError, nearest
from class_jax.retrieval.index import open_index
from class_jax.retrieval.vectors import VectorStore

KINDS = ("residual", "scann")
# More questions than these change the bits of an index no further.
SAMPLE_QUESTIONS = 4000


class Built(NamedTuple):
    """An index that was built.

    Attributes:
      kind: residual or scann.
      vectors: how many it holds.
      shards: of scann, how many.
      bytes_per_vector: of residual, by part.
    """

    kind: str
    vectors: int
    shards: int = 1
    bytes_per_vector: dict[str, float] = {}  # noqa: RUF012 (a default that nothing changes)


class Added(NamedTuple):
    """Passages added to an index: how many, and the mean squared error of the vectors at first and of those added."""

    passages: int
    first_error: float
    error: float


def sample_tokens(model: Any, texts: Sequence[str], languages: Sequence[str], vectors: VectorStore) -> np.ndarray:
    """Token vectors of sample questions, for which an index spends its bits.

    Args:
      model: a `class_jax.CLASS`.
      texts, languages: of the questions; the first `SAMPLE_QUESTIONS` are used.
      vectors: the passages.

    Raises:
      InputError: if other weights made the passages' vectors.
    """
    from class_jax.retrieval.residual.build import question_tokens

    if model.retriever_fingerprint != vectors.manifest["model"]:
        raise InputError("the vectors were made with other weights", file=vectors.folder, key="model")
    chosen = slice(SAMPLE_QUESTIONS)
    return question_tokens(*model.encode_questions(list(texts[chosen]), list(languages[chosen])))


def build_index(
    kind: str,
    vectors: VectorStore,
    out: Path,
    *,
    bytes_per_vector: float = 24.0,
    centroids: int | None = None,
    questions: np.ndarray | None = None,
) -> Built:
    """Builds an index.

    Args:
      kind: one of `KINDS`.
      vectors: the passages.
      out: folder of the index.
      bytes_per_vector: residual: on disk, of everything.
      centroids: residual: chosen by size if None.
      questions: residual: see `sample_tokens`.

    Raises:
      InputError: for an unknown kind, and see the kinds' own modules.
    """
    if kind == "scann":
        from class_jax.retrieval.scann.kind import build_scann

        made = build_scann(vectors, out)
        return Built(kind, vectors.num_vectors, len(made.manifest["shards"]))
    if kind != "residual":
        raise InputError(f"unknown kind {kind!r}", key="kind", remedy=nearest(kind, KINDS))
    from class_jax.retrieval.residual import ResidualSettings, build_residual

    settings = ResidualSettings(bytes_per_vector=bytes_per_vector, centroids=centroids)
    built = build_residual(vectors, out, questions=questions, settings=settings)
    shares = {name: size / vectors.num_vectors for name, size in built.bytes_on_disk().items() if size}
    return Built(kind, vectors.num_vectors, bytes_per_vector=shares)


def add_passages(folder: Path, vectors: VectorStore, questions: np.ndarray | None = None) -> Added:
    """Appends to an index the passages that the vectors hold and it does not.

    Raises:
      InputError: if the index is of a kind that can't grow.
    """
    from class_jax.retrieval.residual import ResidualIndex
    from class_jax.retrieval.residual.build import grow

    there = open_index(folder)
    if not isinstance(there, ResidualIndex):
        raise InputError(
            f"an index of the kind {there.kind!r} can't grow", file=folder, remedy="embed or build it again"
        )
    before = there.num_passages
    grown = grow(there, vectors, questions=questions)
    segments = grown.manifest["segments"]
    return Added(grown.num_passages - before, segments[0]["error"], segments[-1]["error"])
