# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What a run's settings become when it is opened."""

import types

import jax
import numpy as np
import pytest
import tiny_feed
from tiny_feed import make_feed, make_lists, parallel_table

from class_jax.distributed.sharding import MeshConfig, make_mesh
from class_jax.objectives.batch import Stage
from class_jax.objectives.objectives import ObjectiveConfig
from class_jax.training import builder

world = tiny_feed.world  # a fixture


def settings(**changes):
    found = {
        "batch_size": 8,
        "num_passages": 5,
        "seed": 11,
        "objective": Stage.END_TO_END,
        "question_buckets": (20, 50),
        "passage_buckets": (150, 200),
        "answer_buckets": (9, 18),
        "teacher": None,
        "data": types.SimpleNamespace(language_exponent=0.75),
        "pack_tokens": False,
        "question_noise": 0.0,
        "losses": ObjectiveConfig(),
    }
    return types.SimpleNamespace(**found | changes)


def opened_feed(world, table=None, bm25=None, **changes):
    vocabulary, store, _, default = world
    data = types.SimpleNamespace(table=default if table is None else table, store=store, vocabulary=vocabulary)
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    feed = builder._make_feed(settings(**changes), data, mesh, None, bm25)
    feed.set_lists(make_lists(store, data.table))
    return feed


def test_the_feed_follows_the_settings(world):
    feed = opened_feed(world)
    same = make_feed(
        world,
        seed=11,
        exponent=0.75,
        question_buckets=(20, 50),
        passage_buckets=(150, 200),
        answer_buckets=(9, 18),
    )
    for step in (0, 5):
        jax.tree.map(np.testing.assert_array_equal, feed.batch(step), same.batch(step))
    assert (opened_feed(world, seed=12).question_rows(0) != feed.question_rows(0)).any()


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_packing_and_noise_are_settings(world, micro_batches):
    losses = ObjectiveConfig(micro_batches=micro_batches)
    feed = opened_feed(world, pack_tokens=True, question_noise=3.0, losses=losses)
    batch, plain = feed.batch(0), opened_feed(world).batch(0)
    assert batch.token_slots.micro_batches == micro_batches and plain.token_slots is None
    assert batch.question_lengths.sum() > plain.question_lengths.sum()


def test_a_teachers_scores_are_divided_by_its_temperature(world):
    class Ones:
        def scores(self, texts, rows):
            return np.ones((len(texts), len(rows)))

    teacher = types.SimpleNamespace(temperature=4.0)
    given = {"table": parallel_table(world), "bm25": Ones(), "objective": Stage.STAGE1, "teacher": teacher}
    assert (opened_feed(world, **given).batch(0).teacher_scores == 0.25).all()
