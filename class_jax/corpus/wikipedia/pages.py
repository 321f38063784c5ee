# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Pages of a Wikipedia as plain text with what is known of it: sections, sentences, anchors and language links.

The corpus pipelines make them from dumps; synthesis makes training questions of them. They are kept as JSON lines, in
any number of files (shards) a folder.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from class_jax.errors import InputError

REMEDY = "make the pages again (class-jax make-data)"


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and where the text below it starts.

    Attributes:
      start: offset in the page's text, in code points.
      level: 2 for ``== ... ==``, 3 for ``=== ... ===``, ...; the lead has no section.
      heading: its plain text.
    """

    start: int
    level: int
    heading: str


@dataclass(frozen=True, slots=True)
class Anchor:
    """A link in the running text.

    Attributes:
      start, end: offsets of the words shown, `text[start:end]`, in code points.
      target: title of the page that it leads to, in the page's own wiki, redirects followed.
    """

    start: int
    end: int
    target: str


@dataclass(frozen=True, slots=True)
class Page:
    """One article.

    Attributes:
      id: the wiki's own page id.
      language: its language's code.
      title: NFC-normalised.
      text: plain running text, one line a paragraph or list item; no tables, templates or references.
      sections: in order.
      sentences: (start, end) of every sentence, in order, blanks at the ends left out.
      anchors: in order; none overlaps another, each within one sentence.
      links: titles of the same article in other languages, by language.
    """

    id: str
    language: str
    title: str
    text: str
    sections: tuple[Section, ...] = ()
    sentences: tuple[tuple[int, int], ...] = ()
    anchors: tuple[Anchor, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)

    def sentence(self, i: int) -> str:
        """Returns the text of sentence i."""
        start, end = self.sentences[i]
        return self.text[start:end]

    def to_json(self) -> str:
        """Returns the page as one line of JSON."""
        record = {
            "id": self.id,
            "language": self.language,
            "title": self.title,
            "text": self.text,
            "sections": [[s.start, s.level, s.heading] for s in self.sections],
            "sentences": [list(pair) for pair in self.sentences],
            "anchors": [[a.start, a.end, a.target] for a in self.anchors],
            "links": dict(self.links),
        }
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str, *, file: str | os.PathLike | None = None, number: int | None = None) -> "Page":
        """Reads what `to_json` wrote.

        Args:
          line: the JSON.
          file, number: where it was read, for errors.

        Raises:
          InputError: if it is no page.
        """
        try:
            record: dict[str, Any] = json.loads(line)
            return cls(
                id=str(record["id"]),
                language=str(record["language"]),
                title=str(record["title"]),
                text=str(record["text"]),
                sections=tuple(Section(int(s), int(level), str(h)) for s, level, h in record["sections"]),
                sentences=tuple((int(s), int(e)) for s, e in record["sentences"]),
                anchors=tuple(Anchor(int(s), int(e), str(t)) for s, e, t in record["anchors"]),
                links={str(k): str(v) for k, v in record["links"].items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"not a page ({error!r})", file=file, line=number, remedy=REMEDY) from error


def read_pages(folder: str | os.PathLike, language: str | None = None) -> Iterator[Page]:
    """Streams the pages of all `*.jsonl` files of a folder, file by file in the order of their names.

    Args:
      folder: what the corpus pipeline wrote for one language, or several such folders' parent.
      language: only pages in this language.

    Raises:
      InputError: if there is no such file, or a line is no page.
    """
    files = sorted(Path(folder).glob("**/*.jsonl"))
    if not files:
        raise InputError("no pages (*.jsonl)", file=folder, remedy=REMEDY)
    for path in files:
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, start=1):
                page = Page.from_json(line, file=path, number=number)
                if language is None or page.language == language:
                    yield page
