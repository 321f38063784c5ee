# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The question table, the language sampler and the feed, over a real vocabulary and token store."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_feed
from tiny_feed import PASSAGES, RANKS, make_feed, make_lists, parallel_table

from class_jax.corpus.inputs import encode_answer, encode_passages, encode_question
from class_jax.corpus.vocabulary import train_vocabulary
from class_jax.errors import InputError
from class_jax.questions.readers import Question
from class_jax.questions.table import QuestionTable, Ragged
from class_jax.refresh.lists import PassageLists
from class_jax.training import feed as feeds
from class_jax.training.noise import add_noise
from class_jax.training.sampler import LanguageSampler, language_shares

world = tiny_feed.world  # a fixture


def assert_same(a, b):
    for key, x, y in zip(a._fields, a, b, strict=True):
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y, err_msg=key)
        else:
            assert x == y, key


class TestTable:
    def test_columns_are_the_questions(self, world):
        vocabulary, _, questions, table = world
        assert len(table) == 53 and table.languages == ("en", "fi", "ru")
        for row in (0, 7, 41, 52):
            q = questions[row]
            assert (table.id(row), table.text(row), table.language(row)) == (q.id, q.text, q.language)
            assert table.english(row) == (q.english or "")
            assert table.question_tokens[row].tolist() == encode_question(vocabulary, q.text, q.language)
            english = encode_question(vocabulary, q.english, "en") if q.english else []
            assert table.english_tokens[row].tolist() == english
            answers = [table.answer_tokens[i].tolist() for i in range(*table.answer_offsets[row : row + 2])]
            assert answers == [encode_answer(vocabulary, answer) for answer in q.answers]

    def test_any_change_changes_the_fingerprint(self, world):
        vocabulary, _, questions, table = world
        again = QuestionTable.from_questions(iter(questions), vocabulary)
        assert again.fingerprint == table.fingerprint
        changes = [
            questions[:-1],
            [*questions[:-1], Question("other", *_fields(questions[-1])[1:])],
            [*questions[:-1], Question(*_fields(questions[-1])[:2], ("x",), "en")],
        ]
        prints = {QuestionTable.from_questions(q, vocabulary).fingerprint for q in changes}
        own = QuestionTable.from_questions(questions, vocabulary, own_passages=[4] * 53).fingerprint
        assert len({table.fingerprint, own, *prints}) == 5

    def test_bad_input(self, world):
        vocabulary, _, questions, _ = world
        with pytest.raises(InputError, match="fi-0: duplicate question id"):
            QuestionTable.from_questions([questions[0], questions[0]], vocabulary)
        with pytest.raises(InputError, match="2 own passages for 53 questions"):
            QuestionTable.from_questions(questions, vocabulary, own_passages=[1, 2])

    def test_ragged_pads_cuts_and_takes_missing_rows(self):
        ragged = Ragged(np.arange(1, 7, dtype=np.int32), np.array([0, 1, 1, 6]))
        ids, lengths = ragged.padded(np.array([2, -1, 0, 1]), 3)
        assert ids.tolist() == [[2, 3, 4], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
        assert lengths.tolist() == [3, 0, 1, 0]


def _fields(q):
    return q.id, q.text, q.answers, q.language


class TestSampler:
    codes = np.repeat([0, 1, 2], [400, 100, 4])

    def test_language_shares_follow_the_formula(self):
        rows = LanguageSampler(self.codes, seed=1).draws(0, 20_000)
        observed = np.bincount(self.codes[rows]) / 20_000
        np.testing.assert_allclose(observed, np.array([20, 10, 2]) / 32, atol=0.003)
        np.testing.assert_allclose(language_shares([400, 100, 4]), np.array([20, 10, 2]) / 32)

    @pytest.mark.parametrize(("exponent", "weights"), [(1.0, [400, 100, 4]), (0.0, [1, 1, 1])])
    def test_other_exponents(self, exponent, weights):
        rows = LanguageSampler(self.codes, seed=1, exponent=exponent).draws(0, 50_000)
        np.testing.assert_allclose(np.bincount(self.codes[rows]) / 50_000, np.array(weights) / sum(weights), atol=0.003)

    def test_shares_hold_over_short_windows_without_being_periodic(self):
        sampler = LanguageSampler(self.codes, seed=1)
        languages = self.codes[sampler.draws(0, 64 * 200)].reshape(200, 64)
        first = (languages == 0).sum(axis=1)
        assert abs(first.mean() - 40) < 0.5
        assert 2 < first.std() < 5  # independent draws would give 3.9

    def test_each_epoch_of_a_language_is_a_fresh_permutation(self):
        rows = LanguageSampler(self.codes, seed=1).draws(0, 5_000)
        of_language = rows[self.codes[rows] == 1]
        epochs = of_language[: len(of_language) // 100 * 100].reshape(-1, 100)
        assert len(epochs) >= 10
        assert all(sorted(epoch) == list(range(400, 500)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == len(epochs)

    def test_any_step_without_replay(self):
        whole = LanguageSampler(self.codes, seed=5).draws(0, 7 * 700).reshape(700, 7)
        fresh = LanguageSampler(self.codes, seed=5)
        for step in (699, 0, 350, 146, 147):  # in any order; 146 crosses a block of 1024 draws
            np.testing.assert_array_equal(fresh.rows(step, 7), whole[step])
        assert fresh.rows(10**9, 7).shape == (7,)

    def test_seeds_differ(self):
        a, b = (LanguageSampler(self.codes, seed=s).draws(0, 100) for s in (1, 2))
        assert (a != b).any()

    def test_bad_settings(self):
        with pytest.raises(InputError, match="there is no question"):
            LanguageSampler(np.zeros(0, int), seed=0)
        with pytest.raises(InputError, match="seed -1 is negative"):
            LanguageSampler(self.codes, seed=-1)


class TestEndToEnd:
    def test_batch_is_what_its_questions_and_lists_say(self, world):
        vocabulary, store, questions, table = world
        lists = make_lists(store, table)
        feed = make_feed(world, lists)
        batch = feed.batch(4)
        assert all(x.dtype == np.int32 for x in batch[:6]) and batch[6:] == (None,) * 8
        for i, row in enumerate(feed.question_rows(4)):
            q = questions[row]
            expected = encode_question(vocabulary, q.text, q.language)
            assert batch.question_ids[i, : batch.question_lengths[i]].tolist() == expected
            assert not batch.question_ids[i, batch.question_lengths[i] :].any()
            answer = batch.answer_ids[i, : batch.answer_lengths[i]].tolist()
            assert answer in ([encode_answer(vocabulary, a) for a in q.answers] or [[]])
            for n in range(5):
                (passage,) = encode_passages(vocabulary, [store.passage(int(lists.rows[row, n]))])
                assert batch.passage_ids[i, n, : batch.passage_lengths[i, n]].tolist() == passage

    def test_questions_without_answers_have_answer_length_zero(self, world):
        vocabulary, _, questions, _ = world
        silent = [Question(q.id, q.text, (), q.language, q.english) for q in questions]
        batch = make_feed(world, table=QuestionTable.from_questions(silent, vocabulary)).batch(0)
        assert batch.answer_ids.shape == (8, 8)
        assert not batch.answer_lengths.any() and not batch.answer_ids.any()

    def test_every_answer_is_drawn(self, world):
        vocabulary, _, _, _ = world
        table = QuestionTable.from_questions([Question("1", "Who?", ("river", "talo"), "en")], vocabulary)
        batch = make_feed(world, table=table, batch_size=64).batch(0)
        drawn = {tuple(ids[:n]) for ids, n in zip(batch.answer_ids, batch.answer_lengths, strict=True)}
        assert drawn == {tuple(encode_answer(vocabulary, a)) for a in ("river", "talo")}

    def test_same_seed_same_batches_other_seed_others(self, world):
        a, b, c = make_feed(world), make_feed(world), make_feed(world, seed=4)
        for step in range(4):
            assert_same(a.batch(step), b.batch(step))
        assert (a.question_rows(0) != c.question_rows(0)).any()

    def test_own_passage_never_enters_its_row(self, world):
        vocabulary, store, questions, table = world
        rows = make_lists(store, table).rows
        own = rows[np.arange(len(table)), np.arange(len(table)) % 4]  # within the first five of each list
        synthetic = QuestionTable.from_questions(questions, vocabulary, own_passages=own)
        lists = PassageLists(rows, np.zeros(rows.shape, np.float32), 0, 0, store.fingerprint)
        feed = make_feed(world, lists, table=synthetic)
        taken = feed._passage_rows(np.arange(len(table)), lists)
        assert not (taken == own[:, None]).any()
        assert (taken == np.array([[r for r in row if r != o][:5] for row, o in zip(rows, own, strict=True)])).all()
        with pytest.raises(InputError, match="has 8 passages in its list, num_passages asks for 9"):
            make_feed(world, lists, table=synthetic, num_passages=9).batch(0)

    def test_too_few_passages_name_the_question(self, world):
        _, store, _, table = world
        lists = make_lists(store, table)
        lists.rows[17, 3:] = -1
        feed = make_feed(world, lists)
        step = next(s for s in range(100) if 17 in feed.sampler.rows(s, 8))
        with pytest.raises(InputError, match=r"question 'fi-17' has 3 passages .* asks for 5; make longer lists"):
            feed.batch(step)

    @pytest.mark.parametrize("buckets", [(16, 32, 50), (5, 20), (13, 14, 15, 50)])
    def test_pads_to_the_smallest_bucket(self, world, buckets):
        feed = make_feed(
            world, question_buckets=buckets, passage_buckets=(50, 100, 150, 200), batch_size=2, num_passages=1
        )
        shapes = set()
        for step in range(20):
            batch = feed.batch(step)
            longest = batch.question_lengths.max()
            assert batch.question_ids.shape[1] == min(b for b in buckets if b >= longest)
            longest = batch.passage_lengths.max()
            assert batch.passage_ids.shape[2] == min(b for b in (50, 100, 150, 200) if b >= longest)
            shapes.add(batch.passage_ids.shape)
        assert len(shapes) > 1

    def test_bucket_too_small(self, world):
        with pytest.raises(
            InputError, match=r"passage_buckets: \d+ tokens don't fit the largest bucket 20; add a bucket"
        ):
            make_feed(world, passage_buckets=(10, 20)).batch(0)

    def test_rows_between_are_the_rows_of_those_steps(self, world):
        feed = make_feed(world)
        expected = {int(r) for step in range(3, 9) for r in feed.question_rows(step)}
        assert set(feed.rows_between(3, 9).tolist()) == expected


class TestHosts:
    @pytest.mark.parametrize("stage", ["stage1", "end_to_end"])
    @pytest.mark.parametrize("hosts", [2, 4, 8])
    def test_slices_concatenate_to_the_whole(self, world, stage, hosts):
        settings = {"table": parallel_table(world), "stage": stage, "teacher": Overlap() if stage == "stage1" else None}
        whole = make_feed(world, **settings)
        parts = [make_feed(world, **settings, host_index=i, host_count=hosts) for i in range(hosts)]
        for step in (0, 11):
            slices = [part.batch(step) for part in parts]
            assert_same(jax.tree.map(lambda *x: np.concatenate(x), *slices), whole.batch(step))


class Overlap:
    """A teacher whose score names the text and the passage that it was for."""

    def scores(self, texts, rows):
        return np.array([[len(text) * 1000 + row for row in rows] for text in texts], np.float64)


class TestStage1:
    def test_english_first_then_parallel_over_shared_passages(self, world):
        vocabulary = world[0]
        table = parallel_table(world)
        feed = make_feed(world, table=table, stage="stage1", teacher=Overlap(), teacher_temperature=4.0)
        batch = feed.batch(2)
        assert batch.passage_ids.shape[:2] == (8, 5)
        asked = feed.question_rows(2)
        for i, row in enumerate(asked):
            english, other = ([*batch.question_ids[j, : batch.question_lengths[j]]] for j in (i, i + 8))
            assert english == encode_question(vocabulary, table.english(row), "en")
            assert other == encode_question(vocabulary, table.text(row), table.language(row))
        for answers in (batch.answer_ids, batch.answer_lengths):
            np.testing.assert_array_equal(answers[:8], answers[8:])
        rows = feed._passage_rows(asked, feed._lists_at(2)).ravel()
        lengths = [len(table.english(row)) for row in asked]
        expected = (np.array(lengths)[:, None] * 1000 + rows) / 4
        assert batch.teacher_scores.dtype == np.float32
        np.testing.assert_allclose(batch.teacher_scores, expected, rtol=1e-6)

    def test_bm25_is_a_teacher(self, world):
        bm25 = pytest.importorskip("class_jax.retrieval.bm25")
        pytest.importorskip("bm25s")
        teacher = bm25.BM25.from_store(world[1])
        batch = make_feed(world, table=parallel_table(world), stage="stage1", teacher=teacher).batch(0)
        assert batch.teacher_scores.shape == (8, 40) and (batch.teacher_scores > 0).any()

    def test_needs_english(self, world):
        with pytest.raises(InputError, match=r"question 'en-0' has no English \(nor have 2 others\)"):
            make_feed(world, stage="stage1")


class TestState:
    def test_resume_gives_the_same_batches_from_any_step(self, world):
        feed = make_feed(world)
        batches = [feed.batch(step) for step in range(6)]
        for stopped in (0, 3, 5):
            state = json.loads(json.dumps(feed.state(stopped)))
            resumed = make_feed(world)
            start = resumed.restore(state)
            assert start == stopped
            for step in range(start, 6):
                assert_same(resumed.batch(step), batches[step])
        assert feed.state()["step"] == 6

    def test_state_is_small(self, world):
        feed = make_feed(world)
        for version in range(1, 9):
            feed.batch(10 * version)
            feed.set_lists(make_lists(world[1], world[3], version))
        assert len(json.dumps(feed.state())) < 2000

    def test_a_switch_of_lists_is_replayed_at_its_step(self, world):
        _, store, _, table = world
        versions = [make_lists(store, table, v, seed=v) for v in (0, 1)]
        feed = make_feed(world, versions[0])
        feed.batch(0)
        assert feed.set_lists(versions[1], from_step=4) == 4
        batches = [feed.batch(step) for step in range(6)]
        assert [feed.lists_step(step) for step in (3, 4)] == [0, 1]
        assert feed.state(2)["lists"] == [[0, 0], [4, 1]] and feed.state(4)["lists"] == [[4, 1]]
        resumed = make_feed(world, None)
        assert resumed.restore(feed.state(2), versions.__getitem__) == 2
        for step in range(2, 6):
            assert_same(resumed.batch(step), batches[step])

    @pytest.mark.parametrize("change", [{"seed": 9}, {"batch_size": 16}, {"num_passages": 4}])
    def test_another_run_is_refused(self, world, change):
        (key,) = change
        with pytest.raises(InputError, match=f"feed.{key}: the saved run has"):
            make_feed(world, **change).restore(make_feed(world).state())

    @pytest.mark.parametrize(("stage", "number"), [("stage1", 1), ("end_to_end", 2)])
    def test_numbered_stages_of_older_checkpoints_are_understood(self, world, stage, number):
        feed = make_feed(world, table=parallel_table(world), stage=stage)
        assert feed.restore(feed.state(3) | {"stage": number}) == 3
        with pytest.raises(InputError, match=r"feed\.stage"):
            feed.restore(feed.state(3) | {"stage": 3 - number})

    def test_other_lists_are_refused(self, world):
        _, store, _, table = world
        with pytest.raises(InputError, match=r"feed\.lists: the saved run used versions"):
            make_feed(world, make_lists(store, table, version=1)).restore(make_feed(world).state())


class TestLists:
    def test_default_switch_is_the_next_unbuilt_step(self, world):
        _, store, _, table = world
        feed = make_feed(world)
        feed.batch(6)
        assert feed.set_lists(make_lists(store, table, 1)) == 7
        assert (feed.lists_step(6), feed.lists_step(7)) == (0, 1)
        with pytest.raises(InputError, match="the batch of step 6 is built already; use 7 or more"):
            feed.set_lists(make_lists(store, table, 2), from_step=6)

    def test_no_batch_mixes_versions(self, world):
        _, store, _, table = world
        rows = np.broadcast_to(np.arange(RANKS), (len(table), RANKS))
        lists = [PassageLists(rows + 20 * v, rows.astype(np.float32), v, v, store.fingerprint) for v in (0, 1)]
        feed = make_feed(world, lists[0], num_passages=1, batch_size=64)
        first = [store.batch([0], 200)[0][0], store.batch([20], 200)[0][0]]
        done = threading.Event()

        def switch():
            v = 0
            while not done.wait(0.001):
                v = 1 - v
                feed.set_lists(lists[v])

        thread = threading.Thread(target=switch)
        thread.start()
        try:
            for step in range(200):
                ids = feed.batch(step).passage_ids[:, 0]
                expected = first[feed.lists_step(step)][: ids.shape[1]]
                assert (ids == expected).all()
        finally:
            done.set()
            thread.join()

    def test_bad_lists(self, world):
        _, store, _, table = world
        feed = make_feed(world, None)
        with pytest.raises(InputError, match="step 0 has no passage lists"):
            feed.batch(0)
        good = make_lists(store, table)
        for fields, expected in [
            ((good.rows[:5], good.scores[:5], 0, 0, store.fingerprint), "of 5 questions for a table of 53"),
            ((good.rows[:, :4], good.scores[:, :4], 0, 0, store.fingerprint), "of 4 for num_passages 5"),
            ((good.rows, good.scores, 0, 0, "other"), "of another corpus"),
            ((good.rows, good.scores, 0, 0, store.fingerprint, "other"), "of another question table"),
        ]:
            with pytest.raises(InputError, match=expected):
                feed.set_lists(PassageLists(*fields))
        feed.set_lists(PassageLists(good.rows + PASSAGES, good.scores, 0, 0, store.fingerprint))
        with pytest.raises(InputError, match="in a store of 60 passages"):
            feed.batch(0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"stage": "stage3"}, "stage: unknown value 'stage3'; did you mean 'stage1'"),
        ({"batch_size": 0}, "batch_size: 0 is less than 1"),
        ({"num_passages": 0}, "num_passages: 0 is less than 1"),
        ({"host_count": 3}, "batch_size: 8 questions can't be split among 3 hosts"),
        ({"host_index": 1}, "host_index: host 1 of 1"),
        ({"answer_buckets": (8, 8)}, r"answer_buckets: \(8, 8\) is not an ascending list"),
        ({"teacher": Overlap()}, "teacher: only stage 1 has a teacher"),
        ({"teacher_temperature": 0}, "teacher_temperature: 0 is not positive"),
    ],
)
def test_bad_settings(world, settings, expected):
    with pytest.raises(InputError, match=expected):
        make_feed(world, **settings)


def test_another_vocabulary_is_refused(world, tmp_path):
    _, _, questions, _ = world
    other = train_vocabulary([q.text for q in questions], tmp_path / "o.model", 298)
    with pytest.raises(InputError, match="different vocabularies"):
        make_feed(world, None, table=QuestionTable.from_questions(questions, other))


class TestPrefetch:
    def test_keeps_the_order(self, world):
        feed, plain = make_feed(world), make_feed(world)
        stream = feeds.prefetch(feed, start=5, depth=3)
        for step in range(5, 12):
            assert_same(next(stream), plain.batch(step))
        stream.close()
        assert not [t for t in threading.enumerate() if t.name.startswith("feed")]

    def test_raises_an_error_in_its_turn(self, world):
        class Failing:
            def batch(self, step):
                if step == 2:
                    raise InputError("broken", key=str(step))
                return {"step": np.array(step)}

        stream = feeds.prefetch(Failing(), start=0)
        assert [int(next(stream)["step"]) for _ in range(2)] == [0, 1]
        with pytest.raises(InputError, match="2: broken"):
            next(stream)

    def test_runs_ahead_but_not_further_than_asked(self, world):
        built = []

        class Recording:
            def batch(self, step):
                built.append(step)
                return {}

        stream = feeds.prefetch(Recording(), start=0, depth=2)
        next(stream)
        stream.close()
        assert built in ([0], [0, 1], [0, 1, 2])


def test_imports_without_tensorflow():
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'seqio', 'tensorflow_datasets', 'transformers'): sys.modules[name] = None\n"
        "import class_jax.training.feed, class_jax.questions.readers, class_jax.questions.table\n"
    )
    root = Path(feeds.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_noise_keeps_every_token_in_order_and_fits():
    rng = np.random.default_rng(0)
    lengths = np.array([3, 12, 1, 11], np.int32)
    ids = np.where(np.arange(12) < lengths[:, None], rng.integers(100, 200, (4, 12)), 0).astype(np.int32)
    pieces = np.arange(10, 20, dtype=np.int32)
    noisy, longer = add_noise(ids, lengths, pieces, 3.0, np.random.default_rng(1))
    again, _ = add_noise(ids, lengths, pieces, 3.0, np.random.default_rng(1))
    np.testing.assert_array_equal(noisy, again)
    assert (longer >= lengths).all() and (longer <= 12).all() and longer[1] == 12 and (longer > lengths).any()
    for row in range(4):
        kept = [token for token in noisy[row, : longer[row]] if token >= 100]
        assert kept == ids[row, : lengths[row]].tolist()
        assert noisy[row, 0] == ids[row, 0] and (noisy[row, longer[row] :] == 0).all()
