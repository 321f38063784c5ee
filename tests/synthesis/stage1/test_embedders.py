# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Sentence embedders: the offline default, the mT5 encoder against transformers', and sentence-transformers by extra."""

import sys
import types

import numpy as np
import pytest
import tiny_model
import tiny_run

from class_jax.checkpoints.pretrained import save_pretrained
from class_jax.errors import InputError
from class_jax.synthesis.stage1.embedders import (
    EmbedderConfig,
    LinkEmbedder,
    SimcseEmbedder,
    numbers_in,
    open_embedder,
)

SENTENCES = ["Asla is a town on the river Onar", "Its people are fond of soup.", "The market", "The river Pesk"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_run.write_vocabulary(folder / "vocabulary.model")
    save_pretrained(folder / "model", tiny_model.random_params(), tiny_model.CONFIG, folder / "vocabulary.model")
    return folder / "model"


def test_links_speak_of_meaning_across_scripts():
    english = ["He was born in 1945 in Falun.", "He died in Stockholm."]
    arabic = ["وتوفي في ستوكهولم.", "ولد عام ١٩٤٥ في فالون."]
    embedder = LinkEmbedder()
    one = embedder.embed(english, "en", [["Falun"], ["Stockholm"]])
    two = embedder.embed(arabic, "ar", [["Stockholm"], ["Falun", "Sweden"]])
    similarity = one @ two.T
    assert one.dtype == np.float32 and similarity.shape == (2, 2)
    assert similarity[0, 1] > 0.5 > 0.1 > similarity[0, 0]
    assert similarity[1, 0] > 0.5 > 0.1 > similarity[1, 1]
    # Without links the numbers are left.
    unlinked = embedder.embed(english, "en") @ embedder.embed(arabic, "ar").T
    assert unlinked[0, 1] > 0.3 and abs(unlinked[1, 0]) < 0.1


def test_vectors_have_length_one_or_none():
    vectors = LinkEmbedder(512).embed(["Falun 1945", "ఫలూన్", ""], "te", [[], [], []])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1.0, 0.0, 0.0], atol=1e-6)
    assert LinkEmbedder().embed([], "fi").shape == (0, 2048)
    again = LinkEmbedder(512).embed(["Falun 1945"], "te")
    np.testing.assert_array_equal(again[0], vectors[0])


def test_numbers_of_all_scripts():
    assert numbers_in("১৯৪৫, ١٢٨٨ and 12.345,5") == ["1945", "1288", "12345.5"]
    assert numbers_in("37 291 / 37,291 / 37’291") == ["37291"] * 3
    assert numbers_in("3,14 and 1 2 3") == ["3.14", "1", "2", "3"]


@pytest.mark.torch
def test_the_whole_encoder_mean_pooled_as_transformers_has_it(folder):
    import torch
    import transformers

    embedder = SimcseEmbedder(str(folder), batch=3, max_tokens=24)
    vectors = embedder.embed(SENTENCES, "en")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    reference = transformers.MT5EncoderModel.from_pretrained(folder).eval()
    for sentence, vector in zip(SENTENCES, vectors, strict=True):
        ids = [*embedder._vocabulary.encode(sentence)[:23], 1]
        with torch.inference_mode():
            states = reference(torch.tensor([ids])).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(vector, states / np.linalg.norm(states), rtol=1e-4, atol=1e-5)


def test_a_batch_changes_no_vector_and_the_fingerprint_knows_the_weights(folder, tmp_path):
    one, many = (SimcseEmbedder(str(folder), batch=batch, max_tokens=24) for batch in (1, 4))
    np.testing.assert_allclose(one.embed(SENTENCES, "fi"), many.embed(SENTENCES, "en"), atol=2e-6)
    assert one.fingerprint == many.fingerprint and not one.uses_links
    assert many.embed([], "en").shape == (0, tiny_model.CONFIG.d_model)
    other = tmp_path / "other"
    save_pretrained(other, tiny_model.random_params(seed=2), tiny_model.CONFIG, folder / "spiece.model")
    assert SimcseEmbedder(str(other), batch=1, max_tokens=24).fingerprint != one.fingerprint
    (other / "spiece.model").unlink()
    with pytest.raises(InputError, match=r"spiece\.model: "):
        SimcseEmbedder(str(other))


def test_sentence_transformers_by_extra(monkeypatch):
    config = EmbedderConfig("sentence_transformers", "some/model")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    open_embedder.cache_clear()
    with pytest.raises(InputError, match=r"sentence-transformers.*class-jax\[torch\]"):
        open_embedder(config)

    class SentenceTransformer:
        def __init__(self, model):
            if model == "nowhere":
                raise OSError("no such model\nat all")

        def encode(self, sentences, batch_size, convert_to_numpy):
            assert batch_size == 128 and convert_to_numpy
            return np.array([[3.0, 4.0 * len(s)] for s in sentences])

    monkeypatch.setitem(
        sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=SentenceTransformer)
    )
    np.testing.assert_allclose(open_embedder(config).embed(["a"], "fi"), [[0.6, 0.8]], rtol=1e-6)
    with pytest.raises(InputError, match=r"^nowhere: EmbedderConfig\.model: "):
        open_embedder(EmbedderConfig("sentence_transformers", "nowhere"))
    open_embedder.cache_clear()


def test_settings_that_make_no_sense():
    with pytest.raises(InputError, match=r"EmbedderConfig\.kind: .*'links'"):
        EmbedderConfig("link")
    with pytest.raises(InputError, match=r"^EmbedderConfig\.model: "):
        EmbedderConfig("simcse")
    with pytest.raises(InputError, match=r"^EmbedderConfig\.model: "):
        EmbedderConfig(model="runs/simcse/model")
    with pytest.raises(InputError, match=r"EmbedderConfig\.\w+: .*1024"):
        LinkEmbedder(0)
