# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The stage that makes stage 2's training questions of anchor examples, the same number for every language.

A *draw* is one question to be made of one example. All draws of a language have an order: the first question of each
example (in a random order), then the second of each, and so on. The valid questions that come first in this order are
kept until there are enough, whichever transformer makes them.

Rules and phrasebooks run in Beam. Models are asked by a loop in the main process: one model's throughput bounds
it, whether behind an endpoint (one client holds the limits of rate and budget) or in one process, and the loop stops
when there are enough.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import heapq
import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from class_jax.common.files import digest_file, replacing
from class_jax.errors import InputError, nearest
from class_jax.llm.chat import ChatModel
from class_jax.llm.client import ChatClient, EndpointConfig
from class_jax.llm.local import LocalChatModel, LocalModelConfig
from class_jax.pipelines.runner import RunnerConfig, counter
from class_jax.pipelines.stages import read_stage, run_stage, stage_fingerprint
from class_jax.questions.readers import XOR_LANGUAGES
from class_jax.synthesis.stage2 import anchors
from class_jax.synthesis.stage2.anchors import AnchorExample, counts_by_language, read_anchor_examples
from class_jax.synthesis.stage2.phrasebook import PhrasebookTransformer, read_phrasebook
from class_jax.synthesis.stage2.rules import RULES_VERSION, VARIANTS, RuleTransformer
from class_jax.synthesis.stage2.transform import (
    Draw,
    MetaExample,
    PromptConfig,
    PromptTransformer,
    Rejected,
    Transformed,
    Transformer,
    fingerprint_of,
    make_meta_examples,
    read_meta_examples,
    write_meta_examples,
)
from class_jax.synthesis.stage2.validate import ValidationConfig, problem_of, question_key, tidied

if TYPE_CHECKING:
    import apache_beam as beam

STAGE = "stage2"
META_STAGE = "meta_examples"
REPLIES = "replies"
QUESTIONS, PASSAGES, IN_ENGLISH = (
    "anchor_questions.tsv",
    "anchor_questions.passages.tsv",
    "anchor_questions.english.tsv",
)
TRANSFORMERS = ("rules", "phrasebook", "endpoint", "local")
OFFLINE = ("rules", "phrasebook")
_META_POOL = 8
# The loop is a stage like any other: it runs while the pipeline is built, which then holds only its counts.
_IN_THIS_PROCESS = RunnerConfig("direct", workers=1)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuestionConfig:
    """How questions are made.

    Attributes:
      languages: of the examples.
      transformer: ``rules`` or ``phrasebook`` (both offline), ``endpoint`` or ``local`` (`transformers`).
      target: questions wanted for each language (paper: 146k).
      most_per_example: the most questions made of one example where a language has few.
      surplus: draws for each question wanted, since some are rejected.
      seed: of the order of the draws.
      prompts: how models are prompted.
      validation: what makes a question valid.
      phrasebook: for ``phrasebook``, its file; see `class_jax.synthesis.stage2.phrasebook`.
      endpoint: for ``endpoint``.
      local: for ``local``.
      meta_endpoint: the large model that makes the meta-examples; None takes the one that makes the questions.
      meta_examples: folder of ready ones, ``{language}.jsonl``, instead.
    """

    languages: tuple[str, ...] = XOR_LANGUAGES
    transformer: str = "rules"
    target: int = 146_000
    most_per_example: int = VARIANTS
    surplus: float = 2.0
    seed: int = 0
    prompts: PromptConfig = PromptConfig()
    validation: ValidationConfig = ValidationConfig()
    phrasebook: str | None = None
    endpoint: EndpointConfig | None = None
    local: LocalModelConfig | None = None
    meta_endpoint: EndpointConfig | None = None
    meta_examples: str | None = None

    def __post_init__(self) -> None:
        if self.transformer not in TRANSFORMERS:
            remedy = nearest(self.transformer, TRANSFORMERS)
            raise InputError(f"{self.transformer!r} is not known", key="QuestionConfig.transformer", remedy=remedy)
        if self.transformer != "rules" and getattr(self, self.transformer) is None:
            raise InputError("is not set", key=f"QuestionConfig.{self.transformer}", remedy="the transformer needs it")
        for name in ("target", "most_per_example"):
            if getattr(self, name) < 1:
                raise InputError(f"{getattr(self, name)} is not positive", key=f"QuestionConfig.{name}")
        if self.surplus < 1:
            raise InputError(f"{self.surplus} is less than 1", key="QuestionConfig.surplus")


@dataclass(frozen=True)
class LanguagePlan:
    """How many draws a language has.

    Attributes:
      examples: examples that there are.
      share: of them, drawn at random.
      per_example: questions made of each, at most.
    """

    examples: int
    share: float
    per_example: int


def plan_draws(
    counts: Mapping[str, int], target: int, most_per_example: int, surplus: float = 1.0
) -> dict[str, LanguagePlan]:
    """Plans for the same number of questions in every language: a share of the examples of a large one, several
    questions for each example of a small one.

    Args:
      counts: examples by language.
      target: questions wanted for each.
      most_per_example: the most that one example may give.
      surplus: draws for each question wanted.
    """
    wanted = math.ceil(target * surplus)
    plans = {}
    for language, count in counts.items():
        per_example = min(most_per_example, math.ceil(wanted / count)) if count else 0
        plans[language] = LanguagePlan(count, min(1.0, wanted / count) if count else 0.0, per_example)
    return plans


def make_questions(
    work: str | os.PathLike,
    config: QuestionConfig,
    runner: RunnerConfig | None = None,
    progress: bool | None = None,
    *,
    force: bool = False,
) -> dict[str, int]:
    """Runs the stage: `work/anchors` to `work/stage2`, through `work/meta_examples` where a model is prompted.

    Writes, for all languages together and in a folder for each: `anchor_questions.tsv` (id, question, answer),
    `anchor_questions.passages.tsv` (id, own passage) and `anchor_questions.english.tsv` (id, question, the answer's
    English title: what the answer is where only English passages are searched; paper, footnote 3).

    Counts: ``drawn/{language}`` is ``valid/{language}`` plus all of ``rejected/{reason}/{language}``, and of the valid
    ``questions/{language}`` were wanted; for endpoints also replies, tokens and the cost in millionths.

    Raises:
      InputError: if the anchors are missing, a model can't be used, or its budget is spent (`work/replies` keeps
        all replies, and the next run resumes from them); and as `run_stage`.
    """
    work, runner = Path(work), runner or RunnerConfig()
    counts = counts_by_language(read_stage(work / anchors.STAGE).result, "examples")
    there = {language: counts[language] for language in config.languages if counts.get(language)}
    if not there:
        raise InputError("no anchor examples in these languages", file=work / anchors.STAGE, remedy="name others")
    if len(there) < len(config.languages):
        _log.warning("no anchor examples in: %s", ", ".join(sorted(set(config.languages) - set(there))))
    plans = plan_draws(there, config.target, config.most_per_example, config.surplus)
    inputs = {
        "anchors": stage_fingerprint(work / anchors.STAGE),
        "validation": dataclasses.asdict(config.validation),
        **{name: getattr(config, name) for name in ("languages", "target", "most_per_example", "surplus", "seed")},
    }
    if config.transformer in OFFLINE:
        build = functools.partial(_build_offline, work, config, plans, _offline_transformer(config))
        book = config.phrasebook if config.transformer == "phrasebook" else None
        inputs["transformer"] = RULES_VERSION if book is None else digest_file(book)
        return run_stage(work, STAGE, build, inputs=inputs, runner=runner, progress=progress, force=force)
    meta = _meta_examples(work, config, tuple(plans), force)
    settings = config.endpoint if config.transformer == "endpoint" else config.local
    inputs["transformer"] = fingerprint_of(settings.fingerprint, meta, config.prompts)

    def build(pipeline: "beam.Pipeline", out: Path) -> None:
        with _opened(settings, work) as model:
            transformer = PromptTransformer(model, meta, config.prompts)
            _count_in(pipeline, _ask(work, config, plans, transformer, out, progress) | _costs(model))

    return run_stage(work, STAGE, build, inputs=inputs, runner=_IN_THIS_PROCESS, progress=False, force=force)


@contextlib.contextmanager
def _opened(config: EndpointConfig | LocalModelConfig, work: Path) -> Iterator[ChatModel]:
    if isinstance(config, LocalModelConfig):
        yield LocalChatModel(config)
    else:
        with ChatClient(config, work / REPLIES) as client:
            yield client


def _meta_examples(
    work: Path, config: QuestionConfig, languages: tuple[str, ...], force: bool
) -> dict[str, list[MetaExample]]:
    """Reads the meta-examples that are given, or runs the stage that makes them."""
    folder = Path(config.meta_examples or work / META_STAGE)
    if config.meta_examples is None:
        settings = config.meta_endpoint or (config.endpoint if config.transformer == "endpoint" else config.local)

        def build(pipeline: "beam.Pipeline", out: Path) -> None:
            with _opened(settings, work) as model:
                for language in languages:
                    pool = heapq.nsmallest(
                        _META_POOL * config.prompts.meta_examples,
                        read_anchor_examples(work, language),
                        key=lambda example: _rank(f"meta {example.id}", config.seed),
                    )
                    made = make_meta_examples(model, pool, language, config.prompts, config.validation)
                    write_meta_examples(out / f"{language}.jsonl", made)
                    _log.info("%d meta-examples in %s", len(made), language)
                _count_in(pipeline, _costs(model))

        inputs = {
            "anchors": stage_fingerprint(work / anchors.STAGE),
            "languages": languages,
            "transformer": fingerprint_of(settings.fingerprint, {}, config.prompts),
            "validation": dataclasses.asdict(config.validation),
            "seed": config.seed,
        }
        run_stage(work, META_STAGE, build, inputs=inputs, runner=_IN_THIS_PROCESS, progress=False, force=force)
    return {language: read_meta_examples(folder / f"{language}.jsonl", language) for language in languages}


def _ask(
    work: Path,
    config: QuestionConfig,
    plans: Mapping[str, LanguagePlan],
    transformer: Transformer,
    out: Path,
    progress: bool | None,
) -> dict[str, int]:
    """Makes the questions of every language in the order of the draws, writes the files and returns the counts."""
    counts: collections.Counter[str] = collections.Counter()
    for language, planned in plans.items():
        rows: list[Row] = []
        hidden = None if progress is None else not progress
        with tqdm(total=config.target, desc=f"questions {language}", unit="q", disable=hidden) as bar:
            outcomes = transformer.transform(draws_of(work, language, planned, config.seed))
            seen: set[bytes] = set()
            for outcome in outcomes:
                counts[f"drawn/{language}"] += 1
                made = _judged(outcome, config)
                if isinstance(made, Rejected):
                    counts[f"rejected/{made.reason}/{language}"] += 1
                elif (key := question_key(made[3])) in seen:
                    counts[f"rejected/duplicate/{language}"] += 1
                else:
                    seen.add(key)
                    rows.append(made)
                    bar.update()
                    if len(rows) == config.target:
                        break
            outcomes.close()
        counts[f"questions/{language}"] = counts[f"valid/{language}"] = len(rows)
        _write_language(rows, out / language)
    _join(len(plans), out, tuple(plans))
    return dict(counts)


def draws_of(work: str | os.PathLike, language: str, planned: LanguagePlan, seed: int) -> Iterator[Draw]:
    """Yields a language's draws in their order, holding two numbers for each example in memory."""
    folder = Path(work) / anchors.STAGE / language
    places = []
    for number, path in enumerate(files := sorted(folder.glob("*.jsonl"))):
        with open(path, "rb") as f:
            start = 0
            for line in f:
                rank = _rank(json.loads(line)["id"], seed)
                if _is_drawn(rank, planned):
                    places.append((rank, number, start))
                start += len(line)
    places.sort()
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open(path, "rb")) for path in files]
        for variant in range(planned.per_example):
            for _, number, start in places:
                opened[number].seek(start)
                yield Draw(AnchorExample.from_json(opened[number].readline().decode(), file=files[number]), variant)


# (variant, rank, id, question, answer, English answer, passage): in this order, rows sort as the draws do.
Row = tuple[int, int, str, str, str, str, str]


def _judged(outcome: Transformed | Rejected, config: QuestionConfig) -> Row | Rejected:
    if isinstance(outcome, Rejected):
        return outcome
    draw, example = outcome.draw, outcome.draw.example
    question = tidied(outcome.question, example.language)
    problem = problem_of(question, example, config.validation)
    if problem is not None:
        return Rejected(draw, problem, question)
    answers = (" ".join(text.split()) for text in (example.answer, example.english))
    return (draw.variant, _rank(example.id, config.seed), draw.id, question, *answers, example.passage)


def _build_offline(
    work: Path,
    config: QuestionConfig,
    plans: Mapping[str, LanguagePlan],
    transformer: Transformer,
    pipeline: "beam.Pipeline",
    out: Path,
) -> None:
    import apache_beam as beam

    written = []
    for language, planned in plans.items():
        files = sorted((work / anchors.STAGE / language).glob("*.jsonl"))
        lines = pipeline | f"files {language}" >> beam.Create([str(file) for file in files])
        written.append(
            lines
            | f"read {language}" >> beam.io.ReadAllFromText()
            | f"transform {language}" >> beam.FlatMap(_transformed, planned, config, transformer)
            | f"duplicates {language}" >> beam.GroupByKey()
            | f"first {language}" >> beam.Map(_first, language)
            | f"target {language}" >> beam.combiners.Top.Smallest(config.target)
            | f"write {language}" >> beam.Map(_write_language, out / language, language)
        )
    counted = written | "all languages" >> beam.Flatten() | "written" >> beam.CombineGlobally(sum)
    _ = counted | "join" >> beam.Map(_join, out, tuple(plans))


def _transformed(
    line: str, planned: LanguagePlan, config: QuestionConfig, transformer: Transformer
) -> Iterator[tuple[bytes, Row]]:
    example = AnchorExample.from_json(line)
    if not _is_drawn(_rank(example.id, config.seed), planned):
        return
    draws = [Draw(example, variant) for variant in range(planned.per_example)]
    for outcome in transformer.transform(draws):
        counter(f"drawn/{example.language}").inc()
        made = _judged(outcome, config)
        if isinstance(made, Rejected):
            counter(f"rejected/{made.reason}/{example.language}").inc()
        else:
            yield question_key(made[3]), made


def _offline_transformer(config: QuestionConfig) -> Transformer:
    if config.transformer == "rules":
        return RuleTransformer()
    return PhrasebookTransformer(read_phrasebook(config.phrasebook))


def _first(grouped: tuple[bytes, Iterable[Row]], language: str) -> Row:
    ordered = sorted(grouped[1])
    counter(f"rejected/duplicate/{language}").inc(len(ordered) - 1)
    counter(f"valid/{language}").inc()
    return ordered[0]


def _write_language(rows: Sequence[Row], folder: Path, language: str | None = None) -> int:
    """Writes one language's files; returns 1, for the sum of the written. A given language is counted (in Beam)."""
    if language is not None:
        counter(f"questions/{language}").inc(len(rows))
    for name, columns in ((QUESTIONS, (2, 3, 4)), (PASSAGES, (2, 6)), (IN_ENGLISH, (2, 3, 5))):
        with replacing(folder / name) as f:
            f.writelines("\t".join(row[column] for column in columns) + "\n" for row in rows)
    return 1


def _join(written: int, out: Path, languages: tuple[str, ...]) -> None:
    """Puts the languages' files together, once all are written."""
    if written != len(languages):
        raise InputError(f"{written} of {len(languages)} languages were written", file=out)
    for name in (QUESTIONS, PASSAGES, IN_ENGLISH):
        with replacing(out / name, "wb") as f:
            for language in languages:
                with open(out / language / name, "rb") as part:
                    shutil.copyfileobj(part, f)


def _rank(text: str, seed: int) -> int:
    # 63 bits: Beam's integers are signed.
    return int.from_bytes(hashlib.sha256(f"{seed}\t{text}".encode()).digest()[:8], "big") >> 1


def _is_drawn(rank: int, planned: LanguagePlan) -> bool:
    return rank < planned.share * 2**63


def _costs(model: ChatModel) -> dict[str, int]:
    if not isinstance(model, ChatClient):
        return {}
    spent = model.spending
    _log.info("%d replies, %d from the cache, cost %.4f", spent.replies, spent.cached, spent.cost)
    counts = {name: getattr(spent, name) for name in ("replies", "cached", "failed", "retries")}
    counts |= {"prompt_tokens": spent.prompt_tokens, "completion_tokens": spent.completion_tokens}
    return {f"endpoint/{name}": n for name, n in counts.items()} | {"endpoint/cost_millionths": round(spent.cost * 1e6)}


def _count_in(pipeline: "beam.Pipeline", counts: Mapping[str, int]) -> None:
    import apache_beam as beam

    _ = pipeline | beam.Create(sorted(counts.items())) | beam.MapTuple(_count)


def _count(name: str, n: int) -> None:
    counter(name).inc(n)
