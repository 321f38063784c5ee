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

from class_jax.common.files import numbered_lines
from class_jax.corpus.passages import read_passages
from class_jax.corpus.wikipedia.pages import read_pages
from class_jax.demo.encyclopaedia import (
    LANGUAGES,
    QUESTION_LANGUAGES,
    RELATIONS,
    SIDES,
    Asked,
    askable,
    held_out,
    load_tables,
    thinned,
)
from class_jax.demo.encyclopaedia_dump import PHRASEBOOK, build_dumps, main, title_of
from class_jax.demo.held_out import passages_with, write_held_out
from class_jax.demo.run import ONE_COUNTRY_IN, paths
from class_jax.errors import InputError
from class_jax.questions.readers import read_anchor_questions, read_xor

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


class Made:
    """What the pipelines made of the demo's part of the encyclopaedia."""

    def __init__(self, folder):
        self.folder, self.work = folder, folder / "data"
        self.tables = thinned(load_tables(), ONE_COUNTRY_IN)
        files = paths(folder)
        self.passages = {p.id: p for p in read_passages(files["PASSAGES"])}
        with open(files["PASSAGE_LANGUAGES"], encoding="utf-8") as f:
            self.languages = {row["id"]: row["language"] for row in csv.DictReader(f, delimiter="\t")}
        self.questions = list(read_anchor_questions(self.work / "stage2" / "anchor_questions.tsv"))
        own = numbered_lines(self.work / "stage2" / "anchor_questions.passages.tsv")
        self.sources = dict(text.split("\t") for _, text in own)
        self.heldout = self.records("heldout.jsonl")
        self.gold = {r["id"]: r for r in self.records("heldout_gold.jsonl")}

    def records(self, name):
        return [json.loads(line) for line in (self.work / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def made(demo_folder):
    return Made(demo_folder)


@pytest.fixture(scope="module")
def tables():
    return load_tables()


def test_a_thinned_encyclopaedia_is_closed(tables):
    """Nothing that is kept mentions a country, or something in a country, that is left out."""
    few = thinned(tables, 3)
    assert thinned(tables, 1) is tables
    countries = [entity for entity, kind in tables.types.items() if kind == "country"][::3]
    assert [entity for entity, kind in few.types.items() if kind == "country"] == countries
    facts = set(few.facts)
    assert facts < set(tables.facts)
    assert set(few.types) == set(few.names) == {e for f in facts for e in (f.subject, f.object) if e in tables.types}
    for fact in tables.facts:  # whatever is stated of a country that is kept, is kept with it
        if fact.relation in ("currency", "independence_year", "continent"):
            assert (fact in facts) is (fact.subject in countries)


def test_sizes(made):
    assert len(made.tables.types) >= 150 and len(made.passages) >= 1200
    assert list(made.passages) == [str(i) for i in range(1, len(made.passages) + 1)] == list(made.languages)
    for language in QUESTION_LANGUAGES:
        asked = [r for r in made.heldout if r["lang"] == language]
        unseen = sum(r["fact"] == "unseen" for r in asked)
        assert len(asked) >= 60 and 0.1 <= unseen / len(asked) <= 0.2
        assert sum(q.language == language for q in made.questions) >= 500
        assert sum(code == language for code in made.languages.values()) >= len(made.tables.types)


def test_passages_are_short_and_titled(made):
    titles = {lang: {title_of(made.tables, entity, lang) for entity in made.tables.types} for lang in LANGUAGES}
    for passage in made.passages.values():
        language = made.languages[passage.id]
        assert passage.title in titles[language]
        assert unicodedata.is_normalized("NFC", passage.title) and unicodedata.is_normalized("NFC", passage.text)
        words = len(passage.text) / 2 if language == "ja" else len(passage.text.split())
        assert 2 <= words <= 30
        assert passage.text.endswith((".", "।", "。")) and "{" not in passage.text and "[[" not in passage.text
        if language in ("en", "fi", "ru"):
            assert not any(s[0].islower() for s in re.split(r"(?<=[.]) ", passage.text)), passage


def test_each_language_is_in_its_script(made):
    letters = defaultdict(lambda: defaultdict(int))
    for record in made.heldout:
        text = record["question"] + record["answers"][0]
        for letter in filter(str.isalpha, text):
            letters[record["lang"]][unicodedata.name(letter).split()[0]] += 1
    for passage in made.passages.values():
        for letter in filter(str.isalpha, passage.text + passage.title):
            letters[made.languages[passage.id]][unicodedata.name(letter).split()[0]] += 1
    assert set(letters) == set(LANGUAGES)
    for language, counts in letters.items():
        expected = {SCRIPTS[language]} if language in SCRIPTS else {"HIRAGANA", "KATAKANA", "CJK", "KATAKANA-HIRAGANA"}
        assert sum(counts[script] for script in expected) == sum(counts.values()), (language, dict(counts))


def test_held_out_answers_are_in_gold_passages(made):
    english = {r["id"]: r for r in made.records("heldout_english.jsonl")}
    assert list(english) == [r["id"] for r in made.heldout] == list(made.gold)
    for record in made.heldout:
        gold, other = made.gold[record["id"]], english[record["id"]]
        assert (record["question"], record["lang"]) == (other["question"], other["lang"])
        assert gold["english"] == [p for p in gold["passages"] if made.languages[p] == "en"] != []
        own = [p for p in gold["passages"] if made.languages[p] == record["lang"]]
        assert own and all(record["answers"][0] in made.passages[p].text for p in own)
        assert all(other["answers"][0] in made.passages[p].text for p in gold["english"])
        assert {made.languages[p] for p in gold["passages"]} == set(LANGUAGES)
    assert len(list(read_xor(made.work / "heldout.jsonl", needs_answers=True))) == len(made.heldout)


def test_held_out_questions_are_worded_otherwise(made, tables):
    """No question or template is shared, and no held-out template is a reordering of a training one."""
    trained = {(q.language, q.text) for q in made.questions}
    assert not any((r["lang"], r["question"]) in trained for r in made.heldout)
    assert len({(r["lang"], r["question"]) for r in made.heldout}) == len(made.heldout)
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


def _trained(tables, asked, language):
    """The training questions about one side of a fact."""
    templates = tables.templates[language]["relations"][asked.fact.relation].get(f"ask_{asked.direction}", ())
    return {re.sub(r"\{[so]\}", lambda _: tables.name(asked.given, language), template) for template in templates}


def test_unseen_facts_are_never_asked(made):
    """No question is made of what counts as unseen, and of nearly everything else that has an anchor."""
    trained = defaultdict(set)
    for q in made.questions:
        trained[q.language].add(q.text.rstrip("?؟？"))
    _, unseen = held_out(made.tables)
    hits = []
    for language in QUESTION_LANGUAGES:
        for asked in askable(made.tables):
            questions = {text.rstrip(".?؟？。") for text in _trained(made.tables, asked, language)}
            if asked in unseen:
                assert not questions & trained[language], asked
            elif asked.answer in made.tables.types:
                hits.append(bool(questions & trained[language]))
    assert sum(hits) > 0.9 * len(hits) > 500


def test_answers_survive_the_loss_of_their_own_passage(made):
    """A stage-2 question's own passage never enters its list: another of its language must state the fact."""
    by_language = defaultdict(list)
    for passage in made.passages.values():
        by_language[made.languages[passage.id]].append(passage)
    names = {lang: sorted((n[lang] for n in made.tables.names.values()), key=len, reverse=True) for lang in LANGUAGES}
    elsewhere = 0
    for q in made.questions:
        (answer,) = q.answers
        own = made.passages[made.sources[q.id]]
        assert made.languages[own.id] == q.language and answer in own.text
        name = next((n for n in names[q.language] if n in q.text), None) or re.search("[0-9]+", q.text)[0]
        elsewhere += any(
            p.id != own.id and any(name in s and answer in s for s in re.split(r"(?<=[.。।]) ?", p.text))
            for p in by_language[q.language]
        )
    assert elsewhere / len(made.questions) >= 0.9


def test_every_relation_is_stated_and_asked(made, tables):
    assert {f.relation for f in tables.facts} == {f.relation for f in made.tables.facts} == set(RELATIONS)
    for language in QUESTION_LANGUAGES:
        for fact in tables.facts:
            assert fact.object in tables.names or fact.object.isdigit()
        questions = {r["question"] for r in made.heldout if r["lang"] == language}
        for relation, wording in tables.templates[language]["relations"].items():
            before, after = re.split(r"\{[so]\}", wording["heldout_object"])
            assert any(q.startswith(before) and q.endswith(after) for q in questions), (language, relation)


def test_the_phrasebook_asks_only_in_the_training_wordings(made, tables):
    header, *rows = [text.split("\t") for _, text in numbered_lines(made.folder / "dumps" / PHRASEBOOK)]
    assert header == ["language", "statement", "question"]
    asked = {(language, question) for language, _, question in rows}
    wanted = {
        (language, re.sub(r"\{[so]\}", "{given}", template))
        for language in QUESTION_LANGUAGES
        for wording in tables.templates[language]["relations"].values()
        for side in SIDES
        for template in wording.get(f"ask_{side}", ())
    }
    assert asked == wanted


def test_a_page_that_states_something_else_is_refused(made, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(made.work / "passages", work / "passages")
    shutil.copytree(made.work / "pages", work / "pages")
    fact = next(f for f in made.tables.facts if Asked(f, "object") in held_out(made.tables)[0])
    name = made.tables.name(fact.object, "en")
    for file in (work / "pages" / "en").glob("*.jsonl"):
        file.write_text(file.read_text(encoding="utf-8").replace(name, "Atlantis"), encoding="utf-8")
    with pytest.raises(InputError, match=f"^{work}/pages/en: "):
        write_held_out(made.tables, work, tmp_path)
    assert not list(tmp_path.glob("*.jsonl"))


def test_gold_is_where_the_answer_is_when_a_sentence_is_cut(made, tmp_path):
    """Passages of ten characters: the answer's first character is in the gold one."""
    (tmp_path / "passages").mkdir()
    (tmp_path / "pages").symlink_to(made.work / "pages")
    texts = {page.id: page.text for page in read_pages(made.work / "pages" / "fi")}
    with open(tmp_path / "passages" / "passage_spans.tsv", "w", encoding="utf-8") as spans:
        spans.write("id\tlanguage\tpage\tstart\tend\n")
        for page, text in texts.items():
            for start in range(0, len(text), 10):
                spans.write(f"{page}+{start}\tfi\t{page}\t{start}\t{min(start + 10, len(text))}\n")
    drawn, _ = held_out(made.tables)
    for asked, passages in passages_with(made.tables, tmp_path, "fi", drawn).items():
        answer = made.tables.name(asked.answer, "fi")
        for page, start in (passage.split("+") for passage in passages):
            assert answer in texts[page][int(start) : int(start) + 9 + len(answer)], asked


def test_same_bytes_every_time(made, tmp_path, capsys):
    assert main([str(tmp_path), f"--one-country-in={ONE_COUNTRY_IN}"]) == 0
    names = sorted(p.name for p in (made.folder / "dumps").iterdir())
    assert names == sorted(p.name for p in tmp_path.iterdir()) and len(names) == 3 * len(LANGUAGES) + 1
    for name in names:
        assert (made.folder / "dumps" / name).read_bytes() == (tmp_path / name).read_bytes(), name
    assert re.search(rf"^fi .*\b{len(made.tables.types)}\b", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("facts.tsv", "\tcapital\t", "\tcapitol\t", "facts.tsv:2: capitol: "),
        ("facts.tsv", "\tparis\n", "\tpariss\n", "no city of this id; did you mean 'paris'"),
        ("facts.tsv", "subject\t", "topic\t", "facts.tsv:1: "),
        ("entities_city.tsv", "\tBerlin\t", "\tParis\t", "'Paris' is paris's name too"),
        ("entities_city.tsv", "berlin\tcity\t", "berlin\ttown\t", "entities_city.tsv:3: town: "),
        ("entities_city.tsv", "\tBerlin\t", "\t\t", "entities_city.tsv:3: "),
        ("templates/fi.json", "pääkaupunki on {o}.", "pääkaupunki.", "fi.json: capital.statements: "),
    ],
)
def test_mistakes_in_the_tables_are_named(tmp_path, file, old, new, message):
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    text = (data / file).read_text(encoding="utf-8")
    assert old in text
    (data / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(message)):
        build_dumps(tmp_path / "out", data)
    assert not (tmp_path / "out").exists()
