# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The evaluator: a configuration is a value, and answers are those of the user's class."""

import dataclasses

import numpy as np
import pytest
import tiny_corpus
from tiny_model import CONFIG, random_params

from class_jax.api import CLASS, Retrieved
from class_jax.questions.readers import Question
from class_jax.training.evaluator import EvaluationConfig, Evaluator

TEXTS = ["joki Asla", "tori Borun", "mika joki virtaa Celte Dimar Evosk Falun", "silta"]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return tiny_corpus.build_corpus(tmp_path_factory.mktemp("corpus"))


def questions():
    """A reader that can be read once."""
    yield from (Question(f"q{i}", text, ("Onar",), "fi") for i, text in enumerate(TEXTS))


def config(**changes):
    given = {"questions": questions(), "num_passages": 2, "max_answer_tokens": 3, "batch": 3}
    return EvaluationConfig(**given | changes)


def test_a_configuration_finds_its_questions_every_time(opened):
    once = config(recall_questions=questions(), recall_tokens=(100,))
    copied = dataclasses.replace(once, batch=2)
    for given in (once, once, copied):
        evaluator = Evaluator(given, CONFIG, *opened, None)
        assert [question.text for question in evaluator.questions] == TEXTS
        assert len(evaluator.recall_questions) == len(TEXTS)


def test_questions_are_not_read_before_they_are_asked_for():
    read = []

    def reader():
        read.append(1)
        yield from questions()

    given = config(questions=reader())
    assert not read
    assert len(list(given.questions)) == len(list(given.questions)) == len(TEXTS) and read == [1]


def test_answers_are_those_of_the_user_s_class_in_order(opened):
    vocabulary, store = opened
    evaluator, params = Evaluator(config(), CONFIG, vocabulary, store, None), random_params()
    rows = np.array([[0, 5], [9, 2], [30, 31], [7, 40]])
    scores = np.zeros((4, 2), np.float32)
    found = evaluator.answer(params, rows, scores)
    model = CLASS(CONFIG, params, vocabulary)
    expected = dict(model.read(TEXTS, Retrieved(rows, scores, 0.0, evaluator.tokens), store, max_answer_tokens=3))
    assert found.texts == [expected[i].answer for i in range(4)]
    wanted = [expected[i].log_probability for i in range(4)]
    np.testing.assert_allclose(found.log_probabilities, wanted, atol=1e-5)
    attention = [[passage.attention for passage in expected[i].passages] for i in range(4)]
    np.testing.assert_allclose(found.passage_attention, attention, atol=1e-5)
    some = evaluator.answer(params, rows, scores, np.array([3, 1]))
    assert some.texts == [found.texts[3], found.texts[1]] and some.rows.tolist() == [[7, 40], [9, 2]]
