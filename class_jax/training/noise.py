# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Noise in training questions, for models that start from nothing.

A vocabulary trained on little text knows the words of the training questions whole; the words of other questions
fall apart into short pieces that are rare in training, and each adds a random number to a multi-vector score.
mT5's pre-training prevents that. Without it, runs of short pieces put into the training questions at random
teach the retriever to ignore what it can't use.
"""

import numpy as np

from class_jax.corpus.vocabulary import Vocabulary

_LONGEST_RUN = 8


def short_pieces(vocabulary: Vocabulary) -> np.ndarray:
    """Ids of the pieces of one or two characters: what an unknown word falls apart into, [n] int32."""
    return np.array(
        [i for i, piece in enumerate(vocabulary.piece_texts()) if 0 < len(piece.lstrip("▁")) <= 2], np.int32
    )


def add_noise(
    ids: np.ndarray, lengths: np.ndarray, pieces: np.ndarray, runs: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Puts runs of random pieces into questions.

    Args:
      ids: [B, Q] int32, padded with 0. lengths: [B].
      pieces: ids to draw from, [n].
      runs: runs of 2 to 8 pieces to expect in a question with room for them.
      rng: generator; the result is a function of its state and the other arguments.

    Returns:
      New ids [B, Q] and lengths [B]; no question outgrows Q, none loses a token, the first token stays first.
    """
    ids, lengths = ids.copy(), lengths.copy()
    for row, count in enumerate(rng.poisson(runs, len(ids))):
        tokens = list(ids[row, : lengths[row]])
        for size in rng.integers(2, _LONGEST_RUN + 1, count):
            size = min(int(size), ids.shape[1] - len(tokens))
            place = int(rng.integers(1, len(tokens) + 1))
            tokens[place:place] = rng.choice(pieces, size).tolist()
        ids[row, : len(tokens)] = tokens
        lengths[row] = len(tokens)
    return ids, lengths
