# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory_corpus import (
    BUCKETS,
    DENSE,
    MEAN,
    MULTI,
    QUESTION_BUCKETS,
    VOCABULARY,
    WIDTH,
    Store,
    assert_best,
    brute_force,
    mask_of,
    texts,
    token_vectors,
)

from class_jax.common.batching import length_batches
from class_jax.errors import InputError
from class_jax.models import encode
from class_jax.models.encode import DualEncoder, Vectors
from class_jax.retrieval import exact
from class_jax.retrieval.exact import exact_search

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    return Store(texts(rng, 151, 14)), texts(rng, 23, 6), rng.normal(size=(VOCABULARY, WIDTH)).astype(np.float32)


def search(encoder, table, store, questions, k, **settings):
    settings = {"batch_passages": 16, "buckets": BUCKETS, "question_buckets": QUESTION_BUCKETS, **settings}
    return exact_search(encoder, jnp.asarray(table), store, questions, k, **settings)


@pytest.mark.parametrize("encoder", [MULTI, MEAN, DENSE], ids=["multi", "mean", "dense"])
def test_equals_brute_force(world, encoder):
    store, questions, table = world
    rows, scores = search(encoder, table, store, questions, 20)
    assert rows.shape == scores.shape == (23, 20) and rows.dtype == np.int64 and scores.dtype == np.float32
    assert_best(rows, scores, brute_force(encoder, table, questions, store.passages), 20)


@pytest.mark.parametrize("encoder", [MULTI, DENSE], ids=["multi", "dense"])
def test_many_groups_of_questions_come_back_in_order(world, encoder, monkeypatch):
    store, questions, table = world
    monkeypatch.setattr(exact, "_MAX_GROUP", 4)
    rows, scores = search(encoder, table, store, questions, 5, batch_questions=2)
    assert_best(rows, scores, brute_force(encoder, table, questions, store.passages), 5)


def test_every_passage_with_negative_scores_only(world):
    store, questions, table = world
    # Vectors of questions and passages point apart: every product is below zero, and padding must still not win.
    table = np.abs(table) + 0.1
    opposed = DualEncoder(lambda p, i, n: (-p[i], mask_of(i, n)), token_vectors, "multi_vector")
    rows, scores = search(opposed, table, store, questions, store.num_passages)
    assert (scores < 0).all()
    assert (np.sort(rows, 1) == np.arange(store.num_passages)).all()
    negative = np.array([[(-table[q] @ table[p].T).max(1).sum() for p in store.passages] for q in questions])
    assert_best(rows, scores, negative, store.num_passages)


def test_equal_scores_are_ordered_by_row():
    # Copies of two texts at different lengths of padding, in several batches and buckets.
    store = Store([np.array([5]), np.array([5, 5, 5, 5, 5]), np.array([7])] * 15)
    table = np.zeros((VOCABULARY, WIDTH), np.float32)
    table[5, 0], table[7, 0] = 1, 1
    rows, scores = search(MULTI, table, store, [np.array([5, 7])], 40, batch_passages=4)
    assert rows[0].tolist() == list(range(40)) and (scores == 2).all()


def test_exclusion_and_allowed_rows(world):
    store, questions, table = world
    expected = brute_force(MULTI, table, questions, store.passages)
    allowed = np.arange(store.num_passages) % 3 != 0
    own = expected.argmax(1)
    own[3] = -1
    rows, scores = search(MULTI, table, store, questions, 20, allowed=allowed, exclude=own)
    assert allowed[rows].all() and not (rows == own[:, None]).any()
    expected[:, ~allowed] = -np.inf
    expected[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
    assert_best(rows, scores, expected, 20)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"k": 152}, "152 passages a question asked for where 151"),
        ({"k": 0}, "0 passages"),
        ({"k": 151, "exclude": np.array([4] + [-1] * 22)}, "151 passages a question asked for where 150"),
        ({"k": 6, "allowed": np.arange(151) < 5}, "where 5"),
        ({"k": 1, "allowed": np.ones(3, bool)}, "allowed"),
        ({"k": 1, "exclude": np.array([1])}, "exclude"),
    ],
)
def test_impossible_requests(world, settings, problem):
    store, questions, table = world
    with pytest.raises(InputError, match=problem):
        search(MULTI, table, store, questions, **settings)


def test_broken_model_and_empty_question(world):
    store, questions, table = world
    with pytest.raises(InputError, match="not finite"):
        search(MULTI, table * np.nan, store, questions, 3)
    one_bad = table.copy()
    one_bad[store.passages[70][0], 2] = np.nan
    with pytest.raises(InputError, match="not finite"):
        search(MULTI, one_bad, store, questions, 3)
    with pytest.raises(InputError, match=r"question 1.*no tokens"):
        search(MULTI, table, store, [questions[0], np.array([], int)], 3)
    assert search(MULTI, table, store, [], 3)[0].shape == (0, 3)


def test_a_later_search_compiles_nothing(world):
    store, questions, table = world
    search(MULTI, table, store, questions, 20)
    before = exact._merge._cache_size(), encode.embed_passages._cache_size()
    changed, _ = search(MULTI, table + 1, store, questions[::-1], 20)
    assert (exact._merge._cache_size(), encode.embed_passages._cache_size()) == before
    # The new weights were used all the same.
    assert_best(changed, _, brute_force(MULTI, table + 1, questions[::-1], store.passages), 20)


def test_report_counts_passages_and_can_stop_the_search(world):
    store, questions, table = world
    seen = []
    search(MULTI, table, store, questions, 20, report=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (151, 151) and len(seen) == 10

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(MULTI, table, store, questions, 20, report=stop)


def test_sharded_over_devices(world):
    store, questions, table = world
    mesh = jax.make_mesh((len(jax.devices()),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    plain = search(MULTI, table, store, questions, 20)
    spread = search(MULTI, table, store, questions, 20, sharding=sharding)
    np.testing.assert_allclose(spread[1], plain[1], rtol=1e-5)


def test_batches_cover_every_item_once_with_few_shapes():
    lengths = np.random.default_rng(1).integers(1, 300, 1000)
    batches = list(length_batches(lengths, 64, encode.PASSAGE_BUCKETS))
    assert sorted(np.concatenate([m for m, _ in batches])) == list(range(1000))
    assert all((lengths[m] <= n).all() for m, n in batches)
    assert [len(m) for m, _ in batches].count(64) == len(batches) - 1 or len(batches[-1][0]) == 64
    assert {n for _, n in batches} <= {32, 64, 96, 128, 200, 256, 320}


@pytest.mark.parametrize("encoder", [MULTI, DENSE], ids=["multi", "dense"])
def test_embedded_questions_keep_their_order(world, encoder):
    _, questions, table = world
    vectors = encode.encode_questions(encoder, jnp.asarray(table), questions, batch=8, buckets=QUESTION_BUCKETS)
    for i, q in enumerate(questions):
        if encoder is DENSE:
            np.testing.assert_allclose(vectors.vectors[i], table[q].mean(0), rtol=1e-5, atol=1e-6)
        else:
            assert vectors.mask[i].sum() == len(q)
            np.testing.assert_array_equal(vectors.vectors[i, : len(q)], table[q])
    assert isinstance(vectors, Vectors)


def test_unknown_kind():
    with pytest.raises(InputError, match="did you mean 'dense'"):
        DualEncoder(token_vectors, token_vectors, "dens")
