# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Entities by rules and by Stanza, and the types of pages."""

import itertools
import sys
import types

import linked_wiki
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from class_jax.errors import InputError
from class_jax.synthesis.sources.entities import (
    ENTITY_TYPES,
    Entity,
    EntityConfig,
    PageContext,
    RuleEntities,
    context_of,
    entity_type_of_page,
    open_finder,
    without_overlaps,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Tampere is a city in Pirkanmaa, southern Finland.", "GPE"),
        ("Finland is one of the Nordic countries.", "GPE"),
        ("Berlin (German: [bɛʁˈliːn]) is the capital and largest city of Germany by area.", "GPE"),
        ("The Amazon River in South America is the largest river by discharge.", "LOC"),
        ("Nuuksio is a national park west of Helsinki.", "LOC"),
        ("Hagia Sophia is a mosque and former church in Istanbul.", "FAC"),
        ("Nokia Corporation is a Finnish multinational telecommunications company.", "ORG"),
        ("The Beatles were an English rock band formed in Liverpool in 1960.", "ORG"),
        ("Albert Einstein (14 March 1879 – 18 April 1955) was a German-born theoretical physicist.", "PERSON"),
        ("Voltaire is a well-known person.", "PERSON"),
        ("Rihanna is a Barbados-born singer.", "PERSON"),
        ("Candide is a well-known creative work.", "WORK_OF_ART"),
        ("Ada Lovelace (1815–1852) was known for her work on an engine.", "PERSON"),
        ("Linus Torvalds (born December 28, 1969) is a Finnish-American software engineer.", "PERSON"),
        ("The Sami people are the indigenous people of northern Europe.", "NORP"),
        ("War and Peace is a novel by Leo Tolstoy.", "WORK_OF_ART"),
        ("World War I (28 July 1914 – 11 November 1918) was a global war.", "EVENT"),
        ("Telugu is a Dravidian language spoken by the Telugu people.", "LANGUAGE"),
        ("The Treaty of Paris was a treaty signed in 1763.", "LAW"),
        ("Python is a high-level programming language.", "PRODUCT"),
        ("The Airbus A320 is a series of airliners.", "PRODUCT"),
        ("Autism is a developmental disorder.", None),
        ("Mercury may refer to many things", None),
    ],
)
def test_the_type_of_a_page(text, expected):
    title = text.split(" is ")[0].split(" (")[0]
    assert entity_type_of_page(linked_wiki.page("en", title, text + "\nIt is a song. Another was a river.")) == expected
    assert expected is None or expected in ENTITY_TYPES


def test_titles_that_name_their_type():
    assert entity_type_of_page(linked_wiki.page("en", "1945", "1945 was a common year.")) == "DATE"
    assert entity_type_of_page(linked_wiki.page("en", "5 May", "It is a day.")) == "DATE"
    assert entity_type_of_page(linked_wiki.page("en", "List of rivers", "This is a list. It is a river.")) is None
    assert entity_type_of_page(linked_wiki.page("fi", "Tampere", "Tampere is a city.")) is None
    assert entity_type_of_page(linked_wiki.page("en", "Empty", "")) is None


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("6 December 1917", "DATE"),
        ("December 6, 1917", "DATE"),
        ("March 1945", "DATE"),
        ("1945", "DATE"),
        ("44 BC", "DATE"),
        ("the 1990s", "DATE"),
        ("19th century", "DATE"),
        ("10:30", "TIME"),
        ("5 p.m.", "TIME"),
        ("20 %", "PERCENT"),
        ("3.5 percent", "PERCENT"),
        ("$5 million", "MONEY"),
        ("300 euros", "MONEY"),
        ("3.2 km", "QUANTITY"),
        ("338,145 km2", "QUANTITY"),
        ("first", "ORDINAL"),
        ("21st", "ORDINAL"),
        ("1,234,567", "CARDINAL"),
        ("5.5 million", "CARDINAL"),
        ("two", "CARDINAL"),
    ],
)
def test_numbers_and_dates(words, kind):
    sentence = f"It stood there, {words}, as is told."
    start = sentence.index(words.removeprefix("the "))
    expected = Entity(start, sentence.index(", as"), kind)
    assert RuleEntities().find(sentence, PageContext()) == [expected]


def test_parts_of_numbers_and_words_are_no_entities():
    found = RuleEntities().find("Version 3.14.15 of A1945 and someone, stone-1234x, 12/05.", PageContext())
    assert found == []


def test_names_are_found_without_their_link_and_common_nouns_are_not():
    page = linked_wiki.page(
        "en",
        "Falun (city)",
        "Falun lies on the [[Faluan]], a [[River|river]].\n[[Carl Linnaeus|Linnaeus]] came.\nLinnaeus left Falun.\n"
        "[[Atlantis]] and the [[Swedish language|Swedish]] of [[summer|Midsummer's eve]].",
    )
    context = context_of(page, {"Faluan": "LOC", "Carl Linnaeus": "PERSON", "River": "LOC", "Swedish language": None})
    assert context.names == {"Faluan": "LOC", "Linnaeus": "PERSON", "Atlantis": None, "Swedish": None, "Falun": None}
    found = RuleEntities().find(page.sentence(2), context)
    assert [(page.sentence(2)[e.start : e.end], e.type) for e in found] == [("Linnaeus", "PERSON"), ("Falun", None)]
    assert RuleEntities().find("Faluanic Linnaeusville", context) == []


def test_of_overlapping_entities_the_longest_stays():
    context = PageContext({"New York": "GPE", "New York City": "GPE", "City of 1945": "WORK_OF_ART"})
    sentence = "New York City of 1945"
    assert RuleEntities().find(sentence, context) == [Entity(0, 13, "GPE"), Entity(17, 21, "DATE")]


spans = st.tuples(st.integers(0, 30), st.integers(0, 8), st.sampled_from([None, "DATE", "GPE"]))


@settings(max_examples=40, deadline=None)
@given(st.lists(spans, max_size=12))
def test_overlap_properties(given_):
    entities = [Entity(start, start + length, kind) for start, length, kind in given_]
    kept = without_overlaps(entities)
    assert kept == sorted(kept, key=lambda e: e.start) and set(kept) <= set(entities)
    assert all(a.end <= b.start for a, b in itertools.pairwise(kept))
    for entity in entities:  # nothing is left out without a cause
        assert entity.start == entity.end or any(
            k.start < entity.end and entity.start < k.end and k.end - k.start >= entity.end - entity.start for k in kept
        )


def test_stanza_by_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "stanza", None)
    open_finder.cache_clear()
    with pytest.raises(InputError, match=r"stanza.*class-jax\[torch\]"):
        open_finder(EntityConfig("stanza"))

    class Pipeline:
        def __init__(self, language, **settings):
            assert language == "en" and settings["tokenize_no_ssplit"] and settings["download_method"] is None
            if settings.get("dir") == "nowhere":
                raise FileNotFoundError("resources.json")

        def __call__(self, sentence):
            start = sentence.index("Falun")
            found = types.SimpleNamespace(start_char=start, end_char=start + 5, type="GPE")
            return types.SimpleNamespace(entities=[found])

    stand_in = types.SimpleNamespace(Pipeline=Pipeline, __version__="1.9")
    monkeypatch.setitem(sys.modules, "stanza", stand_in)
    finder = open_finder(EntityConfig("stanza"))
    assert finder.find("In Falun.", PageContext()) == [Entity(3, 8, "GPE")] and "1.9" in finder.fingerprint
    with pytest.raises(InputError, match="nowhere: "):
        open_finder(EntityConfig("stanza", "nowhere"))
    open_finder.cache_clear()
    with pytest.raises(InputError, match=r"EntityConfig\.kind: .*'stanza'"):
        EntityConfig("stanzas")
