# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Sample questions for which a residual index spends its bits, and passages added to one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from class_jax.errors import InputError
from class_jax.retrieval.index import open_index
from class_jax.retrieval.residual.build import grow, question_tokens
from class_jax.retrieval.residual.search import ResidualIndex
from class_jax.retrieval.vectors import VectorStore

# More questions than these change the bits of an index no further.
SAMPLE_QUESTIONS = 4000


class Added(NamedTuple):
    """Passages added to an index.

    Attributes:
      passages: how many.
      first_error, error: mean squared error of the first vectors and of the added ones.
    """

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
    if model.retriever_fingerprint != vectors.manifest["model"]:
        raise InputError("the vectors were made with other weights", file=vectors.folder, key="model")
    chosen = slice(SAMPLE_QUESTIONS)
    return question_tokens(*model.encode_questions(list(texts[chosen]), list(languages[chosen])))


def add_passages(folder: Path, vectors: VectorStore, questions: np.ndarray | None = None) -> Added:
    """Appends to an index the passages that the vectors hold and it does not.

    Raises:
      InputError: if the index is of a kind that can't grow.
    """
    there = open_index(folder)
    if not isinstance(there, ResidualIndex):
        raise InputError(
            f"an index of the kind {there.kind!r} can't grow", file=folder, remedy="embed or build it again"
        )
    before = there.num_passages
    grown = grow(there, vectors, questions=questions)
    segments = grown.manifest["segments"]
    return Added(grown.num_passages - before, segments[0]["error"], segments[-1]["error"])
