# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The user's class: answers equal those of the parts, whatever the batches; bad input is refused or reported."""

import dataclasses
import logging
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny_run
from tiny_model import CONFIG, random_params

from class_jax import CLASS, Answer, Searcher, api
from class_jax.corpus.store import build_store
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.models import ModelConfig, answering, inference
from class_jax.models.encode import embed_passages
from class_jax.retrieval import exact
from class_jax.retrieval.exact import exact_search

pytestmark = pytest.mark.core

QUESTIONS = ["Which river flows through Asla?", "What does the market of Borun sell?", "bridge " * 20, "Falun"]
SETTINGS = dict(passages=3, languages="en", max_answer_tokens=4, progress=False)
TOLERANCE = dict(rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "spiece.model"
    tiny_run.write_vocabulary(path)
    return Vocabulary.load(path)


@pytest.fixture(scope="module")
def store(vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    tiny_run.write_passages(folder / "passages.tsv", tiny_run.passages())
    return build_store(folder / "passages.tsv", vocabulary, folder / "store", progress=False)


@pytest.fixture(scope="module")
def model(vocabulary):
    return CLASS(CONFIG, random_params(), vocabulary)


@pytest.fixture(scope="module")
def answers(model, store):
    return model.answer(QUESTIONS, store, **SETTINGS)


class InMemory:
    """An index of all passages' vectors, searched one pair at a time."""

    kind, retriever = "in memory", "multi_vector"

    def __init__(self, model, store, missing=0):
        encoder, params = inference.encoder(model.config), inference.retriever_params(model.params)
        found = embed_passages(encoder, params, *store.batch(np.arange(store.num_passages)))
        self.vectors, self.mask = np.asarray(found.vectors), np.asarray(found.mask)
        self.model, self.corpus, self.num_passages = model.retriever_fingerprint, store.fingerprint, store.num_passages
        self.missing = missing

    def search(self, vectors, mask, k):
        scores = np.einsum("bqk,mpk->bmqp", vectors, self.vectors)
        scores = np.where(self.mask[:, None], scores, -np.inf).max(-1)
        scores = np.where(mask[:, None], scores, 0).sum(-1)
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, rows, 1).astype(np.float32)
        if self.missing:
            rows[:, -self.missing :], scores[:, -self.missing :] = -1, -np.inf
        return rows, scores


def same(a: Answer, b: Answer):
    assert (a.question, a.answer) == (b.question, b.answer)
    np.testing.assert_allclose(a.log_probability, b.log_probability, **TOLERANCE)
    assert [p.id for p in a.passages] == [p.id for p in b.passages]
    for name in ("score", "attention"):
        left, right = ([getattr(p, name) for p in x.passages] for x in (a, b))
        np.testing.assert_allclose(left, right, **TOLERANCE)


def test_answers_have_all_that_was_promised(answers, store):
    assert [a.question for a in answers] == QUESTIONS
    assert len({a.answer for a in answers}) > 1 and all(a.log_probability < 0 for a in answers)
    for answer in answers:
        assert set(answer.timings) == {"retrieve", "read", "decode"} and min(answer.timings.values()) > 0
        assert len(answer.passages) == 3
        scores = [p.score for p in answer.passages]
        assert scores == sorted(scores, reverse=True)
        np.testing.assert_allclose(sum(p.attention for p in answer.passages), 1, rtol=1e-5)
        for passage in answer.passages:
            assert store.passage(store.row(passage.id)) == (passage.id, passage.text, passage.title)


def test_one_at_a_time_and_from_an_index_gives_the_same(model, store, answers):
    corpus = Searcher(store, InMemory(model, store))
    for expected in answers[:3]:
        same(model.answer([expected.question], corpus, **SETTINGS)[0], expected)


def test_passages_that_an_index_did_not_find_are_not_read(model, store, answers):
    fewer = model.answer(QUESTIONS[:2], store, **SETTINGS | {"passages": 2})
    padded = model.answer(QUESTIONS[:2], Searcher(store, InMemory(model, store, missing=1)), **SETTINGS)
    for a, b in zip(padded, fewer, strict=True):
        same(a, b)
    with pytest.raises(InputError, match="found no passage"):
        model.answer(QUESTIONS[:1], Searcher(store, InMemory(model, store, missing=3)), **SETTINGS)


def test_chunked_reading_equals_whole(model, store, answers, monkeypatch):
    monkeypatch.setattr(inference, "_READ_BYTES_CPU", 1)
    inference.reader.cache_clear()
    try:
        chunked = model.answer(QUESTIONS, store, **SETTINGS)
    finally:
        inference.reader.cache_clear()
    for a, b in zip(chunked, answers, strict=True):
        same(a, b)


def test_compiled_once_per_bucket(model, store):
    compiled = inference.reader(CONFIG), inference.decoder(CONFIG, 5, 1)
    settings = SETTINGS | {"batch": 1, "max_answer_tokens": 5}
    before = [function._cache_size() for function in compiled]
    model.answer(QUESTIONS, store, **settings)
    shapes = [function._cache_size() for function in compiled]
    # Questions of two or three padded lengths, passages of one: not one shape for each question.
    assert 1 <= shapes[1] - before[1] <= 3
    model.answer([*reversed(QUESTIONS), "Asla", "the river of Celte"], store, **settings)
    assert [function._cache_size() for function in compiled] == shapes


def test_timings_are_those_of_the_batch_by_question(vocabulary, store, monkeypatch):
    """A clock that moves only while the parts work: 8 s for the search, 6 s a batch to read, 10 s to decode."""
    now = [100.0]

    def taking(seconds, make):
        def made(*arguments):
            function = make(*arguments)

            def run(*given):
                now[0] += seconds
                return function(*given)

            return run

        return made

    def search(*arguments, **settings):
        now[0] += 8
        return exact_search(*arguments, **settings)

    monkeypatch.setattr(inference, "reader", taking(6, inference.reader))
    monkeypatch.setattr(inference, "decoder", taking(10, inference.decoder))
    monkeypatch.setattr(api, "exact_search", search)
    model = CLASS(CONFIG, random_params(), vocabulary, clock=lambda: now[0])
    found = model.answer(QUESTIONS, store, batch=2, **SETTINGS)
    assert [answer.timings for answer in found] == [{"retrieve": 2.0, "read": 3.0, "decode": 5.0}] * 4
    assert now[0] == 100 + 8 + 2 * (6 + 10)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_memory_that_a_batch_takes_is_known_exactly(dtype):
    config, (B, N, Q, P) = dataclasses.replace(CONFIG, dtype=dtype), (2, 3, 16, 32)
    ids = np.ones((B, Q), np.int32), np.full(B, 5, np.int32), np.ones((B, N, P), np.int32), np.full((B, N), 9, np.int32)
    memory = inference.reader(config)(random_params(), *ids)
    assert B * answering.memory_bytes(config, N, Q, P) == sum(array.nbytes for array in jax.tree.leaves(memory))


def test_a_batch_is_as_large_as_its_memory_allows(model, monkeypatch):
    tokens, one = [np.full(9, 5)] * 40, answering.memory_bytes(CONFIG, 10, 16, 64)

    def rows(held):
        monkeypatch.setattr(answering, "_MEMORY_BYTES_CPU", held)
        return len(answering.plan_batches(tokens, CONFIG, 10, 64).batches[0].ids)

    assert [rows(held) for held in (8 * one, 8 * one - 1, 2 * one, one - 1, 10**12)] == [8, 4, 2, 1, 16]


def test_a_plan_holds_every_question_once_in_few_shapes():
    rng = np.random.default_rng(0)
    tokens = [rng.integers(3, 99, n).astype(np.int32) for n in rng.integers(1, 51, 77)]
    planned = answering.plan_batches(tokens, CONFIG, 5, 130, rows=8)
    assert planned.passage_tokens == 160 and planned.count == 77
    assert {batch.ids.shape for batch in planned.batches} <= {(8, 16), (8, 32), (8, 50)}
    members = np.concatenate([batch.members for batch in planned.batches])
    assert sorted(members.tolist()) == list(range(77)) and len(planned.batches) == 10
    for batch in planned.batches:
        for place, i in enumerate(batch.members):
            assert batch.ids[place, : batch.lengths[place]].tolist() == tokens[i].tolist()
            assert not batch.ids[place, batch.lengths[place] :].any()


def test_a_question_is_batched_and_embedded_once(model, store, monkeypatch):
    plans, embedded = [], []
    monkeypatch.setattr(
        answering, "plan_batches", lambda *a, make=answering.plan_batches, **k: plans.append(1) or make(*a, **k)
    )
    monkeypatch.setattr(
        answering, "embed_batches", lambda *a, run=answering.embed_batches: embedded.append(1) or run(*a)
    )
    monkeypatch.setattr(exact, "embed_questions", None)
    model.answer(QUESTIONS, store, **SETTINGS)
    assert len(plans) == len(embedded) == 1


def test_an_explanation_adds_up_to_the_score_and_has_the_reader_s_attention(model, store, answers):
    asked = {"passages": 3, "language": "en"}
    for rank, passage in enumerate(answers[0].passages, start=1):
        why = model.explain(QUESTIONS[0], store, passage.id, **asked)
        assert (why.question, why.passage.id, why.rank) == (QUESTIONS[0], passage.id, rank)
        np.testing.assert_allclose(sum(match.score for match in why.matches), passage.score, rtol=1e-4)
        np.testing.assert_allclose([why.score, why.attention], [passage.score, passage.attention], rtol=1e-4)
        np.testing.assert_allclose(sum(match.share for match in why.matches), 1, rtol=1e-4)
        assert len(why.matches) == len(model.tokenise(QUESTIONS[:1], "en")[0])
    most = max(answers[0].passages, key=lambda p: p.attention).id
    assert model.explain(QUESTIONS[0], store, **asked).passage.id == most
    read = {passage.id for passage in answers[0].passages}
    other = next(store.id(row) for row in range(store.num_passages) if store.id(row) not in read)
    why = model.explain(QUESTIONS[0], store, other, **asked)
    assert (why.passage.id, why.rank, why.attention) == (other, None, None) and why.score < answers[0].passages[
        -1
    ].score
    with pytest.raises(InputError, match="nowhere-1"):
        model.explain(QUESTIONS[0], store, "nowhere-1")


def test_beams_and_bfloat16(model, store, answers):
    beams = model.answer(QUESTIONS, store, beams=3, **SETTINGS)
    assert all(b.answer for b in beams)
    assert sum(b.log_probability for b in beams) > sum(a.log_probability for a in answers) - 1e-3
    narrow = CLASS(model.config.__class__(**{**vars(CONFIG), "dtype": "bfloat16"}), model.params, model.vocabulary)
    assert narrow.retriever_fingerprint == model.retriever_fingerprint
    wide, short = (m.encode_questions(QUESTIONS[:1]).vectors[0] for m in (model, narrow))
    np.testing.assert_allclose(short, wide, atol=0.05 * np.abs(wide).max())


def test_a_folder_gives_the_model_back(model, store, answers, tmp_path):
    model.save_pretrained(tmp_path / "model")
    again = CLASS.from_pretrained(tmp_path / "model")
    assert again.fingerprint == model.fingerprint
    assert again.vocabulary.fingerprint == model.vocabulary.fingerprint
    same(again.answer(QUESTIONS[:1], store, **SETTINGS)[0], answers[0])


def test_a_long_question_is_cut_with_a_warning_that_names_it(model, caplog):
    with caplog.at_level(logging.WARNING):
        tokens = model.tokenise(["short", "very long " * 40], "en")
    assert len(tokens[1]) == 50 and "question 2 cut from" in caplog.text and "very long" in caplog.text
    assert "question 1" not in caplog.text


def test_typographic_marks_of_other_languages_are_normalised(model):
    plain, marks = model.tokenise(["don't"], "en"), ["don’t"]
    assert model.tokenise(marks, "fi")[0].tolist() == model.tokenise(marks)[0].tolist() == plain[0].tolist()
    assert model.tokenise(marks, "en")[0].tolist() != plain[0].tolist()


def test_bad_input(model, store, vocabulary, tmp_path):
    with pytest.raises(InputError, match="question 2: the question is empty"):
        model.answer(["a", " \t"], store)
    with pytest.raises(InputError, match="unknown language 'xx'"):
        model.answer(["a"], store, languages="xx")
    with pytest.raises(InputError, match="1 languages for 2 questions"):
        model.answer(["a", "b"], store, languages=["fi"])
    with pytest.raises(InputError, match="passages: is 0"):
        model.answer(["a"], store, passages=0)
    with pytest.raises(InputError, match="list of questions"):
        model.answer("a", store)
    assert model.answer([], store) == []
    with pytest.raises(InputError, match="has 380 pieces, but the model embeds 300"):
        CLASS(ModelConfig(**{**vars(CONFIG), "vocab_size": 300}), {}, vocabulary)
    with pytest.raises(InputError) as error:
        CLASS.from_pretrained(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_what_does_not_fit_is_refused(model, store, tmp_path):
    index = InMemory(model, store)
    other = CLASS(CONFIG, random_params(seed=2), model.vocabulary)
    with pytest.raises(InputError) as error:
        other.answer(["a"], Searcher(store, index))
    for fingerprint in (model.retriever_fingerprint, other.retriever_fingerprint):
        assert fingerprint[:12] in str(error.value)
    assert other.answer(["a"], Searcher(store, index, allow_other_weights=True), **SETTINGS)
    dense = CLASS(ModelConfig(**{**vars(CONFIG), "retriever": "dense"}), model.params, model.vocabulary)
    with pytest.raises(InputError, match="multi_vector retriever, but the model's is dense"):
        dense.answer(["a"], Searcher(store, index))
    index.corpus = "f" * 64
    with pytest.raises(InputError, match="corpus"):
        Searcher(store, index)
    tiny_run.write_vocabulary(tmp_path / "other.model", 370)
    stranger = CLASS(CONFIG, model.params, Vocabulary.load(tmp_path / "other.model"))
    with pytest.raises(InputError, match="made with the vocabulary"):
        stranger.answer(["a"], store)


def test_importing_the_package_stays_light():
    program = "import sys, class_jax; assert 'jax' not in sys.modules; class_jax.CLASS; assert 'jax' in sys.modules; "
    program += "assert not {'tensorflow', 'torch', 'transformers', 'scann'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
