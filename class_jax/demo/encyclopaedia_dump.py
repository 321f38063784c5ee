# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The embedded encyclopaedia as small Wikipedia dumps, so that the pipelines that read dumps can be run anywhere.

The sentences are those of `encyclopaedia`. For each language three files, in Wikimedia's forms:

    {language}wiki-pages-articles.xml   a page an entity, with links, a heading, an infobox and a category; redirects
    {language}wiki-langlinks.sql        links to the same entity's pages in the other languages
    {language}wiki-page.sql             all titles
    phrasebook.tsv                      the training questions by sentence, see `class_jax.synthesis.stage2.phrasebook`

No sentence links the answer of a held-out question that counts as unseen: no training question can be made of it.

Command line: ``python -m class_jax.demo.encyclopaedia_dump runs/encyclopaedia_dumps``, then
``class-jax make-data --config gin/data/encyclopaedia.gin``.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import IO, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from class_jax.common.files import replacing
from class_jax.demo.encyclopaedia import (
    ENGLISH,
    LANGUAGES,
    QUESTION_LANGUAGES,
    RELATIONS,
    SIDES,
    UNSPACED,
    Asked,
    Sentence,
    Tables,
    held_out,
    load_tables,
    planned_pages,
    sentence_of,
    stable_hash,
    thinned,
)
from class_jax.errors import InputError, nearest
from class_jax.synthesis.stage2.phrasebook import HEADER

_HEADINGS = {
    "en": "What others tell",
    "ar": "ما يذكره الآخرون",
    "bn": "অন্যদের কথা",
    "fi": "Muut kertovat",
    "ja": "ほかの記述",
    "ko": "다른 서술",
    "ru": "Другие сведения",
    "te": "ఇతర వివరాలు",
}
PHRASEBOOK = "phrasebook.tsv"
_CATEGORY = 14
_IDS_APART = 10_000  # page ids of a wiki say nothing about those of another
_ROWS = 500  # of one INSERT
_OVER_REDIRECT = 3  # one link in so many to a page with a redirect goes over it


class _Page(NamedTuple):
    """A page of the XML: an article, or a redirect to the title `redirect`."""

    id: int
    title: str
    text: str
    redirect: str = ""


@dataclass(frozen=True)
class _Titles:
    """Of one wiki, by entity: page ids, titles, and the titles of redirects."""

    ids: dict[str, int]
    titles: dict[str, str]
    aliases: dict[str, str]


def build_dumps(
    folder: str | os.PathLike,
    data: Traversable | None = None,
    one_country_in: int = 1,
    languages: Sequence[str] = LANGUAGES,
) -> dict[str, Counter[str]]:
    """Writes the dumps of some languages into `folder`, the same bytes every time.

    Args:
      folder: made where it is missing; other files in it stay.
      data: the folder of tables; those of the package if None.
      one_country_in: keep the first of every so many countries, see `encyclopaedia.thinned`; 1 keeps all.
      languages: English must be one of them.

    Returns:
      For each language the numbers of `articles`, `redirects`, `sentences`, `anchors` (in links to other pages) and
      `language_links`.

    Raises:
      InputError: for unknown languages or wrong tables; or when the disk refuses a write.
    """
    if unknown := set(languages) - set(LANGUAGES):
        remedy = nearest(min(unknown), LANGUAGES)
        raise InputError("the encyclopaedia has no such language", key=min(unknown), remedy=remedy)
    if ENGLISH not in languages:
        raise InputError("English is missing", key="languages", remedy="all pages are linked over it")
    tables = thinned(load_tables(data), one_country_in)
    _, unseen = held_out(tables)
    write_phrasebook(tables, Path(folder) / PHRASEBOOK, languages)
    wikis = {language: _titles(tables, language) for language in languages}
    counts = {language: Counter() for language in languages}
    for language in languages:
        stem = str(Path(folder) / f"{language}wiki-")
        pages = list(_articles(tables, language, wikis[language], unseen, counts[language]))
        with replacing(f"{stem}pages-articles.xml") as file:
            _write_xml(file, language, pages)
        with replacing(f"{stem}langlinks.sql") as file:
            links = list(_language_links(language, wikis))
            counts[language]["language_links"] = len(links)
            _write_sql(file, "langlinks", ("ll_from", "ll_lang", "ll_title"), links)
        with replacing(f"{stem}page.sql") as file:
            rows = ((page.id, 0, page.title.replace(" ", "_"), int(bool(page.redirect))) for page in pages)
            _write_sql(file, "page", ("page_id", "page_namespace", "page_title", "page_is_redirect"), rows)
    return counts


def written_pages(tables: Tables, language: str) -> Iterator[tuple[str, list[Sentence]]]:
    """Yields every entity with the sentences of its page in a language, in order."""
    for entity, planned in planned_pages(tables).items():
        yield entity, [sentence_of(tables, statement, language) for statement in planned]


def write_phrasebook(tables: Tables, path: Path, languages: Sequence[str] = LANGUAGES) -> None:
    """Writes the training questions that ask for each side of a relation, beside each sentence that states it.

    Raises:
      InputError: when the disk refuses the write.
    """
    with replacing(path) as file:
        file.write("\t".join(HEADER) + "\n")
        for language in (code for code in QUESTION_LANGUAGES if code in languages):
            for relation in RELATIONS:
                wordings = tables.templates[language]["relations"][relation]
                for side, answer, given in (("object", "{o}", "{s}"), ("subject", "{s}", "{o}")):
                    for statement in (*wordings["statements"], *wordings.get("reverse", ())):
                        for question in wordings.get(f"ask_{side}", ()):
                            stated = statement.replace(answer, "{answer}").replace(given, "{given}")
                            file.write(f"{language}\t{stated}\t{question.replace(given, '{given}')}\n")


def page_ids(tables: Tables, language: str) -> dict[str, int]:
    """Returns the page id of every entity in the dump of a language."""
    first = 1 + _IDS_APART * LANGUAGES.index(language)
    return {entity: first + i for i, entity in enumerate(tables.types)}


def title_of(tables: Tables, entity: str, language: str) -> str:
    """Returns the title of an entity's page: its name, which begins with a capital as all titles do."""
    name = tables.name(entity, language)
    return name[:1].upper() + name[1:]


def _titles(tables: Tables, language: str) -> _Titles:
    titles = {entity: title_of(tables, entity, language) for entity in tables.types}
    taken, aliases = set(titles.values()), {}
    # A country is found by its name in another language too.
    other = "fi" if language == ENGLISH else ENGLISH
    for entity, kind in tables.types.items():
        alias = title_of(tables, entity, other)
        if kind == "country" and alias not in taken:
            aliases[entity] = alias
            taken.add(alias)
    if len(taken) < len(titles) + len(aliases):
        raise InputError("two entities share a title", key=language, remedy="change a name")
    return _Titles(page_ids(tables, language), titles, aliases)


def _articles(
    tables: Tables, language: str, wiki: _Titles, unseen: set[Asked], counts: Counter[str]
) -> Iterator[_Page]:
    blank = "" if language in UNSPACED else " "
    for entity, sentences in written_pages(tables, language):
        # The lead and the entity's own facts, then others' facts that name it.
        own = [s for s in sentences if s.statement.wording != "reverse"]
        others = [s for s in sentences if s.statement.wording == "reverse"]
        blocks = [blank.join(_wikitext(s, wiki, unseen, counts) for s in own)]
        if others:
            blocks += [f"== {_HEADINGS[language]} ==", blank.join(_wikitext(s, wiki, unseen, counts) for s in others)]
        kind = tables.types[entity]
        text = "\n\n".join([f"{{{{Infobox {kind}|name={wiki.titles[entity]}}}}}", *blocks, f"[[Category:{kind}]]"])
        counts.update(articles=1, sentences=len(sentences))
        yield _Page(wiki.ids[entity], wiki.titles[entity], text)
    last = max(wiki.ids.values())
    for number, (entity, alias) in enumerate(wiki.aliases.items(), start=1):
        counts["redirects"] += 1
        yield _Page(last + number, alias, f"#REDIRECT [[{wiki.titles[entity]}]]", wiki.titles[entity])


def _wikitext(sentence: Sentence, wiki: _Titles, unseen: set[Asked], counts: Counter[str]) -> str:
    """A sentence with links to the other pages, some of them over a redirect; the page's own name is in bold."""
    text, end = "", 0
    fact = sentence.statement.fact
    hidden = {asked.answer for side in SIDES if fact and (asked := Asked(fact, side)) in unseen}
    for link in sentence.links:
        text += sentence.text[end : link.start]
        end = link.end
        page = sentence.statement.page
        if not link.target or link.target in hidden:
            text += link.surface
        elif link.target == page:
            text += link.surface if fact else f"'''{link.surface}'''"
        else:
            counts["anchors"] += 1
            over = link.target in wiki.aliases and stable_hash("redirect", page, link.target) % _OVER_REDIRECT == 0
            title = (wiki.aliases if over else wiki.titles)[link.target]
            text += f"[[{title}]]" if title == link.surface else f"[[{title}|{link.surface}]]"
    return text + sentence.text[end:]


def _language_links(language: str, wikis: dict[str, _Titles]) -> Iterator[tuple[int, str, str]]:
    for entity, page in wikis[language].ids.items():
        for other, wiki in wikis.items():
            if other != language:
                yield page, other, wiki.titles[entity]


def _write_xml(file: IO[str], language: str, pages: Iterable[_Page]) -> None:
    file.write(
        f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="{language}">\n'
        f"<siteinfo><sitename>Wikipedia</sitename><dbname>{language}wiki</dbname><case>first-letter</case>\n"
        '<namespaces><namespace key="0" case="first-letter" />'
        f'<namespace key="{_CATEGORY}" case="first-letter">Category</namespace></namespaces></siteinfo>\n'
    )
    for page in pages:
        redirect = f"<redirect title={quoteattr(page.redirect)} />" if page.redirect else ""
        file.write(
            f"<page><title>{escape(page.title)}</title><ns>0</ns><id>{page.id}</id>{redirect}\n"
            f"<revision><id>{page.id}</id><timestamp>2026-01-01T00:00:00Z</timestamp><model>wikitext</model>\n"
            f'<format>text/x-wiki</format><text xml:space="preserve">{escape(page.text)}</text></revision></page>\n'
        )
    file.write("</mediawiki>\n")


def _write_sql(file: IO[str], table: str, columns: Sequence[str], rows: Iterable[tuple[int | str, ...]]) -> None:
    file.write(f"CREATE TABLE `{table}` (\n")
    file.write(",\n".join(f"  `{column}` varbinary(255) NOT NULL" for column in columns) + "\n);\n")
    written = [f"({','.join(map(_sql, row))})" for row in rows]
    for start in range(0, len(written), _ROWS):
        file.write(f"INSERT INTO `{table}` VALUES {','.join(written[start : start + _ROWS])};\n")


def _sql(value: int | str) -> str:
    if isinstance(value, int):
        return str(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def main(arguments: list[str] | None = None) -> int:
    """Writes the dumps and prints their counts; returns the exit status."""
    prog = "python -m class_jax.demo.encyclopaedia_dump"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.split("\n")[0])
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write into")
    parser.add_argument("--one-country-in", type=int, default=1, help="keep the first of every so many countries")
    parser.add_argument("--languages", nargs="+", default=LANGUAGES, help="of the dumps, English among them")
    try:
        given = parser.parse_args(arguments)
        counts = build_dumps(given.out, one_country_in=given.one_country_in, languages=given.languages)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    columns = ("articles", "redirects", "sentences", "anchors", "language_links")
    print("language".ljust(10) + "".join(column.rjust(len(column) + 2) for column in columns))
    for language, row in counts.items():
        print(language.ljust(10) + "".join(str(row[column]).rjust(len(column) + 2) for column in columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
