# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Cloze queries: what is masked, in which language, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from class_jax.questions.masking import LATIN_LANGUAGES, MASK, mask_other
from class_jax.questions.readers import TRAINING_LANGUAGES
from class_jax.synthesis.sources.entities import Entity
from class_jax.synthesis.stage1.cloze import ClozeQuery, cloze, cloze_queries, one_line


def entity(sentence, words, kind="GPE"):
    start = sentence.index(words)
    return Entity(start, start + len(words), kind)


def test_the_answer_is_masked_wherever_it_occurs():
    sentence = "Falun lies in Sweden, and Sweden's king was born in Falun."
    assert cloze(sentence, entity(sentence, "Sweden")) == "Falun lies in _X_, and _X_'s king was born in Falun."


@pytest.mark.parametrize(
    ("sentence", "answer"),
    [
        ("The Brazilian real is the money of Brazil.", "Brazil"),  # still to be seen in "Brazilian"
        ("Falun, 1945.", "Falun, 1945."),  # nothing is left
        ("1945: Falun", "Falun"),
        ("The _X_ of Falun", "Falun"),  # a mask that was there before
        ("In Falun  .", " "),
    ],
)
def test_what_gives_no_query(sentence, answer):
    start = sentence.rindex(answer)
    assert cloze(sentence, Entity(start, start + len(answer))) is None


def test_figures_within_other_figures_are_no_mention():
    sentence = "In 1945, 19 of 2.19 and 19,000 men left."
    assert cloze(sentence, Entity(9, 11)) == ("In 1945, _X_ of 2.19 and 19,000 men left.")


@pytest.mark.parametrize(
    ("language", "text", "answer", "expected"),
    [
        ("fi", "Matka Helsinkiin vie Helsinki-Vantaalle.", "Helsinki", "Matka _X_in vie _X_-Vantaalle."),
        ("de", "Im Jahr 1945 kamen 19 von 19.000.", "19", "Im Jahr 1945 kamen _X_ von 19.000."),
        ("es", "Suecia tiene una ciudad.", "Sweden", "Suecia tiene una ciudad."),
        ("ja", "1945年にNATOへ", "NATO", "1945年にNATOへ"),  # not in Latin script: unchanged, as in footnote 2
        ("ru", "В 1945 году", "1945", "В 1945 году"),
        ("fr", "a.b et a+b", "a.b", "_X_ et a+b"),  # a string, not a pattern
    ],
)
def test_the_other_language(language, text, answer, expected):
    assert mask_other(text, answer, language) == expected
    assert mask_other(expected, answer, language) == expected


def test_masks_in_the_text_stay():
    assert mask_other("_X_ ja X", "X", "fi") == "_X_ ja _X_"


def test_the_papers_languages_in_latin_script():
    assert set(TRAINING_LANGUAGES) & LATIN_LANGUAGES == {"de", "es", "fi", "fr", "it"}


def test_a_query_for_every_entity():
    english, other = "Falun  is in\tSweden since 1288.", "Falun on Ruotsissa\nvuodesta 1288."
    entities = [entity(english, "Falun"), entity(english, "Sweden"), entity(english, "1288", "DATE")]
    rejected = []
    assert cloze_queries(english, other, "fi", [*entities, entities[0]], rejected.append) == [
        ClozeQuery("_X_ is in Sweden since 1288.", "_X_ on Ruotsissa vuodesta 1288.", "Falun", "GPE"),
        ClozeQuery("Falun is in _X_ since 1288.", "Falun on Ruotsissa vuodesta 1288.", "Sweden", "GPE"),
        ClozeQuery("Falun is in Sweden since _X_.", "Falun on Ruotsissa vuodesta _X_.", "1288", "DATE"),
    ]
    assert rejected == ["repeated_answer"]
    assert cloze_queries("The town of Falun", "Falun", "fi", [Entity(12, 17)], rejected.append) == []
    assert rejected[1:] == ["only_the_answer"]


words = st.sampled_from(["Falun", "Sweden", "Swedish", "1945", "19", "a", "king", "of", ".", "Falun.", "19,000"])


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=1, max_size=9), st.data())
def test_masking_properties(parts, data):
    sentence = " ".join(parts)
    place = data.draw(st.integers(0, len(parts) - 1))
    start = len(" ".join(parts[:place])) + (place > 0)
    found = Entity(start, start + len(parts[place]))
    answer = sentence[found.start : found.end]
    masked = cloze(sentence, found)
    if masked is None:
        return
    assert masked.startswith(sentence[: found.start].split(answer)[0])
    assert masked.count(MASK) >= 1 and masked.replace(MASK, answer) == sentence
    assert answer not in masked.split()
    if not answer[0].isdigit():
        assert answer not in masked


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=30))
def test_one_line_is_a_cell(text):
    cell = one_line(text)
    assert not set(cell) & set("\t\n\r\0\v\f\x85\u2028\u2029") and cell == cell.strip() and "  " not in cell
    assert one_line(cell) == cell
