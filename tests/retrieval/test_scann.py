# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from memory_corpus import BUCKETS, DENSE, MULTI, QUESTION_BUCKETS, Store, assert_best, brute_force, texts

from class_jax.errors import InputError
from class_jax.refresh.lists import PassageLists
from class_jax.refresh.refresher import Refresher
from class_jax.retrieval.exact import exact_search
from class_jax.retrieval.scann import index
from class_jax.retrieval.scann.index import ScannIndex, ScannSettings, build_index, scann_search

pytestmark = pytest.mark.tensorflow

pytest.importorskip("scann")
SIZE, WIDTH, VOCABULARY = 3000, 16, 400
TREE = ScannSettings.for_size(SIZE, 10, brute_force_below=1000)
SEARCH = {"buckets": BUCKETS, "question_buckets": QUESTION_BUCKETS}


def overlap(rows, expected):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(rows.tolist(), expected.tolist(), strict=True)])


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(5)
    store = Store([rng.integers(1, VOCABULARY, rng.integers(6, 13)) for _ in range(SIZE)])
    table = rng.normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
    return store, texts(rng, 40, 6), table


@pytest.fixture(scope="module")
def dense_index(world):
    store, _, table = world
    return build_index(DENSE, jnp.asarray(table), store, settings=TREE, model="weights-1", buckets=BUCKETS)


@pytest.fixture(scope="module")
def exact_dense(world):
    store, questions, table = world
    return exact_search(DENSE, jnp.asarray(table), store, questions, 10, **SEARCH)


def test_dense_recall(world, dense_index, exact_dense):
    store, questions, table = world
    rows, scores = scann_search(dense_index, DENSE, jnp.asarray(table), store, questions, 10, **SEARCH)
    assert overlap(rows, exact_dense[0]) >= 0.9
    assert (np.diff(scores, axis=1) <= 0).all() and rows.dtype == np.int64 and scores.dtype == np.float32
    exact = brute_force(DENSE, table, questions, store.passages)
    np.testing.assert_allclose(np.take_along_axis(exact, rows, 1), scores, atol=0.05)


def test_own_passages_are_left_out(world, dense_index, exact_dense):
    store, questions, table = world
    own = exact_dense[0][:, 0].copy()
    own[::2] = -1
    rows, _ = scann_search(dense_index, DENSE, jnp.asarray(table), store, questions, 10, exclude=own, **SEARCH)
    assert not (rows == own[:, None]).any() and rows.shape == (40, 10)
    assert overlap(rows[::2], exact_dense[0][::2]) >= 0.9


def test_lists_are_full_even_where_the_leaves_searched_hold_too_few(world, dense_index):
    store, _, table = world
    vectors = np.array([table[p].mean(0) for p in store.passages])
    queries = np.random.default_rng(0).normal(size=(7, WIDTH)).astype(np.float32)
    few = ScannIndex(dense_index._searcher, dense_index.owners, WIDTH, kind="dense", settings=ScannSettings(55, 1, 10))
    # One leaf holds enough for some queries and not for others.
    positions, scores = few.nearest(queries, 55)
    products = np.take_along_axis(queries @ vectors.T, few.owners[positions], 1)
    np.testing.assert_allclose(scores, products, atol=0.1)
    positions, scores = few.nearest(queries, 2500)
    assert np.isfinite(scores).all() and all(len(set(row)) == 2500 for row in positions.tolist())
    assert len(set(few.nearest(queries, SIZE)[0][0].tolist())) == SIZE
    with pytest.raises(InputError, match="3001 hits"):
        few.nearest(queries, 3001)
    with pytest.raises(InputError, match="width"):
        few.nearest(queries[:, 1:], 3)


@pytest.mark.parametrize("brute", [True, False])
def test_multi_vector_search_ends_with_exact_scores(world, brute):
    store, questions, table = world
    few = Store(store.passages[:400])
    settings = ScannSettings(0, 0, 10) if brute else ScannSettings(60, 30, 300)
    index = build_index(MULTI, jnp.asarray(table), few, settings=settings, buckets=BUCKETS)
    assert len(index.owners) == few.lengths.sum()
    rows, scores = scann_search(
        index, MULTI, jnp.asarray(table), few, questions, 10, neighbours=100, candidates=150, **SEARCH
    )
    exact = brute_force(MULTI, table, questions, few.passages)
    np.testing.assert_allclose(np.take_along_axis(exact, rows, 1), scores, rtol=1e-4, atol=1e-4)
    assert overlap(rows, np.argsort(-exact, axis=1)[:, :10]) >= 0.9
    # All passages, own ones aside, when so many are asked for: the candidates are widened until they suffice.
    own = exact.argmax(1)
    rows, scores = scann_search(
        index, MULTI, jnp.asarray(table), few, questions[:5], 399, exclude=own[:5], neighbours=3, **SEARCH
    )
    exact[np.arange(40), own] = -np.inf
    assert_best(rows, scores, exact[:5], 399)


def test_restricted_index(world):
    store, questions, table = world
    allowed = np.arange(SIZE) % 50 == 7
    index = build_index(DENSE, jnp.asarray(table), store, allowed=allowed, buckets=BUCKETS)
    assert index.settings.leaves == 0
    rows, _ = scann_search(index, DENSE, jnp.asarray(table), store, questions, 60, **SEARCH)
    assert (np.sort(rows, 1) == np.flatnonzero(allowed)).all()
    with pytest.raises(InputError, match="61 passages a question"):
        scann_search(index, DENSE, jnp.asarray(table), store, questions, 61, **SEARCH)


def test_saved_index(world, dense_index, tmp_path):
    dense_index.save(tmp_path / "built")
    (tmp_path / "built").rename(tmp_path / "moved")
    loaded = ScannIndex.load(tmp_path / "moved", model="weights-1", corpus="corpus")
    queries = np.random.default_rng(0).normal(size=(7, WIDTH)).astype(np.float32)
    for mine, other in zip(dense_index.nearest(queries, 20), loaded.nearest(queries, 20), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert loaded.settings == TREE and loaded.kind == "dense"
    for wrong in ({"model": "weights-2"}, {"corpus": "another"}):
        with pytest.raises(InputError, match="built for another"):
            ScannIndex.load(tmp_path / "moved", **wrong)
    # A pickle laid beside the files must not be opened.
    odd = tmp_path / "moved" / "scann" / "scann_docids.pkl"
    odd.write_bytes(b"x")
    with pytest.raises(InputError, match=r"scann_docids\.pkl.*not of the index"):
        ScannIndex.load(tmp_path / "moved")
    odd.unlink()
    part = tmp_path / "moved" / "scann" / "hashed_dataset.npy"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"hashed_dataset\.npy.*altered"):
        ScannIndex.load(tmp_path / "moved")


def test_what_does_not_go_together(world, dense_index):
    store, questions, table = world
    with pytest.raises(InputError, match="kind 'dense', not 'multi_vector'"):
        scann_search(dense_index, MULTI, jnp.asarray(table), store, questions, 3)
    with pytest.raises(InputError, match="not finite"):
        build_index(DENSE, jnp.asarray(table) * np.nan, store)
    with pytest.raises(InputError, match="0 vectors"):
        build_index(DENSE, jnp.asarray(table), store, allowed=np.zeros(SIZE, bool))


def test_too_many_vectors(world, monkeypatch):
    store, _, table = world
    monkeypatch.setattr(index, "MAX_VECTORS", 2999)
    with pytest.raises(InputError, match="3000 vectors where ScaNN takes at most 2999"):
        build_index(DENSE, jnp.asarray(table), store)


@pytest.mark.parametrize("size", [10, 9_999, 10_000, 1_000_000, 400_000_000])
def test_settings_follow_the_size(size):
    settings = ScannSettings.for_size(size, 100)
    assert (settings.leaves == 0) == (size < 10_000)
    if settings.leaves:
        assert abs(settings.leaves - size**0.5) <= 1
        assert 40 <= settings.probes <= settings.leaves and settings.reorder == 400


def test_refresh_through_scann(world, tmp_path):
    store, questions, table = world
    few = Store(store.passages[:300])
    own = np.arange(40)
    refresher = Refresher(
        tmp_path, questions, few, MULTI, 5, backend="scann", own=own, settings=ScannSettings(0, 0, 10), **SEARCH
    )
    refresher.start(1, jnp.asarray(table), 0)
    rows = refresher.wait().rows
    expected = exact_search(MULTI, jnp.asarray(table), few, questions, 5, exclude=own, **SEARCH)[0]
    assert overlap(rows, expected) >= 0.9
    assert [p.name for p in tmp_path.iterdir()] == ["lists-000000"]
    assert PassageLists.load(tmp_path / "lists-000000", corpus="corpus").step == 1


def test_importing_the_package_leaves_tensorflow_out():
    code = "import sys; import class_jax.refresh.refresher, class_jax.retrieval.bm25; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
