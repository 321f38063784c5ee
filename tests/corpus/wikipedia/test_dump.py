# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""From a Wikipedia dump to passages: what is kept, what is counted, what is refused."""

import bz2
import gzip
import random
import sys
import unicodedata
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_dump import page, site

from class_jax.corpus.passages import read_passages
from class_jax.corpus.segments import SHORTEST, blocks
from class_jax.corpus.wikipedia import dump
from class_jax.corpus.wikipedia.dump import Damage, DumpPage, passages_from_dump, read_dump_pages, read_site
from class_jax.corpus.wikipedia.wikitext import Site, plain_text
from class_jax.errors import InputError

pytest.importorskip("mwparserfromhell")

SITE = site()

PAGES = [
    page("Helsinki", "'''Helsinki''' on [[Suomi|Suomen]] pääkaupunki. " * 30 + "[[Luokka:Kaupungit]]"),
    page("Hki", "#OHJAUS [[Helsinki]]", redirect="Helsinki"),
    page("Hesa", "#REDIRECT [[Helsinki]]"),
    page("Keskustelu:Helsinki", "Hei", namespace=1),
    page("Malline:X", "mallipohja", namespace=10),
    page("Tyyli.css", "a {}", model="css"),
    page("Tyhjä", ""),
    page("Vain malline", "{{tietolaatikko|nimi=x}} [[Tiedosto:kuva.png|thumb|kuva]]"),
    page(unicodedata.normalize("NFD", "Åbo & Turku"), "Turku on kaupunki."),
]
XML = SITE + "".join(PAGES) + "</mediawiki>\n"


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("", bytes),
        (".bz2", bz2.compress),
        (".bz2", lambda data: bz2.compress(data[:900]) + bz2.compress(data[900:])),  # multistream
        (".gz", gzip.compress),
    ],
)
def test_every_page_is_counted_once(tmp_path, suffix, pack):
    path, out = tmp_path / f"fiwiki.xml{suffix}", tmp_path / "p.tsv"
    path.write_bytes(pack(XML.encode()))
    counts = asdict(passages_from_dump(path, out))
    assert counts == dict(
        pages=9, redirects=2, other_namespaces=2, other_models=1, unparsed=0, empty=2, articles=2, passages=3, words=123
    )
    passages = list(read_passages(out))
    assert [p.id for p in passages] == ["1", "2", "3"]
    assert [p.title for p in passages] == ["Helsinki", "Helsinki", "Åbo & Turku"]
    assert [len(p.text.split()) for p in passages] == [100, 20, 3]
    assert passages[0].text.startswith("Helsinki on Suomen pääkaupunki. Helsinki on")
    assert "Luokka" not in passages[1].text


def test_wikitext_becomes_plain_text():
    wikitext = """{{Infobox|a={{b|[[c]]}}}}
'''Foo''' ({{IPA|x}}; {{lang|fi|y}}) is a ''[[bar|baz]]''[[File:x.png|thumb|A [[caption]]]] &amp; &nbsp;c<ref>r [[s]]</ref>, [[qux]]es.<!-- no -->
== Heading ==
* one
# two [http://x.org link] http://bare.org [http://numbered.org]
{| class="x"
! head
| cell
|}
H<sub>2</sub>O, <math>E=mc^2</math>, <nowiki>[[raw]]</nowiki>&#xD800;
[[Category:Z]] [[fi:Sivu]] __NOTOC__ [[:Category:Shown]]
<gallery>
x.png|y
</gallery>"""
    assert plain_text(wikitext) == "Foo is a baz & c, quxes.\none\ntwo link\nH2O,, [[raw]]\nCategory:Shown"


def test_links_to_files_are_known_by_the_wikis_own_names():
    assert plain_text("a [[Tiedosto:x.png|thumb|y]] b", Site(frozenset({"tiedosto"}))) == "a b"


@pytest.mark.parametrize(
    "wikitext", ["{{x|" * 1000 + "}}" * 1000, "[[x|" * 1000, "{|\n|" * 300, "<b>" * 2000, "<ref>" * 500]
)
def test_deep_nesting_ends(wikitext):
    assert isinstance(plain_text("before " + wikitext + " after"), str)


def split_words(text, words):
    """The blocks' texts, each with single blanks."""
    return [" ".join(text[start:end].split()) for start, end, _ in blocks(text, words)]


@settings(deadline=None, max_examples=200)
@given(
    st.text(st.sampled_from("ab é\u0301ก\u0e33\u0e31ខ\u17d2ម日本カ한국。(1 \u200d"), max_size=200),
    st.integers(12, 20),
)
def test_blocks_hold_all_text_and_split_no_character(text, words):
    found = split_words(text, words)
    assert "".join("".join(found).split()) == "".join(text.split())
    for block in found[1:]:
        assert not unicodedata.category(block[0]).startswith("M") or f" {block[0]}" in f" {text}"
        assert block[0] not in "\u0e33" or f" {block[0]}" in f" {text}"
    assert all(found)


@pytest.mark.parametrize("count", [1, 9, 10, 99, 100, 101, 105, 109, 110, 200, 205, 1009])
def test_blocks_are_neither_long_nor_tiny(count):
    words = [f"w{i}" for i in range(count)]
    found = [block.split() for block in split_words(" ".join(words), 100)]
    assert [word for block in found for word in block] == words
    assert max(map(len, found)) <= 100
    assert len(found) == -(-count // 100)
    assert count < SHORTEST or min(map(len, found)) >= SHORTEST


def test_scripts_without_blanks():
    assert split_words("日本語の文、一。", 2) == ["日本語の", "文、一。"]
    assert split_words("กำแพงเมือง", 1) == ["กำแพง", "เมือง"]
    assert split_words("Latin名前123です", 1) == ["Latin", "名前", "123", "です"]
    assert split_words("한국어는 길다", 1) == ["한국어는", "길다"]
    assert split_words(unicodedata.normalize("NFD", "がぎ"), 1) == [unicodedata.normalize("NFD", "がぎ")]
    many = "".join(random.Random(0).choices("人山川大小", k=1000))
    assert [len(block) for block in split_words(many, 100)] == [200] * 5


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bz2.compress(XML.encode())[:-30], r"\b0 pages"),
        (b"not bzip2", r"\b0 pages"),
    ],
)
def test_a_cut_off_archive_is_refused(tmp_path, data, words):
    path, out = tmp_path / "d.xml.bz2", tmp_path / "p.tsv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        passages_from_dump(path, out)
    assert str(path) in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (XML[:-200], r"\b8 pages.*'Åbo & Turku'"),
        (SITE + PAGES[0] + "<page><title>x</b></page>", r"\b1 pages.*'Helsinki'"),
        ("<html></html>", r"\b0 pages"),
        ("", r"\b0 pages"),
        (XML.encode("utf-16"), None),
    ],
)
def test_a_broken_dump_is_refused_and_nothing_written(tmp_path, data, words):
    path, out = tmp_path / "d.xml", tmp_path / "p.tsv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    if words is None:  # the mark at its start names the encoding
        assert passages_from_dump(path, out).pages == 9
        return
    with pytest.raises(InputError, match=words) as caught:
        passages_from_dump(path, out)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_dump(tmp_path):
    with pytest.raises(InputError, match=r"absent\.xml: "):
        passages_from_dump(tmp_path / "absent.xml", tmp_path / "p.tsv")


def test_a_missing_parser_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mwparserfromhell", None)
    (tmp_path / "d.xml").write_text(XML)
    with pytest.raises(InputError, match=r"mwparserfromhell.*class-jax\[data\]"):
        passages_from_dump(tmp_path / "d.xml", tmp_path / "p.tsv")


def test_a_page_the_parser_gives_up_on_is_counted(tmp_path, monkeypatch):
    def give_up(text, skipped):
        raise RecursionError if "Turku" in text else AssertionError(text)

    path = tmp_path / "d.xml"
    path.write_text(SITE + PAGES[-1] + PAGES[1] + "</mediawiki>")
    monkeypatch.setattr(dump, "plain_text", give_up)
    counts = passages_from_dump(path, tmp_path / "p.tsv")
    assert (counts.pages, counts.unparsed, counts.redirects, counts.passages) == (2, 1, 1, 0)


def test_a_real_dump(real_data, tmp_path):
    path = real_data / "wiki" / "enwiki-shortened-pages-articles.xml.bz2"
    counts = passages_from_dump(path, tmp_path / "p.tsv")
    assert counts.pages == 206
    assert (
        counts.redirects
        + counts.other_namespaces
        + counts.other_models
        + counts.unparsed
        + counts.empty
        + counts.articles
        == 206
    )
    assert (counts.redirects, counts.other_namespaces, counts.unparsed) == (99, 1, 0)
    passages = list(read_passages(tmp_path / "p.tsv"))
    assert len(passages) == counts.passages > 4000
    assert sum(len(p.text.split()) for p in passages) <= counts.words
    assert max(len(p.text.split()) for p in passages) == 100
    marks = Counter(mark for p in passages for mark in ("{{", "}}", "[[", "]]", "<ref", "{|", "'''") if mark in p.text)
    assert sum(marks.values()) <= 5
    assert len({p.title for p in passages}) == counts.articles


def titles_and_damage(path, **settings):
    """Titles of the pages that can be read, and (reason, offset, title) of the damage."""
    found = list(read_dump_pages(path, **settings))
    pages = [p.title for p in found if isinstance(p, DumpPage)]
    return pages, [(d.reason, d.offset, d.title) for d in found if isinstance(d, Damage)]


def written(tmp_path, *parts, name="d.xml"):
    path = tmp_path / name
    path.write_bytes(b"".join(part if isinstance(part, bytes) else part.encode() for part in parts))
    return path


def test_fields_of_a_page_of_a_dump(tmp_path):
    path = written(tmp_path, SITE, *PAGES[:2], "</mediawiki>")
    first, second = read_dump_pages(path)
    assert first.title == "Helsinki" and first.id == "1" and first.redirect is None
    assert path.read_bytes()[first.offset :].startswith(b"<page><title>Helsinki<")
    assert path.read_bytes()[first.offset + first.size :].startswith(b"\n<page><title>Hki<")
    assert second.redirect == "Helsinki"


def test_the_wikis_own_names(tmp_path):
    found = read_site(written(tmp_path, bz2.compress(XML.encode()), name="d.xml.bz2"))
    assert {"tiedosto", "file", "luokka"} <= found.hidden and "keskustelu" not in found.hidden
    assert "keskustelu" in found.namespaces and not found.case_sensitive


def test_a_broken_page_is_skipped(tmp_path):
    bad = "<page><title>Bad</title><ns>0</ns><b></page>\n"
    path = written(tmp_path, SITE, PAGES[0], bad, PAGES[-1], "</mediawiki>")
    pages, damage = titles_and_damage(path)
    assert pages == ["Helsinki", "Åbo & Turku"]
    assert damage == [("broken_xml", len((SITE + PAGES[0]).encode()), "Bad")]


def test_a_page_that_is_never_closed(tmp_path):
    path = written(tmp_path, SITE, PAGES[0][:300], PAGES[-1], "</mediawiki>")
    assert titles_and_damage(path) == (["Åbo & Turku"], [("broken_xml", len(SITE.encode()), "Helsinki")])


def test_a_page_in_another_encoding(tmp_path):
    bad = page("Väärä", "ä").encode("latin-1")
    path = written(tmp_path, SITE, PAGES[0], bad, PAGES[-1], "</mediawiki>")
    pages, damage = titles_and_damage(path)
    assert pages == ["Helsinki", "Åbo & Turku"]
    assert damage == [("encoding", len((SITE + PAGES[0]).encode()) + bad.index(b"\xe4"), "V\ufffd\ufffdr\ufffd")]


@pytest.mark.parametrize("limit", [2000, 30_000, 3 << 20])
def test_a_long_page_is_skipped_without_being_held(tmp_path, limit):
    long = page("Pitkä", "x" * (4 << 20))
    path = written(tmp_path, SITE, PAGES[-1], long, PAGES[0], "</mediawiki>")
    pages, damage = titles_and_damage(path, max_page_bytes=limit)
    assert pages == ["Åbo & Turku", "Helsinki"]
    assert damage == [("too_large", len((SITE + PAGES[-1]).encode()), "Pitkä")]


@pytest.mark.parametrize(("name", "bytes_"), [("ISO-8859-1", "latin-1"), ("UTF-16", "utf-16"), ("utf-8", "utf-8-sig")])
def test_encodings_that_are_declared(tmp_path, name, bytes_):
    xml = f'<?xml version="1.0" encoding="{name}"?>\n' + SITE + page("Väärä", "ä") + "</mediawiki>"
    assert titles_and_damage(written(tmp_path, xml.encode(bytes_))) == (["Väärä"], [])


def test_an_unknown_encoding(tmp_path):
    path = written(tmp_path, '<?xml version="1.0" encoding="klingon"?>\n', XML)
    with pytest.raises(InputError, match=r"d\.xml: .*'klingon'"):
        titles_and_damage(path)


@pytest.mark.parametrize(("name", "pack"), [("d.xml.gz", gzip.compress), ("d.xml.bz2", bz2.compress)])
def test_pages_before_the_end_of_a_cut_off_archive_are_read(tmp_path, name, pack):
    rest = "".join(page(f"P{i}", random.Random(i).randbytes(9000).hex(), number=i) for i in range(80))
    data = pack((SITE + PAGES[0] + rest + "</mediawiki>").encode())
    pages, damage = titles_and_damage(written(tmp_path, data[: len(data) * 3 // 4], name=name))
    assert pages[:2] == ["Helsinki", "P0"] and 30 < len(pages) < 70
    assert [d[0] for d in damage] == ["cut_off"] and damage[0][2] == pages[-1]


def test_a_broken_stream_in_the_middle_ends_reading(tmp_path):
    data = bz2.compress((SITE + PAGES[0]).encode()) + b"BZh9not a stream" + bz2.compress(PAGES[-1].encode())
    pages, damage = titles_and_damage(written(tmp_path, data, name="d.xml.bz2"))
    assert pages == ["Helsinki"] and [d[0] for d in damage] == ["cut_off"]


def test_cut_off_at_the_end_of_a_page(tmp_path):
    pages, damage = titles_and_damage(written(tmp_path, SITE, PAGES[0]))
    assert pages == ["Helsinki"] and [d[0] for d in damage] == ["cut_off"]
