# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables on disk that pages are joined with: the titles of a wiki with their redirects, and its language links.

SQLite files, read by any number of processes in little memory, however large the wiki.
"""

import functools
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from class_jax.corpus.wikipedia.wikitext import normalised_title
from class_jax.errors import InputError

MAX_REDIRECTS = 8
_CACHE = 1 << 17


class Resolved(NamedTuple):
    """Where a title leads.

    Attributes:
      title: of the article at the end of the redirects; empty if there is none.
      problem: empty, `loop` (redirects in a circle, or more than `MAX_REDIRECTS`), or `nowhere` (no such page).
      steps: redirects followed.
    """

    title: str
    problem: str
    steps: int


class Titles:
    """The titles of a wiki's articles and redirects.

    Args:
      path: the file that `write_titles` wrote.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._base = _opened(path)
        self.resolve = functools.lru_cache(_CACHE)(self._resolve)

    def _resolve(self, title: str) -> Resolved:
        seen: list[str] = []
        while True:
            row = self._base.execute("SELECT target FROM title WHERE title = ?", (title,)).fetchone()
            if row is None:
                return Resolved("", "nowhere", len(seen))
            if row[0] is None:
                return Resolved(title, "", len(seen))
            seen.append(title)
            title = row[0]
            if title in seen or len(seen) > MAX_REDIRECTS:
                return Resolved("", "loop", len(seen))

    def redirects(self) -> Iterator[str]:
        """Yields the titles of all redirects."""
        for (title,) in self._base.execute("SELECT title FROM title WHERE target IS NOT NULL"):
            yield title


def write_titles(path: str | os.PathLike, rows: Iterable[tuple[str, str | None]]) -> int:
    """Writes (title, target of the redirect or None) rows; of several rows of a title the first stays.

    Returns:
      The number of titles.
    """
    with _new(path) as base:
        base.execute("CREATE TABLE title (title TEXT PRIMARY KEY, target TEXT) WITHOUT ROWID")
        base.executemany("INSERT OR IGNORE INTO title VALUES (?, ?)", rows)
        return base.execute("SELECT COUNT(*) FROM title").fetchone()[0]


class LanguageLinks:
    """Titles in other languages, by page id or by title.

    Args:
      paths: files that `write_links` wrote; the links of earlier ones come first.
      language: of the pages.
    """

    def __init__(self, paths: Sequence[str | os.PathLike], language: str) -> None:
        self._bases = [_opened(path) for path in paths]
        self._language = language

    def of(self, page_id: str, title: str) -> dict[str, str]:
        """Returns the titles of a page in other languages, by language."""
        keys = (page_key(self._language, id=page_id), page_key(self._language, title=title))
        found: dict[str, str] = {}
        for base in self._bases:
            for language, other in base.execute("SELECT language, title FROM link WHERE page IN (?, ?)", keys):
                found.setdefault(language, other)
        return found


def page_key(language: str, *, id: str | None = None, title: str = "") -> str:
    """Returns what names a page in a table of links: its id or, if that is None, its title."""
    return f"{language}={title}" if id is None else f"{language}#{id}"


def write_links(path: str | os.PathLike, rows: Iterable[tuple[str, str, str]]) -> int:
    """Writes (page, language, title) rows; see `page_key`. Of several links of a page to a language the first stays.

    Returns:
      The number of links.
    """
    with _new(path) as base:
        base.execute(
            "CREATE TABLE link (page TEXT, language TEXT, title TEXT, PRIMARY KEY (page, language)) WITHOUT ROWID"
        )
        base.executemany("INSERT OR IGNORE INTO link VALUES (?, ?, ?)", rows)
        return base.execute("SELECT COUNT(*) FROM link").fetchone()[0]


def sitelinks(line: str, languages: Mapping[str, str]) -> dict[str, str]:
    """Returns the titles by language of one line of a Wikidata dump, or of the light format.

    The dump's lines are `{"id": "Q1", ..., "sitelinks": {"enwiki": {"title": "Universe", ...}, ...}},`; the light
    format's `{"en": "Universe", "fi": "Maailmankaikkeus"}`.

    Args:
      line: JSON; a comma at its end and the dump's first and last line (`[`, `]`) are skipped.
      languages: language by the name of its wiki (`enwiki`), and by itself.

    Raises:
      ValueError: if the line is not such JSON.
    """
    line = line.strip().rstrip(",")
    if line in ("", "[", "]"):
        return {}
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("not an object")
    links = record.get("sitelinks", record if "id" not in record else {})
    if not isinstance(links, dict):  # an item without links has an empty list
        return {}
    found: dict[str, str] = {}
    for wiki, value in links.items():
        title = value.get("title") if isinstance(value, dict) else value
        if wiki in languages:
            if not isinstance(title, str):
                raise ValueError(f"no title for {wiki!r}")
            found[languages[wiki]] = normalised_title(title)
    return found


def _opened(path: str | os.PathLike) -> sqlite3.Connection:
    path = Path(path)
    if not path.exists():
        raise InputError("no such table", file=path, remedy="make the data again (class-jax make-data)")
    # Finished stages never change, so that no lock is needed, not even on a file system without locks.
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)


class _new:  # noqa: N801 (used as a function)
    """A new table; it is written whole by a stage, so that it needs no journal."""

    def __init__(self, path: str | os.PathLike) -> None:
        self._base = sqlite3.connect(path)
        self._base.execute("PRAGMA journal_mode = OFF")
        self._base.execute("PRAGMA synchronous = OFF")

    def __enter__(self) -> sqlite3.Connection:
        return self._base

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._base.commit()
        self._base.close()
