# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Exact search at its edges: short lists, broken vectors, equal scores, layout of questions, shards, progress."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from memory_corpus import DENSE, MULTI, Store, assert_best, brute_force, mask_of, mean_vectors, texts, token_vectors

from class_jax.errors import InputError
from class_jax.models.encode import DualEncoder, Vectors, encode_questions
from class_jax.retrieval import exact
from class_jax.retrieval.exact import exact_search

WIDTH = 3


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(5)
    return Store(texts(rng, 11, 2)), texts(rng, 7, 2), rng.normal(size=(40, WIDTH)).astype(np.float32)


def search(encoder, table, store, questions, k, **settings):
    settings = {"batch_passages": 4, "buckets": (2,), "question_buckets": (2,), "progress": False, **settings}
    return exact_search(encoder, jnp.asarray(table), store, questions, k, **settings)


def test_short_lists_are_filled(world):
    store, questions, table = world
    allowed = np.zeros(11, bool)
    allowed[[2, 5, 9]] = True
    own = np.array([-1, 5, 2, 9, 0, -1, -1])
    rows, scores = search(MULTI, table, store, questions, 5, allowed=allowed, exclude=own, fill=True)
    expected = brute_force(MULTI, table, questions, store.passages)
    for b in range(7):
        left = [row for row in (2, 5, 9) if row != own[b]]
        order = sorted(left, key=lambda row: -expected[b, row])
        assert rows[b].tolist() == order + [-1] * (5 - len(order))
        np.testing.assert_allclose(scores[b, : len(order)], expected[b, order], rtol=1e-5)
        assert np.isneginf(scores[b, len(order) :]).all()
    assert rows.dtype == np.int64 and scores.dtype == np.float32


def test_nothing_may_be_retrieved(world):
    store, questions, table = world
    for asked, allowed in ((questions, np.zeros(11, bool)), ([], None)):
        rows, scores = search(MULTI, table, store, asked, 3, allowed=allowed, fill=True)
        assert rows.shape == scores.shape == (len(asked), 3)
        assert (rows == -1).all() and np.isneginf(scores).all()
        assert rows.dtype == np.int64 and scores.dtype == np.float32


def test_rows_beyond_32_bits_are_refused(world, monkeypatch):
    store, _, table = world
    monkeypatch.setattr(exact, "_NO_ROW", 12)
    assert search(MULTI, table, store, [], 3)[0].shape == (0, 3)
    monkeypatch.setattr(exact, "_NO_ROW", 11)
    with pytest.raises(InputError, match="32-bit"):
        search(MULTI, table, store, [], 3)


@pytest.mark.parametrize(("batch", "chunk", "at_once"), [(4, 1, 2), (4, 2, 1), (5, 3, 4), (1, 4, 8)])
def test_layout_of_questions_changes_nothing(world, monkeypatch, batch, chunk, at_once):
    """Many groups whose members are not in order, filler questions and whole calls of filler; own passages stay out."""
    store, questions, table = world
    questions = [questions[i] for i in (1, 0, 3, 2, 5, 4, 6)]
    lengths = np.array([len(q) for q in questions])
    assert len(set(lengths)) == 2 and (np.diff(lengths) < 0).any()
    monkeypatch.setattr(exact, "_EMBED_QUESTIONS", at_once)
    monkeypatch.setattr(exact, "_MAX_GROUP", batch)
    expected = brute_force(MULTI, table, questions, store.passages)
    own = expected.argmax(1)
    own[2] = -1
    rows, scores = search(
        MULTI, table, store, questions, 4, exclude=own, batch_questions=chunk, question_buckets=(1, 2)
    )
    expected[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
    assert_best(rows, scores, expected, 4)


@pytest.mark.parametrize("encoder", [MULTI, DENSE], ids=["multi", "dense"])
def test_questions_given_as_vectors_find_the_same(world, monkeypatch, encoder):
    """Also where a call has fillers, and whatever the mask of dense vectors is."""
    store, questions, table = world
    monkeypatch.setattr(exact, "_MAX_GROUP", 4)
    given = encode_questions(encoder, jnp.asarray(table), questions, buckets=(2,))
    own = np.array([-1, 3, 5, -1, 0, 1, 2])
    expected = search(encoder, table, store, questions, 4, exclude=own, batch_questions=2)
    found = search(encoder, table, store, given, 4, exclude=own, batch_questions=2)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


def groups_of(encoder, table, count, *, passages=4, tokens=8, chunk=None):
    questions = [np.array([1, 2])] * count
    given = (encoder, jnp.asarray(table), questions, np.full(count, -1), (2,), tokens, passages, chunk)
    return exact._question_groups(*given)


@pytest.mark.parametrize(
    ("encoder", "pairs"), [(MULTI, 2 * 8), (DENSE, 4)], ids=["multi", "dense"]
)  # products of a question with a batch of passages
def test_memory_and_time_of_a_call_are_bounded(world, monkeypatch, encoder, pairs):
    table = world[2]
    monkeypatch.setattr(exact, "_CHUNK_BYTES_CPU", 4 * pairs * 2)  # two questions at once
    monkeypatch.setattr(exact, "_CALL_FLOPS", 2 * pairs * WIDTH * 2 * 4)  # and four such chunks in a call
    shapes = [group.exclude.shape for group in groups_of(encoder, table, 20)]
    assert shapes == [(4, 2), (4, 2), (2, 2)]
    monkeypatch.setattr(exact, "_CHUNK_BYTES_CPU", 4 * pairs * 2 - 1)
    monkeypatch.setattr(exact, "_CALL_FLOPS", 2 * pairs * WIDTH * 4 - 1)
    assert groups_of(encoder, table, 5)[0].exclude.shape == (2, 1)
    monkeypatch.setattr(exact, "_CALL_FLOPS", 0)
    assert groups_of(encoder, table, 5, chunk=4)[0].exclude.shape == (1, 4)
    monkeypatch.setattr(exact, "_MAX_GROUP", 4)
    monkeypatch.setattr(exact, "_CALL_FLOPS", 1e12)
    assert [len(group.members) for group in groups_of(encoder, table, 10, chunk=2)] == [4, 4, 2]
    assert [len(group.members) for group in groups_of(encoder, table, 10, chunk=8)] == [8, 2]
    assert groups_of(encoder, table, 3, chunk=8)[0].exclude.shape == (1, 4)  # no more than a power of two of them


def test_powers_of_two():
    assert [exact._floor_power(n) for n in (0, 0.5, 1, 1.9, 2, 3.9, 4, 1000)] == [1, 1, 1, 1, 2, 2, 4, 512]


def test_the_default_limits():
    assert (exact._CHUNK_BYTES, exact._CHUNK_BYTES_CPU) == (256 * 2**20, 8 * 2**20)
    assert (exact._CALL_FLOPS, exact._IN_FLIGHT, exact._EMBED_QUESTIONS, exact._MAX_GROUP) == (2e11, 2, 256, 16384)
    assert exact._NO_ROW == 2**31 - 1


def apart(questions, passages, kind="multi_vector"):
    """An encoder with vectors of its own for questions and passages: params are the pair of tables."""
    make = token_vectors if kind == "multi_vector" else mean_vectors
    return DualEncoder(lambda p, *a: make(p[0], *a), lambda p, *a: make(p[1], *a), kind), (questions, passages)


@pytest.mark.parametrize("kind", ["multi_vector", "dense"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1], ids=["questions", "passages"])
def test_one_broken_vector_is_noticed(kind, value, side):
    """Whatever is wrong with one text ends the search, with the first question that it concerns."""
    store = Store([np.array([i]) for i in range(1, 10)])
    tables = [np.ones((40, WIDTH), np.float32) for _ in range(2)]
    tables[0][:, 0], tables[1][:, 0] = 0.5, -3  # a broken passage must not hide at the end of a list
    tables[side][5, 1] = value
    encoder, params = apart(*tables, kind)
    questions = [np.array([i]) for i in (2, 3, 5)]
    named = "question 2" if side == 0 else "question 0"
    for fill in (False, True):
        with pytest.raises(InputError, match=f"{named}: .*not finite"):
            search(encoder, params, store, questions, 1, fill=fill)


@pytest.mark.parametrize("sign", [1, -1])
def test_scores_that_overflow_are_noticed(sign):
    # Without padding, which would win against scores below -1e9.
    store = Store([np.array([i, i]) for i in range(1, 10)])
    large = np.full((40, WIDTH), 1e30, np.float32)
    encoder, params = apart(large, sign * large)
    with pytest.raises(InputError, match=r"question 0: .*not finite"):
        search(encoder, params, store, [np.array([1, 1])], 2, fill=True)


def test_padding_may_hold_anything(world):
    store, questions, table = world

    def dirty(params, ids, lengths):
        mask = mask_of(ids, lengths)
        return jnp.where(mask[..., None], params[ids], jnp.nan), mask

    plain = search(MULTI, table, store, questions, 11)
    found = search(DualEncoder(dirty, dirty, "multi_vector"), table, store, questions, 11)
    np.testing.assert_array_equal(found[0], plain[0])
    np.testing.assert_allclose(found[1], plain[1], rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class Given:
    """Scores that are given: each passage's vector is its score."""

    kind = "dense"

    def score(self, questions, passages):
        return jnp.broadcast_to(passages.vectors[:, 0], (len(questions.vectors), len(passages.vectors)))


def merge(scores, at, best, own=(-1,)):
    """Merges scores of the passages `at` into the list of one chunk of questions."""
    questions = Vectors(jnp.ones((1, len(own), 1)), jnp.ones((1, len(own)), bool))
    passages = Vectors(jnp.asarray(scores, jnp.float32)[:, None], jnp.ones(len(scores), bool))
    found = exact._merge(Given(), questions, jnp.array([own]), passages, np.array(at, np.int32), best)
    return found[0][0].tolist(), found[1][0].tolist()


def test_a_broken_vector_counts_where_its_score_is_finite():
    """A maximum may lose a NaN: the vectors are checked too, each text's by itself."""
    empty = jnp.full((1, 2, 2), -jnp.inf), jnp.full((1, 2, 2), exact._NO_ROW, jnp.int32)
    mask, own = jnp.ones((1, 2), bool), jnp.full((1, 2), -1)
    good = Vectors(jnp.ones((1, 2, 1)), mask), Vectors(jnp.ones((3, 2)), jnp.ones(3, bool))
    at = np.arange(3, dtype=np.int32)

    def scores(questions, passages):
        return exact._merge(Given(), questions, own, passages, at, empty)[0][0].tolist()

    assert scores(*good) == [[1, 1], [1, 1]]
    assert scores(Vectors(good[0].vectors.at[0, 1, 0].set(jnp.nan), mask), good[1]) == [[1, 1], [np.inf, np.inf]]
    broken = Vectors(good[1].vectors.at[2, 1].set(jnp.inf), good[1].mask)
    assert scores(good[0], broken) == [[np.inf, 1], [np.inf, 1]]


def held(scores, rows):
    return jnp.array([scores], jnp.float32), jnp.array([rows], jnp.int32)


def test_merging():
    none, no_row = -np.inf, exact._NO_ROW
    empty = held([[none] * 3], [[no_row] * 3])
    assert merge([1, 3, 2, 4], [0, 1, 2, 3], empty) == ([[4, 3, 2]], [[3, 1, 2]])
    # Equal scores by row, in a batch and with those found before, whichever comes first.
    assert merge([2, 2, 2, 2], [4, 5, 6, 7], empty) == ([[2, 2, 2]], [[4, 5, 6]])
    assert merge([2, 2, 1, 1], [4, 5, 6, 7], held([[2, 2, 0]], [[1, 9, 0]])) == ([[2, 2, 2]], [[1, 4, 5]])
    # 0.0 and -0.0 are one score.
    assert merge([-0.0, 0.0, -0.0, 0.0], [0, 1, 2, 3], empty)[1] == [[0, 1, 2]]
    assert merge([0.0, 0.0, -1, -1], [4, 5, 6, 7], held([[-0.0, none, none]], [[3, no_row, no_row]]))[1] == [[3, 4, 5]]
    # Filler is nothing, row 0 is a passage, and negative scores count.
    assert merge([-5, 9, 9, 9], [0, -1, -1, -1], empty) == ([[-5, none, none]], [[0, no_row, no_row]])
    # Own passages are left out only for the question that they belong to.
    two = held([[none] * 3] * 2, [[no_row] * 3] * 2)
    assert merge([4, 3, 2, 1], [0, 1, 2, 3], two, own=(0, 2))[1] == [[1, 2, 3], [0, 1, 3]]
    # What is not finite wins, even over what was found before; as filler or own passage it is nothing.
    best = held([[8, 7, 6]], [[7, 8, 9]])
    for broken in (np.nan, np.inf, -np.inf):
        assert merge([1, broken, 1, 1], [0, 1, 2, 3], best)[0] == [[np.inf, 8, 7]]
        assert merge([1, broken, 1, 1], [0, -1, 2, 3], best)[0] == [[8, 7, 6]]
        assert merge([1, broken, 1, 1], [0, 1, 2, 3], best, own=(1,))[0] == [[8, 7, 6]]
    # Lists longer than a batch.
    longer = held([[none] * 6], [[no_row] * 6])
    assert merge([1, 3, 2, 4], [0, 1, 2, 3], longer) == ([[4, 3, 2, 1, none, none]], [[3, 1, 2, 0, no_row, no_row]])


def test_batches_are_no_larger_than_the_corpus(world):
    store, questions, table = world
    shapes = []

    def seen(params, ids, lengths):
        shapes.append(ids.shape)
        return token_vectors(params, ids, lengths)

    allowed = np.arange(11) < 3
    search(DualEncoder(token_vectors, seen, "multi_vector"), table, store, questions, 2, allowed=allowed)
    assert shapes == [(4, 2)]
    search(
        DualEncoder(token_vectors, seen, "multi_vector"), table, store, questions, 2, allowed=allowed, batch_passages=64
    )
    assert shapes[1:] in ([], [(4, 2)])  # [] where an encoder of equal functions was compiled before


def test_progress_and_waiting(world, monkeypatch, capsys):
    store, questions, table = world
    waited, done = [], []
    block = jax.block_until_ready
    monkeypatch.setattr(exact.jax, "block_until_ready", lambda x: (waited.append(x), block(x))[1])
    search(MULTI, table, store, questions, 3, report=lambda *counts: done.append(counts), progress=True)
    assert done == [(4, 11), (8, 11), (11, 11)] and len(waited) == 1
    assert "11/11" in capsys.readouterr().err
    search(MULTI, table, store, questions, 3)
    assert capsys.readouterr().err == ""


_SHARDED = """
import jax, numpy as np
import test_exact_edges as t
from memory_corpus import MULTI, Store, texts
assert len(jax.devices()) == 4
rng = np.random.default_rng(5)
store, questions = Store(texts(rng, 11, 2)), texts(rng, 7, 2)
table = rng.normal(size=(40, t.WIDTH)).astype(np.float32)
mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
over = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
embed, seen = t.exact.embed_passages, []
def watched(encoder, params, ids, lengths):
    seen.append((ids.shape, len(ids.sharding.device_set), ids.sharding.shard_shape(ids.shape)[0]))
    return embed(encoder, params, ids, lengths)
t.exact.embed_passages = watched
rows, scores = t.search(MULTI, table, store, questions, 11, sharding=over, batch_passages=5)
t.assert_best(rows, scores, t.brute_force(MULTI, table, questions, store.passages), 11)
assert set(seen) == {((8, 2), 4, 2)}, seen
"""


def test_sharded_over_four_devices():
    """Batches are rounded up to a multiple of the devices and spread over them; the lists are the same."""
    flags = f"{tiny_run.XLA_FLAGS} --xla_force_host_platform_device_count=4"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    folders = (tiny_run.REPOSITORY, tiny_run.SUPPORT, Path(__file__).parent)
    environment["PYTHONPATH"] = os.pathsep.join(map(str, folders))
    ran = subprocess.run([sys.executable, "-c", _SHARDED], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
