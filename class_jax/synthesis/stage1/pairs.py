# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Mined sentence pairs: from pages that are linked, by margin, with the entities that become answers (paper, 3.1)."""

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from class_jax.common.files import digest_file
from class_jax.corpus.wikipedia.pages import Page
from class_jax.errors import InputError, nearest
from class_jax.pipelines.runner import RunnerConfig, advance, counter
from class_jax.pipelines.stages import RECORD, run_stage, stage_fingerprint
from class_jax.questions.readers import TRAINING_LANGUAGES
from class_jax.synthesis.sources.entities import Entity, EntityConfig, EntityFinder, context_of, open_finder
from class_jax.synthesis.sources.linked_pages import ENGLISH, AnchorTarget, LinkedPage, linked_pages, read_page_lines
from class_jax.synthesis.stage1.cloze import cloze, cloze_queries, one_line
from class_jax.synthesis.stage1.embedders import Embedder, EmbedderConfig, open_embedder
from class_jax.synthesis.stage1.mining import THRESHOLD, THRESHOLDS, mine, threshold_of

if TYPE_CHECKING:
    import apache_beam as beam

STAGE = "pairs"


@dataclass(frozen=True)
class MiningConfig:
    """How parallel sentences are mined.

    Attributes:
      languages: whose sentences are paired with English ones; the paper's 15 unless set.
      embedder: what they are compared by.
      entities: how the English sentence's entities are found.
      neighbours: k of the margin. The paper does not say it; 4 is that of Artetxe and Schwenk (2019).
      threshold: T, for languages that `thresholds` does not name.
      thresholds: T by language (paper: 1.65 for Japanese and Chinese).
      one_to_one: use a sentence in its best pair only; the paper keeps all pairs above the threshold.
      max_hops: language links that may lead from a page to its English one; 2 joins over a third language.
      min_characters, max_characters: shorter and longer sentences are left out.
      max_sentences: sentences of a page that are compared, the first ones: bounds memory.
    """

    languages: tuple[str, ...] = TRAINING_LANGUAGES
    embedder: EmbedderConfig = EmbedderConfig()
    entities: EntityConfig = EntityConfig()
    neighbours: int = 4
    threshold: float = THRESHOLD
    thresholds: Mapping[str, float] = field(default_factory=lambda: dict(THRESHOLDS))
    one_to_one: bool = False
    max_hops: int = 2
    min_characters: int = 12
    max_characters: int = 600
    max_sentences: int = 2000

    def __post_init__(self):
        if not self.languages or ENGLISH in self.languages:
            raise InputError(f"is {self.languages}", key="MiningConfig.languages", remedy="name others than English")
        for name in ("neighbours", "max_hops", "max_sentences"):
            if getattr(self, name) < 1:
                raise InputError(f"is {getattr(self, name)}", key=f"MiningConfig.{name}", remedy="choose 1 or more")


@dataclass(frozen=True)
class SentencePair:
    """An English sentence and one in another language that says the same, by its margin.

    Attributes:
      language: of the other sentence.
      english, other: the sentences.
      margin: by which they were mined.
      entities: of the English sentence, those that make cloze queries.
      page: English title.
      english_place, other_place: page id and number of the sentence.
      hops: language links between the pages.
    """

    language: str
    english: str
    other: str
    margin: float
    entities: tuple[Entity, ...]
    page: str
    english_place: tuple[str, int]
    other_place: tuple[str, int]
    hops: int = 1

    def to_json(self) -> str:
        """Returns the pair as one line of JSON."""
        record = dataclasses.asdict(self)
        record["entities"] = [[e.start, e.end, e.type] for e in self.entities]
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str, *, file: str | Path | None = None) -> "SentencePair":
        """Reads what `to_json` wrote.

        Raises:
          InputError: if it is no pair.
        """
        try:
            record: dict[str, Any] = json.loads(line)
            record["entities"] = tuple(Entity(int(s), int(e), t) for s, e, t in record["entities"])
            for key in ("english_place", "other_place"):
                page, number = record[key]
                record[key] = (str(page), int(number))
            return cls(**record)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"not a pair ({error!r})", file=file, remedy="mine the pairs again") from error


def mine_pairs(
    work: Path, config: MiningConfig, runner: RunnerConfig | None = None, progress: bool | None = None, **stage: Any
) -> dict[str, int]:
    """Mines `work/pairs/{language}/` from the pages in `work/pages/{language}/`, as one stage.

    Args:
      work: the work folder.
      config: settings.
      runner: what runs the pipeline; None takes this machine's cores.
      progress: show a bar; None shows it on a terminal only.
      **stage: further arguments of `run_stage`.

    Returns:
      Counts: `pairs/{language}`, `sentences/{language}`, `linked_pages/{language}`, `linked_over/{n}_links`,
      `rejected/{reason}`, ...

    Raises:
      InputError: if there are no pages of a language, or as `run_stage` does.
    """
    pages = Path(work) / "pages"
    languages = _with_pages(pages, config)
    inputs = {
        "config": dataclasses.asdict(config),
        "embedder": open_embedder(config.embedder).fingerprint,
        "entities": open_finder(config.entities).fingerprint,
        "pages": {language: pages_fingerprint(pages, language) for language in languages},
    }
    build = functools.partial(_build, pages=str(pages), languages=languages, config=config)
    runner = runner or RunnerConfig()
    return run_stage(work, STAGE, build, inputs=inputs, runner=runner, progress=progress, unit="page", **stage)


def pages_fingerprint(pages: Path, language: str) -> str:
    """Returns a fingerprint of a language's pages: of the stage that made them, or else of the files."""
    for folder in (pages / language, pages):
        if (folder / RECORD).exists():
            return stage_fingerprint(folder)
    return " ".join(digest_file(path) for path in sorted((pages / language).glob("**/*.jsonl")))


def _with_pages(pages: Path, config: MiningConfig) -> list[str]:
    """The languages that have pages, those that only give links among them; English and all mined ones must have."""
    there = sorted(path.name for path in pages.iterdir() if any(path.glob("**/*.jsonl"))) if pages.is_dir() else []
    for language in (ENGLISH, *config.languages):
        if language not in there:
            remedy = f"make them, or leave it out of MiningConfig.languages; {nearest(language, there)}"
            raise InputError("no pages (*.jsonl)", file=pages / language, key=language, remedy=remedy)
    return there


def _build(pipeline: "beam.Pipeline", out: Path, *, pages: str, languages: list[str], config: MiningConfig) -> None:
    import apache_beam as beam

    files = [str(path) for language in languages for path in sorted((Path(pages) / language).glob("**/*.jsonl"))]
    read = (
        pipeline
        | "files" >> beam.Create(files)
        | "spread" >> beam.Reshuffle()
        | "read pages" >> beam.FlatMap(read_page_lines)
    )
    uses_links = open_embedder(config.embedder).uses_links
    joined = linked_pages(read, config.languages, max_hops=config.max_hops, other_targets=uses_links)
    mined = (
        joined
        | "by english title" >> beam.GroupByKey()
        | "mine" >> beam.FlatMap(_mine_group, config, str(out)).with_outputs(*config.languages)
    )
    for language in config.languages:
        _ = mined[language] | f"write {language}" >> beam.io.WriteToText(
            str(Path(out) / language / "pairs"), file_name_suffix=".jsonl"
        )


def _mine_group(group: tuple[str, Iterable[LinkedPage]], config: MiningConfig, out: str) -> Iterator[Any]:
    """Mines the pages about one thing: the English page with each of the others."""
    from apache_beam.pvalue import TaggedOutput

    # The English page first; the others in an order that does not depend on the way they came.
    pages = sorted(group[1], key=lambda p: (p.language != ENGLISH, p.language, p.hops, p.line))
    if pages[0].language != ENGLISH:
        counter("rejected/no_english_page").inc(len(pages))
    elif len(pages) > 1:
        for pair in mine_page_group(pages[0], pages[1:], config, count=_count):
            yield TaggedOutput(pair.language, pair.to_json())
        advance(out, len(pages) - 1)


def _count(name: str, amount: int = 1) -> None:
    counter(name).inc(amount)


@dataclass(frozen=True)
class _Side:
    """Sentences of a page that are compared: numbers [S], texts [S], vectors [S, D]."""

    page: Page
    numbers: list[int]
    texts: list[str]
    vectors: np.ndarray


def mine_page_group(
    english: LinkedPage,
    others: Iterable[LinkedPage],
    config: MiningConfig,
    *,
    embedder: Embedder | None = None,
    finder: EntityFinder | None = None,
    count: Callable[..., None] = lambda name, amount=1: None,
) -> Iterator[SentencePair]:
    """Yields the pairs of an English page and the pages that are linked to it.

    Args:
      english: the English page.
      others: pages in other languages.
      config: settings.
      embedder, finder: None opens what the settings name.
      count: called with the name of what is counted, and how many if not one.
    """
    embedder = open_embedder(config.embedder) if embedder is None else embedder
    finder = open_finder(config.entities) if finder is None else finder
    one = _side(english, embedder, config, count)
    page = one.page
    context = context_of(page, {title: target.type for title, target in english.targets.items()})

    @functools.cache
    def entities(i: int) -> tuple[Entity, ...]:
        found = finder.find(one.texts[i], context)
        if not found:
            count("sentences_without_entity")
        return tuple(e for e in found if cloze(one.texts[i], e) is not None)

    for linked in others:
        two = _side(linked, embedder, config, count)
        threshold = threshold_of(linked.language, config.thresholds, config.threshold)
        found = mine(
            one.vectors,
            two.vectors,
            k=config.neighbours,
            threshold=threshold,
            one_to_one=config.one_to_one,
            min_similarity=embedder.min_similarity,
        )
        count(f"mined/{linked.language}", len(found))
        for i, j, margin in found:
            if one.texts[i] == two.texts[j]:
                count("rejected/untranslated")
                continue
            if not cloze_queries(one.texts[i], two.texts[j], linked.language, entities(i)):
                count("rejected/no_answer")
                continue
            count(f"pairs/{linked.language}")
            yield SentencePair(
                language=linked.language,
                english=one.texts[i],
                other=two.texts[j],
                margin=round(margin, 6),
                entities=entities(i),
                page=page.title,
                english_place=(page.id, one.numbers[i]),
                other_place=(two.page.id, two.numbers[j]),
                hops=linked.hops,
            )


def _side(linked: LinkedPage, embedder: Embedder, config: MiningConfig, count: Callable[..., None]) -> _Side:
    """The usable sentences of a page and their vectors; each once, since a repeated one would be its own neighbour."""
    page = Page.from_json(linked.line)
    numbers, texts, seen = [], [], set()
    for i in range(len(page.sentences)):
        text = one_line(page.sentence(i))
        reason = None
        if not config.min_characters <= len(text) <= config.max_characters:
            reason = "too_short" if len(text) < config.min_characters else "too_long"
        elif text in seen:
            reason = "repeated_sentence"
        elif len(texts) == config.max_sentences:
            reason = "too_many_sentences"
        if reason is not None:
            count(f"rejected/{reason}")
            continue
        seen.add(text)
        numbers.append(i)
        texts.append(text)
    if not texts:
        count("rejected/page_without_sentences")
        return _Side(page, [], [], np.zeros((0, 1), np.float32))
    links = sentence_links(page, numbers, linked.targets) if embedder.uses_links else None
    vectors = np.asarray(embedder.embed(texts, linked.language, links), np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    count(f"sentences/{linked.language}", int(finite.sum()))
    if not finite.all():
        count("rejected/vector_not_finite", int((~finite).sum()))
        keep = np.flatnonzero(finite)
        numbers, texts, vectors = [numbers[i] for i in keep], [texts[i] for i in keep], vectors[keep]
    return _Side(page, numbers, texts, vectors)


def sentence_links(page: Page, numbers: Iterable[int], targets: Mapping[str, AnchorTarget]) -> list[list[str]]:
    """Returns, for each sentence of the given numbers, the English titles of what it links to or names.

    A page links a name at its first mention only: the words of its anchors are looked for in every sentence.
    """
    titles: dict[str, str] = {}
    for anchor in page.anchors:
        words = page.text[anchor.start : anchor.end].strip()
        if anchor.target in targets and len(words) > 1:
            titles.setdefault(words, targets[anchor.target].english)
    if not titles:
        return [[] for _ in numbers]
    pattern = re.compile("|".join(map(re.escape, sorted(titles, key=len, reverse=True))))
    return [sorted({titles[words] for words in pattern.findall(page.sentence(i))}) for i in numbers]
