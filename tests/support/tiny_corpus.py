# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A vocabulary, a token store of `tiny_run`'s passages, and models with random weights."""

from pathlib import Path

import tiny_run
from tiny_model import CONFIG, random_params

from class_jax import api
from class_jax.corpus.store import TokenStore, build_store
from class_jax.corpus.vocabulary import Vocabulary


def build_corpus(folder: Path) -> tuple[Vocabulary, TokenStore]:
    """Writes `vocabulary.model`, `passages.tsv` and `store`."""
    tiny_run.write_vocabulary(folder / "vocabulary.model")
    tiny_run.write_passages(folder / "passages.tsv", tiny_run.passages())
    vocabulary = Vocabulary.load(folder / "vocabulary.model")
    return vocabulary, build_store(folder / "passages.tsv", vocabulary, folder / "store", progress=False)


def build_models(folder: Path) -> None:
    """Writes a corpus, and the models `model1` and `model2`."""
    vocabulary, _ = build_corpus(folder)
    for seed in (1, 2):
        api.CLASS(CONFIG, random_params(seed=seed), vocabulary).save_pretrained(folder / f"model{seed}")
