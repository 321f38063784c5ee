# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""From dumps to training data, configured by gin: the steps of `class-jax make-data` in their order.

    corpus      dumps -> pages, passages
    mining      pages -> pairs
    parallel    pairs -> stage1/parallel.tsv
    lists       stage1, passages -> stage1_lists/lists.jsonl
    anchors     pages, passages -> anchors
    questions   anchors -> stage2/anchor_questions.tsv

`gin/data/encyclopaedia.gin` is a small configuration, `gin/data/paper.gin` the paper's.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import gin
from class_jax.common.files import replacing, write_json
from class_jax.configuration import gin_files
from class_jax.corpus.wikipedia.make_corpus import CorpusConfig, WikiFiles, damage, make_corpus
from class_jax.errors import InputError, nearest
from class_jax.llm.client import ChatClient, EndpointConfig
from class_jax.pipelines.runner import RunnerConfig
from class_jax.pipelines.stages import RECORD, read_stage
from class_jax.synthesis.stage1 import pairs, parallel
from class_jax.synthesis.stage1.pairs import MiningConfig
from class_jax.synthesis.stage1.parallel import ParallelConfig
from class_jax.synthesis.stage1.teacher_lists import LISTS_STAGE, write_lists
from class_jax.synthesis.stage2 import anchors, questions
from class_jax.synthesis.stage2.anchors import AnchorConfig
from class_jax.synthesis.stage2.questions import QuestionConfig
from class_jax.training.teacher import Bm25TeacherConfig, ModelTeacherConfig
from class_jax.translation.dictionary import DictionaryTranslator, Translator

COUNTS = "counts.json"
_REPLIES = "translation-replies"


@dataclass(frozen=True)
class TranslatorConfig:
    """What translates English sentences, for the paper's ablation (`ParallelConfig.source = "translation"`).

    Attributes:
      model: mBART-50 many-to-many, by folder or hub id.
      dictionaries: folder of `en-{language}.txt`: word by word.
      endpoint: a language model.
    """

    model: str | None = None
    dictionaries: str | None = None
    endpoint: EndpointConfig | None = None

    def __post_init__(self):
        if sum(way is not None for way in (self.model, self.dictionaries, self.endpoint)) != 1:
            remedy = "set one of model, dictionaries, endpoint"
            raise InputError("names none or several", key="TranslatorConfig", remedy=remedy)

    @contextlib.contextmanager
    def opened(self, work: Path) -> Iterator[Translator]:
        """Opens it; an endpoint's replies are kept in the work folder."""
        if self.dictionaries is not None:
            yield DictionaryTranslator(self.dictionaries)
            return
        from class_jax.translation.translators import EndpointTranslator, MBartTranslator

        if self.endpoint is None:
            yield MBartTranslator.from_pretrained(self.model)
            return
        with ChatClient(self.endpoint, work / _REPLIES) as client:
            yield EndpointTranslator(client)


@dataclass(frozen=True)
class MakeDataConfig:
    """What training data are made of; a step whose settings are None is left out.

    Attributes:
      dumps: `pages-articles` files by language; passages are numbered in this order of languages.
      langlinks: SQL dumps of language links by language, where there are.
      page_tables: SQL dumps of the table `page` by language, where `dumps` are only a part of a wiki.
      sitelinks: Wikidata dumps or light tables of language links.
      corpus: settings of pages and passages.
      mining: of parallel sentences.
      parallel: of stage-1 queries.
      translator: for the source "translation" of `parallel`.
      lists: the English teacher that retrieves the stage-1 queries' passages.
      anchors: of examples of stage 2.
      questions: made of these.
      runner: what runs the pipelines; where its workers are not set, as many as the dumps keep busy.
    """

    dumps: Mapping[str, str | Sequence[str]]
    langlinks: Mapping[str, str] = field(default_factory=dict)
    page_tables: Mapping[str, str] = field(default_factory=dict)
    sitelinks: Sequence[str] = ()
    corpus: CorpusConfig = CorpusConfig()
    mining: MiningConfig | None = None
    parallel: ParallelConfig | None = None
    translator: TranslatorConfig | None = None
    lists: Bm25TeacherConfig | ModelTeacherConfig | None = None
    anchors: AnchorConfig | None = None
    questions: QuestionConfig | None = None
    runner: RunnerConfig = RunnerConfig()

    def check(self, out: Path) -> None:
        """Finds before any work what later steps would stop at.

        Raises:
          InputError: for a language without a dump, or a step that needs another's work which is neither configured
            nor done.
        """
        for name, step in (("mining", self.mining), ("anchors", self.anchors)):
            for language in () if step is None else (pairs.ENGLISH, *step.languages):
                if language not in self.dumps:
                    remedy = f"name it in dumps, or leave the language out; {nearest(language, self.dumps)}"
                    raise InputError("has no dump", key=f"{name}: language {language}", remedy=remedy)
        for name, before, stage in (
            ("parallel", "mining", pairs.STAGE),
            ("lists", "parallel", parallel.STAGE),
            ("questions", "anchors", anchors.STAGE),
        ):
            missing = getattr(self, before) is None and not (out / stage / RECORD).exists()
            if getattr(self, name) is not None and missing:
                raise InputError(f"needs {before}", key=f"MakeDataConfig.{name}", remedy=f"set {before} too")

    @property
    def wikis(self) -> list[WikiFiles]:
        """The files of each wiki.

        Raises:
          InputError: if a table is given for a language without a dump.
        """
        for name in ("langlinks", "page_tables"):
            for language in getattr(self, name):
                if language not in self.dumps:
                    remedy = nearest(language, self.dumps)
                    raise InputError("has no dump", key=f"{name}: language {language}", remedy=remedy)
        return [
            WikiFiles(
                language,
                (files,) if isinstance(files, str) else tuple(files),
                self.langlinks.get(language),
                self.page_tables.get(language),
            )
            for language, files in self.dumps.items()
        ]


@dataclass(frozen=True)
class MadeData:
    """What was made.

    Attributes:
      counts: of every stage, by its name.
      damage: what of the input could not be read and was skipped, by stage and reason.
    """

    counts: Mapping[str, Mapping[str, int]]
    damage: Mapping[str, int]


Step = Callable[[MakeDataConfig, Path, bool | None, bool], Mapping[str, Mapping[str, int]]]
"""Makes its part of the data from the configuration, the work folder, `progress` and `force`; returns its stages'
counts by name."""


def _corpus(config: MakeDataConfig, out: Path, progress: bool | None, force: bool) -> Mapping[str, Mapping[str, int]]:
    return make_corpus(
        config.wikis,
        out,
        config=config.corpus,
        sitelinks=tuple(config.sitelinks),
        runner=config.runner,
        progress=progress,
        force=force,
    )


def _mining(config: MakeDataConfig, out: Path, progress: bool | None, force: bool) -> Mapping[str, Mapping[str, int]]:
    return {pairs.STAGE: pairs.mine_pairs(out, config.mining, config.runner, progress, force=force)}


def _parallel(config: MakeDataConfig, out: Path, progress: bool | None, force: bool) -> Mapping[str, Mapping[str, int]]:
    opened = contextlib.nullcontext() if config.translator is None else config.translator.opened(out)
    with opened as translator:
        made = parallel.write_parallel(out, config.parallel, progress, translator=translator, force=force)
    return {parallel.STAGE: made}


def _lists(config: MakeDataConfig, out: Path, progress: bool | None, force: bool) -> Mapping[str, Mapping[str, int]]:
    return {LISTS_STAGE: write_lists(out, config.lists, progress, force=force)}


def _anchors(config: MakeDataConfig, out: Path, progress: bool | None, force: bool) -> Mapping[str, Mapping[str, int]]:
    return {anchors.STAGE: anchors.find_anchor_examples(out, config.anchors, config.runner, progress, force=force)}


def _questions(
    config: MakeDataConfig, out: Path, progress: bool | None, force: bool
) -> Mapping[str, Mapping[str, int]]:
    made = questions.make_questions(out, config.questions, config.runner, progress, force=force)
    prompted = config.questions.transformer not in questions.OFFLINE and config.questions.meta_examples is None
    meta = {questions.META_STAGE: read_stage(out / questions.META_STAGE).result} if prompted else {}
    return {**meta, questions.STAGE: made}


STEPS: tuple[tuple[str, Step], ...] = (
    ("corpus", _corpus),
    ("mining", _mining),
    ("parallel", _parallel),
    ("lists", _lists),
    ("anchors", _anchors),
    ("questions", _questions),
)
"""The steps by name, in their order: each finds what those before it left in the work folder."""


def run_steps(
    config: MakeDataConfig,
    out: str | os.PathLike,
    *,
    progress: bool | None = None,
    force: bool = False,
    steps: Sequence[tuple[str, Step]] = STEPS,
) -> Iterator[tuple[str, Mapping[str, Mapping[str, int]]]]:
    """Runs the steps that are configured; what is done is not made again.

    After each step the counts of all up to it are written to `out/counts.json`, by stage.

    Args:
      config: what from.
      out: the work folder.
      progress: show bars; None shows them on a terminal only.
      force: make again what was made from other inputs.
      steps: which.

    Yields:
      Each step's name when it is done, with the counts of its stages.

    Raises:
      InputError: for input that can't be used at all, or a service that can't; the finished stages stay. Damage
        is skipped and counted where the rest can be read.
    """
    out = Path(out)
    config.check(out)
    config = replace(config, runner=config.runner.fitted(_size(config.wikis)))
    counts: dict[str, Mapping[str, int]] = {}
    for name, step in steps:
        if getattr(config, name, None) is None:
            continue
        found = step(config, out, progress, force)
        counts |= found
        write_json(out / COUNTS, counts)
        yield name, found


def _size(wikis: Iterable[WikiFiles]) -> int:
    """Bytes of XML in the dumps, about: text shrinks to a fifth."""
    files = [Path(dump) for wiki in wikis for dump in wiki.dumps]
    return sum(file.stat().st_size * (5 if file.suffix in (".bz2", ".gz") else 1) for file in files if file.exists())


def make_data(config: MakeDataConfig, out: str | os.PathLike, **options: object) -> MadeData:
    """Makes all data; arguments as for `run_steps`."""
    counts: dict[str, Mapping[str, int]] = {}
    for _, found in run_steps(config, out, **options):
        counts |= found
    return MadeData(counts, damage(counts))


def read_configuration(
    files: Sequence[str], bindings: Sequence[str] = (), runner: Mapping[str, object] | None = None
) -> MakeDataConfig:
    """Returns the configuration that gin files describe.

    Args:
      files, bindings: gin's.
      runner: settings of `RunnerConfig` that take the place of the files'; those that are None don't.

    Raises:
      InputError: naming the file and line at fault.
    """
    config = gin_files.configured(MakeDataConfig, files, bindings)
    chosen = {name: value for name, value in (runner or {}).items() if value is not None}
    return replace(config, runner=replace(config.runner, **chosen)) if chosen else config


def keep_configuration(out: str | os.PathLike) -> None:
    """Writes the parsed gin configuration to `out/config.gin`."""
    with replacing(Path(out) / "config.gin") as file:
        file.write(gin.config_str())


def read_rate(out: str | os.PathLike) -> float | None:
    """Returns the speed at which pages were made, in MB of XML per second and core, over all languages."""
    size = microseconds = 0
    for path in (Path(out) / "pages").glob(f"*/{RECORD}"):
        counts = read_stage(path.parent).result
        size += counts.get("bytes", 0)
        microseconds += counts.get("microseconds", 0)
    return size / microseconds if microseconds else None
