# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A Wikipedia dump (`pages-articles.xml`, plain or compressed), page by page; and straight to passages.

Pages are cut out of the file before they are parsed: a broken page is skipped and its byte offset reported, and a part
of a multistream dump can be read by itself.
"""

import bz2
import codecs
import gzip
import os
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import IO, NamedTuple
from xml.etree import ElementTree

from tqdm import tqdm

from class_jax.corpus.passages import Passage, write_passages
from class_jax.corpus.segments import blocks
from class_jax.corpus.wikipedia.wikitext import Site, import_parser, plain_text
from class_jax.errors import InputError

MAX_PAGE_BYTES = 16 << 20
"""Longer pages are skipped; the longest articles have about 2 MB."""

_HIDDEN_NAMESPACES = (-2, 6, 14)  # media, files, categories
_BLOCK = 1 << 20
_PAGE, _END, _LAST = b"<page>", b"</page>", b"</mediawiki>"
_ENCODING = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([^"']+)["']""")
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_REDIRECT = re.compile(r"\s*#\s*[^\W\d_]+\s*:?\s*\[\[([^\]|]+)")


class DumpPage(NamedTuple):
    """A page as the dump has it.

    Attributes:
      id: the wiki's own.
      title: NFC-normalised.
      namespace: 0 is that of the articles.
      redirect: the title that it leads to, if it is a redirect; empty if the dump does not say.
      model: `wikitext`, `css`, ...
      text: of the last revision.
      offset: where it starts in the uncompressed file (or part), in bytes.
      size: its bytes there.
    """

    id: str
    title: str
    namespace: int
    redirect: str | None
    model: str
    text: str
    offset: int
    size: int


class Damage(NamedTuple):
    """What could not be read of a dump.

    Attributes:
      reason: `broken_xml`, `encoding` or `too_large`, of one page; `cut_off`: nothing more can be read.
      offset: where it starts in the uncompressed file (or part), in bytes.
      title: of the page, or of the last one before, where it is known.
      detail: what exactly.
    """

    reason: str
    offset: int
    title: str
    detail: str


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
) -> DumpCounts:
    """Writes the articles of a dump as consecutive passages of at most `words` words.

    See `parse_wikitext` for what is left of wikitext and `segments.blocks` for where passages end. Titles are
    NFC-normalised. For links, sentences and several languages, see `wikipedia.make_corpus`, which reads on
    after damage; this function refuses a damaged dump.

    Args:
      dump_path: `pages-articles` XML, plain, `.bz2` (multistream too) or `.gz`. Of several revisions of a page
        the last one is taken.
      out_tsv: where the passages go, whole or not at all; `.tsv` or `.tsv.gz`.
      words: most words in a passage.

    Raises:
      InputError: if the dump is missing, damaged or not a dump (with the number of pages read and the title
        it ends near), or mwparserfromhell is not installed.
    """
    counts = DumpCounts()
    write_passages(out_tsv, _passages(Path(dump_path), words, counts))
    return counts


def _passages(path: Path, words: int, counts: DumpCounts) -> Iterator[Passage]:
    for title, text in _articles(path, counts):
        found = blocks(text, words)
        if not found:
            counts.empty += 1
            continue
        counts.articles += 1
        for start, end, length in found:
            yield Passage(str(1 + counts.passages), " ".join(text[start:end].split()), title)
            counts.passages += 1
            counts.words += length


def _articles(path: Path, counts: DumpCounts) -> Iterator[tuple[str, str]]:
    """Yields title and plain text of each article; counts all pages and those left out."""
    parser = import_parser().parser
    site = read_site(path)
    with _shown_progress(path) as on_progress:
        for page in read_dump_pages(path, on_progress=on_progress):
            if isinstance(page, Damage):
                near = f", near {page.title!r}" if page.title else ""
                raise InputError(
                    f"ends too early, after {counts.pages} pages{near} (byte {page.offset}: {page.detail})",
                    file=path,
                    remedy="is it a pages-articles dump? fetch it again",
                )
            counts.pages += 1
            reason = not_an_article(page)
            if reason is None:
                try:
                    yield page.title, plain_text(page.text, site)
                    continue
                except (parser.ParserError, RecursionError):
                    reason = "unparsed"
            setattr(counts, reason, getattr(counts, reason) + 1)


def not_an_article(page: DumpPage) -> str | None:
    """Returns why a page is no article by its kind, as a field of `DumpCounts`, or None if it is one."""
    if page.namespace != 0:
        return "other_namespaces"
    if page.redirect is not None:
        return "redirects"
    return None if page.model == "wikitext" else "other_models"


def read_site(path: str | os.PathLike) -> Site:
    """Returns what the head of a dump says of its wiki; names of namespaces in English are always known.

    Raises:
      InputError: if the file is missing or in an unknown encoding.
    """
    head = b""
    blocks_ = _decoded(Path(path), 0, None, lambda _: None)
    try:
        while b"</siteinfo>" not in head and _PAGE not in head and len(head) < _BLOCK:
            head += next(blocks_)
        end = head.index(b"</siteinfo>") + len(b"</siteinfo>")
        info = ElementTree.fromstring(head[head.index(b"<siteinfo>") : end])
    except (StopIteration, ValueError, ElementTree.ParseError, EOFError, OSError):
        return Site()  # the reader of the pages reports what is wrong with it
    spaces = [(int(space.get("key", "0")), (space.text or "").strip().lower()) for space in info.iter("namespace")]
    case = next((space.get("case") for space in info.iter("namespace") if space.get("key") == "0"), None)
    known = Site()
    return Site(
        known.hidden | {name for key, name in spaces if key in _HIDDEN_NAMESPACES},
        known.namespaces | {name for key, name in spaces if key != 0 and name},
        (case or info.findtext("case")) == "case-sensitive",
    )


def read_dump_pages(
    path: str | os.PathLike,
    start: int = 0,
    length: int | None = None,
    *,
    max_page_bytes: int = MAX_PAGE_BYTES,
    on_progress: Callable[[int], object] = lambda _: None,
) -> Iterator[DumpPage | Damage]:
    """Streams the pages of a dump, or of some of its streams, in constant memory.

    A page that can't be read is yielded as `Damage`, and the next one follows; a damage `cut_off` is the last.

    Args:
      path: XML, plain, `.bz2` or `.gz`, in UTF-8 or the encoding that it declares.
      start, length: bytes of the compressed file: whole streams of a multistream dump; None: to its end.
      max_page_bytes: longer pages are skipped.
      on_progress: called with the number of bytes of the file each time some were read.

    Raises:
      InputError: if the file is missing or declares an unknown encoding.
    """
    title, cutter = "", _Cutter(max_page_bytes)
    for offset, chunk in _cut(cutter, Path(path), start, length, on_progress):
        if isinstance(chunk, Damage):
            yield chunk._replace(title=chunk.title or title)
            continue
        try:
            page = _page(chunk, offset)
        except UnicodeDecodeError as error:
            place = offset + error.start
            yield Damage("encoding", place, _title(chunk) or title, f"not UTF-8 ({error.reason})")
        except (ElementTree.ParseError, ValueError, TypeError) as error:
            yield Damage("broken_xml", offset, _title(chunk) or title, str(error))
        else:
            title = page.title
            yield page


def _cut(
    cutter: "_Cutter", path: Path, start: int, length: int | None, on_progress: Callable[[int], object]
) -> Iterator[tuple[int, bytes | Damage]]:
    try:
        for block in _decoded(path, start, length, on_progress):
            yield from cutter.feed(block)
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        yield cutter.offset, Damage("cut_off", cutter.offset, "", f"{type(error).__name__}: {error}")
        return
    if start == 0 and length is None:
        yield from cutter.finish()


def _page(chunk: bytes, offset: int) -> DumpPage:
    element = ElementTree.fromstring(chunk.decode("utf-8"))
    title = element.findtext("title")
    if not title:
        raise ValueError("no title")
    revisions = element.findall("revision")
    text, model = "", "wikitext"
    if revisions:
        text, model = revisions[-1].findtext("text") or "", revisions[-1].findtext("model") or "wikitext"
    redirect = element.find("redirect")
    target = None
    if redirect is not None or text.lstrip()[:9].upper() == "#REDIRECT":
        written = _REDIRECT.match(text)
        target = (redirect.get("title") if redirect is not None else None) or (written[1] if written else "")
    namespace = int(element.findtext("ns") or 0)
    id_ = (element.findtext("id") or "").strip()
    return DumpPage(id_, unicodedata.normalize("NFC", title), namespace, target, model, text, offset, len(chunk))


def _title(chunk: bytes) -> str:
    found = re.search(rb"<title>([^<]{1,1000})</title>", chunk[:4000])
    return unicodedata.normalize("NFC", unescape(found[1].decode("utf-8", "replace"))) if found else ""


class _Cutter:
    """Cuts a stream of bytes into pages (`<page>` to `</page>`).

    In MediaWiki's XML a `<` of a page's text is always escaped, so the tags can be looked for.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = b""
        self._base = 0  # offset of what is held
        self._inside = False
        self._dropped, self._name = 0, ""  # of a page that is too long to be held
        self._begun = self._closed = False

    @property
    def offset(self) -> int:
        """Where the page that is being read starts, or else how far was read."""
        return self._base - self._dropped

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes | Damage]]:
        """Yields the pages that end in this block, with the offset of each."""
        self._held += block
        self._begun = self._begun or b"<mediawiki" in self._held[:4096]
        while self._inside or self._found_start():
            end = self._held.find(_END)
            first = 0 if self._dropped else len(_PAGE)
            again = self._held.find(_PAGE, first, end if end >= 0 else len(self._held))
            if again >= 0:
                name = self._name or _title(self._held[:again])
                yield self.offset, Damage("broken_xml", self.offset, name, "no </page>")
                self._skip(again)
                self._dropped, self._name = 0, ""
            elif end >= 0:
                end += len(_END)
                size = self._dropped + end
                if size > self._limit:
                    problem = f"{size} bytes, more than {self._limit}"
                    yield self.offset, Damage("too_large", self.offset, self._name or _title(self._held), problem)
                else:
                    yield self._base, self._held[:end]
                self._skip(end)
                self._inside, self._dropped, self._name = False, 0, ""
            else:
                if len(self._held) + self._dropped > self._limit:
                    self._name = self._name or _title(self._held)
                    self._dropped += self._skip(len(self._held) - len(_END))
                return

    def finish(self) -> Iterator[tuple[int, Damage]]:
        """Yields what is missing at the end of a whole file."""
        if self._inside:
            name = self._name or _title(self._held)
            yield self.offset, Damage("cut_off", self.offset, name, "the file ends within a page")
        elif not self._closed:
            problem = f"no {_LAST.decode()} at the end" if self._begun else "no <mediawiki> at the start"
            yield self._base, Damage("cut_off", self._base, "", problem)

    def _found_start(self) -> bool:
        at = self._held.find(_PAGE)
        self._inside = at >= 0
        if not self._inside:
            self._closed = self._closed or _LAST in self._held
            at = max(0, len(self._held) - len(_LAST) + 1)  # the start of a tag may be held
        self._skip(at)
        return self._inside

    def _skip(self, size: int) -> int:
        self._held = self._held[size:]
        self._base += size
        return size


def _decoded(path: Path, start: int, length: int | None, on_progress: Callable[[int], object]) -> Iterator[bytes]:
    """Yields blocks of the uncompressed file in UTF-8 (or what claims to be)."""
    decoder = None
    for i, block in enumerate(_unpacked(path, start, length, on_progress)):
        if i == 0 and start == 0:
            name = next((name for mark, name in _MARKS if block.startswith(mark)), None)
            declared = _ENCODING.match(block[:200])
            name = name or (declared[1].decode("ascii", "replace") if declared else "utf-8")
            try:
                codec = codecs.lookup(name)
            except LookupError as error:
                raise InputError(
                    f"in an unknown encoding, {name!r}", file=path, remedy="convert it to UTF-8"
                ) from error
            # UTF-8 is unchanged: only the page that is not valid is refused.
            decoder = None if codec.name == "utf-8" else codec.incrementaldecoder("strict")
        yield block if decoder is None else decoder.decode(block).encode("utf-8")


def _unpacked(path: Path, start: int, length: int | None, on_progress: Callable[[int], object]) -> Iterator[bytes]:
    try:
        raw = open(path, "rb")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=path) from error
    with raw:
        raw.seek(start)
        part = _Part(raw, length, on_progress)
        # `read1` gives what was unpacked before a file's early end; `read` would lose it.
        if path.suffix == ".bz2":
            read = bz2.BZ2File(part).read1
        elif path.suffix == ".gz":
            read = gzip.GzipFile(fileobj=part).read1
        else:
            read = part.read
        while block := read(_BLOCK):
            yield block


class _Part:
    """Some bytes of a file; reports how many were read."""

    def __init__(self, raw: IO, length: int | None, on_progress: Callable[[int], object]) -> None:
        self._raw, self._left, self._on_progress = raw, length, on_progress

    def read(self, size: int = -1) -> bytes:
        if self._left is not None:
            size = self._left if size < 0 else min(size, self._left)
            self._left -= size
        data = self._raw.read(size)
        self._on_progress(len(data))
        return data

    def seekable(self) -> bool:
        return False


@contextmanager
def _shown_progress(path: Path) -> Iterator[Callable[[int], object]]:
    """A bar of how much of a dump is read."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", file=path) from error
    with tqdm(total=size, desc=f"reading {path.name}", unit="B", unit_scale=True, disable=None) as bar:
        yield bar.update
