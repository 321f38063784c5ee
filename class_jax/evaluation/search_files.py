# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Search for a list of questions: their vectors, kept in files or made again, an index's options, rescoring.

Axes: B questions, k passages of each.
"""

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from class_jax.common.files import replacing
from class_jax.corpus.store import TokenStore
from class_jax.errors import InputError
from class_jax.models import inference
from class_jax.models.encode import Vectors
from class_jax.questions.readers import Question
from class_jax.retrieval.index import Index, check_corpus, check_model, open_index
from class_jax.retrieval.rescore import with_model

_BLOCK = 64


def question_vectors(model: Any, questions: list[Question], file: Path | None) -> tuple[Vectors, str]:
    """Embeds questions, or reads their vectors from a file of `--save-vectors`.

    Returns:
      Their vectors, and the fingerprint of the weights that made them.

    Raises:
      InputError: if the file is no such file, or is of other questions.
    """
    if file is None:
        embedded = model.encode_questions([q.text for q in questions], [q.language for q in questions])
        return embedded, model.retriever_fingerprint
    try:
        with np.load(file, allow_pickle=False) as arrays:
            ids, model_print = arrays["ids"].tolist(), str(arrays["model"])
            embedded = Vectors(arrays["vectors"], arrays["mask"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError("not a file of question vectors", file=file, remedy="make it with --save-vectors") from error
    if ids != [question.id for question in questions]:
        raise InputError("the vectors are of other questions", file=file, remedy="make it with --save-vectors")
    return embedded, model_print


def save_vectors(path: Path, questions: list[Question], embedded: Vectors, made_with: str) -> None:
    """Writes the vectors of questions for `question_vectors`."""
    with replacing(path, "wb") as f:
        ids = np.array([question.id for question in questions])
        np.savez(f, ids=ids, vectors=embedded.vectors, mask=embedded.mask, model=made_with)


def open_searched(
    folder: Path | None, store: TokenStore, model: Any, made_with: str, allow_other: bool, verify: bool
) -> Index | None:
    """Opens an index that fits a store and the weights that made the questions' vectors; None where there is none.

    Raises:
      InputError: if it is of another corpus or of other weights, or there is neither an index nor a model.
    """
    if folder is None:
        if model is None:
            raise InputError("no index to search", key="index", remedy="give --index, or --model to embed the store")
        return None
    opened = open_index(folder, verify=verify)
    check_corpus(opened, store.fingerprint)
    check_model(opened, made_with, allow_other)
    return opened


def set_search_options(index: Index | None, options: dict[str, int | None]) -> None:
    """Sets an index's options, such as `probes`, where they are not None.

    Raises:
      InputError: if the index has no such setting.
    """
    for name, value in options.items():
        if value is None:
            continue
        if not hasattr(index, name):
            kind = "no index" if index is None else f"an index of the kind {index.kind!r}"
            raise InputError(f"{kind} has none", key=f"--{name}", remedy="leave it out")
        setattr(index, name, value)


def search_questions(
    index: Index | None,
    model: Any,
    store: TokenStore,
    questions: list[Question],
    embedded: Vectors,
    k: int,
    rescore: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows [B, k] and scores [B, k]: by the index, or without one by embedding the whole store."""
    if index is None:
        found = model.retrieve([q.text for q in questions], store, k, [q.language for q in questions])
        return found.rows, found.scores
    mask = embedded.mask if index.retriever == "multi_vector" else None
    rows, scores = [], []
    with tqdm(total=len(questions), unit="question", desc="search", disable=None) as bar:
        for start in range(0, len(questions), _BLOCK):
            here = slice(start, start + _BLOCK)
            part = embedded.vectors[here], None if mask is None else mask[here]
            found, values = index.search(*part, max(k, rescore))
            if rescore:
                found, values = _rescored(model, store, *part, found, values, rescore)
            rows.append(found[:, :k])
            scores.append(values[:, :k])
            bar.update(len(found))
    return np.concatenate(rows), np.concatenate(scores)


def _rescored(
    model: Any,
    store: TokenStore,
    vectors: np.ndarray,
    mask: np.ndarray | None,
    rows: np.ndarray,
    scores: np.ndarray,
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks the first `count` hits of each question by the scores of passages embedded again."""
    exact = with_model(inference.encoder(model.config), inference.retriever_params(model.params), store)
    rows, scores = rows.copy(), scores.copy()
    for b in range(len(rows)):
        held = rows[b, :count][rows[b, :count] >= 0]
        question = vectors[b][mask[b]] if mask is not None else vectors[b][None]
        values = exact(np.asarray(question, np.float32), held)
        order = np.lexsort((held, -values))
        rows[b, : len(held)], scores[b, : len(held)] = held[order], values[order]
        rows[b, len(held) :], scores[b, len(held) :] = -1, -np.inf
    return rows, scores
