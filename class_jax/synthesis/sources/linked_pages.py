# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Pages of several languages joined over their language links to the English page, as Beam transforms.

Only titles travel while the links are followed; a page's text is grouped twice: with what its links lead to, and with
the other pages about the same thing. A node is (language, title).
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from class_jax.common.files import numbered_lines
from class_jax.corpus.wikipedia.pages import Page
from class_jax.pipelines.runner import counter
from class_jax.synthesis.sources.entity_types import entity_type_of_page

if TYPE_CHECKING:
    import apache_beam as beam

ENGLISH = "en"
Node = tuple[str, str]
# Where own link and backward link disagree, or two ways are equally long, the least counts.
_OWN, _BACKWARD = 0, 1


class AnchorTarget(NamedTuple):
    """What an anchor leads to: the English title of that page, and its entity type (of English pages' anchors)."""

    english: str
    type: str | None


class LinkedPage(NamedTuple):
    """A page with the English page that it is linked to.

    Attributes:
      language: the page's.
      line: the page, as `Page.to_json` wrote it.
      hops: language links between it and English: 0 for the English page, 1 for a direct link, 2 over a third language.
      targets: of its anchors, by their title; links to nowhere are missing.
    """

    language: str
    line: str
    hops: int
    targets: Mapping[str, AnchorTarget]


class _Way(NamedTuple):
    """How a node leads to an English title; the least is the best."""

    hops: int
    rank: int
    via: str
    english: str


def title_key(title: str) -> str:
    """Returns a title for comparisons: NFC, blanks for underscores."""
    return unicodedata.normalize("NFC", title.replace("_", " ")).strip()


def read_page_lines(path: str) -> Iterator[tuple[Page, str]]:
    """Yields the pages of a file of JSON lines, each with its line.

    Raises:
      InputError: naming file and line, if one is no page.
    """
    for number, line in numbered_lines(path):
        yield Page.from_json(line, file=path, number=number), line


def linked_pages(
    pages: "beam.PCollection[tuple[Page, str]]",
    languages: Sequence[str],
    *,
    max_hops: int = 2,
    other_targets: bool = True,
) -> "beam.PCollection[tuple[str, LinkedPage]]":
    """Joins pages with their English pages.

    Args:
      pages: of English, of `languages`, and of any others, whose language links help.
      languages: the ones whose pages are wanted, besides English.
      max_hops: language links that may be followed; 1 takes only direct links (in either direction).
      other_targets: whether the anchors of pages in other languages are looked up, too.

    Returns:
      (English title, page), for English pages and all pages that lead to one. Pages that lead nowhere are counted.
    """
    import apache_beam as beam

    ways = _ways(pages, languages, max_hops)
    wanted = pages | "wanted" >> beam.Filter(_is_of, {*languages, ENGLISH})
    known = (
        pages | "english types" >> beam.FlatMap(_typed),
        ways | "other titles" >> beam.MapTuple(lambda node, way: (node, AnchorTarget(way.english, None))),
    ) | "targets" >> beam.Flatten()
    asked = wanted | "anchors" >> beam.FlatMap(_asked, other_targets)
    found = (
        {"asked": asked, "known": known}
        | "look up anchors" >> beam.CoGroupByKey()
        | "answer anchors" >> beam.FlatMap(_answered)
    )
    lines = wanted | "lines" >> beam.Map(lambda pair: (_node(pair[0]), pair[1]))
    english = pages | "english themselves" >> beam.FlatMap(_itself)
    every_way = (ways, english) | "all ways" >> beam.Flatten()
    return (
        {"line": lines, "way": every_way, "target": found}
        | "page with links" >> beam.CoGroupByKey()
        | "to english" >> beam.FlatMap(_to_english)
    )


def _ways(pages: Any, languages: Sequence[str], max_hops: int) -> Any:
    """(node, way) for every node that is not English and leads to an English page that is there."""
    import apache_beam as beam

    edges = pages | "language links" >> beam.FlatMap(_edges) | "each link once" >> beam.Distinct()
    titles = pages | "english titles" >> beam.FlatMap(_english_title)
    direct = edges | "to english links" >> beam.FlatMap(_direct)
    ways = (
        {"from": direct, "there": titles}
        | "is it there" >> beam.CoGroupByKey()
        | "drop nowhere" >> beam.FlatMap(_existing)
        | "best direct" >> beam.CombinePerKey(min)
    )
    neighbours = edges | "past english" >> beam.Filter(_between_others) | "node and neighbour" >> beam.Map(_pair)
    if max_hops > 2:  # a page between two others needs a way of its own, whether or not it is wanted
        nodes = neighbours | "all nodes" >> beam.MapTuple(lambda node, _: (node, None))
    else:
        nodes = pages | "nodes" >> beam.FlatMap(_wanted_node, frozenset(languages))
    for hops in range(2, max_hops + 1):
        asking = (
            {"node": nodes, "way": ways, "neighbour": neighbours}
            | f"without way {hops}" >> beam.CoGroupByKey()
            | f"ask neighbours {hops}" >> beam.FlatMap(_ask_neighbours)
        )
        longer = (
            {"asking": asking, "way": ways}
            | f"neighbours' ways {hops}" >> beam.CoGroupByKey()
            | f"one further {hops}" >> beam.FlatMap(_one_further)
        )
        ways = (ways, longer) | f"more ways {hops}" >> beam.Flatten() | f"best {hops}" >> beam.CombinePerKey(min)
    return ways


def _is_of(pair: tuple[Page, str], languages: Iterable[str]) -> bool:
    return pair[0].language in languages


def _node(page: Page) -> Node:
    return page.language, title_key(page.title)


def _typed(pair: tuple[Page, str]) -> Iterator[tuple[Node, AnchorTarget]]:
    page = pair[0]
    if page.language == ENGLISH:
        yield _node(page), AnchorTarget(title_key(page.title), entity_type_of_page(page))


def _asked(pair: tuple[Page, str], others: bool) -> Iterator[tuple[Node, tuple[Node, str]]]:
    """((language, target), (node of the asking page, target as written)), each target once a page."""
    page = pair[0]
    if others or page.language == ENGLISH:
        for target in dict.fromkeys(anchor.target for anchor in page.anchors):
            yield (page.language, title_key(target)), (_node(page), target)


def _answered(group: tuple[Node, dict[str, Iterable]]) -> Iterator[tuple[Node, tuple[str, AnchorTarget]]]:
    _, found = group
    known = next(iter(sorted(found["known"], key=repr)), None)
    for node, target in found["asked"]:
        if known is None:
            counter("anchors_to_nowhere").inc()
        else:
            yield node, (target, known)


def _itself(pair: tuple[Page, str]) -> Iterator[tuple[Node, _Way]]:
    page = pair[0]
    if page.language == ENGLISH:
        yield _node(page), _Way(0, _OWN, "", title_key(page.title))


def _to_english(group: tuple[Node, dict[str, Iterable]]) -> Iterator[tuple[str, LinkedPage]]:
    (language, _), found = group
    lines = sorted(found["line"])
    if not lines:
        return
    if len(lines) > 1:
        counter("rejected/same_title").inc(len(lines) - 1)
    way = min(found["way"], default=None)
    if way is None:
        counter("rejected/no_english_page").inc()
        return
    if language != ENGLISH:
        counter(f"linked_pages/{language}").inc()
        counter(f"linked_over/{way.hops}_links").inc()
    yield way.english, LinkedPage(language, lines[0], way.hops, dict(sorted(found["target"])))


def _edges(pair: tuple[Page, str]) -> Iterator[tuple[str, str, str, str, int]]:
    """Each language link in both directions: (language, title, language, title, own or backward)."""
    page = pair[0]
    here = _node(page)
    for language, title in page.links.items():
        there = (language, title_key(title))
        if language != page.language and there[1]:
            yield (*here, *there, _OWN)
            yield (*there, *here, _BACKWARD)


def _english_title(pair: tuple[Page, str]) -> Iterator[tuple[str, None]]:
    page = pair[0]
    if page.language == ENGLISH:
        yield title_key(page.title), None


def _direct(edge: tuple[str, str, str, str, int]) -> Iterator[tuple[str, tuple[Node, int]]]:
    language, title, to_language, to_title, rank = edge
    if to_language == ENGLISH:
        yield to_title, ((language, title), rank)


def _existing(group: tuple[str, dict[str, Iterable]]) -> Iterator[tuple[Node, _Way]]:
    english, found = group
    there = any(True for _ in found["there"])
    for node, rank in found["from"]:
        if there:
            yield node, _Way(1, rank, "", english)
        elif rank == _OWN:
            counter("language_links_to_nowhere").inc()


def _wanted_node(pair: tuple[Page, str], languages: frozenset[str]) -> Iterator[tuple[Node, None]]:
    if pair[0].language in languages and pair[0].language != ENGLISH:
        yield _node(pair[0]), None


def _between_others(edge: tuple[str, str, str, str, int]) -> bool:
    return ENGLISH not in (edge[0], edge[2])


def _pair(edge: tuple[str, str, str, str, int]) -> tuple[Node, Node]:
    return (edge[0], edge[1]), (edge[2], edge[3])


def _ask_neighbours(group: tuple[Node, dict[str, Iterable]]) -> Iterator[tuple[Node, Node]]:
    node, found = group
    if any(True for _ in found["node"]) and not any(True for _ in found["way"]):
        for neighbour in sorted(set(found["neighbour"])):
            yield neighbour, node


def _one_further(group: tuple[Node, dict[str, Iterable]]) -> Iterator[tuple[Node, _Way]]:
    (language, _), found = group
    way = min(found["way"], default=None)
    if way is not None:
        for node in found["asking"]:
            yield node, _Way(way.hops + 1, _OWN, language, way.english)
