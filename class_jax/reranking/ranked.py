# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Questions with their ranked passages, in public formats: DPR's and CORA's `ctxs`, TREC runs, XOR-Retrieve."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from class_jax.common.files import numbered_lines, read_json, replacing
from class_jax.corpus.inputs import LANGUAGES
from class_jax.corpus.passages import Passage, read_passages
from class_jax.errors import InputError, nearest
from class_jax.evaluation import run_writers as results
from class_jax.questions.readers import Question

FORMATS = ("ctxs", "trec", "xor")
OnBad = Callable[[InputError], None]


class Candidate(NamedTuple):
    """A passage of a list.

    Attributes:
      id, title, text: as in the file (of XOR-Retrieve, which has texts only, the place in the list).
      score: what the list is ordered by.
      language: code, or None where it is not known.
      has_answer: as in the file, or None.
      extra: further fields of the passage, kept for the output.
    """

    id: str
    title: str
    text: str
    score: float
    language: str | None = None
    has_answer: bool | None = None
    extra: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class RankedList:
    """A question with its passages.

    Attributes:
      question: with its language.
      passages: best first.
      extra: further fields of its record, kept for the output.
      usable: False for a bad question that is skipped: its list stays in its order.
    """

    question: Question
    passages: tuple[Candidate, ...]
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    usable: bool = True


def refuse(error: InputError) -> None:
    """An `OnBad` that ends at the first bad question."""
    raise error


def detect_format(path: str | os.PathLike) -> str:
    """Returns the format of a file, recognised by its beginning.

    Raises:
      InputError: if the file is missing or empty.
    """
    line = next((text for _, text in numbered_lines(path) if text.strip()), None)
    if line is None:
        raise InputError("is empty", file=path)
    if line.lstrip().startswith("{"):
        raise InputError("is no JSON list of questions", file=path, remedy="put the questions into one list")
    if not line.lstrip().startswith("["):
        return "trec"
    records = read_json(path)
    lists = (record.get("ctxs") for record in records if isinstance(record, dict))
    first = next((ctxs for ctxs in lists if isinstance(ctxs, list) and ctxs), None)
    return "xor" if first and isinstance(first[0], str) else "ctxs"


def read_ranked(
    path: str | os.PathLike,
    format: str,
    *,
    questions: Sequence[Question] | None = None,
    passages: Mapping[str, Passage] | None = None,
    language: str | None = None,
    passage_languages: Mapping[str, str] | None = None,
    passage_language: str | None = None,
    on_bad: OnBad = refuse,
) -> list[RankedList]:
    """Reads ranked lists.

    Args:
      path: the file.
      format: one of `FORMATS`.
      questions: their texts and languages, which only `ctxs` has itself.
      passages: by id, for TREC runs, which have no texts.
      language: of questions for which neither the file nor `questions` has one.
      passage_languages: by passage id.
      passage_language: of passages whose language neither the file nor `passage_languages` says.
      on_bad: called with the error of a bad question (no `ctxs`, an unknown language, an id that repeats, a passage
        without text or with a score that is no number); if it returns, what repeats or has no question is left out, and
        the others are kept as not `usable`.

    Raises:
      InputError: for a file of another format, or one that lacks questions or passages where the format needs them.
    """
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}", key="format", remedy=nearest(format, FORMATS))
    if format != "ctxs" and questions is None:
        raise InputError(f"a file of the format {format} has no questions", file=path, remedy="give --questions FILE")
    known = {question.id: question for question in questions or ()}
    if format == "trec":
        if passages is None:
            raise InputError("a TREC run has no texts", file=path, remedy="give --passages FILE.tsv")
        lists = _read_trec(path, known, passages, on_bad)
    else:
        lists = _read_records(path, format, known, language, on_bad)
    found, seen = [], set()
    for ranked in lists:
        if ranked.question.id in seen:
            on_bad(InputError("two questions have this id", file=path, key=ranked.question.id))
            continue
        seen.add(ranked.question.id)
        kept = _unique(ranked, path, on_bad)
        with_language = [
            c._replace(language=c.language or (passage_languages or {}).get(c.id) or passage_language) for c in kept
        ]
        found.append(dataclasses.replace(ranked, passages=tuple(with_language)))
    if not found:
        raise InputError("no questions", file=path)
    return found


def _unique(ranked: RankedList, path: str | os.PathLike, on_bad: OnBad) -> list[Candidate]:
    kept: dict[str, Candidate] = {}
    for candidate in ranked.passages:
        if candidate.id in kept:
            problem = f"passage {candidate.id!r} occurs twice"
            on_bad(InputError(problem, file=path, key=f"question {ranked.question.id!r}"))
        else:
            kept[candidate.id] = candidate
    return list(kept.values())


def _read_records(
    path: str | os.PathLike, format: str, known: Mapping[str, Question], language: str | None, on_bad: OnBad
) -> list[RankedList]:
    records = read_json(path)
    if not isinstance(records, list):
        raise InputError("is not a JSON list of questions", file=path)
    found = []
    for i, record in enumerate(records):
        where = f"question {i + 1}"
        if not isinstance(record, dict):
            on_bad(InputError("is no JSON object", file=path, key=where))
            continue
        id = str(record.get("q_id", record.get("id", i)))
        question = known.get(id) or _own_question(record, id, language)
        if question is None:
            on_bad(InputError("has no text, and no --questions that has this id", file=path, key=f"{where} ({id})"))
            continue
        passages, problems = _candidates(record.get("ctxs"), format)
        if problem := _language_problem(question.language):
            problems.insert(0, problem)
        if not isinstance(record.get("answers") or [], list):
            problems.append(("answers", "no list of texts", None))
        for key, problem, remedy in problems:
            on_bad(InputError(problem, file=path, key=f"{where} ({id}): {key}", remedy=remedy))
        extra = {name: value for name, value in record.items() if name != "ctxs"}
        found.append(RankedList(question, passages, extra, usable=not problems))
    return found


_Problem = tuple[str, str, str | None]  # key, problem, remedy


def _language_problem(code: str) -> _Problem | None:
    known = f"known: {', '.join(LANGUAGES)}"
    if not code:
        return "lang", "its language is not known", f"give --language; {known}"
    return None if code in LANGUAGES else ("lang", f"unknown language {code!r}", known)


def _own_question(record: Mapping[str, Any], id: str, language: str | None) -> Question | None:
    text = record.get("question")
    if not isinstance(text, str) or not text.strip():
        return None
    answers = record.get("answers")
    answers = tuple(a for a in answers if isinstance(a, str)) if isinstance(answers, list) else ()
    return Question(id, text, answers, str(record.get("lang") or language or "").strip())


def _candidates(given: Any, format: str) -> tuple[tuple[Candidate, ...], list[_Problem]]:
    """The passages of a record, as far as they can be read, and their problems."""
    if not isinstance(given, list):
        return (), [("ctxs", "no list of passages", None)]
    found, problems = [], []
    for rank, passage in enumerate(given, start=1):
        candidate, problem = _candidate(passage, rank, format)
        found.append(candidate)
        if problem is not None:
            problems.append((f"passage {rank}", *problem))
    return tuple(found), problems


def _candidate(given: Any, rank: int, format: str) -> tuple[Candidate, tuple[str, str | None] | None]:
    """A passage and its problem, if it has one; a score that can't be read is replaced by the negative rank."""
    if format == "xor":
        # The format has no scores: the negative rank takes their place.
        text = given if isinstance(given, str) else ""
        problem = None if text.strip() else ("has no text", "remove it")
        return Candidate(str(rank), "", text, -float(rank)), problem
    if not isinstance(given, dict):
        given, problem = {}, ("is no JSON object", 'write {"id": "7", "title": "...", "text": "...", "score": "81.2"}')
    else:
        problem = None
    title, text = given.get("title") or "", given.get("text")
    if problem is None and not (isinstance(text, str) and text.strip() and isinstance(title, str)):
        problem = "has no text", "remove it"
    try:
        score = float(given.get("score", -rank))
    except (TypeError, ValueError):
        score, problem = -float(rank), problem or (f"score: {given['score']!r} is no number", None)
    texts = [value if isinstance(value, str) else "" for value in (title, text)]
    language = given.get("lang") or given.get("language")
    id = str(given.get("id", given.get("passage_id", rank)))
    return Candidate(id, *texts, score, language, given.get("has_answer"), dict(given)), problem


def _read_trec(
    path: str | os.PathLike, known: Mapping[str, Question], passages: Mapping[str, Passage], on_bad: OnBad
) -> list[RankedList]:
    rows: dict[str, list[tuple[float, int, str]]] = {}
    for line, text in numbered_lines(path):
        if not text.strip():
            continue
        fields = text.split()
        try:
            id, _, passage, rank, score, _ = fields
            place = (-float(score), int(rank), passage)
        except ValueError as error:
            raise InputError("not 'question Q0 passage rank score tag'", file=path, line=line) from error
        if id not in known:
            on_bad(InputError("no question has this id", file=path, line=line, key=id, remedy=nearest(id, known)))
            continue
        if passage not in passages:
            on_bad(InputError("no passage has this id", file=path, line=line, key=passage, remedy="check --passages"))
            continue
        rows.setdefault(id, []).append(place)
    found = []
    for id, places in rows.items():
        texts = [(passages[passage], -score) for score, _, passage in sorted(places)]
        found.append(RankedList(known[id], tuple(Candidate(p.id, p.title, p.text, score) for p, score in texts)))
    return found


def passages_of_run(passages: str | os.PathLike, run: str | os.PathLike) -> dict[str, Passage]:
    """Those passages of a TSV that a TREC run names, by id; the file may be far larger than the memory."""
    named = {fields[2] for _, text in numbered_lines(run) if len(fields := text.split()) > 2}
    return {passage.id: passage for passage in read_passages(passages) if passage.id in named}


def write_ranked(path: str | os.PathLike, lists: Sequence[RankedList], format: str) -> None:
    """Writes ranked lists, whole or not at all.

    `ctxs` keeps all fields of question and passage that the input had; only `score` is new.

    Raises:
      InputError: if the disk refuses, an id can't be in a TREC run, or the format is unknown.
    """
    if format not in FORMATS:
        raise InputError(f"unknown format {format!r}", key="format", remedy=nearest(format, FORMATS))
    if format == "ctxs":
        with replacing(path) as f:
            records = (json.dumps(_record(ranked), ensure_ascii=False) for ranked in lists)
            f.write("[\n")
            for i, record in enumerate(records):
                f.write((",\n" if i else "") + record)
            f.write("\n]\n")
        return
    view, questions = _Passages(lists), [ranked.question for ranked in lists]
    if format == "trec":
        results.write_trec(path, questions, view, view.rows, view.scores, "class_jax-rerank")
    else:
        results.write_xor_retrieve(path, questions, view, view.rows)


def _record(ranked: RankedList) -> dict[str, Any]:
    question = ranked.question
    own = {"q_id": question.id, "question": question.text, "lang": question.language}
    own["answers"] = list(question.answers)
    passages = []
    for c in ranked.passages:
        entry = {"id": c.id, "title": c.title, "text": c.text} | dict(c.extra)
        if ranked.usable or "score" not in c.extra:
            entry["score"] = f"{c.score:.6f}"
        if c.language is not None:
            entry.setdefault("lang", c.language)
        passages.append(entry)
    return own | dict(ranked.extra) | {"ctxs": passages}


class _Passages:
    """The lists' passages as what `class_jax.evaluation.run_writers` takes of a token store: rows [B, k] and scores."""

    def __init__(self, lists: Sequence[RankedList]):
        self._all = [c for ranked in lists for c in ranked.passages]
        longest = max((len(ranked.passages) for ranked in lists), default=0)
        self.rows = np.full((len(lists), longest), -1, np.int64)
        self.scores = np.full((len(lists), longest), -np.inf, np.float64)
        start = 0
        for b, ranked in enumerate(lists):
            count = len(ranked.passages)
            self.rows[b, :count] = np.arange(start, start + count)
            self.scores[b, :count] = [c.score for c in ranked.passages]
            start += count

    def id(self, row: int) -> str:
        return self._all[row].id

    def passage(self, row: int) -> Passage:
        candidate = self._all[row]
        return Passage(candidate.id, candidate.text, candidate.title)
