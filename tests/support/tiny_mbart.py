# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""An mBART-50 small enough for the tests, with random weights, and its vocabulary."""

from pathlib import Path

import jax
import numpy as np
import sentencepiece
import tiny_run
from flax import nnx

from class_jax.models import mbart
from class_jax.models.class_model import plain_tree

PIECES = 270
CONFIG = mbart.MBartConfig(
    vocab_size=PIECES + 2 + 52,
    d_model=16,
    encoder_layers=1,
    decoder_layers=1,
    encoder_heads=2,
    decoder_heads=2,
    encoder_ffn=24,
    decoder_ffn=24,
    max_positions=40,
    activation="relu",
)


def write_pieces(file: Path) -> None:
    """Trains a SentencePiece model in mBART's own order of ids."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abdefghijklmnoprstuvy"), 5)) for _ in range(900)]
    texts = [f"{p.title} {p.text}" for p in tiny_run.passages()] + words
    with open(file, "wb") as f:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=f,
            vocab_size=PIECES,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            minloglevel=2,
        )


def shapes(config: mbart.MBartConfig) -> dict:
    """Shape and type of every parameter as nested dictionaries."""
    return plain_tree(nnx.as_pure(nnx.split(mbart.abstract_mbart(config), nnx.Param)[1]))


def random_params(config: mbart.MBartConfig = CONFIG, seed: int = 1) -> dict:
    """Random parameters; the scale makes outputs differ between inputs."""
    rng = np.random.default_rng(seed)

    def leaf(path, like):
        if "scale" in jax.tree_util.keystr(path):
            return np.ones(like.shape, np.float32)
        return rng.normal(0, 0.3, like.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes(config))
