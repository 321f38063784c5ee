# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
import collections
import json
import math

import numpy as np
import pytest

from class_jax.errors import InputError
from class_jax.retrieval.bm25 import BM25, Tokeniser

TEXTS = [
    "Helsinki is the capital of Finland",
    "Tampere lies in Finland between two lakes; Finland has many lakes",
    "東京は日本の首都である",
    "서울은 대한민국의 수도이다",
    "తెలుగు భాష ఆంధ్ర ప్రదేశ్ రాష్ట్ర భాష",
    "The Nile is a river in Africa",
    "",
]


@pytest.fixture(scope="module")
def index():
    return BM25.build(TEXTS, progress=False, corpus="c0")


def by_formula(query, texts, k1=0.9, b=0.4):
    """BM25 with Lucene's idf, written out."""
    split = Tokeniser()
    passages = [split(text) for text in texts]
    mean = sum(map(len, passages)) / len(passages)
    scores = []
    for passage in passages:
        counts, score = collections.Counter(passage), 0.0
        for term in split(query):
            holding = sum(term in other for other in passages)
            idf = math.log(1 + (len(passages) - holding + 0.5) / (holding + 0.5))
            score += idf * counts[term] / (counts[term] + k1 * (1 - b + b * len(passage) / mean))
        scores.append(score)
    return np.array(scores)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The Rivers, of FINLAND!", ["rivers", "finland"]),
        ("２０１０年に東京", ["2010", "年に", "に東", "東京"]),
        ("한국은", ["한국", "국은"]),
        ("ภาษาไทย", ["ภา", "าษ", "ษา", "าไ", "ไท", "ทย"]),
        ("తెలుగు భాష", ["తెలుగు", "భాష"]),
        ("বাংলা ভাষা", ["বাংলা", "ভাষা"]),
        ("क्षेत्र", ["क्षेत्र"]),
        ("می‌شود", ["میشود"]),
        ("Åland Äiti", ["åland", "äiti"]),
        ("x日", ["x", "日"]),
        ("  ...  ", []),
    ],
)
def test_terms_of_each_script(text, terms):
    assert Tokeniser()(text) == terms


def test_stemming_and_stop_words_are_settings():
    assert Tokeniser(stem=True)("the running rivers 日本 Русские") == ["run", "river", "日本", "русские"]
    assert Tokeniser(stopwords=False)("the river") == ["the", "river"]


def test_search_agrees_with_the_formula(index):
    for query in ["Finland lakes lakes", "日本の首都", "수도 서울", "river", "భాష"]:
        expected = by_formula(query, TEXTS)
        rows, scores = index.search([query], len(TEXTS))
        np.testing.assert_allclose(scores[0], expected[rows[0]], rtol=1e-5)
        assert rows[0].tolist() == np.lexsort((np.arange(len(TEXTS)), -expected)).tolist()
    assert rows.dtype == np.int64 and scores.dtype == np.float32


def test_scores_of_given_rows_are_those_of_the_search(index):
    queries = ["Finland lakes lakes", "日本の首都", "unheard-of words", ""]
    rows, scores = index.search(queries, len(TEXTS))
    given = np.array([5, 0, 0, 6, 1, 2, 4, 3])
    picked = index.scores(queries, given)
    assert picked.shape == (4, 8) and picked.dtype == np.float32 and picked.any()
    for i in range(len(queries)):
        np.testing.assert_allclose(picked[i], scores[i, np.argsort(rows[i])][given], rtol=1e-6)
    with pytest.raises(InputError, match="rows"):
        index.scores(["x"], np.array([len(TEXTS)]))


def test_exclusion_and_restriction(index):
    allowed = np.array([True, True, True, False, True, True, True])
    rows, scores = index.search(
        ["Finland", "Seoul 서울은", "Finland"], 5, exclude=np.array([1, 3, -1]), allowed=allowed
    )
    assert 1 not in rows[0] and 3 not in rows and rows[2, 0] == 1 and rows[0, 0] == 0
    assert np.isfinite(scores).all()
    # Rows that share no term fill the list in row order.
    assert rows[1].tolist() == [0, 1, 2, 4, 5]
    with pytest.raises(InputError, match="6 passages a query asked for where 5"):
        index.search(["Finland"], 6, exclude=np.array([1]), allowed=allowed)
    with pytest.raises(InputError, match="allowed"):
        index.search(["Finland"], 1, allowed=allowed[1:])


def test_saved_index_gives_the_same_answers(index, tmp_path):
    index.save(tmp_path / "bm25")
    loaded = BM25.load(tmp_path / "bm25", corpus="c0")
    for mine, other in zip(
        index.search(["Finland 日本", "భాష"], 3), loaded.search(["Finland 日本", "భాష"], 3), strict=True
    ):
        np.testing.assert_array_equal(mine, other)
    assert json.loads((tmp_path / "bm25" / "manifest.json").read_text())["settings"]["k1"] == 0.9


def test_a_damaged_or_foreign_index_is_refused(index, tmp_path):
    index.save(tmp_path / "bm25")
    with pytest.raises(InputError, match="another corpus"):
        BM25.load(tmp_path / "bm25", corpus="c1")
    weights = tmp_path / "bm25" / "weights.npy"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(InputError, match=r"weights\.npy.*altered"):
        BM25.load(tmp_path / "bm25")
    with pytest.raises(InputError, match="no text"):
        BM25.build(["", "..."], progress=False)


def test_built_from_a_store():
    class Store:
        num_passages, fingerprint = 2, "f"

        def passage(self, row):
            return collections.namedtuple("P", "title text")(("Lahti", "Oulu")[row], "a city")

    built = BM25.from_store(Store(), progress=False)
    assert built.corpus == "f" and built.search(["oulu"], 1)[0].tolist() == [[1]]
