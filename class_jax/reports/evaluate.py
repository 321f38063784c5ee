# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Evaluation of files, or of a model over a corpus, into a report: scores by language, intervals, breakdowns."""

import dataclasses
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from class_jax.errors import InputError, nearest
from class_jax.evaluation.mkqa import UNSEEN_LANGUAGES, parallel_answers, read_types, score_mkqa_retrieval
from class_jax.evaluation.passages import parallel_id, score_containment, score_passages
from class_jax.evaluation.predictions import read_answers
from class_jax.evaluation.runs import Ranked, read_ranked_passages, read_relevant, with_texts
from class_jax.evaluation.scores import Scores
from class_jax.evaluation.xor_full import score_answers
from class_jax.evaluation.xor_retrieve import score_retrieval
from class_jax.questions.readers import Question, read_mkqa, read_xor
from class_jax.reports import breakdown
from class_jax.reports.reports import breakdown_tables, make_report, report_table
from class_jax.reports.tables import Table

_BLOCK = 64
_ANSWERED = ("xor-full", "mkqa")  # tasks that score answers


@dataclasses.dataclass(frozen=True)
class Scoring:
    """How a task is scored.

    Attributes:
      tokens: budgets n of R@n tokens.
      depths: depths N of R@N, R^L@N and R^M@N; the task's own if empty.
      tokeniser: `auto`, `punkt` or `line`; see `class_jax.evaluation.text.get_tokeniser`.
      english_spans: xor-full as XOR-EnglishSpan.
      answers_in: of mkqa's R@kt: a language, `question` or `any`.
      english: XOR-TyDi QA JSON lines with English answers, to break scores down by the evidence that was found.
      seen: training languages, to break scores down by.
      samples: of the bootstrap behind the intervals.
    """

    tokens: Sequence[int] = (2000, 5000)
    depths: Sequence[int] = ()
    tokeniser: str = "auto"
    english_spans: bool = False
    answers_in: str = "en"
    english: Path | None = None
    seen: Sequence[str] | None = None
    samples: int = 10_000


class _Asked(NamedTuple):
    """The questions of a file.

    Attributes:
      scored: those that are scored.
      everyone: all of the file.
      parallel: of mkqa, the answers in all languages.
      types: of MKQA's public file, answer types by question id.
    """

    scored: list[Question]
    everyone: list[Question]
    parallel: dict | None
    types: dict[str, str] | None


def evaluate_files(
    task: str,
    questions: Path,
    name: str,
    *,
    predictions: Path | None = None,
    run: Path | None = None,
    corpus: Path | None = None,
    relevant: Path | None = None,
    languages: Sequence[str] | None = None,
    corpus_name: str | None = None,
    scoring: Scoring = Scoring(),
) -> dict[str, Any]:
    """Scores predictions and ranked passages.

    Args:
      task: xor-retrieve, xor-full, mkqa or passages.
      questions: XOR-TyDi QA JSON lines; for mkqa the public file too.
      name: of the run, for tables.
      predictions: answers, a JSON object from question ids.
      run: passages: a TREC run, DPR's or CORA's ctxs, XOR-Retrieve's predictions.
      corpus: TSV or token store with the texts of a TREC run.
      relevant: right passages: TREC qrels, or JSON, id -> ids.
      languages: only these; all if None, but of MKQA's public file the paper's 20 unseen ones.
      corpus_name: of the passages searched.
      scoring: how.

    Returns:
      The report; see `class_jax.reports.reports.make_report`.

    Raises:
      InputError: for a malformed file, an unknown language, or a run without what the task needs.
    """
    asked = _questions(task, questions, languages)
    given, ranked = _read(task, predictions, run, corpus, asked)
    inputs = {"questions": questions, "predictions": predictions, "run": run, "relevant": relevant}
    return _report(task, name, asked, given, ranked, corpus_name, inputs, scoring)


def evaluate_model(
    task: str,
    questions: Path,
    name: str,
    model: Any,
    searcher: Any,
    *,
    model_name: str,
    passages: int = 100,
    relevant: Path | None = None,
    languages: Sequence[str] | None = None,
    corpus_name: str | None = None,
    scoring: Scoring = Scoring(),
) -> dict[str, Any]:
    """Scores a model over a corpus: what it retrieves and, for tasks that score answers, what it answers.

    Args:
      model: a `class_jax.CLASS`.
      searcher: a `class_jax.Searcher`.
      model_name: of the model, for the report's inputs.
      passages: found for each question.
      task, questions, name, relevant, languages, scoring: see `evaluate_files`.
      corpus_name: of the corpus; its fingerprint if None.

    Returns:
      The report.

    Raises:
      InputError: as `evaluate_files`, and see `CLASS.answer`.
    """
    asked = _questions(task, questions, languages)
    given, ranked = _ask(task, model, searcher, asked.scored, passages, model_name)
    inputs = {"questions": questions, "model": model_name, "relevant": relevant}
    searched = corpus_name or searcher.store.fingerprint
    return _report(task, name, asked, given, ranked, searched, inputs, scoring)


def _report(
    task: str,
    name: str,
    asked: _Asked,
    given: Mapping[str, str] | None,
    ranked: Ranked | None,
    corpus: str | None,
    inputs: Mapping[str, Any],
    scoring: Scoring,
) -> dict[str, Any]:
    relevant = inputs["relevant"]
    right = {} if relevant is None else read_relevant(relevant, asked.everyone)
    parts = _score(task, asked, given, ranked, right, scoring)
    breakdowns = _break_down(asked, parts, ranked, scoring)
    files = {key: str(value) for key, value in inputs.items() if value is not None}
    return make_report(
        task,
        name,
        asked.scored,
        parts,
        corpus=corpus,
        inputs=files,
        breakdowns=breakdowns,
        samples=scoring.samples,
    )


def report_tables(report: Mapping[str, Any]) -> list[Table]:
    """All tables of a report: its parts, then its breakdowns with the published rows of Tables 7 to 9."""
    return [*(report_table(report, part) for part in report["parts"]), *breakdown_tables(report)]


def _questions(task: str, path: Path, languages: Sequence[str] | None) -> _Asked:
    """Reads a file's questions; without `languages` all are scored, but of MKQA's public file the 20 unseen ones."""
    wanted, types = languages, None
    if task == "mkqa" and _is_public_mkqa(path):
        everyone, by_id = list(read_mkqa(path)), read_types(path)
        types = {q.id: by_id[parallel_id(q.id, q.language)] for q in everyone}
        wanted = list(UNSEEN_LANGUAGES) if wanted is None else wanted
    else:
        everyone = list(read_xor(path))
    if not everyone:
        raise InputError("no questions", file=path)
    parallel = parallel_answers(everyone) if task == "mkqa" else None
    if wanted is None:
        return _Asked(everyone, everyone, parallel, types)
    known = {question.language for question in everyone}
    for language in wanted:
        if language not in known:
            raise InputError("no question in this language", file=path, key=language, remedy=nearest(language, known))
    return _Asked([question for question in everyone if question.language in wanted], everyone, parallel, types)


def _is_public_mkqa(path: Path) -> bool:
    """Whether the first record has all languages in it, as the public file's do; readers report what else is wrong."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as f:
            return b'"queries"' in f.readline()
    except OSError:
        return False


def _read(
    task: str, predictions: Path | None, run: Path | None, corpus: Path | None, asked: _Asked
) -> tuple[dict[str, str] | None, Ranked | None]:
    """Answers and passages from files; of a file in more languages than are scored, those of the scored ones."""
    kept = {question.id for question in asked.scored}
    given = ranked = None
    if predictions is not None:
        given = {id: text for id, text in read_answers(predictions, asked.everyone).items() if id in kept}
    if run is not None:
        ranked = _of(read_ranked_passages(run, asked.everyone), kept)
        if not ranked.texts and (corpus is not None or task != "passages"):
            if corpus is None:
                raise InputError("holds passage ids only", file=run, remedy="give the passages with --corpus")
            ranked = with_texts(ranked, corpus)
    return given, ranked


def _of(ranked: Ranked, ids: set[str]) -> Ranked:
    """The lists of some questions."""
    fields = ("ids", "texts", "scores")
    return dataclasses.replace(
        ranked, **{key: {id: row for id, row in getattr(ranked, key).items() if id in ids} for key in fields}
    )


def _ask(
    task: str, model: Any, searcher: Any, questions: list[Question], passages: int, name: str
) -> tuple[dict[str, str] | None, Ranked]:
    """Answers (of tasks that score them) and passages of a model."""
    given: dict[str, str] = {}
    ids: dict[str, list[str]] = {}
    texts: dict[str, list[str]] = {}
    reads = task in _ANSWERED
    with tqdm(total=len(questions), unit="question", desc=task, disable=None) as bar:
        for start in range(0, len(questions), _BLOCK):
            block = questions[start : start + _BLOCK]
            asked, codes = [q.text for q in block], [q.language for q in block]
            if reads:
                for question, answer in zip(
                    block, model.answer(asked, searcher, passages, codes, progress=False), strict=True
                ):
                    given[question.id] = answer.answer
                    ids[question.id] = [passage.id for passage in answer.passages]
                    texts[question.id] = [passage.text for passage in answer.passages]
            else:
                rows = model.retrieve(asked, searcher, passages, codes).rows
                for question, row in zip(block, rows, strict=True):
                    found = [searcher.store.passage(int(r)) for r in row if r >= 0]
                    ids[question.id] = [passage.id for passage in found]
                    texts[question.id] = [passage.text for passage in found]
            bar.update(len(block))
    return given if reads else None, Ranked("ctxs", name, ids, texts)


def _score(
    task: str,
    asked: _Asked,
    given: Mapping[str, str] | None,
    ranked: Ranked | None,
    right: Mapping[str, set[str]],
    scoring: Scoring,
) -> dict[str, Scores]:
    """The scores that the task asks for, by part."""
    questions, depths, splitter = asked.scored, scoring.depths, scoring.tokeniser
    parts: dict[str, Scores] = {}
    if given is not None:
        parts["answers"] = score_answers(questions, given, scoring.english_spans)
    if ranked is None:
        return parts
    if task == "passages":
        if not ranked.ids:
            raise InputError(
                "no passage ids, which this task needs", file=ranked.file, remedy="give a TREC run or ctxs"
            )
        lists, gold = [ranked.ids.get(q.id, ()) for q in questions], [right.get(q.id, ()) for q in questions]
        scores = score_passages(questions, lists, gold, depths or (1, 5, 20))
        absent = [id for id in scores.ids if id not in ranked.ids]
        parts["passages"] = dataclasses.replace(scores, missing=absent)
    elif task == "mkqa":
        parts["retrieval"] = score_mkqa_retrieval(
            questions, ranked.texts, asked.parallel, scoring.tokens, depths or (100,), scoring.answers_in, splitter
        )
    elif task == "xor-full":
        parts["retrieval"] = score_containment(questions, ranked.texts, depths or (100,), splitter)
    else:
        parts["retrieval"] = score_retrieval(questions, ranked.texts, scoring.tokens, splitter)
    return parts


def _break_down(
    asked: _Asked, parts: Mapping[str, Scores], ranked: Ranked | None, scoring: Scoring
) -> dict[str, dict[str, Any]]:
    """Averages by kind of question, by title."""
    questions, types = asked.scored, asked.types
    kinds = {
        "numerical answers": (breakdown.numerical_groups(questions), (breakdown.NUMERICAL, breakdown.OTHER)),
        "answer types": (breakdown.type_groups(questions, types), None if types else breakdown.ANSWER_TYPES),
    }
    if scoring.seen is not None:
        groups = breakdown.language_groups(questions, scoring.seen)
        kinds["languages"] = (groups, (breakdown.SEEN, breakdown.UNSEEN))
    found = {}
    for part, scores in parts.items():
        for title, (groups, order) in kinds.items():
            if set(groups) & set(scores.ids):
                found[f"{part}: {title}"] = breakdown.break_down(scores, groups, order)
    if scoring.english is not None:
        found |= _break_down_by_evidence(questions, parts, ranked, scoring)
    return found


def _break_down_by_evidence(
    questions: list[Question], parts: Mapping[str, Scores], ranked: Ranked | None, scoring: Scoring
) -> dict[str, dict[str, Any]]:
    """Averages over the questions that need English evidence, and by what of it was found."""
    answers = {question.id: question.answers for question in read_xor(scoring.english)}
    found = {}
    if "answers" in parts:
        needing = dict.fromkeys(answers, "need English evidence")
        found["answers: cross-lingual questions"] = breakdown.break_down(parts["answers"], needing)
    if ranked is not None:
        evidence = breakdown.score_evidence(questions, ranked.texts, answers, tokeniser=scoring.tokeniser)
        whole = dict.fromkeys(evidence.ids, "need English evidence")
        found["evidence found"] = breakdown.break_down(evidence, whole)
        if "answers" in parts:
            groups = breakdown.evidence_groups(questions, ranked.texts, answers, tokeniser=scoring.tokeniser)
            found["answers: evidence in 10k tokens"] = breakdown.break_down(
                parts["answers"], groups, breakdown.EVIDENCE
            )
    return found
