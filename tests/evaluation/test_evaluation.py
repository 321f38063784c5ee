# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Metrics against the official scripts' values, and on cases small enough to count by hand."""

import json

import numpy as np
import pytest

from class_jax.errors import InputError
from class_jax.evaluation.passages import evaluate_passages, first_ranks, score_containment
from class_jax.evaluation.predictions import read_answers
from class_jax.evaluation.xor_full import evaluate_answers
from class_jax.evaluation.xor_retrieve import evaluate_retrieval
from class_jax.questions.readers import Question

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def official(golden):
    folder = golden / "eval"
    loaded = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    rows = loaded["questions"]
    questions = [Question(row["id"], row["question"], tuple(row["answers"]), row["lang"].strip()) for row in rows]
    return questions, loaded


def test_answers_score_as_the_official_script_says(official):
    questions, loaded = official
    measured = evaluate_answers(questions, loaded["predictions"])
    expected = {lang: row for lang, row in loaded["expected"]["xor_full"].items() if row["count"]}
    assert set(measured["languages"]) == set(expected) and len(expected) == 7
    for language, row in expected.items():
        assert measured["languages"][language]["count"] == row["count"]
        for name in ("f1", "em", "bleu"):
            assert measured["languages"][language][name] == pytest.approx(row[name], abs=TOLERANCE)
    means = [np.mean([row[name] for row in expected.values()]) for name in ("f1", "em", "bleu")]
    assert [measured["macro"][name] for name in ("f1", "em", "bleu")] == pytest.approx(means, abs=TOLERANCE)


def test_answer_recall_within_tokens_is_the_official_one(official):
    questions, loaded = official
    passages = {row["id"]: row["ctxs"] for row in loaded["retrieval_results"]}
    expected = loaded["expected"]["recall_at_tokens"]
    measured = evaluate_retrieval(questions, passages, [int(n) for n in expected], progress=False)
    for tokens, languages in expected.items():
        name = f"R@{tokens}t" if int(tokens) % 1000 else f"R@{int(tokens) // 1000}kt"
        for language, row in languages.items():
            assert measured["languages"][language]["count"] == row["count"]
            assert measured["languages"][language][name] == pytest.approx(row["hit"] / row["count"], abs=TOLERANCE)


QUESTIONS = [
    Question("a", "q", ("Paris",), "fi"),
    Question("b", "q", ("the Nile",), "fi"),
    Question("c", "q", ("東京",), "ja"),
]


def test_f1_and_exact_match():
    measured = evaluate_answers(QUESTIONS, {"a": "paris!", "b": "Nile river", "c": "大阪"})
    # "the" is an article only in English: {the, nile} and {nile, river} share one word of two.
    assert measured["languages"]["fi"]["f1"] == pytest.approx((1 + 0.5) / 2)
    assert measured["languages"]["ja"]["em"] == 0.0


def test_missing_predictions_count_as_wrong_and_are_named():
    measured = evaluate_answers(QUESTIONS, {"a": "Paris"})
    assert measured["missing"] == ["b", "c"]
    assert measured["languages"]["fi"]["em"] == 0.5
    assert any("without a prediction" in note for note in measured["notes"])


def test_predictions_for_unknown_questions_are_refused():
    with pytest.raises(InputError, match="zzz"):
        evaluate_answers(QUESTIONS, {"zzz": "Paris"})


def test_recall_by_passage_id():
    rows = np.array([[5, 1, 2], [7, 8, 9], [3, 4, 5]])
    gold = [{1}, {0}, {3}]
    np.testing.assert_array_equal(first_ranks(rows, gold), [2, np.inf, 1])
    measured = evaluate_passages(QUESTIONS, rows, gold, (1, 3))
    assert measured["languages"]["fi"]["R@1"] == 0.0 and measured["languages"]["fi"]["R@3"] == 0.5
    assert measured["macro"]["R@3"] == pytest.approx((0.5 + 1.0) / 2)
    assert measured["languages"]["fi"]["MRR"] == pytest.approx(0.25)
    with pytest.raises(InputError, match="fewer"):
        evaluate_passages(QUESTIONS, rows, gold, (1, 5))


def test_containment_in_the_questions_language_and_in_any():
    questions = [Question("fi-1", "q", ("Pariisi",), "fi"), Question("ja-1", "q", ("パリ",), "ja")]
    passages = {"fi-1": ["Tämä on パリ", "nothing"], "ja-1": ["nothing", "パリ です"]}
    macro = score_containment(questions, passages, (1, 2)).summary()
    assert macro["languages"]["fi"]["R^L@2"] == 0.0 and macro["languages"]["fi"]["R^M@1"] == 1.0
    assert macro["languages"]["ja"]["R^L@1"] == 0.0 and macro["languages"]["ja"]["R^L@2"] == 1.0


def test_prediction_files_are_checked(tmp_path):
    path = tmp_path / "predictions.json"
    path.write_text('{\n"a": "Paris",\n"a": "Rome"\n}', encoding="utf-8")
    with pytest.raises(InputError, match=r"predictions\.json:3: a: "):
        read_answers(path, QUESTIONS)
    path.write_text('{"a": ["Paris"]}', encoding="utf-8")
    with pytest.raises(InputError, match="a"):
        read_answers(path, QUESTIONS)
