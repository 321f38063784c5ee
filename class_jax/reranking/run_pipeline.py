# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Retrieve, re-rank, read and evaluate as one run over a folder; a step whose inputs are unchanged is not run again."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from class_jax.api import CLASS, Searcher
from class_jax.checkpoints.hub import local_folder
from class_jax.common.files import replacing
from class_jax.common.work import WorkFolder, input_digest
from class_jax.corpus.inputs import LANGUAGES, language_code
from class_jax.corpus.passage_languages import languages_by_id
from class_jax.errors import InputError
from class_jax.evaluation.answer_files import answer_logged
from class_jax.questions.readers import read_xor
from class_jax.reports.evaluate import evaluate_files, report_tables
from class_jax.reports.reports import difference_table, read_report, write_report
from class_jax.reranking import pipeline, ranked
from class_jax.reranking import rerank as ranks
from class_jax.reranking.rerank_files import choose_settings, find_right, on_bad, read_lists
from class_jax.reranking.scorers import load_scorer

_log = logging.getLogger(__name__)

RETRIEVED, RERANKED, QUESTIONS, RANKS = "retrieved.json", "reranked.json", "questions.jsonl", "ranks"
EVALUATION = "evaluation.md"


@dataclasses.dataclass(frozen=True)
class ReadingSettings:
    """How answers are read.

    Attributes:
      passages: read for a question at most.
      input_tokens: passage tokens read for a question at most; no limit if None.
      beams: 1: greedy.
      max_answer_tokens: longer answers are cut.
    """

    passages: int = 100
    input_tokens: int | None = None
    beams: int = 1
    max_answer_tokens: int = 50


@dataclasses.dataclass(frozen=True)
class RerankingSettings:
    """How lists are re-ranked.

    Attributes:
      scorer: model that re-ranks: mBART, mT5 or CLASS.
      top: passages re-ranked; the others follow as they were.
      weight: of the retriever's score, 0 to 1.
      settings: weight and languages that tuning wrote, instead.
      tags: whether mBART is given the languages.
      vocabulary: SentencePiece model of the scorer, if not beside its weights.
      dtype: of matrix products.
    """

    scorer: str
    top: int = 50
    weight: float | None = None
    settings: Path | None = None
    tags: bool = True
    vocabulary: str | None = None
    dtype: str | None = None


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What is asked, and where its passages are from: a store to retrieve from, or retrieved lists.

    Attributes:
      questions: XOR-TyDi QA JSON lines.
      store: token store to retrieve from.
      index: of the store; without it the store is embedded.
      ranked: instead: retrieved passages of mDPR or CORA (`ctxs`).
      passages: retrieved for a question.
      gold: right passages: JSON lines (id, passages) or TREC qrels.
      language: of questions that don't say theirs.
      passage_language: of passages that don't say theirs.
      passage_languages: TSV: passage id, language.
      skip_bad: whether a bad question is left unanswered with a warning, or ends the run.
    """

    questions: Path | None = None
    store: Path | None = None
    index: Path | None = None
    ranked: Path | None = None
    passages: int = 100
    gold: Path | None = None
    language: str | None = None
    passage_language: str | None = None
    passage_languages: Path | None = None
    skip_bad: bool = False


def run_pipeline(
    folder: Path,
    model: str,
    inputs: Inputs,
    reranking: RerankingSettings,
    reading: ReadingSettings,
    *,
    both: bool = False,
    on_done: Callable[[str], None],
) -> dict[str, Mapping[str, Any]]:
    """Runs all steps over a folder.

    Args:
      folder: of the run; the same call resumes it.
      model: CLASS that reads, and retrieves where no lists are given.
      inputs: what is asked.
      reranking: how lists are re-ranked.
      reading: how answers are read.
      both: whether to read the lists before re-ranking too, and compare.
      on_done: takes a line about each step.

    Returns:
      The reports of the lists that were read, "before" or "after" re-ranking.

    Raises:
      InputError: for bad files, and see `CLASS.answer`.
    """
    run = _Run(folder, model, inputs, reranking, reading, on_done)
    run.retrieve()
    run.rerank()
    names = ["before", "after"] if both else ["after"]
    for name in names:
        run.read(name)
    run.evaluate(names)
    return {name: read_report(folder / f"report_{name}.json") for name in names}


class _Run:
    """The steps over one folder; each finds its inputs there."""

    def __init__(
        self,
        folder: Path,
        model: str,
        inputs: Inputs,
        reranking: RerankingSettings,
        reading: ReadingSettings,
        on_done: Callable[[str], None],
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.model, self.inputs, self.reranking, self.reading = folder, model, inputs, reranking, reading
        self._on_done = on_done
        self._work = WorkFolder(folder)
        self._model_digest = input_digest(local_folder(model))
        self._loaded: CLASS | None = None
        self._bad: list[InputError] = []

    def retrieve(self) -> None:
        """Writes the lists before re-ranking, and their questions."""
        asked = self.inputs
        files = (asked.questions, asked.store, asked.index, asked.ranked, asked.passage_languages)
        inputs = {
            "files": [*map(input_digest, files)],
            "model": None if asked.store is None else self._model_digest,
            "passages": asked.passages,
            "languages": [asked.language, asked.passage_language],
        }
        self._run("retrieve", inputs, [RETRIEVED, QUESTIONS], self._retrieve)

    def rerank(self) -> None:
        """Writes the lists in their new order, and where it is known what is right, both ranks by language."""
        given = self.reranking
        paths = [self.folder / RETRIEVED, self.inputs.gold, given.settings, given.vocabulary]
        paths += [local_folder(given.scorer)]
        inputs = {"top": given.top, "weight": given.weight, "tags": given.tags, "dtype": given.dtype}
        self._run("rerank", {"files": [*map(input_digest, paths)], **inputs}, [RERANKED], self._rerank)

    def read(self, name: str) -> None:
        """Writes the answers read from the lists "before" or "after"."""
        lists = self.folder / (RERANKED if name == "after" else RETRIEVED)
        inputs = {
            "lists": input_digest(lists),
            "model": self._model_digest,
            **dataclasses.asdict(self.reading),
        }
        self._run(f"read_{name}", inputs, [_predictions(name)], lambda: self._read(name, lists, inputs))

    def evaluate(self, names: list[str]) -> None:
        """Writes a report for each list that was read, and all tables."""
        made = [self.folder / _predictions(name) for name in names]
        made += [self.folder / name for name in (RETRIEVED, RERANKED, QUESTIONS)]
        inputs = {"files": [*map(input_digest, [*made, self.inputs.gold])], "names": names}
        reports = [f"report_{name}.json" for name in names]
        self._run("evaluate", inputs, [*reports, EVALUATION], lambda: self._evaluate(names))

    def _run(self, name: str, inputs: dict[str, Any], outputs: list[str], make: Callable[[], None]) -> None:
        done = self._work.run(name, make, inputs=inputs, outputs=outputs, replace_other=True).made
        self._on_done(f"{name}: {', '.join(str(self.folder / o) for o in outputs)}{'' if done else ' (unchanged)'}")

    def _class(self) -> CLASS:
        if self._loaded is None:
            self._loaded = CLASS.from_pretrained(self.model, dtype=self.reranking.dtype)
        return self._loaded

    def _retrieve(self) -> None:
        asked = self.inputs
        if asked.ranked is not None:
            lists = read_lists(
                asked.ranked,
                ranked.detect_format(asked.ranked),
                questions=asked.questions,
                language=asked.language,
                passage_language=asked.passage_language,
                passage_languages=asked.passage_languages,
                bad=self._bad,
                skip_bad=asked.skip_bad,
            )
            # Nothing can be evaluated in a language that is not known; what else is bad counts as not answered.
            lists = [one for one in lists if one.question.language in LANGUAGES]
        else:
            model = self._class()
            corpus = Searcher.open(asked.store, asked.index, vocabulary=model.vocabulary)
            languages = asked.passage_languages and languages_by_id(asked.passage_languages)
            code = asked.passage_language and language_code(asked.passage_language)
            questions = list(read_xor(asked.questions))
            if not questions:
                raise InputError("no questions", file=asked.questions)
            lists = pipeline.retrieve(model, corpus, questions, asked.passages, languages, code)
        ranked.write_ranked(self.folder / RETRIEVED, lists, "ctxs")
        pipeline.write_questions(self.folder / QUESTIONS, [one.question for one in lists])

    def _lists(self, name: str) -> list[ranked.RankedList]:
        return ranked.read_ranked(self.folder / name, "ctxs", on_bad=self._on_bad())

    def _on_bad(self) -> ranked.OnBad:
        return on_bad(self._bad, self.inputs.skip_bad)

    def _rerank(self) -> None:
        lists, given = self._lists(RETRIEVED), self.reranking
        right = find_right(lists, self.inputs.gold)
        scorer = load_scorer(given.scorer, vocabulary=given.vocabulary, tags=given.tags, dtype=given.dtype)
        chosen = choose_settings(given.settings, given.weight, scorer)
        log = self.folder / f"{RERANKED}.{scorer.fingerprint[:12]}-{given.top}.scores.jsonl"
        scores = ranks.score_lists(scorer, lists, log, top=given.top, on_bad=self._on_bad())
        changed = [ranks.rerank_list(one, scores.get(one.question.id), chosen) for one in lists]
        ranked.write_ranked(self.folder / RERANKED, changed, "ctxs")
        if any(ids is not None for ids in right):
            compared = ranks.comparison(ranks.score_ranks(lists, right), ranks.score_ranks(changed, right))
            compared.write(self.folder / RANKS)
        else:
            (self.folder / f"{RANKS}.md").unlink(missing_ok=True)

    def _read(self, name: str, file: Path, inputs: dict[str, Any]) -> None:
        lists, model = self._lists(file.name), self._class()
        able = [one for one in lists if one.passages and one.usable]
        given = self.reading
        reading = pipeline.ListReader(model, able, self.folder / f"read_{name}", given.passages, given.input_tokens)
        asked = [one.question for one in able]
        if len(asked) < len(lists):
            _log.warning("%d questions without passages, or with bad ones, have no answer", len(lists) - len(asked))
        # What was answered from other lists is no start for these.
        out, digest = self.folder / _predictions(name), hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        log = self.folder / f"predictions_{name}.{digest[:12]}.log.jsonl"
        settings = {"beams": given.beams, "max_answer_tokens": given.max_answer_tokens}
        answer_logged(asked, out, inputs, lambda left: reading.answers(left, **settings), log)
        tokens = reading.read_tokens / len(asked)
        self._on_done(f"{name}: {tokens:.0f} passage tokens read for a question, on average")

    def _evaluate(self, names: list[str]) -> None:
        questions = self.folder / QUESTIONS
        reports = []
        for name in names:
            run = self.folder / (RERANKED if name == "after" else RETRIEVED)
            reports.append(
                evaluate_files("xor-full", questions, name, predictions=self.folder / _predictions(name), run=run)
            )
            write_report(self.folder / f"report_{name}.json", reports[-1])
        tables = [table for report in reports for table in report_tables(report)]
        if len(reports) == 2:
            tables.append(difference_table(reports[1], reports[0], ["f1", "em"]))
        with replacing(self.folder / EVALUATION) as f:
            f.write("\n".join(table.text("md") for table in tables))


def _predictions(name: str) -> str:
    return f"predictions_{name}.json"
