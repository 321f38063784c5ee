# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The pipelines of `wikipedia.make_corpus`: what its stages do to a split of a dump.

Splits are read and written by the worker that got them, so that no page is ever in a runner's memory; only names of
finished parts are passed on.
"""

import bz2
import gzip
import json
import time
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO

import apache_beam as beam

from class_jax.common.files import replacing
from class_jax.corpus.passages import Passage, write_passages
from class_jax.corpus.segments import blocks, sentence_blocks, sentences
from class_jax.corpus.wikipedia import titles as tables
from class_jax.corpus.wikipedia.dump import Damage, DumpPage, not_an_article, read_dump_pages, read_site
from class_jax.corpus.wikipedia.pages import Anchor, Page
from class_jax.corpus.wikipedia.rejects import BAD_LINKS, CUT_OFF, REJECTED
from class_jax.corpus.wikipedia.splits import Split
from class_jax.corpus.wikipedia.sql_dump import read_rows
from class_jax.corpus.wikipedia.wikitext import Parsed, Site, import_parser, normalised_title, parse_wikitext
from class_jax.errors import InputError
from class_jax.pipelines.runner import advance, counter

TITLES = "titles.sqlite"
SPANS = "passage_spans.tsv"
SPAN_COLUMNS = ("id", "language", "page", "start", "end")
_KINDS = {"other_namespaces": "other_namespace", "other_models": "other_model"}
_SHOWN = 200  # characters of a problem in a table of rejects

Count = Callable[..., object]


class TitlesPipeline:
    """From a wiki's dumps to its table of titles and redirects."""

    def __init__(self, splits: tuple[Split, ...], page_table: str | None, max_page_bytes: int) -> None:
        self.splits, self.page_table, self.max_page_bytes = splits, page_table, max_page_bytes

    def __call__(self, pipeline: beam.Pipeline, out: Path) -> None:
        """Adds the transforms."""
        parts = _shared(pipeline, self.splits) | beam.ParDo(_ReadTitles(str(out), self.max_page_bytes))
        _ = parts | beam.GroupByKey() | beam.ParDo(_JoinTitles(str(out), self.page_table))


class LinksPipeline:
    """From SQL dumps and Wikidata to tables of language links."""

    def __init__(self, langlinks: Mapping[str, str], sitelinks: tuple[str, ...], languages: tuple[str, ...]) -> None:
        self.work = [("langlinks", language, path) for language, path in langlinks.items()]
        self.work += [("sitelinks", f"{i:03d}", path) for i, path in enumerate(sitelinks)]
        self.languages = languages

    def __call__(self, pipeline: beam.Pipeline, out: Path) -> None:
        """Adds the transforms."""
        _ = _shared(pipeline, self.work) | beam.ParDo(_ReadLinks(str(out), self.languages))


class PagesPipeline:
    """From a wiki's dumps to pages."""

    def __init__(
        self, language: str, splits: tuple[Split, ...], languages: tuple[str, ...], work: str, max_page_bytes: int
    ) -> None:
        self.splits = splits
        self.arguments = (language, languages, work, max_page_bytes)

    def __call__(self, pipeline: beam.Pipeline, out: Path) -> None:
        """Adds the transforms."""
        _ = _shared(pipeline, self.splits) | beam.ParDo(_MakePages(str(out), *self.arguments))


class PassagesPipeline:
    """From files of pages, in order, to one table of passages."""

    def __init__(self, shards: tuple[str, ...], words: int, at_sentences: bool) -> None:
        self.shards, self.words, self.at_sentences = shards, words, at_sentences

    def __call__(self, pipeline: beam.Pipeline, out: Path) -> None:
        """Adds the transforms."""
        cut = _CutPassages(str(out), self.words, self.at_sentences)
        parts = _shared(pipeline, enumerate(self.shards)) | beam.ParDo(cut)
        _ = parts | beam.GroupByKey() | beam.ParDo(_JoinPassages(str(out)))


def _shared(pipeline: beam.Pipeline, work: Iterable) -> beam.PCollection:
    """Work spread over the workers."""
    return pipeline | beam.Create(list(work)) | beam.Reshuffle()


def count(name: str, amount: int = 1) -> None:
    """Adds to a counter of the pipeline."""
    counter(name).inc(amount)


class Rejects:
    """Counts what is left out, and lists it with its place in a table."""

    def __init__(self, file: IO, path: str, start: int = 0) -> None:
        self._file, self._path, self._start = file, path, start

    def damage(self, found: Damage) -> None:
        """Of a dump. Only a page is counted as a page."""
        if found.reason == CUT_OFF:
            count(CUT_OFF)
        else:
            count("pages")
            count(REJECTED + found.reason)
        self.write(found.offset, found.title, found.reason, found.detail)

    def page(self, page: DumpPage, reason: str, detail: str = "") -> None:
        """Of an article."""
        count(REJECTED + reason)
        self.write(page.offset, page.title, reason, detail)

    def write(self, offset: int | str, title: str, reason: str, detail: str) -> None:
        """Writes a row; `offset` counts from the start of the split, which is added where it is not the file's."""
        place = f"{self._start}+{offset}" if self._start else str(offset)
        fields = (self._path, place, title, reason, detail[:_SHOWN])
        self._file.write("\t".join(" ".join(field.split()) for field in fields) + "\n")


class _ReadTitles(beam.DoFn):
    def __init__(self, out: str, max_page_bytes: int) -> None:
        self.out, self.max_page_bytes = out, max_page_bytes

    def process(self, split: Split) -> Iterator[tuple[int, str]]:
        site = read_site(split.path)
        part = Path(self.out) / split.shard("part", ".jsonl")
        on_progress = partial(advance, self.out)
        with replacing(part) as file:
            pages = read_dump_pages(
                split.path, split.start, split.length, max_page_bytes=self.max_page_bytes, on_progress=on_progress
            )
            for page in pages:
                if isinstance(page, Damage) or page.namespace != 0:
                    continue  # counted where the pages are made
                target = None
                if page.redirect is not None:
                    target = normalised_title(page.redirect, site.case_sensitive)
                file.write(json.dumps([page.title, target], ensure_ascii=False) + "\n")
        yield 0, part.name


class _JoinTitles(beam.DoFn):
    def __init__(self, out: str, page_table: str | None) -> None:
        self.out, self.page_table = out, page_table

    def process(self, element: tuple[int, Iterable[str]]) -> None:
        out = Path(self.out)
        parts = [out / name for name in sorted(element[1])]
        with replacing(out / "rejects.tsv") as file:
            base = out / TITLES
            base.unlink(missing_ok=True)  # of an attempt that the runner gave up
            count("titles", tables.write_titles(base, self._rows(parts, file)))
            self._check(tables.Titles(base), Rejects(file, base.name))
        for part in parts:
            part.unlink()

    def _rows(self, parts: list[Path], file: IO) -> Iterator[tuple[str, str | None]]:
        for part in parts:
            with open(part, encoding="utf-8") as lines:
                yield from map(json.loads, lines)
        if self.page_table is None:
            return
        on_damage = partial(_bad_table, Rejects(file, self.page_table))
        columns = ("page_namespace", "page_is_redirect", "page_title")
        for namespace, redirect, title in read_rows(self.page_table, "page", columns, on_damage):
            # Only the dumps say where a redirect leads to.
            if namespace == "0" and redirect == "0":
                yield normalised_title(title, case_sensitive=True), None

    def _check(self, titles: tables.Titles, rejects: Rejects) -> None:
        for title in titles.redirects():
            found = titles.resolve(title)
            count("redirects")
            if found.problem:
                name = "loop" if found.problem == "loop" else "to_nowhere"
                count(f"redirects/{name}")
                rejects.write("", title, f"redirect {name}", "")
            elif found.steps > 1:
                count("redirects/chain")


def _bad_table(rejects: Rejects, error: InputError) -> None:
    count(BAD_LINKS)
    rejects.write("", "", "unreadable", str(error))


class _ReadLinks(beam.DoFn):
    def __init__(self, out: str, languages: tuple[str, ...]) -> None:
        self.out, self.languages = out, languages

    def process(self, work: tuple[str, str, str]) -> None:
        kind, name, path = work
        base = Path(self.out) / f"{kind}-{name}.sqlite"
        base.unlink(missing_ok=True)
        with replacing(base.with_name(f"rejects-{kind}-{name}.tsv")) as file:
            on_damage = partial(_bad_table, Rejects(file, path))
            rows = self._langlinks(name, path, on_damage) if kind == "langlinks" else self._sitelinks(path, on_damage)
            count("links", tables.write_links(base, rows))
        advance(self.out, Path(path).stat().st_size)

    def _langlinks(self, language: str, path: str, on_damage: Callable) -> Iterator[tuple[str, str, str]]:
        for page, other, title in read_rows(path, "langlinks", ("ll_from", "ll_lang", "ll_title"), on_damage):
            if other == language or other not in self.languages:
                count("links/other_language")
            elif title := normalised_title(title):
                yield tables.page_key(language, id=page), other, title
            else:
                count("links/empty")

    def _sitelinks(self, path: str, on_damage: Callable) -> Iterator[tuple[str, str, str]]:
        names = {language: language for language in self.languages}
        names |= {f"{language.replace('-', '_')}wiki": language for language in self.languages}
        number = 0
        opened = {".bz2": bz2.open, ".gz": gzip.open}.get(Path(path).suffix, open)
        try:
            with opened(path, "rb") as lines:
                for number, line in enumerate(lines, start=1):
                    try:
                        links = tables.sitelinks(line.decode("utf-8"), names)
                    except ValueError as error:
                        on_damage(InputError(f"not a line of sitelinks ({error})", file=path, line=number))
                        continue
                    for language, title in links.items():
                        for other, other_title in links.items():
                            if other != language:
                                yield tables.page_key(language, title=title), other, other_title
        except (OSError, EOFError, zlib.error) as error:
            on_damage(InputError(f"cannot be read on ({error})", file=path, line=number + 1))


class _MakePages(beam.DoFn):
    def __init__(self, out: str, language: str, languages: tuple[str, ...], work: str, max_page_bytes: int) -> None:
        self.out, self.language, self.languages = out, language, languages
        self.work, self.max_page_bytes = work, max_page_bytes

    def setup(self) -> None:
        work = Path(self.work)
        self.titles = {language: tables.Titles(work / "titles" / language / TITLES) for language in self.languages}
        # Sorted: SQL tables before Wikidata.
        self.links = tables.LanguageLinks(sorted((work / "links").glob("*.sqlite")), self.language)

    def process(self, split: Split) -> None:
        begun = time.thread_time()
        out = Path(self.out)
        site = read_site(split.path)
        on_progress = partial(advance, self.out)
        with (
            replacing(out / split.shard("pages", ".jsonl")) as file,
            replacing(out / split.shard("rejects", ".tsv")) as table,
        ):
            rejects = Rejects(table, split.path, split.start)
            pages = read_dump_pages(
                split.path, split.start, split.length, max_page_bytes=self.max_page_bytes, on_progress=on_progress
            )
            for found in pages:
                if isinstance(found, Damage):
                    rejects.damage(found)
                    continue
                count("pages")
                count("bytes", found.size)
                page = self._page(found, site, rejects)
                if page is not None:
                    file.write(page.to_json() + "\n")
        count("microseconds", round(1e6 * (time.thread_time() - begun)))

    def _page(self, found: DumpPage, site: Site, rejects: Rejects) -> Page | None:
        reason = not_an_article(found)
        if reason == "redirects":
            count(reason)
            return None
        if reason is not None:
            count(REJECTED + _KINDS[reason])
            return None
        try:
            parsed = parse_wikitext(found.text, site)
        except (import_parser().parser.ParserError, RecursionError) as error:
            rejects.page(found, "unparsed", type(error).__name__)
            return None
        if not parsed.text:
            rejects.page(found, "no_text")
            return None
        count("articles")
        return make_page(found, parsed, self.language, self.titles, self.links, count)


def make_page(
    found: DumpPage,
    parsed: Parsed,
    language: str,
    titles: Mapping[str, tables.Titles],
    links: tables.LanguageLinks,
    count: Count = count,
) -> Page:
    """Joins an article with what is known of other pages.

    Args:
      found: the article in the dump.
      parsed: its text.
      language: its language.
      titles: of the wikis whose pages links may lead to, the page's own among them.
      links: language links; those in the text come after them.
      count: called with the name of what is counted, and how many if not one.
    """
    anchors = list(_anchors(found.title, parsed.anchors, titles[language], count))
    spans = sentences(parsed.text, language, [(anchor.start, anchor.end) for anchor in anchors])
    starts = [start for start, _ in spans]
    within = []
    for anchor in anchors:
        i = bisect_right(starts, anchor.start) - 1
        if i >= 0 and anchor.end <= spans[i][1]:
            within.append(anchor)
        else:
            count("anchors/over_a_border")
    count("sentences", len(spans))
    count("anchors", len(within))
    stated = {**parsed.links, **links.of(found.id, found.title)}
    known = dict(_checked(stated, language, titles, count))
    return Page(found.id, language, found.title, parsed.text, parsed.sections, tuple(spans), tuple(within), known)


def _anchors(title: str, anchors: Iterable[Anchor], titles: tables.Titles, count: Count) -> Iterator[Anchor]:
    """Anchors in order, with the titles that they lead to at last."""
    end = 0
    for anchor in sorted(anchors, key=lambda anchor: (anchor.start, -anchor.end)):
        found = titles.resolve(anchor.target)
        target = found.title
        if found.problem == "nowhere" and not found.steps:
            # Where a dump is a part of its wiki, most pages are not in it: only the title is of use.
            count("anchors/to_unknown")
            target = anchor.target
        if not target:
            count("anchors/redirect_" + ("loop" if found.problem == "loop" else "to_nowhere"))
        elif target == title:
            count("anchors/to_itself")
        elif anchor.start < end:
            count("anchors/overlapping")
        else:
            end = anchor.end
            yield Anchor(anchor.start, anchor.end, target)


def _checked(
    links: Mapping[str, str], language: str, titles: Mapping[str, tables.Titles], count: Count
) -> Iterator[tuple[str, str]]:
    """Language links, redirects followed; without those to pages that are not there."""
    for other, title in sorted(links.items()):
        if other == language or other not in titles:
            continue
        found = titles[other].resolve(title)
        if found.problem:
            count("links/redirect_loop" if found.problem == "loop" else "links/to_nowhere")
        else:
            count("links")
            yield other, found.title


class _CutPassages(beam.DoFn):
    def __init__(self, out: str, words: int, at_sentences: bool) -> None:
        self.out, self.words, self.at_sentences = out, words, at_sentences

    def process(self, element: tuple[int, str]) -> Iterator[tuple[int, str]]:
        index, shard = element
        part = Path(self.out) / f"part-{index:06d}.jsonl"
        with replacing(part) as file, open(shard, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                page = Page.from_json(line, file=shard, number=number)
                if self.at_sentences:
                    found = sentence_blocks(page.text, page.sentences, self.words)
                else:
                    found = blocks(page.text, self.words)
                count("pages")
                count("passages", len(found))
                count(f"passages/{page.language}", len(found))
                count("words", sum(length for _, _, length in found))
                for start, end, _ in found:
                    text = " ".join(page.text[start:end].split())
                    row = (text, page.title, page.language, page.id, start, end)
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                advance(self.out, len(line.encode()))
        yield 0, part.name


class _JoinPassages(beam.DoFn):
    def __init__(self, out: str) -> None:
        self.out = out

    def process(self, element: tuple[int, Iterable[str]]) -> None:
        out = Path(self.out)
        parts = [out / name for name in sorted(element[1])]
        with replacing(out / "passage_languages.tsv") as languages, replacing(out / SPANS) as spans:
            languages.write("id\tlanguage\n")
            spans.write("\t".join(SPAN_COLUMNS) + "\n")
            write_passages(out / "passages.tsv", _numbered(parts, languages, spans))
        for part in parts:
            with suppress(FileNotFoundError):
                part.unlink()


def _numbered(parts: Iterable[Path], languages: IO, spans: IO) -> Iterator[Passage]:
    number = 0
    for part in parts:
        with open(part, encoding="utf-8") as lines:
            for line in lines:
                text, title, language, page, start, end = json.loads(line)
                number += 1
                languages.write(f"{number}\t{language}\n")
                spans.write(f"{number}\t{language}\t{page}\t{start}\t{end}\n")
                yield Passage(str(number), text, title)
