# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Questions, passages, passage lists and a feed over them, small enough for tests."""

import numpy as np
import pytest

from class_jax.corpus.store import build_store
from class_jax.corpus.vocabulary import train_vocabulary
from class_jax.questions.readers import Question
from class_jax.questions.table import QuestionTable
from class_jax.refresh.lists import PassageLists
from class_jax.training import feed as feeds

PASSAGES, RANKS = 60, 9
COUNTS = {"fi": 40, "ru": 10, "en": 3}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A fixture: (vocabulary, store, questions, table): 53 questions in three languages over 60 passages."""
    folder = tmp_path_factory.mktemp("feed")
    rng = np.random.default_rng(0)
    words = ["river", "city", "talo", "joki", "река", "город", "year", "vuosi", "год", "queen", "kuningas", "мост"]
    texts = [" ".join(rng.choice(words, rng.integers(3, 90))) for _ in range(PASSAGES)]
    with open(folder / "psgs.tsv", "w", encoding="utf-8") as f:
        f.write("id\ttext\ttitle\n")
        f.writelines(f"p{i}\t{text}\tpage {i}\n" for i, text in enumerate(texts))
    vocabulary = train_vocabulary([*texts, "question: title: context: _X_ Who is?"] * 3, folder / "v.model", 315)
    store = build_store(folder / "psgs.tsv", vocabulary, folder / "store", processes=1, progress=False)
    questions = [
        Question(
            f"{language}-{i}",
            " ".join(rng.choice(words, rng.integers(2, 12))) + "?",
            tuple(rng.choice(words, i % 3, replace=False)),
            language,
            None if language == "en" else f"Who is {' '.join(rng.choice(words, 3))}?",
        )
        for language, count in COUNTS.items()
        for i in range(count)
    ]
    return vocabulary, store, questions, QuestionTable.from_questions(questions, vocabulary)


def make_lists(store, table, version=0, seed=0, ranks=RANKS):
    """Random passage lists of all questions, made at the step of that number."""
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(PASSAGES)[:ranks] for _ in range(len(table))])
    return PassageLists(rows, np.zeros(rows.shape, np.float32), version, version, store.fingerprint, table.fingerprint)


def make_feed(world, lists=..., table=None, **settings):
    """A feed over the fixture's questions, end to end unless `settings` say otherwise."""
    _, store, _, default = world
    table = default if table is None else table
    lists = make_lists(store, table) if lists is ... else lists
    settings = {"batch_size": 8, "num_passages": 5, "seed": 3, "stage": "end_to_end"} | settings
    return feeds.Feed(table, store, lists, **settings)


def parallel_table(world):
    """The questions that have an English version."""
    vocabulary, _, questions, _ = world
    return QuestionTable.from_questions([q for q in questions if q.english], vocabulary)
