# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Parts of a question file: languages, and samples that hold each other."""

import pytest

from class_jax.errors import InputError
from class_jax.questions import selection
from class_jax.questions.readers import Question
from class_jax.questions.selection import joined, of_languages

QUESTIONS = [Question(f"q{i}", f"text {i}", (f"a{i}",), ("fi", "ja", "te")[i % 3]) for i in range(30)]


def sample(*arguments, **settings):
    return list(selection.sample(*arguments, **settings))


def test_some_languages():
    assert [q.id for q in of_languages(QUESTIONS, ("fi", "te"))][:4] == ["q0", "q2", "q3", "q5"]
    with pytest.raises(InputError, match=r"languages: .*'fin'.*'fi'"):
        list(of_languages(QUESTIONS, ("fin",)))


def test_several_readers_one_after_the_other():
    parts = joined(QUESTIONS[5:], of_languages(QUESTIONS[:5], ("ja",)))
    for _ in range(2):
        assert [q.id for q in parts] == [*(q.id for q in QUESTIONS[5:]), "q1", "q4"]


def test_a_selection_is_drawn_anew_at_each_iteration():
    drawn = selection.sample(QUESTIONS, 4)
    assert len(list(drawn)) == 4 and list(drawn) == list(drawn)


def test_a_larger_sample_holds_a_smaller_one_in_whatever_order():
    few, more = sample(QUESTIONS, 4), sample(reversed(QUESTIONS), 12)
    assert len(few) == 4 and len(more) == 12 and set(few) < set(more)
    assert [q.id for q in few] == sorted((q.id for q in few), key=lambda id: int(id[1:]))
    assert set(sample(QUESTIONS, 4, seed=1)) != set(few)
    assert len(sample(QUESTIONS, 30)) == 30


def test_so_many_of_each_language():
    drawn = sample(QUESTIONS, 5, per_language=True)
    assert [sum(q.language == code for q in drawn) for code in ("fi", "ja", "te")] == [5, 5, 5]


def test_there_must_be_enough():
    with pytest.raises(InputError, match=r"count: .*11.*10.*'fi'"):
        sample(QUESTIONS, 11, per_language=True)
    with pytest.raises(InputError, match=r"count: .*0"):
        sample(QUESTIONS, 0)
    with pytest.raises(InputError, match="questions: "):
        sample([], 1)
