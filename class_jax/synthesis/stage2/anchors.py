# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stage 2, first half: anchor texts as answers (paper section 3.2.1, "Initial Data").

An example is a sentence, a link in it (the answer), the English title over the language link of the page that it leads
to, and the entity type of that English page. `find_anchor_examples` finds all of a dump's in one Beam pipeline:

    pages of L ──► anchors in sentences ──(page id)──► own passage ──(target)──► English title, type, question word
    pages of L ──► language links ──(English title)──► English pages' first paragraphs ──► types
"""

import bisect
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from class_jax.common.files import numbered_lines
from class_jax.corpus.wikipedia.pages import Page
from class_jax.errors import InputError
from class_jax.pipelines.runner import RunnerConfig, counter
from class_jax.pipelines.stages import run_stage, stage_fingerprint
from class_jax.questions.readers import XOR_LANGUAGES
from class_jax.synthesis.stage2.question_words import KIND_OF_TYPE, UNSPACED, question_word

if TYPE_CHECKING:
    import apache_beam as beam

STAGE = "anchors"
ENGLISH = "en"
_LEAD_CHARACTERS = 4000
_CHARACTERS_PER_WORD = 2  # in languages written without blanks
_REMEDY = "find the anchors again (class-jax make-data)"
EntityTyper = Callable[[Page], "str | None"]


@dataclass(frozen=True)
class AnchorConfig:
    """Which anchors become examples.

    Attributes:
      languages: of the pages; the paper takes those of XOR-TyDi QA.
      min_words, max_words: of the sentence, the answer among them; two characters count as a word in Japanese and
        Chinese.
      max_answer_words: of the answer.
      untyped: the kind of question word (a key of `question_words.question_word`) for answers whose page has no type
        of Table 11, such as currencies; None leaves them out.
    """

    languages: tuple[str, ...] = XOR_LANGUAGES
    min_words: int = 5
    max_words: int = 60
    max_answer_words: int = 8
    untyped: str | None = None

    def __post_init__(self) -> None:
        for language in self.languages:
            question_word(language, self.untyped or "who")
        if not self.languages or len(set(self.languages)) < len(self.languages):
            raise InputError("needs different languages, at least one", key="AnchorConfig.languages")


@dataclass(frozen=True, slots=True)
class AnchorExample:
    """A sentence with the anchor that is asked for.

    Attributes:
      id: ``{language}-{page}-{place of the anchor on the page}``.
      language: its code.
      page: id of the sentence's page.
      title: the page's.
      sentence: its text.
      start, end: place of the anchor in the sentence.
      target: title of the page that the anchor leads to.
      english: that page's English title: the answer's translation.
      entity_type: of the English page.
      kind: of the question word by Table 11, a key of `question_words.question_word`.
      passage: id of the anchor's passage.
    """

    id: str
    language: str
    page: str
    title: str
    sentence: str
    start: int
    end: int
    target: str
    english: str = ""
    entity_type: str = ""
    kind: str = ""
    passage: str = ""

    @property
    def answer(self) -> str:
        """The anchor's words."""
        return self.sentence[self.start : self.end]

    @property
    def question_word(self) -> str:
        """What asks for the answer in the example's language."""
        return question_word(self.language, self.kind)

    def to_json(self) -> str:
        """Returns the example as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(
        cls, line: str, *, file: str | os.PathLike | None = None, number: int | None = None
    ) -> "AnchorExample":
        """Reads what `to_json` wrote.

        Raises:
          InputError: if it is no example.
        """
        try:
            return cls(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise InputError(f"no anchor example ({error})", file=file, line=number, remedy=_REMEDY) from error


def read_anchor_examples(work: str | os.PathLike, language: str) -> Iterator[AnchorExample]:
    """Streams the examples of one language, in the order of the files.

    Raises:
      InputError: if there are none, or a line is no example.
    """
    folder = Path(work) / STAGE / language
    if not (files := sorted(folder.glob("*.jsonl"))):
        raise InputError("no anchor examples (*.jsonl)", file=folder, remedy=_REMEDY)
    for path in files:
        for number, line in numbered_lines(path):
            yield AnchorExample.from_json(line, file=path, number=number)


def candidates_of(page: Page, config: AnchorConfig) -> Iterator[AnchorExample | str]:
    """Yields an example, or the reason why there is none, for every anchor of a page.

    What other pages and the passages add (`english`, `entity_type`, `kind`, `passage`) is still missing. Reasons:
    ``outside_sentence``, ``sentence_length``, ``answer_length``, ``answer_repeated`` (the rest of the sentence has it
    too, so that the question would give it away).
    """
    sentence = 0
    for anchor in page.anchors:
        while sentence < len(page.sentences) and page.sentences[sentence][1] < anchor.end:
            sentence += 1
        if sentence == len(page.sentences) or anchor.start < page.sentences[sentence][0]:
            yield "outside_sentence"
            continue
        start, end = page.sentences[sentence]
        text, place = page.text[start:end], (anchor.start - start, anchor.end - start)
        yield _rejected(text, *place, page.language, config) or AnchorExample(
            f"{page.language}-{page.id}-{anchor.start}",
            page.language,
            page.id,
            page.title,
            # A sentence may go over a line's end; the files that come of it are tables of lines.
            text.translate({ord(c): " " for c in "\t\r\n"}),
            *place,
            anchor.target,
        )


def length_in_words(text: str, language: str) -> float:
    """Words of a text; in languages without blanks, half its characters."""
    if language in UNSPACED:
        return len("".join(text.split())) / _CHARACTERS_PER_WORD
    return len(text.split())


def _rejected(text: str, start: int, end: int, language: str, config: AnchorConfig) -> str | None:
    answer = text[start:end]
    if not config.min_words <= length_in_words(text, language) <= config.max_words:
        return "sentence_length"
    if not any(c.isalnum() for c in answer) or length_in_words(answer, language) > config.max_answer_words:
        return "answer_length"
    around = f"{text[:start]}\n{text[end:]}".casefold()
    return "answer_repeated" if answer.strip().casefold() in around else None


def find_anchor_examples(
    work: str | os.PathLike,
    config: AnchorConfig,
    runner: RunnerConfig | None = None,
    progress: bool | None = None,
    *,
    entity_type: EntityTyper | None = None,
    force: bool = False,
) -> dict[str, int]:
    """Runs the stage: `work/pages` and `work/passages` to `work/anchors/{language}/*.jsonl`.

    Every anchor of the pages is counted: ``anchors/{language}`` is ``examples/{language}`` plus all of
    ``rejected/{reason}/{language}``. Reasons beside those of `candidates_of`: ``no_passage``, ``no_page`` (the target
    has no page in the dump), ``no_english_link``, ``no_english_page``, ``no_type``.

    Args:
      work: folder of the work.
      config: which anchors.
      runner: what runs the pipeline; None for this machine's cores.
      progress: show a bar; None shows it on a terminal only.
      entity_type: of an English page cut to its first paragraph; by default
        `class_jax.synthesis.sources.entities.entity_type_of_page`. Must be picklable.
      force: as in `run_stage`.

    Raises:
      InputError: if a language's pages or the passages are not there; and as `run_stage`.
    """
    from class_jax.synthesis.sources.entities import entity_type_of_page

    work, typer = Path(work), entity_type or entity_type_of_page
    languages = sorted({ENGLISH, *config.languages})
    for language in languages:
        if not any((work / "pages" / language).glob("*.jsonl")):
            raise InputError("no pages (*.jsonl)", file=work / "pages" / language, remedy="make the pages first")
    spans = work / "passages" / "passage_spans.tsv"
    if not spans.exists():
        raise InputError("no such file", file=spans, remedy="make the passages first")
    inputs = {
        "config": dataclasses.asdict(config),
        "entity_type": f"{typer.__module__}.{typer.__qualname__}",
        "pages": {language: made_by(work, work / "pages" / language) for language in languages},
        "passages": made_by(work, spans.parent),
    }
    build = functools.partial(_build, work, config, typer)
    return run_stage(work, STAGE, build, inputs=inputs, runner=runner or RunnerConfig(), progress=progress, force=force)


def made_by(work: Path, folder: Path) -> str:
    """Fingerprint of the stage that made a folder: the folder's own or the nearest above it, within the work folder."""
    for place in (folder, *folder.parents):
        if (place / "stage.json").exists() or place == work:
            return stage_fingerprint(place)
    return stage_fingerprint(folder)


def _build(work: Path, config: AnchorConfig, typer: EntityTyper, pipeline: "beam.Pipeline", out: Path) -> None:
    import apache_beam as beam

    def pages(language: str) -> "beam.PCollection":
        pattern = str(work / "pages" / language / "*.jsonl")
        lines = pipeline | f"read {language}" >> beam.io.ReadFromTextWithFilename(pattern)
        return lines | f"pages {language}" >> beam.MapTuple(_page)

    own = {language: pages(language) for language in sorted({ENGLISH, *config.languages})}
    english = own[ENGLISH] | "leads" >> beam.Map(_lead)
    asked = [own[language] for language in config.languages] | "all pages" >> beam.Flatten()
    targets = asked | "targets" >> beam.Map(_target)
    linked = targets | "linked" >> beam.Filter(_is_linked) | "by English title" >> beam.Map(_by_english_title)
    typed = (
        {"links": linked, "pages": english}
        | "join English pages" >> beam.CoGroupByKey()
        | "type" >> beam.FlatMap(_typed, typer, config.untyped)
    )
    unlinked = targets | "unlinked" >> beam.Filter(lambda t: not _is_linked(t)) | "no link" >> beam.Map(_without_link)
    answers = [typed, unlinked] | "all targets" >> beam.Flatten()
    spans = (
        pipeline
        | "read spans" >> beam.io.ReadFromText(str(work / "passages" / "passage_spans.tsv"))
        | "spans" >> beam.FlatMap(_span, frozenset(config.languages))
    )
    found = (
        {"examples": asked | "anchors" >> beam.FlatMap(_candidates, config), "spans": spans}
        | "join passages" >> beam.CoGroupByKey()
        | "own passage" >> beam.FlatMap(_with_passage)
    )
    examples = (
        {"examples": found, "answers": answers}
        | "join targets" >> beam.CoGroupByKey()
        | "complete" >> beam.FlatMap(_complete, config.untyped)
    )
    for language in config.languages:
        (
            examples
            | f"of {language}" >> beam.Filter(_is_in, language)
            | f"lines {language}" >> beam.Map(AnchorExample.to_json)
            | f"write {language}" >> beam.io.WriteToText(str(out / language / "anchors"), file_name_suffix=".jsonl")
        )


def _page(file: str, line: str) -> Page:
    return Page.from_json(line, file=file)


def _lead(page: Page) -> tuple[str, Page]:
    """An English page by its title, cut to its first paragraph: only that goes through the join."""
    text = page.text.lstrip("\n").split("\n", 1)[0][:_LEAD_CHARACTERS]
    before = len(page.text) - len(page.text.lstrip("\n"))
    sentences = tuple((s - before, e - before) for s, e in page.sentences if before <= s and e - before <= len(text))
    return page.title, dataclasses.replace(page, text=text, sections=(), sentences=sentences, anchors=(), links={})


def _target(page: Page) -> tuple[tuple[str, str], str]:
    english = page.title if page.language == ENGLISH else page.links.get(ENGLISH, "")
    return (page.language, page.title), english


def _is_linked(target: tuple[tuple[str, str], str]) -> bool:
    return bool(target[1])


def _by_english_title(target: tuple[tuple[str, str], str]) -> tuple[str, tuple[str, str]]:
    return target[1], target[0]


def _without_link(target: tuple[tuple[str, str], str]) -> tuple[tuple[str, str], tuple[str, str]]:
    return target[0], ("", "no_english_link")


def _typed(
    grouped: tuple[str, dict[str, Iterable]], typer: EntityTyper, untyped: str | None
) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
    """Yields ((language, target), (English title, entity type)), or ("", reason) for a target that has none."""
    title, groups = grouped
    links, pages = list(groups["links"]), iter(groups["pages"])
    if not links:
        return
    page = next(pages, None)
    kind = typer(page) if page is not None else None
    if page is None:
        entity_type = "", "no_english_page"
    elif kind in KIND_OF_TYPE or untyped is not None:
        entity_type = title, kind or ""
    else:
        entity_type = "", "no_type"
    for link in links:
        yield link, entity_type


def _span(line: str, languages: frozenset[str]) -> Iterator[tuple[tuple[str, str], tuple[int, int, str]]]:
    row = line.split("\t")
    if row[0] == "id":
        return
    try:
        passage, language, page, start, end = row
        place = int(start), int(end), passage
    except ValueError as error:
        raise InputError(f"no passage, language, page, start, end: {line[:80]!r}", file="passage_spans.tsv") from error
    if language in languages:
        yield (language, page), place


def _candidates(page: Page, config: AnchorConfig) -> Iterator[tuple[tuple[str, str], AnchorExample]]:
    for found in candidates_of(page, config):
        counter(f"anchors/{page.language}").inc()
        if isinstance(found, str):
            _reject(found, page.language)
        else:
            yield (page.language, page.id), found


def _with_passage(
    grouped: tuple[tuple[str, str], dict[str, Iterable]],
) -> Iterator[tuple[tuple[str, str], AnchorExample]]:
    """Gives each example of a page the passage that the anchor begins in; (language, target) is its new key."""
    (language, _), groups = grouped
    spans = sorted(groups["spans"])
    starts = [start for start, _, _ in spans]
    for example in groups["examples"]:
        place = int(example.id.rpartition("-")[2])
        last = bisect.bisect_right(starts, place) - 1
        if last < 0 or place >= spans[last][1]:
            _reject("no_passage", language)
        else:
            yield (example.language, example.target), dataclasses.replace(example, passage=spans[last][2])


def _complete(grouped: tuple[tuple[str, str], dict[str, Iterable]], untyped: str | None) -> Iterator[AnchorExample]:
    (language, _), groups = grouped
    english, entity_type = next(iter(groups["answers"]), ("", "no_page"))
    for example in groups["examples"]:
        if not english:
            _reject(entity_type, language)
        else:
            counter(f"examples/{language}").inc()
            kind = KIND_OF_TYPE.get(entity_type, untyped)
            yield dataclasses.replace(example, english=english, entity_type=entity_type, kind=kind)


def _is_in(example: AnchorExample, language: str) -> bool:
    return example.language == language


def _reject(reason: str, language: str) -> None:
    counter(f"rejected/{reason}/{language}").inc()


def counts_by_language(counts: dict[str, int], name: str) -> dict[str, int]:
    """Returns the counters ``{name}/{language}`` by language."""
    return {key.rpartition("/")[2]: n for key, n in counts.items() if key.rpartition("/")[0] == name}
