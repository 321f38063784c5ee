# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The user's class: answers equal those of the parts, whatever the batches; bad input is refused or told."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import tiny_run
from tiny_model import CONFIG, random_params

from class_jax import CLASS, Answer, Searcher
from class_jax.corpus.store import build_store
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.models import ModelConfig, inference
from class_jax.models.encode import embed_passages

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
    # Questions of two padded lengths, passages of one or two: not one shape for each question.
    assert 2 <= shapes[1] - before[1] <= 3
    model.answer([*reversed(QUESTIONS), "Asla", "the river of Celte"], store, **settings)
    assert [function._cache_size() for function in compiled] == shapes


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
    with pytest.raises(InputError, match="no config"):
        CLASS.from_run(tmp_path)


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
