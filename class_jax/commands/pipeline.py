# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax pipeline`: retrieve, re-rank, read and evaluate in one command; each step is done once."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from class_jax.errors import InputError

if TYPE_CHECKING:
    from class_jax.api import CLASS
    from class_jax.reranking.ranked import OnBad, RankedList

_log = logging.getLogger(__name__)

RETRIEVED, RERANKED, QUESTIONS, RANKS = "retrieved.json", "reranked.json", "questions.jsonl", "ranks"


def pipeline(
    out: Annotated[Path, typer.Option(help="folder of the run; the same command resumes it")],
    model: Annotated[str, typer.Option(help="CLASS that reads, and retrieves where no --ranked is given")],
    scorer: Annotated[str, typer.Option(help="model that re-ranks: mBART, mT5 or CLASS")],
    questions: Annotated[Path | None, typer.Option(help="XOR-TyDi QA JSON lines")] = None,
    store: Annotated[Path | None, typer.Option(help="token store to retrieve from")] = None,
    index: Annotated[Path | None, typer.Option(help="of the store; without it the store is embedded")] = None,
    ranked: Annotated[Path | None, typer.Option(help="instead: retrieved passages of mDPR or CORA (`ctxs`)")] = None,
    passages: Annotated[int, typer.Option(help="passages retrieved for a question", min=1)] = 100,
    top: Annotated[int, typer.Option(help="passages re-ranked; the others follow as they were", min=1)] = 50,
    read: Annotated[int, typer.Option(help="passages read for an answer", min=1)] = 100,
    input_tokens: Annotated[
        int | None, typer.Option(help="passage tokens read for an answer at most, such as 600, 1000, 2000", min=1)
    ] = None,
    weight: Annotated[float | None, typer.Option(help="of the retriever's score, 0 to 1", min=0, max=1)] = None,
    settings: Annotated[Path | None, typer.Option(help="weight and languages of `rerank --tune`")] = None,
    gold: Annotated[Path | None, typer.Option(help="right passages: JSON lines (id, passages) or TREC qrels")] = None,
    both: Annotated[bool, typer.Option("--both", help="read the lists before re-ranking too, and compare")] = False,
    language: Annotated[str | None, typer.Option(help="of questions that don't say theirs")] = None,
    passage_language: Annotated[str | None, typer.Option(help="of passages that don't say theirs")] = None,
    passage_languages: Annotated[Path | None, typer.Option(help="TSV: passage id, language")] = None,
    tags: Annotated[bool, typer.Option("--tags/--no-tags", help="tell mBART the languages")] = True,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model of --scorer")] = None,
    beams: Annotated[int, typer.Option(help="1: greedy", min=1)] = 1,
    max_answer_tokens: Annotated[int, typer.Option(help="longer answers are cut", min=1)] = 50,
    dtype: Annotated[str | None, typer.Option(help="of matrix products: float32 or bfloat16")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="warn of a bad question, leave it unanswered, and go on")
    ] = False,
) -> None:
    """Retrieves, re-ranks, reads and evaluates; a step whose inputs are unchanged is not run again."""
    if (ranked is None) == (store is None):
        raise InputError("give --store to retrieve from, or --ranked with what was retrieved", key="store")
    if ranked is None and questions is None:
        raise InputError("nothing to ask", key="questions", remedy="give --questions")
    if ranked is not None and index is not None:
        raise InputError("goes with --store", key="index")
    if settings is not None and weight is not None:
        raise InputError("goes without --weight", key="settings")
    run = _Run(
        folder=out,
        model=model,
        scorer=scorer,
        questions=questions,
        store=store,
        index=index,
        ranked=ranked,
        gold=gold,
        passages=passages,
        language=language,
        passage_language=passage_language,
        passage_languages=passage_languages,
        skip_bad=skip_bad,
        reranking={"top": top, "weight": weight, "tags": tags, "dtype": dtype},
        settings=settings,
        vocabulary=vocabulary,
        reading={
            "passages": read,
            "input_tokens": input_tokens,
            "beams": beams,
            "max_answer_tokens": max_answer_tokens,
        },
    )
    run.retrieve()
    run.rerank()
    names = ["before", "after"] if both else ["after"]
    for name in names:
        run.read(name)
    run.evaluate(names)


@dataclasses.dataclass
class _Run:
    """The steps over one folder; each finds its inputs there."""

    folder: Path
    model: str
    scorer: str
    questions: Path | None
    store: Path | None
    index: Path | None
    ranked: Path | None
    gold: Path | None
    passages: int
    language: str | None
    passage_language: str | None
    passage_languages: Path | None
    skip_bad: bool
    reranking: dict[str, Any]
    settings: Path | None
    vocabulary: str | None
    reading: dict[str, Any]

    def __post_init__(self):
        from class_jax.checkpoints.hub import local_folder
        from class_jax.reranking.pipeline import Steps, state

        self.folder.mkdir(parents=True, exist_ok=True)
        self._steps: Steps = Steps(self.folder)
        self._model_state = state(local_folder(self.model))
        self._loaded: CLASS | None = None
        self._bad: list[InputError] = []

    def retrieve(self) -> None:
        """Writes the lists before re-ranking, and their questions."""
        from class_jax.reranking.pipeline import state

        given = [state(path) for path in (self.questions, self.store, self.index, self.ranked, self.passage_languages)]
        inputs = {
            "files": given,
            "model": None if self.store is None else self._model_state,
            "passages": self.passages,
            "languages": [self.language, self.passage_language],
        }
        self._run("retrieve", inputs, [RETRIEVED, QUESTIONS], self._retrieve)

    def rerank(self) -> None:
        """Writes the lists in their new order, and where it is known what is right, both ranks by language."""
        from class_jax.checkpoints.hub import local_folder
        from class_jax.reranking.pipeline import state

        paths = [self.folder / RETRIEVED, self.gold, self.settings, self.vocabulary, local_folder(self.scorer)]
        self._run("rerank", {"files": [*map(state, paths)], **self.reranking}, [RERANKED], self._rerank)
        table = self.folder / f"{RANKS}.md"
        if table.is_file():
            typer.echo(table.read_text(encoding="utf-8"))

    def read(self, name: str) -> None:
        """Writes the answers read from the lists "before" or "after"."""
        from class_jax.reranking.pipeline import state

        lists = self.folder / (RERANKED if name == "after" else RETRIEVED)
        inputs = {"lists": state(lists), "model": self._model_state, **self.reading}
        self._run(f"read {name}", inputs, [_predictions(name)], lambda: self._read(name, lists, inputs))

    def evaluate(self, names: list[str]) -> None:
        """Writes a report for each list that was read, and all tables; prints these."""
        from class_jax.reranking.pipeline import state

        made = [self.folder / _predictions(name) for name in names]
        made += [self.folder / name for name in (RETRIEVED, RERANKED, QUESTIONS)]
        inputs = {"files": [*map(state, [*made, self.gold])], "names": names}
        reports = [f"report_{name}.json" for name in names]
        self._run("evaluate", inputs, [*reports, "evaluation.md"], lambda: self._evaluate(names))
        typer.echo((self.folder / "evaluation.md").read_text(encoding="utf-8"))

    def _run(self, name: str, inputs: dict[str, Any], outputs: list[str], make: "Callable[[], None]") -> None:
        done = self._steps.run(name, inputs, outputs, make)
        typer.echo(f"{name}: {', '.join(str(self.folder / o) for o in outputs)}{'' if done else ' (as it was)'}")

    def _class(self) -> "CLASS":
        if self._loaded is None:
            from class_jax.api import CLASS

            self._loaded = CLASS.from_pretrained(self.model, dtype=self.reranking["dtype"])
        return self._loaded

    def _retrieve(self) -> None:
        from class_jax.api import Searcher
        from class_jax.commands.rerank import read_lists
        from class_jax.corpus.inputs import LANGUAGES, language_code
        from class_jax.questions.readers import read_xor
        from class_jax.reranking import pipeline, ranked

        if self.ranked is not None:
            form = ranked.detect_format(self.ranked)
            lists = read_lists(
                self.ranked,
                form,
                questions=self.questions,
                language=self.language,
                passage_language=self.passage_language,
                passage_languages=self.passage_languages,
                bad=self._bad,
                skip_bad=self.skip_bad,
            )
            # Nothing can be evaluated in a language that is not known; what else is bad counts as not answered.
            lists = [one for one in lists if one.question.language in LANGUAGES]
        else:
            model = self._class()
            corpus = Searcher.open(self.store, self.index, vocabulary=model.vocabulary)
            told = self.passage_languages and ranked.read_passage_languages(self.passage_languages)
            code = self.passage_language and language_code(self.passage_language)
            asked = list(read_xor(self.questions))
            if not asked:
                raise InputError("no questions", file=self.questions)
            lists = pipeline.retrieve(model, corpus, asked, self.passages, told, code)
        ranked.write_ranked(self.folder / RETRIEVED, lists, "ctxs")
        pipeline.write_questions(self.folder / QUESTIONS, [one.question for one in lists])

    def _lists(self, name: str) -> "list[RankedList]":
        from class_jax.reranking.ranked import read_ranked

        return read_ranked(self.folder / name, "ctxs", on_bad=self._on_bad())

    def _on_bad(self) -> "OnBad":
        from class_jax.commands.rerank import on_bad

        return on_bad(self._bad, self.skip_bad)

    def _rerank(self) -> None:
        from class_jax.commands.rerank import chosen_settings
        from class_jax.evaluation.runs import read_relevant
        from class_jax.reranking import rerank as ranks
        from class_jax.reranking.ranked import write_ranked
        from class_jax.reranking.scorers import load_scorer

        lists = self._lists(RETRIEVED)
        right = ranks.relevant(lists, None if self.gold is None else read_relevant(self.gold))
        given = self.reranking
        scorer = load_scorer(self.scorer, vocabulary=self.vocabulary, tags=given["tags"], dtype=given["dtype"])
        chosen = chosen_settings(self.settings, given["weight"], scorer)
        log = self.folder / f"{RERANKED}.{scorer.fingerprint[:12]}-{given['top']}.scores.jsonl"
        scores = ranks.score_lists(scorer, lists, log, top=given["top"], on_bad=self._on_bad())
        changed = [ranks.rerank(one, scores.get(one.question.id), chosen) for one in lists]
        write_ranked(self.folder / RERANKED, changed, "ctxs")
        if any(ids is not None for ids in right):
            compared = ranks.comparison(ranks.score_ranks(lists, right), ranks.score_ranks(changed, right))
            compared.write(self.folder / RANKS)
        else:
            (self.folder / f"{RANKS}.md").unlink(missing_ok=True)

    def _read(self, name: str, file: Path, inputs: dict[str, Any]) -> None:
        from class_jax.commands.answer import answer_logged
        from class_jax.reranking.pipeline import Reading

        lists, model = self._lists(file.name), self._class()
        able = [one for one in lists if one.passages and one.usable]
        given = dict(self.reading)
        reading = Reading(model, able, self.folder / f"read_{name}", given.pop("passages"), given.pop("input_tokens"))
        asked = [one.question for one in able]
        if len(asked) < len(lists):
            _log.warning("%d questions without passages, or with bad ones, have no answer", len(lists) - len(asked))
        # What was answered from other lists is no start for these.
        out, digest = self.folder / _predictions(name), hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        log = self.folder / f"predictions_{name}.{digest[:12]}.log.jsonl"
        answer_logged(asked, out, inputs, lambda left: reading.answers(left, **given), log)
        tokens = reading.read_tokens / len(asked)
        typer.echo(f"{name}: {tokens:.0f} passage tokens read for a question, on average")

    def _evaluate(self, names: list[str]) -> None:
        from class_jax.commands.evaluate import evaluate_files, report_tables, show
        from class_jax.reports.reports import difference_table, write_report

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
        show(tables, "md", self.folder / "evaluation.md")


def _predictions(name: str) -> str:
    return f"predictions_{name}.json"
