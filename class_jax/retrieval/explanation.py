# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Why a passage was found for a question: the tokens that matched, as text."""

import dataclasses
from typing import Any

import numpy as np

from class_jax.corpus.passages import Passage
from class_jax.corpus.store import TokenStore
from class_jax.models import inference
from class_jax.models.encode import embed_passages
from class_jax.retrieval.explain import explain


@dataclasses.dataclass(frozen=True)
class TokenMatch:
    """A question token and the passage token that it matched.

    Attributes:
      question_token, passage_token: their texts.
      place: of the passage token, from 0.
      score: the product of their vectors.
      share: of the passage's score.
    """

    question_token: str
    passage_token: str
    place: int
    score: float
    share: float


@dataclasses.dataclass(frozen=True)
class ScoreExplanation:
    """A passage's score, as the sum over the question's tokens.

    Attributes:
      passage: as in the corpus.
      score: the retriever's.
      matches: one for each question token.
    """

    passage: Passage
    score: float
    matches: list[TokenMatch]


def explain_passage(
    model: Any, store: TokenStore, question: str, passage_id: str, language: str | None = None
) -> ScoreExplanation:
    """Explains the score of a passage.

    Args:
      model: a `class_jax.CLASS` with a multi-vector retriever.
      store: of the passages.
      question: as published.
      passage_id: of the passage.
      language: of the question.

    Raises:
      InputError: for an unknown passage id, or a dense model.
    """
    row = store.row(passage_id)
    ids, lengths = store.batch(np.array([row]))
    encoder, params = inference.encoder(model.config), inference.retriever_params(model.params)
    vectors, mask = embed_passages(encoder, params, ids, lengths)
    asked = model.encode_questions([question], language)
    if model.config.retriever == "dense":
        explain(np.asarray(asked.vectors[0]), np.asarray(vectors[0]))  # refuses
    matches = explain(np.asarray(asked.vectors[0])[asked.mask[0]], np.asarray(vectors[0])[np.asarray(mask[0])])
    pieces, tokens = model.vocabulary.piece_texts(), model.tokenise([question], language)[0]
    special = {model.vocabulary.eos_id: "</s>", model.vocabulary.unk_id: "<unk>"}

    def shown(id: int) -> str:
        return (pieces[id] if id < len(pieces) else "") or special.get(id, f"<{id}>")

    found = []
    for match in matches:
        texts = shown(int(tokens[match.question_token])), shown(int(ids[0, match.passage_token]))
        found.append(TokenMatch(*texts, int(match.passage_token), float(match.score), float(match.share)))
    return ScoreExplanation(store.passage(row), sum(match.score for match in found), found)
