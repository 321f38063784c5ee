# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables that pages are joined with: titles, redirects, SQL dumps and Wikidata."""

import gzip
import json

import pytest

from class_jax.corpus.wikipedia.sql_dump import read_rows
from class_jax.corpus.wikipedia.titles import LanguageLinks, Titles, page_key, sitelinks, write_links, write_titles
from class_jax.errors import InputError

HEAD = """-- MySQL dump 10.19
DROP TABLE IF EXISTS `langlinks`;
CREATE TABLE `langlinks` (
  `ll_from` int(8) unsigned NOT NULL DEFAULT 0,
  `ll_lang` varbinary(35) NOT NULL DEFAULT '',
  `ll_title` varbinary(255) NOT NULL DEFAULT '',
  PRIMARY KEY (`ll_from`,`ll_lang`)
) ENGINE=InnoDB;
"""
ROWS = r"""INSERT INTO `langlinks` VALUES (1,'fi','Helsinki'),(2,'en','O\'Brien (a),(b) \\ \"x\"'),(3,'ja',NULL);
INSERT INTO `langlinks` VALUES (4,'ru','Тест;'),(5,'de','');
"""
COLUMNS = ("ll_title", "ll_from")


def read(path, table="langlinks", columns=COLUMNS):
    damage = []
    return list(read_rows(path, table, columns, damage.append)), [str(d) for d in damage]


@pytest.mark.parametrize("name", ["l.sql", "l.sql.gz"])
def test_rows_of_an_sql_dump(tmp_path, name):
    path = tmp_path / name
    path.write_bytes((gzip.compress if name.endswith("gz") else bytes)((HEAD + ROWS).encode()))
    rows, damage = read(path)
    assert rows == [("Helsinki", "1"), ('O\'Brien (a),(b) \\ "x"', "2"), ("", "3"), ("Тест;", "4"), ("", "5")]
    assert damage == []


def test_a_line_that_cannot_be_read_is_reported(tmp_path):
    path = tmp_path / "l.sql"
    path.write_text(HEAD + "INSERT INTO `langlinks` VALUES (1,'fi','A'),(2,'en','B;\n" + ROWS)
    rows, damage = read(path)
    assert [row[1] for row in rows] == ["1", "1", "2", "3", "4", "5"]
    assert damage == [f"{path}:9: no row can be read at character 45"]


def test_an_sql_dump_that_is_cut_off(tmp_path):
    path = tmp_path / "l.sql.gz"
    many = "".join(f"INSERT INTO `langlinks` VALUES ({i},'fi','{hash(str(i))}');\n" for i in range(2000))
    data = gzip.compress((HEAD + many).encode())
    path.write_bytes(data[: len(data) // 2])
    rows, damage = read(path)
    assert 500 < len(rows) < 1500 and len(damage) == 1 and f"{path}:{len(rows) + 9}: cannot be read on" in damage[0]


@pytest.mark.parametrize(
    ("text", "table", "columns", "words"),
    [
        (HEAD + ROWS, "page", COLUMNS, r"l\.sql: .*'langlinks'.*'page'"),
        (HEAD, "page", COLUMNS, r"l\.sql: .*'page'"),
        ("", "page", COLUMNS, r"l\.sql: .*''"),
        (HEAD + ROWS, "langlinks", ("ll_titel",), r"l\.sql: .*'ll_titel'.*'ll_title'"),
        (None, "langlinks", COLUMNS, r"l\.sql: "),
    ],
)
def test_another_table(tmp_path, text, table, columns, words):
    path = tmp_path / "l.sql"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=words):
        read(path, table, columns)


def test_redirects_are_followed(tmp_path):
    rows = [
        ("A", None),
        ("B", "A"),
        ("C", "B"),
        ("L1", "L2"),
        ("L2", "L1"),
        ("Self", "Self"),
        ("N", "Gone"),
        ("A", "N"),
    ]
    rows += [(f"R{i}", f"R{i + 1}") for i in range(20)]
    assert write_titles(tmp_path / "t", rows) == 27
    titles = Titles(tmp_path / "t")
    assert {t: tuple(titles.resolve(t)) for t in ("A", "B", "C", "L1", "Self", "N", "X", "R0")} == {
        "A": ("A", "", 0),
        "B": ("A", "", 1),
        "C": ("A", "", 2),
        "L1": ("", "loop", 2),
        "Self": ("", "loop", 1),
        "N": ("", "nowhere", 1),
        "X": ("", "nowhere", 0),
        "R0": ("", "loop", 9),
    }
    assert {"B", "L1", "N"} < set(titles.redirects()) and "A" not in set(titles.redirects())


def test_language_links_by_id_or_title(tmp_path):
    write_links(tmp_path / "a", [(page_key("en", id="1"), "fi", "Yksi"), (page_key("fi", id="1"), "en", "Other")])
    write_links(tmp_path / "b", [(page_key("en", title="One"), "fi", "1"), (page_key("en", title="One"), "de", "Eins")])
    links = LanguageLinks([tmp_path / "a", tmp_path / "b"], "en")
    assert links.of("1", "One") == {"fi": "Yksi", "de": "Eins"}
    assert links.of("2", "One") == {"fi": "1", "de": "Eins"}
    assert links.of("1", "Two") == {"fi": "Yksi"}
    assert links.of("One", "1") == {}


NAMES = {"enwiki": "en", "en": "en", "fi": "fi", "fiwiki": "fi"}


def test_lines_of_wikidata_and_of_the_light_format():
    item = {
        "id": "Q1",
        "labels": {},
        "sitelinks": {
            w: {"site": w, "title": t}
            for w, t in (("enwiki", "universe"), ("fiwiki", "Maailman_kaikkeus"), ("svwiki", "x"), ("enwikiquote", "y"))
        },
    }
    found = {"en": "Universe", "fi": "Maailman kaikkeus"}
    assert sitelinks(json.dumps(item) + ",\n", NAMES) == found
    assert sitelinks(json.dumps({"en": "Universe", "fi": "Maailman kaikkeus", "sv": "x"}), NAMES) == found
    assert sitelinks("[\n", NAMES) == sitelinks("]", NAMES) == sitelinks("\n", NAMES) == {}
    assert sitelinks('{"id": "Q2", "sitelinks": []}', NAMES) == {}
    assert sitelinks('{"id": "Q2", "en": "x"}', NAMES) == {}


@pytest.mark.parametrize("line", ["{", "[1]", '{"en": 1}', '{"id": "Q1", "sitelinks": {"enwiki": {}}}'])
def test_lines_that_are_neither(line):
    with pytest.raises(ValueError):
        sitelinks(line, NAMES)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="absent: "):
        Titles(tmp_path / "absent")
