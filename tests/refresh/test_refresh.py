# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory_corpus import BUCKETS, MULTI, QUESTION_BUCKETS, VOCABULARY, WIDTH, Store, brute_force, texts

from class_jax.errors import InputError
from class_jax.models.encode import DualEncoder
from class_jax.refresh import lists, refresher
from class_jax.refresh.lists import NO_ROW, PassageLists, versions
from class_jax.refresh.refresher import Refresher
from class_jax.retrieval import exact

K = 5


class World:
    def __init__(self, folder):
        rng = np.random.default_rng(2)
        self.folder = folder
        self.store, self.questions = Store(texts(rng, 40, 12)), texts(rng, 9, 6)
        self.weights = [rng.normal(size=(VOCABULARY, WIDTH)).astype(np.float32) for _ in range(6)]
        # Every question has an own passage, the one that it likes best with the first weights, but the last.
        self.own = self.expected(0).argmax(1)
        self.own[-1] = -1

    def expected(self, step):
        return brute_force(MULTI, self.weights[step], self.questions, self.store.passages)

    def refresher(self, **settings):
        settings = {"own": self.own, "questions_fingerprint": "table", **settings}
        search = {"batch_passages": 16, "buckets": BUCKETS, "question_buckets": QUESTION_BUCKETS}
        encoder = settings.pop("encoder", MULTI)
        return Refresher(self.folder, self.questions, self.store, encoder, K, **settings, **search)

    def best(self, step):
        """Rows [B, K] by brute force, own passages left out."""
        scores = self.expected(step)
        asked = np.flatnonzero(self.own >= 0)
        scores[asked, self.own[asked]] = -np.inf
        return np.argsort(-scores, axis=1, kind="stable")[:, :K]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "lists")


def test_lists_are_made_in_the_background_from_the_weights_given(world):
    refresher = world.refresher()
    assert refresher.pending is None and refresher.current is None and not refresher.finished
    refresher.start(3, world.weights[3], 0)
    assert refresher.pending == (0, 3)
    made = refresher.wait()
    np.testing.assert_array_equal(made.rows, world.best(3))
    assert (made.version, made.step, made.corpus, made.questions) == (0, 3, "corpus", "table")
    assert refresher.current is made is refresher.wait() and refresher.pending is None
    assert not (made.rows == world.own[:, None]).any()


def test_training_continues_and_sees_only_whole_lists(world):
    go, seen = threading.Event(), []

    def passages(params, ids, lengths):
        jax.debug.callback(lambda: seen.append(threading.current_thread().name) or go.wait(10))
        return MULTI.passages(params, ids, lengths)

    refresher = world.refresher(encoder=DualEncoder(MULTI.questions, passages, "multi_vector"))
    world.refresher().adopt(PassageLists(world.best(0), np.zeros((9, K), np.float32), 0, 0, "corpus", "table"))
    refresher.restore(0)
    refresher.start(2, world.weights[2], 1)
    assert not refresher.finished and refresher.current.version == 0 and versions(world.folder) == [0]
    with pytest.raises(RuntimeError, match="version 1 are pending"):
        refresher.start(2, world.weights[2], 2)
    go.set()
    assert refresher.wait().version == 1 and versions(world.folder) == [0, 1] and seen


def test_a_resumed_run_adopts_what_it_published_before(world, monkeypatch):
    first = world.refresher()
    first.start(1, world.weights[1], 1)
    rows = np.array(first.wait().rows)
    monkeypatch.setattr(refresher, "exact_search", lambda *_, **__: pytest.fail("computed again"))
    second = world.refresher()
    second.start(1, world.weights[5], 1)
    assert second.pending == (1, 1) and second.finished and second.current is None
    np.testing.assert_array_equal(second.wait().rows, rows)
    with pytest.raises(InputError, match="made at step 1, not 2"):
        second.start(2, world.weights[2], 1)
    assert second.pending is None


def test_damaged_lists_are_made_again(world):
    first = world.refresher()
    first.start(1, world.weights[1], 1)
    first.wait()
    (world.folder / "lists-000001" / "rows.npy").write_bytes(b"x")
    second = world.refresher()
    with pytest.raises(lists.DamagedError):
        second.restore(1)
    second.start(1, world.weights[1], 1)
    np.testing.assert_array_equal(second.wait().rows, world.best(1))


def test_failure_while_publishing_leaves_the_old_lists(world, monkeypatch):
    refresher = world.refresher()
    refresher.start(0, world.weights[0], 0)
    old = refresher.wait()

    def broken(path, value):
        raise MemoryError("killed half-way")

    with monkeypatch.context() as patch:
        patch.setattr(lists, "write_json", broken)
        refresher.start(1, world.weights[1], 1)
        with pytest.raises(MemoryError, match="half-way"):
            refresher.wait()
    assert refresher.current is old and refresher.pending is None
    assert versions(world.folder) == [0]
    # The next attempt succeeds.
    refresher.start(1, world.weights[1], 1)
    assert refresher.wait().version == 1


def test_what_a_killed_process_left_is_cleared(world):
    half = world.folder / ".lists-000004.0123abcd.tmp"
    half.mkdir(parents=True)
    (half / "rows.npy").write_bytes(b"x")
    (world.folder / ".vectors-abc").mkdir()
    world.refresher()
    assert list(world.folder.iterdir()) == []


def test_old_versions_go_once_the_new_one_is_whole(world):
    refresher = world.refresher(protected=lambda: [1])
    for version in range(6):
        refresher.start(version, world.weights[version], version)
        assert refresher.wait().version == version
    assert versions(world.folder) == [1, 4, 5]
    # A run resumed from version 1 keeps what it uses.
    resumed = world.refresher(keep=1)
    resumed.restore(1)
    resumed.start(5, world.weights[5], 6)
    resumed.wait()
    assert versions(world.folder) == [1, 6]


def test_some_questions_only(world):
    refresher = world.refresher()
    refresher.start(0, world.weights[0], 0, rows=np.array([4, 2]))
    first = refresher.wait()
    assert (first.rows[:, 0] != NO_ROW).tolist() == [i in (2, 4) for i in range(9)]
    np.testing.assert_array_equal(first.rows[[4, 2]], world.best(0)[[4, 2]])
    refresher.start(1, world.weights[1], 1, rows=np.array([2, 8]))
    second = refresher.wait()
    np.testing.assert_array_equal(second.rows[[2, 8]], world.best(1)[[2, 8]])
    np.testing.assert_array_equal(second.rows[4], first.rows[4])
    np.testing.assert_array_equal(second.scores[4], first.scores[4])


def test_closing_stops_the_search(world, monkeypatch):
    begun, go = threading.Event(), threading.Event()

    def slow(*args, report, **_):
        begun.set()
        go.wait(10)
        report(1, 10)
        pytest.fail("the search was not stopped")

    monkeypatch.setattr(refresher, "exact_search", slow)
    with world.refresher() as opened:
        opened.start(0, world.weights[0], 0)
        begun.wait(10)
        threading.Timer(0.05, go.set).start()
    assert opened.pending is None and versions(world.folder) == []
    with pytest.raises(RuntimeError, match="no passage lists"):
        opened.wait()


def test_errors_of_the_search_arrive(world):
    refresher = world.refresher(allowed=np.arange(40) < 3)
    refresher.start(0, world.weights[0], 0)
    with pytest.raises(InputError, match="passages a question asked for where"):
        refresher.wait()


def test_the_mesh_in_context_reaches_the_thread(world):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    seen = []

    def passages(params, ids, lengths):
        seen.append(jax.sharding.get_abstract_mesh().axis_names)
        return MULTI.passages(params, ids, lengths)

    refresher = world.refresher(encoder=DualEncoder(MULTI.questions, passages, "multi_vector"))
    with jax.set_mesh(mesh):
        refresher.start(0, world.weights[0], 0)
    refresher.wait()
    assert set(seen) == {("data",)}


def test_a_second_refresh_compiles_nothing(world):
    refresher = world.refresher()
    refresher.start(0, jnp.asarray(world.weights[0]), 0)
    refresher.wait()
    before = exact._merge._cache_size()
    refresher.start(1, jnp.asarray(world.weights[1]), 1)
    np.testing.assert_array_equal(refresher.wait().rows, world.best(1))
    assert exact._merge._cache_size() == before


def test_lists_made_elsewhere(world):
    given = PassageLists(world.best(4), np.zeros((9, K), np.float32), 0, 0, "corpus", "table")
    refresher = world.refresher()
    np.testing.assert_array_equal(refresher.adopt(given).rows, given.rows)
    other = PassageLists(world.best(3), np.zeros((9, K), np.float32), 0, 0, "corpus", "table")
    np.testing.assert_array_equal(world.refresher().adopt(other).rows, given.rows)
    with pytest.raises(InputError, match="another corpus"):
        refresher.adopt(PassageLists(given.rows, given.scores, 7, 0, "elsewhere", "table"))
    with pytest.raises(InputError, match=r"not \(9, 5\)"):
        refresher.adopt(PassageLists(given.rows[:, :2], given.scores[:, :2], 7, 0, "corpus", "table"))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"backend": "exat"}, "did you mean 'exact'"), ({"keep": 0}, "keep"), ({"own": np.zeros(3, int)}, "exclude")],
)
def test_bad_settings(world, settings, problem):
    with pytest.raises(InputError, match=problem):
        world.refresher(**settings)
