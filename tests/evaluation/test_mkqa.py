# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""MKQA: conversion of the public file's form, and its retrieval metrics on cases counted by hand."""

import gzip
import json

import pytest
from mkqa_records import RECORDS

from class_jax.errors import InputError
from class_jax.evaluation.mkqa import (
    UNSEEN_LANGUAGES,
    convert_mkqa,
    parallel_answers,
    read_types,
    score_mkqa_retrieval,
)
from class_jax.evaluation.passages import score_containment
from class_jax.evaluation.xor_full import evaluate_answers
from class_jax.evaluation.xor_retrieve import evaluate_retrieval
from class_jax.questions.readers import MKQA_LANGUAGES, Question, read_mkqa, read_xor

LANGUAGES = ("da", "en", "ja")


@pytest.fixture
def public(tmp_path):
    path = tmp_path / "mkqa.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as f:
        f.writelines(json.dumps(row) + "\n" for row in RECORDS)
    return path


def test_the_paper_averages_over_twenty_languages():
    assert len(UNSEEN_LANGUAGES) == 20 and set(UNSEEN_LANGUAGES) < set(MKQA_LANGUAGES)
    assert set(MKQA_LANGUAGES) - set(UNSEEN_LANGUAGES) == {"ar", "en", "fi", "ja", "ko", "ru"}


def test_the_public_file_becomes_xor_lines(public, tmp_path):
    assert convert_mkqa(public, tmp_path / "out", LANGUAGES) == {"da": 3, "en": 3, "ja": 3}
    rows = list(read_xor(tmp_path / "out" / "mkqa-da.jsonl"))
    assert [row.id for row in rows] == ["da-7", "da-8", "da-10"]
    assert rows[0].answers == ("Kina", "Folkerepublikken Kina") and rows[0].language == "da"
    lines = (tmp_path / "out" / "mkqa-ja.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["entity", "binary", "date"]
    assert read_types(public)["9"] == "unanswerable"


def test_unanswerable_questions_are_kept_on_request(public, tmp_path):
    assert convert_mkqa(public, tmp_path / "out", ("da",), keep_unanswerable=True) == {"da": 4}


def test_a_bad_line_leaves_nothing_behind(public, tmp_path):
    broken = tmp_path / "mkqa.jsonl"
    broken.write_text(json.dumps(RECORDS[0]) + "\n{", encoding="utf-8")
    with pytest.raises(InputError, match=r"mkqa\.jsonl:2"):
        convert_mkqa(broken, tmp_path / "out", LANGUAGES)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"languages: .*'dk'"):
        convert_mkqa(public, tmp_path / "out", ("dk",))


def test_retrieval_by_language_of_the_answer(public):
    questions = [q for q in read_mkqa(public, LANGUAGES) if q.id in ("da-7", "ja-7", "da-8", "da-10")]
    parallel = parallel_answers(read_mkqa(public, LANGUAGES))
    passages = {"da-7": ["one two three", "a b China d"], "ja-7": ["Landet er Kina", "x"], "da-10": ["born in 1998"]}
    scores = score_mkqa_retrieval(questions, passages, parallel, (3, 7), (1, 2), tokeniser="line")
    assert list(scores.ids) == ["da-7", "ja-7", "da-10"] and scores.left_out == 1  # yes/no is left out
    assert {name: list(values) for name, values in scores.values.items()} == {
        "R@3t": [0, 0, 1],
        "R@7t": [1, 0, 1],  # the English answer: "China" is the 6th token, and absent from ja-7's passages
        "R^L@1": [0, 0, 1],
        "R^L@2": [0, 0, 1],
        "R^M@1": [0, 1, 1],  # the Danish answer serves the Japanese question
        "R^M@2": [1, 1, 1],
    }
    own = score_mkqa_retrieval(questions, passages, parallel, (3,), (1,), answers_in="question", tokeniser="line")
    assert list(own.values["R@3t"]) == [0, 0, 1]
    everywhere = score_mkqa_retrieval(questions, passages, parallel, (3,), (1,), answers_in="any", tokeniser="line")
    assert list(everywhere.values["R@3t"]) == [0, 1, 1]
    notes = scores.summary()["notes"]
    assert any("'line'" in note for note in notes) and any("da en ja" in note for note in notes)


def test_it_agrees_with_the_metrics_of_one_language(golden):
    folder = golden / "eval"
    rows = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    questions = [Question(row["id"], row["question"], tuple(row["answers"]), row["lang"].strip()) for row in rows]
    passages = {
        row["id"]: row["ctxs"] for row in json.loads((folder / "retrieval_results.json").read_text(encoding="utf-8"))
    }
    mine = score_mkqa_retrieval(questions, passages, None, (200, 500), (1, 5), "question", "line").summary()
    tokens = evaluate_retrieval(questions, passages, (200, 500), "line", progress=False)
    depths = score_containment(questions, passages, (1, 5), "line").summary()
    for language, row in mine["languages"].items():
        assert row == {**tokens["languages"][language], **depths["languages"][language]}
    assert 0 < mine["macro"]["R@500t"] < 1


def test_missing_lists_count_as_wrong(public):
    questions = list(read_mkqa(public, ("en",)))
    scores = score_mkqa_retrieval(questions, {"en-7": ["China"]}, None, (2000,), (100,), tokeniser="line")
    assert list(scores.missing) == ["en-10"] and list(scores.values["R@2kt"]) == [1, 0]


def test_bad_arguments_are_named(public):
    questions = list(read_mkqa(public, ("da",)))
    with pytest.raises(InputError, match=r"da-10: .*'en'"):
        score_mkqa_retrieval(questions, {}, tokeniser="line")
    with pytest.raises(InputError, match="answers_in"):
        score_mkqa_retrieval(questions, {}, answers_in="english", tokeniser="line")
    with pytest.raises(InputError, match="at least 1"):
        score_mkqa_retrieval(questions, {}, at=(0,), tokeniser="line")


def test_answers_score_as_in_xor_full(public):
    pytest.importorskip("MeCab")
    questions = list(read_mkqa(public, ("da", "ja")))
    row = evaluate_answers(questions, {"da-7": "folkerepublikken", "ja-7": "中国", "da-8": "yes"})["languages"]
    # 2/(1+2) for one word of two, 1 for yes, 0 for the missing one.
    assert row["da"]["f1"] == pytest.approx((2 / 3 + 1) / 3) and row["ja"]["f1"] == pytest.approx(1 / 3)
