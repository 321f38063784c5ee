# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Dumps to pages and passages: what is joined, what is counted, what damage costs."""

import bz2
import csv
import random
import unicodedata
from pathlib import Path

import pytest
from tiny_dump import page, site, write_multistream

from class_jax.corpus.passages import read_passages
from class_jax.corpus.wikipedia.dump import DumpPage, passages_from_dump, read_dump_pages
from class_jax.corpus.wikipedia.make_corpus import CorpusConfig, WikiFiles, damage, make_corpus
from class_jax.corpus.wikipedia.pages import read_pages
from class_jax.corpus.wikipedia.splits import file_identity, split_dumps
from class_jax.errors import InputError
from class_jax.pipelines.runner import RunnerConfig
from class_jax.pipelines.stages import read_stage

for module in ("apache_beam", "mwparserfromhell", "icu4py"):
    pytest.importorskip(module)

HERE = RunnerConfig(workers=1)
BROKEN = "<page><title>Broken</title><ns>0</ns><b></page>\n"
ENGLISH = [
    page(
        "Helsinki",
        "'''Helsinki''' is the capital of [[suomi|the land]]. Dr. [[Sea|X]] lies [[Loop|here]]. "
        "[[Red link]]s, [[gone]] and [[Helsinki|itself]].\n== People ==\n* [[Suomi]]",
        number=1,
    ),
    page("Finland", "A country. " * 70, number=2),
    page("Suomi", "#REDIRECT [[Finland]]", redirect="Finland", number=3),
    page("Land", "#REDIRECT [[Suomi]]", redirect="Suomi", number=4),
    page("Loop", "#REDIRECT [[Pool]]", redirect="Pool", number=5),
    page("Pool", "#REDIRECT [[Loop]]", redirect="Loop", number=6),
    page("Gone", "#REDIRECT [[Nowhere]]", redirect="Nowhere", number=7),
    page("Talk:Helsinki", "hello", namespace=1, number=8),
    page("S.css", "a {}", model="css", number=9),
    page("Empty", "", number=10),
    BROKEN,
    page("Huge", "x" * 20_000, number=11),
    page("Sea", "Water. [[fi:Meri]] [[de:Meer]]", number=12),
    page("Deep", "{{a|" * 1000 + "}}" * 1000 + "[[b|" * 1000 + " end", number=13),
]
FINNISH = [
    page("Helsinki", "Helsinki on [[Suomi|Suomen]] pääkaupunki.[[en:Helsinki]]", number=21),
    page("Suomi", "Suomi on maa. [[en:No such page]]", number=22),
    page(unicodedata.normalize("NFD", "Itämeri"), "Meri \u202bعَرَبِيّ\u202c. " + "e\u0301 " * 150, number=23),
    page("Meri", "#OHJAUS [[Itämeri]]", redirect="Itämeri", number=24),
]
LANGLINKS = """CREATE TABLE `langlinks` (
  `ll_from` int,
  `ll_lang` varbinary(35),
  `ll_title` varbinary(255),
);
INSERT INTO `langlinks` VALUES (1,'fi','Helsinki'),(1,'sv','Helsingfors'),(2,'fi','Ei_mitään'),(12,'fi','Meri'),(12,'en','Sea');
"""


def dump(path, pages, tail="</mediawiki>"):
    path.write_bytes(bz2.compress((site(talk="Talk") + "".join(pages) + tail).encode()))
    return str(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wiki")
    (folder / "langlinks.sql").write_text(LANGLINKS)
    (folder / "links.jsonl").write_text('{"en": "Finland", "fi": "Suomi"}\n{oh\n')
    wikis = [
        WikiFiles("en", (dump(folder / "en.xml.bz2", ENGLISH),), str(folder / "langlinks.sql")),
        WikiFiles("fi", (dump(folder / "fi1.xml.bz2", FINNISH[:2]), dump(folder / "fi2.xml.bz2", FINNISH[2:], ""))),
    ]
    arguments = dict(config=CorpusConfig(max_page_bytes=20_000), sitelinks=(str(folder / "links.jsonl"),), runner=HERE)
    return folder / "work", make_corpus(wikis, folder / "work", **arguments), wikis, arguments


def pages_of(made, language):
    return {p.title: p for p in read_pages(made[0] / "pages" / language)}


def anchors_in(page, i):
    """How many anchors are within sentence i."""
    start, end = page.sentences[i]
    return sum(start <= anchor.start and anchor.end <= end for anchor in page.anchors)


def test_every_page_is_counted_under_one_reason(made):
    counts = made[1]["pages/en"]
    reasons = {
        name: n for name, n in counts.items() if name in ("articles", "redirects") or name.startswith("rejected/")
    }
    assert reasons == {
        "articles": 4,
        "redirects": 5,
        "rejected/other_namespace": 1,
        "rejected/other_model": 1,
        "rejected/no_text": 1,
        "rejected/broken_xml": 1,
        "rejected/too_large": 1,
    }
    assert sum(reasons.values()) == counts["pages"] == len(ENGLISH)
    assert set(pages_of(made, "en")) == {"Helsinki", "Finland", "Sea", "Deep"}


def test_redirects_are_counted_by_what_becomes_of_them(made):
    counts = made[1]["titles/en"]
    assert counts == {
        "titles": 11,
        "redirects": 5,
        "redirects/chain": 1,
        "redirects/loop": 2,
        "redirects/to_nowhere": 1,
    }
    rows = [line.split("\t") for line in (made[0] / "titles" / "en" / "rejects.tsv").read_text().splitlines()]
    assert sorted((row[2], row[3]) for row in rows) == [
        ("Gone", "redirect to_nowhere"),
        ("Loop", "redirect loop"),
        ("Pool", "redirect loop"),
    ]


def test_anchors_lead_to_the_end_of_redirects(made):
    found = pages_of(made, "en")["Helsinki"]
    assert [(found.text[a.start : a.end], a.target) for a in found.anchors] == [
        ("the land", "Finland"),
        ("X", "Sea"),
        ("Red links", "Red link"),
        ("Suomi", "Finland"),
    ]
    assert [found.sentence(i) for i in range(len(found.sentences))] == [
        "Helsinki is the capital of the land.",
        "Dr. X lies here.",
        "Red links, gone and itself.",
        "Suomi",
    ]
    assert [anchors_in(found, i) for i in range(4)] == [1, 1, 1, 1]
    assert [(found.text[s.start :], s.heading) for s in found.sections] == [("Suomi", "People")]
    counts = made[1]["pages/en"]
    names = (
        "anchors",
        "anchors/to_unknown",
        "anchors/redirect_loop",
        "anchors/redirect_to_nowhere",
        "anchors/to_itself",
    )
    assert [counts.get(name, 0) for name in names] == [4, 1, 1, 1, 1]


def test_language_links_come_from_sql_wikidata_and_text(made):
    english, finnish = pages_of(made, "en"), pages_of(made, "fi")
    # 2's link of the SQL dump leads nowhere and comes before Wikidata's.
    assert {title: dict(p.links) for title, p in english.items() if p.links} == {
        "Helsinki": {"fi": "Helsinki"},
        "Sea": {"fi": "Itämeri"},
    }
    assert {title: dict(p.links) for title, p in finnish.items() if p.links} == {
        "Helsinki": {"en": "Helsinki"},
        "Suomi": {"en": "Finland"},
    }
    assert made[1]["links"] == {"links": 5, "links/other_language": 2, "links/unreadable": 1}
    assert made[1]["pages/en"]["links"] == 2 and made[1]["pages/en"]["links/to_nowhere"] == 1


def test_passages_are_slices_of_their_pages(made):
    work = made[0]
    pages = {(p.language, p.id): p for p in read_pages(work / "pages")}
    passages = list(read_passages(work / "passages" / "passages.tsv"))
    assert [p.id for p in passages] == [str(i + 1) for i in range(len(passages))]
    with open(work / "passages" / "passage_spans.tsv", newline="") as file:
        spans = list(csv.DictReader(file, delimiter="\t"))
    for passage, span in zip(passages, spans, strict=True):
        page = pages[span["language"], span["page"]]
        assert span["id"] == passage.id and passage.title == page.title
        assert passage.text == " ".join(page.text[int(span["start"]) : int(span["end"])].split())
        assert len(passage.text.split()) <= 100
        assert not unicodedata.combining(passage.text[0])
    rows = (work / "passages" / "passage_languages.tsv").read_text().splitlines()
    assert rows == ["id\tlanguage", *(f"{span['id']}\t{span['language']}" for span in spans)]
    languages = [span["language"] for span in spans]
    assert languages == sorted(languages) and set(languages) == {"en", "fi"}
    assert "Itämeri" in {p.title for p in passages}
    counts = made[1]["passages"]
    assert counts["passages"] == len(passages) and counts["passages/fi"] == languages.count("fi")


def test_passages_are_those_of_the_plain_way(made, tmp_path):
    path = dump(tmp_path / "d.xml.bz2", [p for p in ENGLISH if p not in (BROKEN, ENGLISH[11])])
    passages_from_dump(path, tmp_path / "p.tsv")
    count = made[1]["passages"]["passages/en"]
    assert list(read_passages(made[0] / "passages" / "passages.tsv"))[:count] == list(read_passages(tmp_path / "p.tsv"))


def test_damage_is_reported_with_file_and_place(made):
    assert damage(made[1]) == {
        "links: links/unreadable": 1,
        "pages/en: broken_xml": 1,
        "pages/en: too_large": 1,
        "pages/fi: cut_off": 1,
    }
    (table,) = (made[0] / "pages" / "en").glob("rejects-*.tsv")
    rows = {row[3]: row for row in (line.split("\t") for line in table.read_text().splitlines())}
    assert set(rows) == {"no_text", "broken_xml", "too_large"}
    assert rows["broken_xml"][0].endswith("en.xml.bz2") and rows["broken_xml"][2] == "Broken"
    data = bz2.decompress(Path(rows["broken_xml"][0]).read_bytes())
    assert data[int(rows["broken_xml"][1]) :].startswith(BROKEN.encode())
    rejected = (made[0] / "links" / "rejects-sitelinks-000.tsv").read_text()
    assert "links.jsonl:2: not a line of sitelinks" in rejected


def test_what_is_done_is_not_done_again(made):
    work, counts, wikis, arguments = made
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert make_corpus(wikis, work, **arguments) == counts
    assert before == {path: path.stat().st_mtime_ns for path in before}
    with pytest.raises(InputError, match=r"passages: words: .*100, not 50"):
        make_corpus(wikis, work, **arguments | {"config": CorpusConfig(words=50, max_page_bytes=20_000)})


def test_a_page_table_names_pages_beyond_the_dump(tmp_path):
    (tmp_path / "page.sql").write_text(
        "CREATE TABLE `page` (\n  `page_id` int,\n  `page_namespace` int,\n  `page_title` varbinary(255),\n"
        "  `page_is_redirect` tinyint,\n);\n"
        "INSERT INTO `page` VALUES (1,0,'Red_link',0),(2,1,'Gone',0),(3,0,'Sea',1);\n"
    )
    wiki = WikiFiles("en", (dump(tmp_path / "d.xml.bz2", ENGLISH[:1]),), page_table=str(tmp_path / "page.sql"))
    counts = make_corpus([wiki], tmp_path / "work", runner=HERE)
    assert counts["titles/en"] == {"titles": 2}
    # Of Suomi, Sea, Loop, Red link, gone, Helsinki, Suomi only two are known.
    assert counts["pages/en"]["anchors/to_unknown"] == 5


STREAMS = [[(i, f"P{i}", page(f"P{i}", f"Text of {i}. " + random.Random(i).randbytes(300).hex(), number=i))
            for i in range(start, start + 5)] for start in range(0, 40, 5)]  # fmt: skip


def test_streams_are_read_one_by_one(tmp_path):
    path = tmp_path / "fiwiki-pages-articles-multistream.xml.bz2"
    write_multistream(path, site(), STREAMS)
    whole = [p.title for p in read_dump_pages(path)]
    assert whole == [f"P{i}" for i in range(40)]
    for size in (1, 3000, 1 << 30):
        units = split_dumps([path, path], size)
        assert [u.index for u in units] == list(range(len(units))) and {u.count for u in units} == {len(units)}
        found = [list(read_dump_pages(u.path, u.start, u.length)) for u in units]
        assert all(isinstance(p, DumpPage) for part in found for p in part)
        assert [p.title for part in found for p in part] == whole * 2
        assert len(units) == {1: 18, 3000: len(units), 1 << 30: 2}[size]


def test_a_broken_stream_costs_no_other(tmp_path):
    path = tmp_path / "fiwiki-pages-articles-multistream.xml.bz2"
    write_multistream(path, site(), STREAMS)
    data = bytearray(path.read_bytes())
    units = split_dumps([path], 1)
    data[units[3].start + 20 : units[3].start + 60] = b"\0" * 40
    path.write_bytes(data)
    found = [list(read_dump_pages(u.path, u.start, u.length)) for u in units]
    assert [p.reason for p in found[3]] == ["cut_off"]
    assert sum(len(part) for i, part in enumerate(found) if i != 3) == 35


def test_an_index_that_does_not_fit(tmp_path):
    path = tmp_path / "fiwiki-pages-articles-multistream1.xml-p1p9.bz2"
    path.write_bytes(b"BZh9")
    index = tmp_path / "fiwiki-pages-articles-multistream-index1.txt-p1p9.bz2"
    index.write_bytes(bz2.compress(b"600:1:A\n"))
    with pytest.raises(InputError, match=r"p1p9\.bz2:1: .*\b600\b"):
        split_dumps([path])
    index.write_bytes(bz2.compress(b"A:1\n"))
    with pytest.raises(InputError, match=r"p1p9\.bz2:1: "):
        split_dumps([path])


def test_files_are_distinguished(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * (3 << 20))
    before = file_identity(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"x" * (3 << 20) + b"y")
    assert file_identity(tmp_path / "a") != before
    with pytest.raises(InputError, match="absent: "):
        file_identity(tmp_path / "absent")


@pytest.mark.parametrize(
    ("wikis", "config", "words"),
    [
        ([], CorpusConfig(), "^dumps: "),
        ([WikiFiles("xx", ("a",))], CorpusConfig(), "'xx'"),
        ([WikiFiles("en", ())], CorpusConfig(), "^language en: "),
        ([WikiFiles("en", ("a",))] * 2, CorpusConfig(), "^language en: .*twice"),
        ([WikiFiles("en", ("/absent",))], CorpusConfig(), "^/absent: "),
        ([WikiFiles("en", ("a",))], CorpusConfig(words=0), "^words: "),
    ],
)
def test_bad_settings(tmp_path, wikis, config, words):
    with pytest.raises(InputError, match=words):
        make_corpus(wikis, tmp_path, config=config, runner=HERE)


def test_a_real_dump(real_data, tmp_path):
    whole = bz2.decompress((real_data / "wiki" / "enwiki-shortened-pages-articles.xml.bz2").read_bytes())
    end = b"  </page>\n"
    path = tmp_path / "first.xml"
    path.write_bytes(end.join(whole.split(end, 81)[:80]) + end + b"</mediawiki>\n")
    made = make_corpus([WikiFiles("en", (str(path),))], tmp_path, runner=HERE)
    counts = made["pages/en"]
    assert counts["pages"] == 80 == counts["articles"] + counts["redirects"] + counts.get("rejected/other_namespace", 0)
    assert damage(made) == {}
    passages_from_dump(path, tmp_path / "p.tsv")
    assert (tmp_path / "passages" / "passages.tsv").read_bytes() == (tmp_path / "p.tsv").read_bytes()
    for found in read_pages(tmp_path / "pages" / "en"):
        held = sum(anchors_in(found, i) for i in range(len(found.sentences)))
        assert held == len(found.anchors)
        assert all(
            found.text[a.start : a.end].strip() and "\n" not in found.text[a.start : a.end] for a in found.anchors
        )
    assert counts["sentences"] > 900 and counts["anchors"] > 900
    assert read_stage(tmp_path / "pages" / "en").result == counts
