# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Wikitext to text with places, and text to sentences."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from class_jax.corpus.segments import blocks, sentences
from class_jax.corpus.wikipedia.wikitext import Site, normalised_title, parse_wikitext, plain_text

pytest.importorskip("mwparserfromhell")
pytest.importorskip("icu4py")

SITE = Site(frozenset({"file", "luokka"}), frozenset({"file", "luokka", "ohje"}))


def shown(wikitext, site=SITE):
    parsed = parse_wikitext(wikitext, site)
    return [(parsed.text[a.start : a.end], a.target) for a in parsed.anchors]


def test_anchors_are_where_their_words_are():
    wikitext = """{{box|[[not here]]}} ''[[turku|Turun]]'' ({{IPA|x}}; {{y}}), [[Tampere]]lla&nbsp; ja
* [[ Helsinki_(city)#History | '''Helsinki''' ]] on [[ :suomi ]].
[[Luokka:X]][[file:a.png|thumb|[[skipped]]]] [[Ohje:Y|help]] [[wikt:sana|sana]] [[#part|here]] [[s:z]]
(, [[Åbo|a]][[öljy]]<ref>[[no]]</ref>"""
    parsed = parse_wikitext(wikitext, SITE)
    assert parsed.text == "Turun, Tamperella ja\nHelsinki on suomi.\nhelp sana here s:z\n(aöljy"
    assert shown(wikitext) == [
        ("Turun", "Turku"),
        ("Tamperella", "Tampere"),
        ("Helsinki", "Helsinki (city)"),
        ("suomi", "Suomi"),
        ("a", "Åbo"),
        ("öljy", "Öljy"),
    ]


def test_the_letters_after_a_link_belong_to_its_words_where_letters_have_case():
    assert shown("[[apple]]s, [[Seoul|서울]]은, [[dog]]{{x}}s, [[cat]]S") == [
        ("apples", "Apple"),
        ("서울", "Seoul"),
        ("dog", "Dog"),
        ("cat", "Cat"),
    ]


@pytest.mark.parametrize("wikitext", ["[[a|b<br>c]]", "[[a| ]]", "[[a|{{x}}]]", "[[#a]]", "[[|a]]", "[[a|\n]]"])
def test_links_without_words_or_target_are_no_anchors(wikitext):
    assert shown("x " + wikitext + " y") == []


def test_sections_start_where_their_text_does():
    parsed = parse_wikitext("Lead.\n\n== One ''two'' ==\n{{x}}\n* item\n=== Deep<ref>r</ref> ===\n== Empty ==\n", SITE)
    assert parsed.text == "Lead.\nitem"
    assert [(s.start, s.level, s.heading) for s in parsed.sections] == [
        (6, 2, "One two"),
        (10, 3, "Deep"),
        (10, 2, "Empty"),
    ]


def test_language_links_in_the_text():
    parsed = parse_wikitext("a [[fi:sivu_1]] [[zh-min-nan:b]] [[:de:Seite]] [[ru:|x]] [[fi:toinen]]", SITE)
    assert parsed.links == {"fi": "Sivu 1", "zh-min-nan": "B"}


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("new york", "New york"),
        ("_a__b_", "A b"),
        ("A&amp;B", "A&B"),
        ("C%C3%B4te#x", "Côte"),
        ("e\u0301t\u00e9", "Été"),
        ("ßa", "ßa"),
        (":iPod", "IPod"),
        ("", ""),
    ],
)
def test_titles_are_normalised(written, title):
    assert normalised_title(written) == title


def test_case_may_matter():
    assert normalised_title("apple", case_sensitive=True) == "apple"


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["[[ab|cd]]", "[[x]]", "''", "\n", "* ", " ", "(", ")", ", ", "w", "é", "== h ==\n", "|"]))
)
def test_places_do_not_change_the_text(parts):
    wikitext = "".join(parts)
    parsed = parse_wikitext(wikitext)
    assert parsed.text == plain_text(wikitext)
    # Only 'cd' and 'x' are ever shown of these links, with letters that follow.
    assert all(parsed.text[a.start : a.end].startswith(("cd", "x")) for a in parsed.anchors)
    assert all(a.end <= b.start for a, b in pairwise(parsed.anchors))


def cut(text, language, whole=()):
    return [text[start:end] for start, end in sentences(text, language, whole)]


@pytest.mark.parametrize(
    ("language", "found"),
    [
        ("en", ["Dr. Smith met J. R. R. Tolkien, e.g. in the U.S. in 1990.", 'He said: "Hi."', "It left."]),
        ("en", ["He died in World War I.", "The end came."]),
        ("de", ["Am 3. Mai war z. B. Herr Müller da.", "Er ging."]),
        ("fi", ["Hän syntyi 3. toukokuuta 1990.", "Hän asuu ns. talossa."]),
        ("ru", ["Он родился в 1990 г. в Москве.", "Это А. С. Пушкин."]),
        ("ar", ["هذه جملة.", "وهذه أخرى؟", "نعم."]),
        ("bn", ["এটি একটি বাক্য।", "আরেকটি বাক্য।"]),
        ("te", ["ఇది వాక్యం.", "మరొకటి."]),
        ("ko", ["이것은 문장이다.", "저것도 문장이다."]),
        ("hi", ["यह वाक्य है।", "वह भी।"]),
    ],
)
def test_sentences(language, found):
    assert cut(" ".join(found), language) == found


def test_sentences_without_blanks():
    assert cut("これは文です。次の文「はい。」と言った。終わり", "ja") == [
        "これは文です。",
        "次の文「はい。」と言った。",
        "終わり",
    ]
    assert cut("これは文です。『本』の発表は（約）1759年です。", "ja") == [
        "これは文です。",
        "『本』の発表は（約）1759年です。",
    ]
    assert cut("文です。『", "ja") == ["文です。", "『"]
    assert cut("这是一句话。那是另一句！", "zh") == ["这是一句话。", "那是另一句！"]
    assert cut("នេះជាប្រយោគ។ នេះជាប្រយោគទីពីរ។", "km") == ["នេះជាប្រយោគ។", "នេះជាប្រយោគទីពីរ។"]
    thai = ["กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทยและเป็นเมืองที่ใหญ่ที่สุด", "มีประชากรมากกว่าสิบล้านคนในเขตปริมณฑลทั้งหมด"]
    assert cut(" ".join(thai), "th") == thai


def test_no_border_is_in_a_link():
    text = "He wrote Why? Because. It sold."
    assert cut(text, "en") == ["He wrote Why?", "Because.", "It sold."]
    assert cut(text, "en", [(9, 22)]) == ["He wrote Why? Because.", "It sold."]


def test_offsets_count_characters_beyond_the_basic_plane():
    text = "😀 one. Two 𠀀.\n  \nThree."
    assert cut(text, "en") == ["😀 one.", "Two 𠀀.", "Three."]


@settings(deadline=None, max_examples=60)
@given(
    st.text(st.sampled_from("ab.( A?\n😀é\u0301日。本ก\u0e33\u202bعر"), max_size=120),
    st.sampled_from(["en", "ja", "th", "ar"]),
)
def test_sentences_hold_all_text_in_order(text, language):
    found = sentences(text, language)
    assert "".join("".join(cut(text, language)).split()) == "".join(text.split())
    assert all(a[1] <= b[0] for a, b in pairwise(found))
    assert all("\n" not in text[start:end] and start < end for start, end in found)


@settings(deadline=None, max_examples=60)
@given(st.text(st.sampled_from("ab é\u0301\nก\u0e33日本 \u202bعَر。😀"), max_size=200), st.integers(12, 20))
def test_blocks_are_slices_of_the_text(text, words):
    found = blocks(text, words)
    assert "".join("".join(text[start:end] for start, end, _ in found).split()) == "".join(text.split())
    assert all(a[1] <= b[0] for a, b in pairwise(found))
