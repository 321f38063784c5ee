# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Named entities of an English sentence: the answers of stage-1 cloze queries (paper 3.1 and appendix A.1.1)."""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from class_jax.corpus.wikipedia.pages import Page
from class_jax.errors import InputError, nearest
from class_jax.synthesis.sources.entity_types import ENTITY_TYPES, entity_type_of_page

__all__ = [
    "ENTITY_TYPES",
    "Entity",
    "EntityConfig",
    "EntityFinder",
    "PageContext",
    "RuleEntities",
    "StanzaEntities",
    "context_of",
    "entity_type_of_page",
    "open_finder",
]


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """A named entity.

    Attributes:
      start, end: `sentence[start:end]`, in code points.
      type: one of `ENTITY_TYPES`; None for a name whose type no rule knows.
    """

    start: int
    end: int
    type: str | None = None


@dataclass(frozen=True)
class PageContext:
    """What is known of a sentence's page.

    Attributes:
      names: the page's title and the words shown by its anchors -> entity type, None where it is not known. A page
        links a name once, at its first mention: later sentences name it without a link.
    """

    names: Mapping[str, str | None] = field(default_factory=dict)

    @functools.cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """Matches any of the names as whole words, longest first; None where there are none."""
        names = sorted(self.names, key=len, reverse=True)
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, names))})(?!\w)") if names else None


class EntityFinder(Protocol):
    """Finds entities.

    Attributes:
      fingerprint: of all that decides what is found.
    """

    fingerprint: str

    def find(self, sentence: str, context: PageContext) -> list[Entity]:
        """Returns the entities of an English sentence, by place, none overlapping another."""
        ...


def context_of(page: Page, types: Mapping[str, str | None]) -> PageContext:
    """Returns the context of a page's sentences.

    Args:
      page: an English page.
      types: title of a linked page -> its entity type; a title that is missing (the link leads nowhere) has none.
    """
    names: dict[str, str | None] = {}
    for anchor in page.anchors:
        words = page.text[anchor.start : anchor.end].strip()
        kind = types.get(anchor.target)
        if _is_name(words, kind):
            names[words] = names.get(words) or kind
    title = re.sub(r" \([^()]*\)$", "", page.title)
    kind = entity_type_of_page(page)
    if _is_name(title, kind):
        names.setdefault(title, kind)
    return PageContext(names)


def _is_name(words: str, kind: str | None) -> bool:
    """Whether words are a name, not a common noun such as "river" or "mountain range" that happens to be a link.

    A name begins and ends in capitals (or holds a figure); a type that its page has proves nothing of "river".
    """
    if len(words) < 2 or not any(c.isalnum() for c in words) or "\n" in words:
        return False
    if kind in ("DATE", "TIME"):
        return True
    parts = [part for part in re.findall(r"\w+", words) if len(part) > 2 or part[0].isupper()]
    return bool(parts) and parts[0][0].isupper() and (parts[-1][0].isupper() or parts[-1][0].isdigit())


_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SCALE = r"(?: (?:hundred|thousand|million|billion|trillion))?"
_WORDS = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundreds|thousands"
_UNIT = (
    r"(?:km²|km2|m²|sq mi|square (?:kilometres|kilometers|miles|metres|meters|feet)|km|kilometres?|kilometers?|metres?"
    r"|meters?|cm|mm|miles?|feet|foot|ft|inches|kg|kilograms?|tonnes?|tons?|grams?|litres?|liters?|hectares?|acres?"
    r"|°C|°F|mph|km/h|MW|kW|GHz|MHz|m)"
)
_MONEY = r"(?:dollars|euros|pounds|yen|yuan|roubles|rubles|rupees|won|francs|marks|crowns)"
# In this order: the first that matches at a place gives its type.
_PATTERNS: tuple[tuple[str, str], ...] = (
    ("TIME", r"\d{1,2}[:.]\d{2} ?(?:a\.m\.|p\.m\.|am|pm)|\d{1,2}:\d{2}(?::\d{2})?|\d{1,2} ?(?:a\.m\.|p\.m\.|am|pm)"),
    ("DATE", rf"\d{{1,2}}(?:st|nd|rd|th)? (?:of )?{_MONTH}(?:,? \d{{3,4}})?|{_MONTH} \d{{1,2}}(?:, \d{{3,4}})?"),
    ("DATE", rf"{_MONTH} \d{{4}}|\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,4}} (?:BC|AD|BCE|CE)"),
    ("DATE", r"\d{1,2}(?:st|nd|rd|th)[ -](?:century|millennium)(?: (?:BCE?|AD|CE))?|\d{3,4}s"),
    ("PERCENT", rf"(?:{_NUMBER}) ?(?:%|percent|per cent)"),
    ("MONEY", rf"(?:US)?[$€£¥₩₹] ?(?:{_NUMBER}){_SCALE}|(?:{_NUMBER}){_SCALE} {_MONEY}"),
    ("QUANTITY", rf"(?:{_NUMBER}){_SCALE} {_UNIT}"),
    ("ORDINAL", r"\d+(?:st|nd|rd|th)|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth"),
    ("DATE", r"1[0-9]{3}|20[0-9]{2}"),
    ("CARDINAL", rf"(?:{_NUMBER}){_SCALE}|(?:{_WORDS}){_SCALE}"),
)
_NUMERIC = re.compile(
    "|".join(rf"(?P<p{i}>(?<![\w.,:/-])(?:{p})(?!\w|[.,:/-]\d))" for i, (_, p) in enumerate(_PATTERNS))
)


class RuleEntities:
    """The offline default: names are the page's title and the words of its anchors; numbers and dates by their form."""

    def __init__(self) -> None:
        self.fingerprint = "rules-1"

    def find(self, sentence: str, context: PageContext) -> list[Entity]:
        """Returns the names of the context and the numbers and dates in the sentence; longer ones win."""
        found = []
        if context.pattern is not None:
            for match in context.pattern.finditer(sentence):
                found.append(Entity(match.start(), match.end(), context.names[match[0]]))
        for match in _NUMERIC.finditer(sentence):
            kind = _PATTERNS[int(match.lastgroup[1:])][0]
            found.append(Entity(match.start(), match.end(), kind))
        return without_overlaps(found)


class StanzaEntities:
    """Stanza's tagger, which the paper uses; the page's context is not needed.

    Args:
      folder: of Stanza's models; None for its own place. Nothing is downloaded here.

    Raises:
      InputError: if Stanza or its English models are not installed.
    """

    def __init__(self, folder: str | None = None) -> None:
        try:
            import stanza
        except ImportError as error:
            raise InputError(
                "stanza is not installed", key="EntityConfig.kind", remedy="pip install 'class-jax[torch]'"
            ) from error
        settings: dict[str, Any] = {} if folder is None else {"dir": folder}
        try:
            self._pipeline = stanza.Pipeline(
                "en",
                processors="tokenize,ner",
                tokenize_no_ssplit=True,
                download_method=None,
                use_gpu=False,
                verbose=False,
                **settings,
            )
        except Exception as error:  # Stanza raises bare exceptions of several kinds for missing models
            raise InputError(
                f"Stanza's English models can't be opened ({type(error).__name__})",
                file=folder,
                key="EntityConfig.stanza_folder",
                remedy="python -c 'import stanza; stanza.download(\"en\")'",
            ) from error
        self.fingerprint = f"stanza-{stanza.__version__}"

    def find(self, sentence: str, context: PageContext) -> list[Entity]:
        """Returns the entities that the tagger finds."""
        del context
        entities = self._pipeline(sentence).entities
        return without_overlaps(Entity(e.start_char, e.end_char, e.type) for e in entities)


def without_overlaps(entities: Iterable[Entity]) -> list[Entity]:
    """Keeps the longest of overlapping entities (the first of equally long ones), in order of place."""
    kept: list[Entity] = []
    # Of two at one place the typed one counts more.
    for entity in sorted(entities, key=lambda e: (e.start - e.end, e.start, e.type is None, e.type or "")):
        if entity.start < entity.end and all(entity.end <= k.start or k.end <= entity.start for k in kept):
            kept.append(entity)
    return sorted(kept, key=lambda e: e.start)


@dataclasses.dataclass(frozen=True)
class EntityConfig:
    """How the entities of English sentences are found.

    Attributes:
      kind: "rules" (offline) or "stanza" (the paper's).
      stanza_folder: of Stanza's models; None for its own place.
    """

    kind: str = "rules"
    stanza_folder: str | None = None

    def __post_init__(self):
        if self.kind not in ("rules", "stanza"):
            remedy = nearest(self.kind, ("rules", "stanza"))
            raise InputError(f"unknown value {self.kind!r}", key="EntityConfig.kind", remedy=remedy)


@functools.lru_cache(maxsize=2)
def open_finder(config: EntityConfig) -> EntityFinder:
    """Opens a finder, once a process.

    Raises:
      InputError: if what it needs is not installed.
    """
    return RuleEntities() if config.kind == "rules" else StanzaEntities(config.stanza_folder)
