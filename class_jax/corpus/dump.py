# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A Wikipedia dump (`pages-articles.xml`, plain or compressed) to 100-word passages in the public TSV layout."""

import bz2
import gzip
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from class_jax.corpus.passages import Passage, write_passages
from class_jax.errors import InputError

# A last block of fewer words shares its predecessor's words evenly: no passage is too short to say
# something, none is longer than the limit, no word is lost or doubled.
SHORTEST = 10

_SKIPPED_NAMESPACES = (-2, 6, 14)  # media, files, categories
_OTHER_WIKI = re.compile(r"[a-z]{2,3}(-[a-z-]+)?\s*:")
# What these elements hold is not running text.
_FORMULAS = ("math", "chem", "hiero", "score", "syntaxhighlight", "source")
_BOXES = ("table", "gallery", "timeline", "imagemap", "graph", "mapframe", "inputbox", "categorytree")
_SKIPPED_TAGS = frozenset((*_FORMULAS, *_BOXES, "ref", "references", "templatedata", "templatestyles", "includeonly"))
_BREAKING_TAGS = frozenset(("br", "hr", "li", "dd", "dt", "dl", "ul", "ol", "p", "div", "blockquote", "poem", "center"))
_SWITCH = re.compile(r"__[^\W\d_a-z]+__")
_TABLE_LINE = re.compile(r"^\s*(?:\{\||\|\}|\|).*$", re.MULTILINE)
# What is left of "(IPA: {{IPA|...}}; born ...)" once the templates are gone.
_EMPTY_BRACKETS = re.compile(r"[(（]\s*[,;:，；：、\s]*\s*[)）]")
_OPENED_BY_COMMA = re.compile(r"([(（])\s*[,;，；、][,;，；、\s]*")
_BEFORE_COMMA = re.compile(r"[ \t]+(?=[,)])")
# Scripts without blanks between words.
_HAN_KANA = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
_THAI_LAO_BURMESE_KHMER = re.compile("[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff]")
# Characters counted as one word there, near the mean length of a word.
_HAN_KANA_WORD, _OTHER_WORD = 2, 4
_WHOLE = 1 << 30  # runs of other letters in such a text (Latin names, numbers) stay whole
_JOINERS = frozenset("\u200c\u200d\u0e33\u0eb3")  # zero-width joiners; Thai and Lao am, a vowel sign that is a letter
_STACKERS = frozenset("\u17d2\u1039")  # Khmer and Myanmar signs that put the next consonant below


@dataclass
class DumpCounts:
    """What became of a dump's pages; every page is counted under exactly one reason.

    Attributes:
      pages: all pages; the sum of the six reasons below.
      redirects: pages that only point to another.
      other_namespaces: talk, templates, categories, ...
      other_models: pages of the article namespace that are not wikitext.
      unparsed: pages whose wikitext the parser gave up on.
      empty: articles of which no text was left.
      articles: articles that gave at least one passage.
      passages: passages written.
      words: words in them.
    """

    pages: int = 0
    redirects: int = 0
    other_namespaces: int = 0
    other_models: int = 0
    unparsed: int = 0
    empty: int = 0
    articles: int = 0
    passages: int = 0
    words: int = 0


def passages_from_dump(
    dump_path: str | os.PathLike,
    out_tsv: str | os.PathLike,
    words: int = 100,
    first_id: int = 1,
    *,
    progress: bool | None = None,
) -> DumpCounts:
    """Writes the articles of a dump as consecutive passages of at most `words` words.

    Wikitext becomes plain text: no templates, tables, references, files, categories, comments, formulas
    or headings; of links, the words shown. Titles are NFC-normalised. Words are what lies between blanks;
    in scripts that have none (Chinese, Japanese, Thai, Khmer, Lao, Burmese) two or four characters count
    as a word, and a block ends between characters, never inside one with its marks. A last block of fewer than
    `SHORTEST` words shares the words of the block before it evenly.

    Args:
      dump_path: `pages-articles` XML, plain, `.bz2` (multistream too) or `.gz`. Of several revisions of a page
        the last one is taken.
      out_tsv: where the passages go, whole or not at all; `.tsv` or `.tsv.gz`.
      words: most words in a passage.
      first_id: id of the first passage; the others count up from it.
      progress: show a bar; None shows it on a terminal only.

    Raises:
      InputError: if the dump is missing, cut off or not a dump (with the number of pages read and the title
        it broke off near), or mwxml and mwparserfromhell are not installed.
    """
    counts = DumpCounts()
    write_passages(out_tsv, _passages(Path(dump_path), words, first_id, counts, progress))
    return counts


def split_words(text: str, words: int = 100) -> list[str]:
    """Returns consecutive blocks of at most `words` words, each with single blanks; see `passages_from_dump`.

    Put together again they are the text, but for blanks.
    """
    return [block for block, _ in _blocks(text, words)]


def plain_text(wikitext: str, skipped_prefixes: frozenset[str] = frozenset({"file", "image", "category"})) -> str:
    """Returns the running text of wikitext, one line a paragraph or list item.

    Args:
      wikitext: of one page.
      skipped_prefixes: names, in lower case, of the namespaces whose links show nothing as text (files,
        categories) in the wiki's own language.

    Raises:
      mwparserfromhell.parser.ParserError: if the parser gives up.
    """
    mwparserfromhell = _import("mwparserfromhell")
    # The parser takes quote marks for style; without them it is faster, and they are removed here.
    code = mwparserfromhell.parse(wikitext, skip_style_tags=True)
    text = "".join(_shown(code, mwparserfromhell.nodes, skipped_prefixes))
    text = re.sub(r"'{2,5}", "", _SWITCH.sub("", text).replace("\0", " "))
    text = _TABLE_LINE.sub("", text)
    text = _OPENED_BY_COMMA.sub(r"\1", _EMPTY_BRACKETS.sub("", text))
    text = _BEFORE_COMMA.sub("", text)
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in (line.lstrip("*#:;, ") for line in lines) if line)


def _passages(path: Path, words: int, first_id: int, counts: DumpCounts, progress: bool | None) -> Iterator[Passage]:
    for title, text in _articles(path, counts, progress):
        blocks = _blocks(text, words)
        if not blocks:
            counts.empty += 1
            continue
        counts.articles += 1
        for block, length in blocks:
            yield Passage(str(first_id + counts.passages), block, title)
            counts.passages += 1
            counts.words += length


def _articles(path: Path, counts: DumpCounts, progress: bool | None) -> Iterator[tuple[str, str]]:
    """Yields title and plain text of each article; counts all pages and those left out."""
    parser = _import("mwparserfromhell").parser
    with _opened(path, progress) as file:
        for page in _pages(file, path):
            counts.pages += 1
            if page.namespace != 0:
                counts.other_namespaces += 1
            elif page.is_redirect:
                counts.redirects += 1
            elif page.model != "wikitext":
                counts.other_models += 1
            else:
                try:
                    text = plain_text(page.text, page.skipped_prefixes)
                except (parser.ParserError, RecursionError):
                    counts.unparsed += 1
                else:
                    yield page.title, text


class _Page(NamedTuple):
    title: str
    namespace: int
    is_redirect: bool
    model: str
    text: str
    skipped_prefixes: frozenset[str]


def _pages(file: IO, path: Path) -> Iterator[_Page]:
    """Yields all pages of a dump, each with its last revision."""
    mwxml, elements = _import("mwxml"), _import("mwxml.element_iterator")
    count, title = 0, ""
    try:
        root = elements.ElementIterator.from_file(file)
        dump = mwxml.Dump.from_element(root)
        skipped = _skipped_prefixes(dump.site_info)
        for page in dump.pages:
            title = unicodedata.normalize("NFC", page.title)
            text, model = "", "wikitext"
            for revision in page:
                text, model = revision.text or "", revision.model or "wikitext"
            redirect = page.redirect is not None or text.lstrip()[:9].upper() == "#REDIRECT"
            yield _Page(title, page.namespace, redirect, model, text, skipped)
            # Without this the tree keeps an empty element for every page read.
            root.element.clear()
            count += 1
    except Exception as error:  # on a broken dump mwxml raises whatever its code trips over
        near = f", near {title!r}" if title else ""
        raise InputError(
            f"broken off after {count} pages{near} ({type(error).__name__}: {error})",
            file=path,
            remedy="is it a pages-articles dump? fetch it again",
        ) from error


def _skipped_prefixes(site_info: Any) -> frozenset[str]:
    """Returns the names of the file, media and category namespaces, English and the wiki's own, in lower case."""
    own = {space.name.lower() for space in site_info.namespaces or () if space.id in _SKIPPED_NAMESPACES and space.name}
    return frozenset({"file", "image", "media", "category"} | own)


def _shown(code: Any, nodes: Any, skipped: frozenset[str]) -> Iterator[str]:
    """Yields what a reader sees of parsed wikitext as running text."""
    for node in code.nodes:
        if isinstance(node, nodes.Text):
            yield node.value
        elif isinstance(node, nodes.Wikilink):
            yield from _shown_link(node, nodes, skipped)
        elif isinstance(node, nodes.ExternalLink):
            if node.brackets and node.title is not None:
                yield from _shown(node.title, nodes, skipped)
        elif isinstance(node, nodes.HTMLEntity):
            yield _entity(node)
        elif isinstance(node, nodes.Heading):
            yield "\n"
        elif isinstance(node, nodes.Tag):
            tag = str(node.tag).strip().lower()
            if tag in _BREAKING_TAGS:
                yield "\n"
            if tag not in _SKIPPED_TAGS and node.contents is not None:
                yield from _shown(node.contents, nodes, skipped)


def _entity(node: Any) -> str:
    try:
        character = node.normalize()
    except ValueError:
        return " "
    # A control character or half a surrogate pair is no text, however it is spelt.
    return " " if unicodedata.category(character) in ("Cc", "Cs") else character


def _shown_link(link: Any, nodes: Any, skipped: frozenset[str]) -> Iterator[str]:
    target = str(link.title).strip()
    prefix, colon, _ = target.partition(":")
    if colon and prefix.strip().lower().replace("_", " ") in skipped:
        return
    if link.text is not None:
        yield from _shown(link.text, nodes, skipped)
    elif not _OTHER_WIKI.match(target):  # [[fi:Sivu]]: shown beside the page, not in it
        yield target.lstrip(":")


def _blocks(text: str, words: int) -> list[tuple[str, int]]:
    """Returns consecutive blocks and the number of words in each."""
    units = list(_units(text))
    bounds = [*range(0, len(units), words), len(units)]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < SHORTEST:
        bounds[-2] = (bounds[-3] + bounds[-1] + 1) // 2
    return [("".join(units[a:b]).strip(), b - a) for a, b in pairwise(bounds)]


def _units(text: str) -> Iterator[str]:
    """Yields the text's words, each with a blank before it where the text has one."""
    for token in text.split():
        if not (_HAN_KANA.search(token) or _THAI_LAO_BURMESE_KHMER.search(token)):
            yield " " + token
            continue
        blank = " "
        for piece in _pieces(token):
            yield blank + piece
            blank = ""


def _pieces(token: str) -> Iterator[str]:
    """Cuts a token with letters of an unspaced script into words of a fixed number of characters."""
    piece, held, size = "", 0, 0
    for character in _characters(token):
        limit = _word_size(character)
        if limit and held and (limit != size or held >= size):
            yield piece
            piece, held = "", 0
        piece += character
        if limit:  # signs go with the letters before them
            held, size = held + 1, limit
    yield piece


def _word_size(character: str) -> int:
    if _HAN_KANA.match(character):
        return _HAN_KANA_WORD
    if _THAI_LAO_BURMESE_KHMER.match(character):
        return _OTHER_WORD
    return _WHOLE if character[0].isalnum() else 0


def _characters(text: str) -> Iterator[str]:
    """Yields characters as a reader counts them: a letter with its marks."""
    character = ""
    for c in text:
        joined = c in _JOINERS or unicodedata.category(c)[0] == "M" or (character and character[-1] in _STACKERS)
        if character and not joined:
            yield character
            character = ""
        character += c
    if character:
        yield character


@contextmanager
def _opened(path: Path, progress: bool | None) -> Iterator[IO]:
    """Opens a dump for reading and shows how much of it is read."""
    try:
        raw = open(path, "rb")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=path) from error
    bar = tqdm(
        total=path.stat().st_size,
        desc=f"reading {path.name}",
        unit="B",
        unit_scale=True,
        disable=None if progress is None else not progress,
    )
    with raw, bar:
        unpack = {".bz2": bz2.BZ2File, ".gz": lambda file: gzip.GzipFile(fileobj=file)}.get(path.suffix)
        file = unpack(raw) if unpack else raw
        yield _Followed(file, raw, bar)


class _Followed:
    """A file whose reading moves a bar; the XML parser asks for nothing but `read`."""

    def __init__(self, file: IO, raw: IO, bar: tqdm) -> None:
        self._file, self._raw, self._bar = file, raw, bar

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._bar.update(self._raw.tell() - self._bar.n)
        return data


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"Wikipedia dumps can't be read without {name}", remedy="pip install 'class-jax[data]'"
        ) from error
