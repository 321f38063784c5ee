# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The embedded encyclopaedia: a small multilingual corpus and its questions, generated from tables of facts.

`data/` holds entities (a name per language), facts (subject, relation, object) and, per language, the sentences and
questions of each relation (`data/README.md`). This module reads them, plans pages and writes their sentences. From
these `encyclopaedia_dump` writes Wikipedia dumps, which go through the same pipelines as real ones, and `held_out` the
questions that a trained model is asked.

A fact is stated on more than one page: on its subject's, and on its object's or, where the object is a
number, on that of an entity near the subject. So the answer can still be found when the passage that a
stage-2 question was made from is left out of its own list.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, NamedTuple

from class_jax.errors import InputError, nearest

ENGLISH = "en"
QUESTION_LANGUAGES = ("ar", "bn", "fi", "ja", "ko", "ru", "te")
"""The languages that questions are asked in: those of XOR-TyDi QA."""
LANGUAGES = (ENGLISH, *QUESTION_LANGUAGES)

RELATIONS = {
    "capital": ("country", "city"),
    "continent": ("country", "continent"),
    "official_language": ("country", "language"),
    "currency": ("country", "currency"),
    "independence_year": ("country", None),
    "country_of_city": ("city", "country"),
    "river_country": ("river", "country"),
    "river_city": ("river", "city"),
    "river_mouth": ("river", "sea"),
    "river_length": ("river", None),
    "mountain_country": ("mountain", "country"),
    "mountain_height": ("mountain", None),
    "birth_year": ("person", None),
    "death_year": ("person", None),
    "birth_city": ("person", "city"),
    "person_country": ("person", "country"),
    "occupation": ("person", "occupation"),
    "author": ("work", "person"),
    "work_year": ("work", None),
}
"""Relation -> (type of the subject, type of the object; None where it is a number)."""

_TYPES = {kind for pair in RELATIONS.values() for kind in pair if kind}
# Where a number is stated a second time: on the page of the first of these relations' objects that is known.
_NEAR = {
    "independence_year": ("capital",),
    "river_length": ("river_city", "river_country", "river_mouth"),
    "mountain_height": ("mountain_country",),
    "birth_year": ("birth_city", "person_country", "occupation"),
    "death_year": ("birth_city", "person_country", "occupation"),
    "work_year": ("author",),
}
# Of which country an entity is: the object of its first of these relations; a capital is the other way about.
_HOME = ("country_of_city", "river_country", "mountain_country", "person_country", "author")
_AT_HOME = ("country", "city", "river", "mountain", "person", "work")
UNSPACED = frozenset({"ja"})
"""Languages without blanks between sentences."""
_PHRASINGS = 4  # training questions that ask for one side of a fact in a language
_HELD_OUT = 98  # held-out questions per language
_UNSEEN = 0.15  # share of them whose fact no training question asks
_LINK = re.compile(r"\[\[([a-z0-9_]*)\|([^\[\]|]+)\]\]")
_SLOT = re.compile(r"\{([so])\}")


class Fact(NamedTuple):
    """`object` is an entity's id, or a number in digits."""

    subject: str
    relation: str
    object: str


class Link(NamedTuple):
    """A name or number in a sentence, `text[start:end]`; `target` is the entity's id, empty for a number."""

    start: int
    end: int
    surface: str
    target: str


class Statement(NamedTuple):
    """A sentence of a page, in no language yet: the fact (None: the lead) and which wording states it."""

    page: str
    fact: Fact | None
    wording: str
    variant: int


class Sentence(NamedTuple):
    """A sentence in one language, with its links."""

    statement: Statement
    text: str
    links: tuple[Link, ...]


SIDES = ("object", "subject")
"""What of a fact can be asked for."""


class Asked(NamedTuple):
    """A fact asked for one of its `SIDES`."""

    fact: Fact
    direction: str

    @property
    def answer(self) -> str:
        """The entity or number asked for."""
        return self.fact.object if self.direction == "object" else self.fact.subject

    @property
    def given(self) -> str:
        """The entity or number that the question names."""
        return self.fact.subject if self.direction == "object" else self.fact.object


@dataclass(frozen=True)
class Tables:
    """The data folder.

    Attributes:
      types: entity id -> type, in the order of the files.
      names: entity id -> language -> name.
      facts: all facts, in the order of the file.
      templates: language -> the content of its JSON file.
    """

    types: dict[str, str]
    names: dict[str, dict[str, str]]
    facts: tuple[Fact, ...]
    templates: dict[str, dict[str, Any]]

    def name(self, entity_or_number: str, language: str) -> str:
        """Returns an entity's name in a language; a number is returned unchanged."""
        return self.names[entity_or_number][language] if entity_or_number in self.names else entity_or_number


def load_tables(data: Traversable | None = None) -> Tables:
    """Reads and checks the data folder (the package's own if None).

    Raises:
      InputError: a wrong header or number of columns, an unknown type, relation or entity, a name that is
        empty, taken or not NFC, a second object of a relation, a template with the wrong slots.
    """
    data = resources.files("class_jax.demo").joinpath("data") if data is None else data
    types, names = _load_entities(data)
    facts = _load_facts(data / "facts.tsv", types)
    return Tables(types, names, facts, {language: _load_templates(data, language) for language in LANGUAGES})


def thinned(tables: Tables, one_country_in: int) -> Tables:
    """Keeps the first of every so many countries, and the cities, rivers, mountains, people and works of only these.

    Languages, currencies, seas, continents and occupations stay where a fact that is kept names them.
    """
    if one_country_in == 1:
        return tables
    home = {fact.object: fact.subject for fact in tables.facts if fact.relation == "capital"}
    for relation in reversed(_HOME):
        home |= {fact.subject: fact.object for fact in tables.facts if fact.relation == relation}
    countries = [entity for entity, kind in tables.types.items() if kind == "country"][::one_country_in]

    def kept(entity: str) -> bool:
        while entity in home:
            entity = home[entity]
        return entity in countries

    def is_kept(fact: Fact) -> bool:
        return kept(fact.subject) and (tables.types.get(fact.object) not in _AT_HOME or kept(fact.object))

    facts = tuple(filter(is_kept, tables.facts))
    named = {entity for fact in facts for entity in (fact.subject, fact.object)}
    types = {entity: kind for entity, kind in tables.types.items() if entity in named}
    return Tables(types, {entity: tables.names[entity] for entity in types}, facts, tables.templates)


def _load_entities(data: Traversable) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    types: dict[str, str] = {}
    names: dict[str, dict[str, str]] = {}
    taken: dict[tuple[str, str], str] = {}
    files = (f for f in data.iterdir() if f.name.startswith("entities_") and f.name.endswith(".tsv"))
    for file in sorted(files, key=lambda f: f.name):
        for line, (entity, kind, *row) in _rows(file, ("id", "type", *LANGUAGES)):
            if not re.fullmatch(r"[a-z][a-z0-9_]*", entity) or entity in types:
                problem = "a second entity of this id" if entity in types else "not an id"
                raise InputError(problem, file=file.name, line=line, key=entity, remedy="use a new lower_snake_case id")
            if kind not in _TYPES:
                raise InputError("unknown type", file=file.name, line=line, key=kind, remedy=nearest(kind, _TYPES))
            for language, name in zip(LANGUAGES, row, strict=True):
                other = taken.setdefault((language, name), entity)
                if other != entity or not unicodedata.is_normalized("NFC", name) or re.search(r"[\[\]|{}]", name):
                    problem = f"{name!r} is " + (f"{other}'s name too" if other != entity else "not NFC or has markup")
                    raise InputError(problem, file=file.name, line=line, key=language, remedy="change the name")
            types[entity] = kind
            names[entity] = dict(zip(LANGUAGES, row, strict=True))
    return types, names


def _load_facts(file: Traversable, types: dict[str, str]) -> tuple[Fact, ...]:
    facts: dict[tuple[str, str], Fact] = {}
    for line, row in _rows(file, Fact._fields):
        fact = Fact(*row)
        if fact.relation not in RELATIONS:
            remedy = nearest(fact.relation, RELATIONS)
            raise InputError("unknown relation", file=file.name, line=line, key=fact.relation, remedy=remedy)
        subject_type, object_type = RELATIONS[fact.relation]
        for entity, kind in ((fact.subject, subject_type), (fact.object, object_type)):
            if kind is None and not re.fullmatch("[0-9]+", entity):
                raise InputError("not a number", file=file.name, line=line, key=entity, remedy="write ASCII digits")
            if kind is not None and types.get(entity) != kind:
                remedy = nearest(entity, (e for e, t in types.items() if t == kind))
                raise InputError(f"no {kind} of this id", file=file.name, line=line, key=entity, remedy=remedy)
        if facts.setdefault(fact[:2], fact) is not fact:
            remedy = "keep one object per subject and relation"
            raise InputError("is there twice", file=file.name, line=line, key=f"{fact[0]} {fact[1]}", remedy=remedy)
    return tuple(facts.values())


def _load_templates(data: Traversable, language: str) -> dict[str, Any]:
    file = data / "templates" / f"{language}.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"can't be read ({error})", file=file.name) from error
    wanted = {("lead", kind): (content.get("lead", {}).get(kind), "s") for kind in _TYPES}
    for relation, (_, object_type) in RELATIONS.items():
        given = content.get("relations", {}).get(relation, {})
        keys = {"statements": "os", **({"reverse": "os"} if object_type else {})}
        if language != ENGLISH:
            keys |= {"ask_object": "s", "heldout_object": "s"}
            keys |= {"ask_subject": "o", "heldout_subject": "o"} if "ask_subject" in given else {}
        wanted |= {(relation, key): (given.get(key), slots) for key, slots in keys.items()}
    for (relation, key), (texts, slots) in wanted.items():
        count = {"statements": 2, "reverse": 2, "ask_object": _PHRASINGS, "ask_subject": _PHRASINGS}.get(key, 1)
        texts = texts if count > 1 and isinstance(texts, list) else [texts]
        if len(texts) != count or any(not isinstance(text, str) for text in texts):
            problem = f"{count} texts are needed" if count > 1 else "a text is needed"
            raise InputError(problem, file=file.name, key=f"{relation}.{key}")
        for text in texts:
            if "".join(sorted(_SLOT.findall(text))) != slots:
                problem = f"the slots of {text!r} are not " + " and ".join(f"{{{s}}}" for s in slots)
                raise InputError(problem, file=file.name, key=f"{relation}.{key}", remedy="name each slot once")
    return content


def _rows(file: Traversable, header: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't be read ({error})", file=file.name) from error
    for line, text in enumerate(lines, start=1):
        row = text.split("\t")
        if line == 1 and tuple(row) != header:
            raise InputError("wrong header", file=file.name, line=line, remedy="write " + "<TAB>".join(header))
        if len(row) != len(header) or any(cell != cell.strip() or not cell for cell in row):
            problem = f"{len(row)} columns instead of {len(header)}, or an empty or padded one"
            raise InputError(problem, file=file.name, line=line)
        if line > 1:
            yield line, row


def stable_hash(*parts: str) -> int:
    """Returns a number of 64 bits that depends only on the parts."""
    return int.from_bytes(hashlib.sha256("\t".join(parts).encode()).digest()[:8], "big")


def planned_pages(tables: Tables) -> dict[str, list[Statement]]:
    """Plans what each entity's page states: the lead, its own facts, then what others' facts say of it."""
    objects = {fact[:2]: fact.object for fact in tables.facts}
    own = {entity: [Statement(entity, None, "lead", 0)] for entity in tables.types}
    others: dict[str, list[Statement]] = defaultdict(list)
    for fact in tables.facts:
        variant = stable_hash(*fact) % 2
        own[fact.subject].append(Statement(fact.subject, fact, "statements", variant))
        if fact.object in tables.types:
            others[fact.object].append(Statement(fact.object, fact, "reverse", variant))
            continue
        near = [objects[key] for r in _NEAR[fact.relation] if (key := (fact.subject, r)) in objects]
        if near:
            others[near[0]].append(Statement(near[0], fact, "statements", 1 - variant))
    return {entity: own[entity] + others[entity] for entity in tables.types}


def sentence_of(tables: Tables, statement: Statement, language: str) -> Sentence:
    """Returns the sentence of a page in a language."""
    templates = tables.templates[language]
    if statement.fact is None:
        template, slots = templates["lead"][tables.types[statement.page]], {"s": statement.page}
    else:
        template = templates["relations"][statement.fact.relation][statement.wording][statement.variant]
        slots = {"s": statement.fact.subject, "o": statement.fact.object}

    def marked(slot: re.Match) -> str:
        value = slots[slot[1]]
        name = tables.name(value, language)
        # English names such as "United States" take an article that is no part of the name.
        article = "the " if name in templates.get("article", ()) else ""
        target = value if value in tables.types else ""
        return f"{article if slot.start() else article.capitalize()}[[{target}|{name}]]"

    return Sentence(statement, *_read_links(_SLOT.sub(marked, template)))


def _read_links(marked: str) -> tuple[str, tuple[Link, ...]]:
    """Splits `... [[target|surface]] ...` into plain text and its links."""
    text, end, links = "", 0, []
    for match in _LINK.finditer(marked):
        text += marked[end : match.start()]
        links.append(Link(len(text), len(text) + len(match[2]), match[2], match[1]))
        text += match[2]
        end = match.end()
    return text + marked[end:], tuple(links)


def askable(tables: Tables) -> list[Asked]:
    """Returns what can be asked: every object, and every subject that no other shares its object with."""
    sharing = Counter(fact[1:] for fact in tables.facts)
    asked = []
    for fact in tables.facts:
        asked.append(Asked(fact, "object"))
        wordings = [tables.templates[language]["relations"][fact.relation] for language in QUESTION_LANGUAGES]
        if sharing[fact[1:]] == 1 and all("ask_subject" in wording for wording in wordings):
            asked.append(Asked(fact, "subject"))
    return asked


def held_out(tables: Tables) -> tuple[list[Asked], set[Asked]]:
    """Draws the held-out questions by a fixed hash, in turn from every relation and direction.

    Returns:
      The questions, and those among them that no training question asks.
    """
    groups: dict[tuple[str, str], list[Asked]] = defaultdict(list)
    for asked in sorted(askable(tables), key=lambda a: stable_hash("held out", *a.fact, a.direction)):
        groups[asked.fact.relation, asked.direction].append(asked)
    turns = sorted((turn, key, asked) for key, group in groups.items() for turn, asked in enumerate(group))
    drawn = [asked for _, _, asked in turns[:_HELD_OUT]]
    ranked = sorted(drawn, key=lambda a: stable_hash("unseen", *a.fact, a.direction))
    return drawn, set(ranked[: round(_UNSEEN * len(drawn))])


def asked_in(tables: Tables, asked: Asked, language: str) -> str:
    """Returns the held-out question in a language, worded otherwise than the training questions."""
    template = tables.templates[language]["relations"][asked.fact.relation][f"heldout_{asked.direction}"]
    return _SLOT.sub(lambda _: tables.name(asked.given, language), template)
