# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Wikitext to running text, with the places of headings and links in it."""

import importlib
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import unquote

from class_jax.corpus.wikipedia.pages import Anchor, Section
from class_jax.errors import InputError

_OTHER_WIKI = re.compile(r"([a-z]{2,3}(?:-[a-z-]+)?)\s*:")
# Prefixes of links to sister projects.
_PROJECTS = frozenset(
    ("b", "c", "d", "m", "mw", "n", "q", "s", "v", "voy", "w", "wikt", "commons", "doi", "species", "wikibooks")
) | frozenset(("wikinews", "wikipedia", "wikiquote", "wikisource", "wiktionary"))
# What these elements hold is not running text.
_FORMULAS = ("math", "chem", "hiero", "score", "syntaxhighlight", "source")
_BOXES = ("table", "gallery", "timeline", "imagemap", "graph", "mapframe", "inputbox", "categorytree")
_SKIPPED_TAGS = frozenset((*_FORMULAS, *_BOXES, "ref", "references", "templatedata", "templatestyles", "includeonly"))
_BREAKING_TAGS = frozenset(("br", "hr", "li", "dd", "dt", "dl", "ul", "ol", "p", "div", "blockquote", "poem", "center"))
# What is cut from the text, in this order; each pattern with what takes its place.
_CUTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"__[^\W\d_a-z]+__"), ""),  # __NOTOC__
    (re.compile(r"\0"), " "),
    (re.compile(r"'{2,5}"), ""),
    (re.compile(r"^\s*(?:\{\||\|\}|\|).*$", re.MULTILINE), ""),  # lines of a table that the parser did not see as one
    # What is left of "(IPA: {{IPA|...}}; born ...)" once the templates are gone.
    (re.compile(r"[(（]\s*[,;:，；：、\s]*\s*[)）]"), ""),
    (re.compile(r"([(（])\s*[,;，；、][,;，；、\s]*"), r"\1"),
    (re.compile(r"[ \t]+(?=[,)])"), ""),
    # One line a paragraph or list item, single blanks.
    (re.compile("\r\n|[\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029]"), "\n"),
    (re.compile(r"[^\S\n]{2,}|[^\S\n ]"), " "),
    (re.compile(r"^[*#:;, ]+|[ ]+$", re.MULTILINE), ""),
    (re.compile(r"\n{2,}"), "\n"),
    (re.compile(r"\A\n|\n\Z"), ""),
)


@dataclass(frozen=True)
class Site:
    """What a wiki's dump says of the wiki.

    Attributes:
      hidden: names of the namespaces whose links show nothing as text (files, media, categories), in lower case.
      namespaces: names of all namespaces but that of the articles, in lower case.
      case_sensitive: whether `[[apple]]` and `[[Apple]]` are two pages; in Wikipedias they are one.
    """

    hidden: frozenset[str] = frozenset({"file", "image", "media", "category"})
    namespaces: frozenset[str] = frozenset({"file", "image", "media", "category"})
    case_sensitive: bool = False


@dataclass(frozen=True)
class Parsed:
    """Running text of a page.

    Attributes:
      text: one line a paragraph or list item.
      sections: in order; see `pages.Section`.
      anchors: links to articles, in order, targets normalised but not resolved; none holds a line end.
      links: titles in other languages, from links such as `[[fi:Sivu]]`.
    """

    text: str
    sections: tuple[Section, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    links: dict[str, str] = field(default_factory=dict)


def parse_wikitext(wikitext: str, site: Site = Site()) -> Parsed:
    """Returns the running text of wikitext with its headings and links.

    No templates, tables, references, files, categories, comments, formulas or headings; of links, the words shown.
    The words of an anchor take in the lower-case letters that follow the link (`[[apple]]s`), as readers see it.

    Args:
      wikitext: of one page.
      site: what the dump says of the wiki.

    Raises:
      mwparserfromhell.parser.ParserError: if the parser gives up.
      InputError: if mwparserfromhell is not installed.
    """
    parser = import_parser()
    # The parser takes quote marks for style; without them it is faster, and they are removed here.
    code = parser.parse(wikitext, skip_style_tags=True)
    writer = _Writer(parser.nodes, site)
    writer.write(code)
    marks = [position for anchor in writer.anchors for position in anchor[:2]] + [
        start for start, *_ in writer.headings
    ]
    order = sorted(range(len(marks)), key=marks.__getitem__)
    text, moved = _cut("".join(writer.parts), [marks[i] for i in order])
    for i, position in zip(order, moved, strict=True):
        marks[i] = position
    count = len(writer.anchors)
    starts = marks[2 * count :]
    return Parsed(
        text,
        tuple(
            Section(_forward(text, start), level, heading)
            for start, (_, level, heading) in zip(starts, writer.headings, strict=True)
        ),
        tuple(
            anchor
            for i, (_, _, target) in enumerate(writer.anchors)
            if (anchor := _anchor(text, marks[2 * i], marks[2 * i + 1], target))
        ),
        writer.links,
    )


def plain_text(wikitext: str, site: Site = Site()) -> str:
    """Returns the running text of wikitext; see `parse`."""
    return parse_wikitext(wikitext, site).text


def normalised_title(title: str, case_sensitive: bool = False) -> str:
    """Returns a title as its page is named: no underscores, section or entities; first letter upper-case; NFC."""
    if "&" in title:
        title = unescape(title)
    if "%" in title:
        title = unquote(title)
    title = " ".join(title.partition("#")[0].replace("_", " ").split())
    title = unicodedata.normalize("NFC", title.removeprefix(":").strip())
    # Letters whose capital is two (ß) stay.
    if not case_sensitive and len(title[:1].upper()) == 1:
        title = title[:1].upper() + title[1:]
    return title


def import_parser() -> Any:
    """Returns the module mwparserfromhell.

    Raises:
      InputError: if it is not installed.
    """
    try:
        return importlib.import_module("mwparserfromhell")
    except ImportError as error:
        raise InputError(
            "Wikipedia dumps can't be read without mwparserfromhell", remedy="pip install 'class-jax[data]'"
        ) from error


class _Writer:
    """Collects what a reader sees of parsed wikitext as running text, and where links and headings were."""

    def __init__(self, nodes: Any, site: Site) -> None:
        self.nodes, self.site = nodes, site
        self.parts: list[str] = []
        self.length = 0
        self.anchors: list[tuple[int, int, str]] = []
        self.headings: list[tuple[int, int, str]] = []
        self.links: dict[str, str] = {}
        self._open = False  # whether the last anchor ends where the text does

    def write(self, code: Any) -> None:
        for node in code.nodes:
            kind = type(node).__name__
            self._open = self._open and kind == "Text"
            write = self._writers.get(kind)
            if write is not None:
                write(self, node)

    def _add(self, text: str) -> None:
        if self._open and text:
            trail = _trail(text)
            start, end, target = self.anchors[-1]
            self.anchors[-1] = (start, end + trail, target)
            self._open = False
        self.parts.append(text)
        self.length += len(text)

    def _text(self, node: Any) -> None:
        self._add(node.value)

    def _external_link(self, node: Any) -> None:
        if node.brackets and node.title is not None:
            self.write(node.title)

    def _entity(self, node: Any) -> None:
        try:
            character = node.normalize()
        except ValueError:
            character = " "
        # A control character or half a surrogate pair is no text, however it is spelt.
        self._add(" " if unicodedata.category(character) in ("Cc", "Cs") else character)

    def _heading(self, node: Any) -> None:
        self._add("\n")
        inner = _Writer(self.nodes, self.site)
        inner.write(node.title)
        heading = " ".join(_cut("".join(inner.parts), [])[0].split())
        self.headings.append((self.length, node.level, heading))

    def _tag(self, node: Any) -> None:
        tag = str(node.tag).strip().lower()
        if tag in _BREAKING_TAGS:
            self._add("\n")
        if tag not in _SKIPPED_TAGS and node.contents is not None:
            self.write(node.contents)

    def _wikilink(self, node: Any) -> None:
        target = str(node.title).strip()
        prefix, colon, rest = target.partition(":")
        prefix = " ".join(prefix.lower().replace("_", " ").split())
        if colon and prefix in self.site.hidden:
            return
        other = _OTHER_WIKI.match(target)
        start = self.length
        if node.text is not None:
            self.write(node.text)
        elif not other:
            self._add(target.lstrip(":"))
        if other:  # [[fi:Sivu]]: shown beside the page, not in it
            if node.text is None and rest.strip():
                self.links.setdefault(other[1], normalised_title(rest, self.site.case_sensitive))
            return
        target = target.lstrip(": ")  # [[:Luokka:X]] is shown, and leads to no article
        prefix, colon, _ = target.partition(":")
        prefix = " ".join(prefix.lower().replace("_", " ").split())
        elsewhere = colon and (prefix in self.site.namespaces or prefix in _PROJECTS or _OTHER_WIKI.match(target))
        article = normalised_title(target, self.site.case_sensitive)
        if article and self.length > start and not elsewhere:
            self.anchors.append((start, self.length, article))
            self._open = True

    _writers: dict[str, Callable[["_Writer", Any], None]] = {  # noqa: RUF012 (never changed)
        "Text": _text,
        "ExternalLink": _external_link,
        "HTMLEntity": _entity,
        "Heading": _heading,
        "Tag": _tag,
        "Wikilink": _wikilink,
    }


def _trail(text: str) -> int:
    """The number of lower-case letters (and their marks) that a text starts with.

    Only scripts with case have them: elsewhere suffixes of a name (Korean particles, say) are no part of it.
    """
    end = 0
    while end < len(text) and (text[end].islower() or (end and unicodedata.category(text[end]) == "Mn")):
        end += 1
    return end


def _anchor(text: str, start: int, end: int, target: str) -> Anchor | None:
    """The anchor without blanks at its ends, if anything of it is left and is in one line."""
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return Anchor(start, end, target) if start < end and "\n" not in text[start:end] else None


def _forward(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def _cut(text: str, marks: list[int]) -> tuple[str, list[int]]:
    """Applies `_CUTS`; also returns where sorted positions in the text are after it."""
    for pattern, replacement in _CUTS:
        if not marks:
            text = pattern.sub(replacement, text)
        else:
            text, marks = _substituted(pattern, replacement, text, marks)
    return text, marks


def _substituted(pattern: re.Pattern[str], replacement: str, text: str, marks: list[int]) -> tuple[str, list[int]]:
    pieces: list[str] = []
    moved: list[int] = []
    i = last = length = 0

    def keep(until: int) -> None:
        nonlocal i, length
        while i < len(marks) and marks[i] < until:
            moved.append(length + marks[i] - last)
            i += 1
        pieces.append(text[last:until])
        length += until - last

    for match in pattern.finditer(text):
        start, end = match.span()
        keep(start)
        new = match.expand(replacement)
        while i < len(marks) and marks[i] < end:
            moved.append(length + min(marks[i] - start, len(new)))
            i += 1
        pieces.append(new)
        length += len(new)
        last = end
    keep(len(text))
    moved += [length] * (len(marks) - i)
    return "".join(pieces), moved
