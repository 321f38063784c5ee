# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The embedded encyclopaedia: sizes, scripts, offsets, answers in passages, no leaks, same bytes."""

import csv
import json
import re
import shutil
import unicodedata
from collections import defaultdict
from importlib import resources
from pathlib import Path

import pytest

from class_jax.corpus.passages import read_passages
from class_jax.demo.encyclopaedia import (
    LANGUAGES,
    QUESTION_LANGUAGES,
    RELATIONS,
    build_encyclopaedia,
    load_tables,
    main,
    thinned,
)
from class_jax.demo.run import ONE_COUNTRY_IN
from class_jax.errors import InputError
from class_jax.questions import read_anchor_questions, read_parallel, read_xor

SCRIPTS = {
    "en": "LATIN",
    "fi": "LATIN",
    "ar": "ARABIC",
    "bn": "BENGALI",
    "ko": "HANGUL",
    "ru": "CYRILLIC",
    "te": "TELUGU",
}
DATA = Path(str(resources.files("class_jax.demo") / "data"))


class Built:
    def __init__(self, folder, one_country_in=1):
        self.folder, self.one_country_in = folder, one_country_in
        self.counts = build_encyclopaedia(folder, one_country_in=one_country_in)
        self.passages = {p.id: p for p in read_passages(folder / "passages.tsv")}
        with open(folder / "passage_languages.tsv", encoding="utf-8") as f:
            self.places = {row["id"]: row for row in csv.DictReader(f, delimiter="\t")}
        self.anchor_questions = list(read_anchor_questions(folder / "anchor_questions.tsv"))
        self.sources = dict(self.rows("anchor_questions.passages.tsv"))
        self.heldout = self.records("heldout.jsonl")
        self.gold = {r["id"]: r for r in self.records("heldout_gold.jsonl")}

    def rows(self, name):
        return [line.split("\t") for line in (self.folder / name).read_text(encoding="utf-8").splitlines()]

    def records(self, name):
        return [json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").splitlines()]

    def language(self, passage_id):
        return self.places[passage_id]["language"]


@pytest.fixture(scope="module", params=[1, ONE_COUNTRY_IN], ids=["whole", "demo"])
def built(tmp_path_factory, request):
    return Built(tmp_path_factory.mktemp("encyclopaedia"), request.param)


@pytest.fixture(scope="module")
def tables():
    return load_tables()


def test_a_thinned_encyclopaedia_is_closed(tables):
    """Nothing that is kept tells of a country, or of something in a country, that is left out."""
    few = thinned(tables, 3)
    assert thinned(tables, 1) is tables
    countries = [entity for entity, kind in tables.types.items() if kind == "country"][::3]
    assert [entity for entity, kind in few.types.items() if kind == "country"] == countries
    facts = set(few.facts)
    assert facts < set(tables.facts)
    assert set(few.types) == set(few.names) == {e for f in facts for e in (f.subject, f.object) if e in tables.types}
    for fact in tables.facts:  # whatever is told of a country that is kept, is kept with it
        if fact.relation in ("currency", "independence_year", "continent"):
            assert (fact in facts) is (fact.subject in countries)


def test_sizes(built):
    assert built.counts["entities"] >= 150
    assert len(built.passages) >= 1200
    assert list(built.passages) == [str(i) for i in range(1, len(built.passages) + 1)] == list(built.places)
    for language in QUESTION_LANGUAGES:
        asked = [r for r in built.heldout if r["lang"] == language]
        unseen = sum(r["fact"] == "unseen" for r in asked)
        assert len(asked) >= 60 and 0.1 <= unseen / len(asked) <= 0.2
        assert built.counts["languages"][language]["heldout"] == len(asked)
        assert built.counts["languages"][language]["unseen"] == unseen
        assert built.counts["languages"][language]["anchor_questions"] >= 500
    per_language = [row["passages"] for row in built.counts["languages"].values()]
    assert sum(per_language) == len(built.passages) and min(per_language) >= built.counts["entities"]


def test_passages_are_short_and_titled(built, tables):
    for passage in built.passages.values():
        language, page = built.language(passage.id), built.places[passage.id]["page"]
        assert passage.title == tables.names[page][language]
        assert unicodedata.is_normalized("NFC", passage.title) and unicodedata.is_normalized("NFC", passage.text)
        words = len(passage.text) / 2 if language == "ja" else len(passage.text.split())
        assert 3 <= words <= 100
        assert "{" not in passage.text and "[[" not in passage.text and "  " not in passage.text
        if language in ("en", "fi", "ru"):
            assert not any(s[0].islower() for s in re.split(r"(?<=[.]) ", passage.text)), passage


def test_each_language_is_in_its_script(built):
    letters = defaultdict(lambda: defaultdict(int))
    for record in built.heldout:
        text = record["question"] + record["answers"][0]
        for letter in filter(str.isalpha, text):
            letters[record["lang"]][unicodedata.name(letter).split()[0]] += 1
    for passage in built.passages.values():
        for letter in filter(str.isalpha, passage.text + passage.title):
            letters[built.language(passage.id)][unicodedata.name(letter).split()[0]] += 1
    assert set(letters) == set(LANGUAGES)
    for language, counts in letters.items():
        expected = {SCRIPTS[language]} if language in SCRIPTS else {"HIRAGANA", "KATAKANA", "CJK", "KATAKANA-HIRAGANA"}
        assert sum(counts[script] for script in expected) == sum(counts.values()), (language, dict(counts))


def test_anchors_point_at_their_surface(built, tables):
    anchors = built.records("anchors.jsonl")
    assert {a["language"] for a in anchors} == set(LANGUAGES)
    for a in anchors:
        assert a["sentence"][a["start"] : a["end"]] == a["surface"] == tables.names[a["target"]][a["language"]]
        assert a["sentence"] in built.passages[a["passage"]].text
        assert a["target"] != a["page"] == built.places[a["passage"]]["page"]
        assert a["language"] == built.language(a["passage"])


def test_language_links_cover_every_title(built, tables):
    header, *links = built.rows("langlinks.tsv")
    assert header == ["language", "title", "english"]
    titles = {(built.language(p.id), p.title) for p in built.passages.values()}
    assert {(language, title) for language, title, _ in links} == {t for t in titles if t[0] != "en"}
    assert {("en", english) for _, _, english in links} == {t for t in titles if t[0] == "en"}


def test_parallel_clozes_hide_their_answer(built):
    texts = {
        language: "".join(p.text for p in built.passages.values() if built.language(p.id) == language)
        for language in LANGUAGES
    }
    rows = built.rows("parallel.tsv")
    assert len({row[0] for row in rows}) == len(rows) == len(list(read_parallel(built.folder / "parallel.tsv")))
    for number, cloze, sentence, answer in rows:
        assert cloze.count("_X_") == 1 and answer not in cloze
        assert cloze.replace("_X_", answer) in texts["en"]
        assert sentence in texts[number.partition("-")[0]] and "_X_" not in sentence


def test_parallel_sentences_tell_the_same_fact(built, tables):
    """Both sides name the same entities: those of the English side, in the other language."""
    languages_of_name = {n["en"]: n for n in tables.names.values()}
    for number, _, sentence, answer in built.rows("parallel.tsv"):
        language = number.partition("-")[0]
        assert languages_of_name.get(answer, {language: answer})[language] in sentence


def test_held_out_answers_stand_in_gold_passages(built):
    english = {r["id"]: r for r in built.records("heldout_english.jsonl")}
    assert list(english) == [r["id"] for r in built.heldout] == list(built.gold)
    for record in built.heldout:
        gold, other = built.gold[record["id"]], english[record["id"]]
        assert (record["question"], record["lang"]) == (other["question"], other["lang"])
        assert gold["english"] == [p for p in gold["passages"] if built.language(p) == "en"] != []
        own = [p for p in gold["passages"] if built.language(p) == record["lang"]]
        assert own and all(record["answers"][0] in built.passages[p].text for p in own)
        assert all(other["answers"][0] in built.passages[p].text for p in gold["english"])
        assert {built.language(p) for p in gold["passages"]} == set(LANGUAGES)
    assert len(list(read_xor(built.folder / "heldout.jsonl", needs_answers=True))) == len(built.heldout)


def test_held_out_questions_are_worded_otherwise(built, tables):
    """No question or template is shared, and no held-out template is a reordering of a training one."""
    trained = {(q.language, q.text) for q in built.anchor_questions}
    assert not any((r["lang"], r["question"]) in trained for r in built.heldout)
    assert len({(r["lang"], r["question"]) for r in built.heldout}) == len(built.heldout)
    for language in QUESTION_LANGUAGES:
        for relation, wording in tables.templates[language]["relations"].items():
            for direction in ("object", "subject"):
                for template in wording.get(f"ask_{direction}", ()):
                    pieces = [_pieces(t, language) for t in (template, wording[f"heldout_{direction}"])]
                    shared = len(pieces[0] & pieces[1]) / len(pieces[0] | pieces[1])
                    assert shared <= 0.6, (language, relation, direction, template)


def _pieces(template, language):
    bare = re.sub(r"\{[so]\}|[?؟。.'«»『』]", " ", template.lower())
    return {bare[i : i + 2] for i in range(len(bare) - 1)} if language == "ja" else set(bare.split())


def test_unseen_facts_are_never_asked(built, tables):
    """An unseen question's answer is the answer of no training question about the same entity and relation."""
    asked = defaultdict(set)
    for q in built.anchor_questions:
        asked[q.language].add((q.text, q.answers[0]))
    for seen, matches in (("unseen", False), ("seen", True)):
        for record in (r for r in built.heldout if r["fact"] == seen):
            language, (answer,) = record["lang"], record["answers"]
            wordings = tables.templates[language]["relations"].values()
            names = [n[language] for n in tables.names.values() if n[language] in record["question"]]
            questions = {
                (re.sub(r"\{[so]\}", lambda _, n=name: n, template), answer)
                for wording in wordings
                for direction in ("object", "subject")
                if f"ask_{direction}" in wording and _fills(wording[f"heldout_{direction}"], names, record["question"])
                for template in wording[f"ask_{direction}"]
                for name in names
            }
            assert bool(questions & asked[language]) == matches, record


def _fills(template, names, question):
    return any(re.sub(r"\{[so]\}", lambda _, n=name: n, template) == question for name in names)


def test_answers_survive_the_loss_of_their_own_passage(built):
    """A stage-2 question's own passage never enters its list: another of its language must state the fact."""
    mentions = defaultdict(set)
    for q in built.anchor_questions:
        mentions[q.language, q.text].add(q.answers)
    assert all(len(answers) == 1 for answers in mentions.values()), "an ambiguous question"
    by_language = defaultdict(list)
    for passage in built.passages.values():
        by_language[built.language(passage.id)].append(passage)
    tables = load_tables()
    given = {lang: sorted((n[lang] for n in tables.names.values()), key=len, reverse=True) for lang in LANGUAGES}
    elsewhere = 0
    for q in built.anchor_questions:
        (answer,) = q.answers
        own = built.passages[built.sources[q.id]]
        assert built.language(own.id) == q.language and answer in own.text
        name = next(n for n in given[q.language] if n in q.text)
        elsewhere += any(
            p.id != own.id and any(name in s and answer in s for s in re.split(r"(?<=[.。।]) ?", p.text))
            for p in by_language[q.language]
        )
    assert elsewhere / len(built.anchor_questions) >= 0.9


def test_first_phrasing_comes_from_an_anchor(built, tables):
    """Of each pair of phrasings, the first comes from a page other than the answer's, where it is a link."""
    anchors = {(a["passage"], a["surface"]) for a in built.records("anchors.jsonl")}
    names = {(language, name) for n in tables.names.values() for language, name in n.items()}
    first = [q for q in built.anchor_questions[::2] if (q.language, q.answers[0]) in names]
    assert len(first) > 1000
    assert all((built.sources[q.id], q.answers[0]) in anchors for q in first)


def test_every_relation_is_told_and_asked(built, tables):
    assert {f.relation for f in tables.facts} == set(RELATIONS)
    for language in QUESTION_LANGUAGES:
        for fact in tables.facts:
            assert fact.object in tables.names or fact.object.isdigit()
        questions = {r["question"] for r in built.heldout if r["lang"] == language}
        for relation, wording in tables.templates[language]["relations"].items():
            before, after = re.split(r"\{[so]\}", wording["heldout_object"])
            assert any(q.startswith(before) and q.endswith(after) for q in questions), (language, relation)


def test_same_bytes_every_time(built, tmp_path):
    build_encyclopaedia(tmp_path, one_country_in=built.one_country_in)
    names = sorted(p.name for p in built.folder.iterdir())
    assert names == sorted(p.name for p in tmp_path.iterdir()) and len(names) == 10
    for name in names:
        assert (built.folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_command_line_prints_counts(built, tmp_path, capsys):
    assert main([str(tmp_path / "out"), f"--one-country-in={built.one_country_in}"]) == 0
    printed = capsys.readouterr().out
    for language, row in built.counts["languages"].items():
        assert re.search(rf"^{language} .*\b{row['passages']}\b.*\b{row['parallel']}\b", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("facts.tsv", "\tcapital\t", "\tcapitol\t", "facts.tsv:2: capitol: unknown relation; did you mean 'capital'?"),
        ("facts.tsv", "\tparis\n", "\tpariss\n", "no city of this id; did you mean 'paris'"),
        ("facts.tsv", "subject\t", "topic\t", "facts.tsv:1: wrong header"),
        ("entities_city.tsv", "\tBerlin\t", "\tParis\t", "'Paris' is paris's name too"),
        ("entities_city.tsv", "berlin\tcity\t", "berlin\ttown\t", "entities_city.tsv:3: town: unknown type"),
        ("entities_city.tsv", "\tBerlin\t", "\t\t", "entities_city.tsv:3: 10 columns instead of 10, or an empty"),
        ("templates/fi.json", "pääkaupunki on {o}.", "pääkaupunki.", "fi.json: capital.statements: the slots of"),
    ],
)
def test_mistakes_in_the_tables_are_named(tmp_path, file, old, new, message):
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    text = (data / file).read_text(encoding="utf-8")
    assert old in text
    (data / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(message)):
        build_encyclopaedia(tmp_path / "out", data)
    assert not (tmp_path / "out").exists()
