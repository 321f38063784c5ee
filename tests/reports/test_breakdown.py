# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Scores by kind of question, on cases counted by hand and on the official made-up predictions."""

import json

import numpy as np
import pytest

from class_jax.errors import InputError
from class_jax.evaluation.scores import Scores
from class_jax.evaluation.xor_full import score_answers
from class_jax.questions.readers import Question, read_xor
from class_jax.reports.breakdown import (
    ANSWER_TYPES,
    EVIDENCE,
    answer_type,
    break_down,
    breakdown_table,
    evidence_groups,
    is_numerical,
    language_groups,
    numerical_groups,
    score_evidence,
    select,
    type_groups,
)

QUESTIONS = [
    Question("both", "q", ("中国",), "ja"),
    Question("english", "q", ("パリ",), "ja"),
    Question("target", "q", ("Kiina",), "fi"),
    Question("neither", "q", ("Oslo",), "fi"),
    Question("own", "q", ("Turku",), "fi"),
    Question("yes", "q", ("yes",), "fi"),
]
ENGLISH = {"both": ["China"], "english": ["Paris"], "target": ["China"], "neither": ["Oslo fjord"], "yes": ["yes"]}
PASSAGES = {"both": ["中国 is", "China"], "english": ["in Paris"], "target": ["on Kiina"], "own": ["Turku"]}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["yes"], "yes/no"),
        (["1867"], "year"),
        (["١٩٩٨"], "year"),
        (["1998年"], "year"),
        (["310,000"], "number"),
        (["-3.5 %"], "number"),
        (["$ 40"], "number"),
        (["三"], "number"),
        (["১২"], "number"),
        (["9999"], "number"),
        (["1867 to 1918"], "with digits"),
        (["15. toukokuuta 1990"], "with digits"),
        (["三重県"], "words"),
        (["!?"], "words"),
        (["", "Paris"], "words"),
        ([], "none"),
    ],
)
def test_answer_types(answers, expected):
    assert answer_type(answers) == expected and expected in ANSWER_TYPES
    assert is_numerical(answers) == (expected in ("year", "number", "with digits"))


def test_kinds_of_evidence():
    groups = evidence_groups(QUESTIONS, PASSAGES, ENGLISH, 100, "line")
    assert groups == dict(zip(("both", "english", "target", "neither"), EVIDENCE, strict=True))
    # Within one token of its passages, "both" has found only its Japanese answer.
    assert evidence_groups(QUESTIONS, PASSAGES, ENGLISH, 1, "line")["both"] == "target only"


def test_recall_by_language_of_the_answer():
    scores = score_evidence(QUESTIONS, PASSAGES, ENGLISH, (1, 3), "line")
    assert list(scores.ids) == ["both", "english", "target", "neither"] and list(scores.missing) == ["neither"]
    values = {name: list(column) for name, column in scores.values.items()}
    assert values["R@3t either"] == [1, 1, 1, 0]
    assert values["R@3t English"] == [1, 1, 0, 0] and values["R@3t target"] == [1, 0, 1, 0]
    assert values["R@1t English"] == [0, 0, 0, 0] and values["R@1t either"] == [1, 0, 0, 0]


def test_english_answers_of_other_questions_are_refused():
    with pytest.raises(InputError, match="English answer"):
        evidence_groups(QUESTIONS, PASSAGES, {"zzz": ["China"]}, 100, "line")


SCORES = Scores(["a", "b", "c", "d"], ["fi", "fi", "fi", "ja"], {"f1": np.array([1.0, 0.0, 0.5, 1.0])}, 2, ["b"])


def test_averages_by_group():
    parts = break_down(SCORES, {"a": "x", "b": "x", "d": "x", "c": "y"}, ("y", "x", "empty"))
    assert list(parts) == ["y", "x"]
    assert parts["x"] == {
        "count": 3,
        "share": 0.75,
        "languages": 2,
        "mean": {"f1": pytest.approx(2 / 3)},
        "macro": {"f1": pytest.approx((0.5 + 1.0) / 2)},
    }
    text = breakdown_table("By group", parts).markdown()
    assert "66.7" in text and "75.0" in text
    with pytest.raises(InputError, match="zzz"):
        break_down(SCORES, {"a": "x"}, ("zzz",))


def test_a_selection_keeps_what_belongs_to_it():
    part = select(SCORES, {"b", "d"})
    assert part.ids == ["b", "d"] and part.languages == ["fi", "ja"] and part.missing == ["b"]
    np.testing.assert_array_equal(part.values["f1"], [0.0, 1.0])


def test_languages_seen_and_given_types():
    questions = [Question("1", "q", ("x",), "zh_hk"), Question("2", "q", ("7",), "da")]
    assert [group.split()[1] for group in language_groups(questions, ("zh", "fi")).values()] == ["seen", "not"]
    assert type_groups(questions, {"1": "entity", "2": "number"}) == {"1": "entity", "2": "number"}
    with pytest.raises(InputError, match="2"):
        type_groups(questions, {"1": "entity"})


def test_groups_divide_the_whole(golden):
    folder = golden / "eval"
    rows = json.loads((folder / "questions.json").read_text(encoding="utf-8"))
    questions = [Question(row["id"], row["question"], tuple(row["answers"]), row["lang"].strip()) for row in rows]
    scores = score_answers(questions, json.loads((folder / "predictions.json").read_text(encoding="utf-8")))
    parts = break_down(scores, type_groups(questions), ANSWER_TYPES)
    assert sum(part["count"] for part in parts.values()) == len(scores.ids)
    whole = sum(part["mean"]["f1"] * part["share"] for part in parts.values())
    assert whole == pytest.approx(np.mean(scores.values["f1"]))


def test_real_answers_are_of_every_kind(real_data):
    path = real_data / "xor_retrieve" / "xor_train_retrieve_eng_span.jsonl"
    questions = list(read_xor(path))
    counts = {kind: 0 for kind in ANSWER_TYPES}
    for kind in type_groups(questions).values():
        counts[kind] += 1
    assert all(counts[kind] > 200 for kind in ("year", "number", "with digits", "words"))
    groups = list(numerical_groups(questions).values())
    assert 0.1 < groups.count("numerical") / len(groups) < 0.6
