# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Reads ranked passages: TREC runs, DPR's and CORA's `ctxs`, XOR-Retrieve predictions; and which passages are right."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from class_jax.common.files import numbered_lines
from class_jax.errors import InputError
from class_jax.evaluation.predictions import json_entries
from class_jax.evaluation.scores import unknown_id
from class_jax.questions.question import Question

_ID_KEYS = ("id", "q_id", "question_id")
_SHAPE = 'write [{"id": "question id", "ctxs": [{"id": "passage id", "text": "..."}, ...]}, ...]'


@dataclass(frozen=True)
class Ranked:
    """Ranked passages of questions.

    Attributes:
      format: `trec`, `ctxs` or `xor` (only texts).
      file: where they were read.
      ids: passage ids by question id, best first; empty for `xor`.
      texts: passage texts by question id, best first; empty for `trec` until `with_texts`.
      scores: scores by question id, in the order of the passages; empty where the file has none.
    """

    format: str
    file: str
    ids: Mapping[str, Sequence[str]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)


def read_ranked_passages(path: str | os.PathLike, questions: Sequence[Question] | None = None) -> Ranked:
    """Reads ranked passages in whichever of the three formats the file has.

    TREC: lines `question Q0 passage rank score tag`, ordered by falling score, ties by rank. The others: a JSON
    array of objects with `ctxs`; the question's id is under `id`, `q_id` or `question_id`, and where there is none
    (DPR) the question's text identifies it. Each of `ctxs` is a text, or an object with `text` and perhaps `id` and
    `score`.

    Args:
      path: the file.
      questions: if given, ids of other questions, and another language than the question's, are errors.

    Raises:
      InputError: naming line and id or key, for a missing or empty file, another shape, invalid UTF-8 or JSON,
        duplicate questions or passages, unknown ids.
    """
    start = next((text.lstrip("\ufeff \t") for _, text in numbered_lines(path) if text.strip()), None)
    if start is None:
        raise InputError("the file is empty", file=path)
    if start.startswith("{"):
        remedy = "a TREC run or a JSON array of objects with `ctxs` is needed; is this a file of answers?"
        raise InputError("the file holds an object", file=path, remedy=remedy)
    known = None if questions is None else {question.id: question for question in questions}
    return _read_ctxs(path, known) if start.startswith("[") else _read_trec(path, known)


def _read_trec(path: str | os.PathLike, known: Mapping[str, Question] | None) -> Ranked:
    found: dict[str, list[tuple[float, int, str]]] = {}
    lines: dict[str, set[str]] = {}
    for line, text in numbered_lines(path):
        if not text.strip():
            continue
        cells = text.split()
        if len(cells) != 6:
            remedy = "write: question Q0 passage rank score tag"
            raise InputError(f"{len(cells)} columns instead of 6", file=path, line=line, remedy=remedy)
        question, _, passage, rank, score, _ = cells
        try:
            entry = (-float(score), int(rank), passage)
        except ValueError as error:
            raise InputError("rank or score is no number", file=path, line=line, key=question) from error
        if math.isnan(entry[0]):
            raise InputError("the score is not a number", file=path, line=line, key=question)
        if known is not None and question not in known:
            raise unknown_id(question, len(known), os.fspath(path), line)
        if passage in lines.setdefault(question, set()):
            raise InputError(f"passage {passage!r} twice", file=path, line=line, key=question, remedy="keep one")
        lines[question].add(passage)
        found.setdefault(question, []).append(entry)
    for entries in found.values():
        entries.sort(key=lambda entry: entry[:2])
    ids = {question: [passage for _, _, passage in entries] for question, entries in found.items()}
    scores = {question: [-negated for negated, _, _ in entries] for question, entries in found.items()}
    return Ranked("trec", os.fspath(path), ids, {}, scores)


def _read_ctxs(path: str | os.PathLike, known: Mapping[str, Question] | None) -> Ranked:
    by_text: dict[str, list[str]] = {}
    for question in (known or {}).values():
        by_text.setdefault(question.text, []).append(question.id)
    ids: dict[str, list[str]] = {}
    texts: dict[str, list[str]] = {}
    scores: dict[str, list[float]] = {}
    for line, _, row in json_entries(path, "["):
        if not isinstance(row, dict) or not isinstance(row.get("ctxs"), list):
            raise InputError("not an object with a list `ctxs`", file=path, line=line, key="ctxs", remedy=_SHAPE)
        question = _question_id(row, by_text, path, line)
        if question in texts:
            raise InputError("second list for this question", file=path, line=line, key=question, remedy="keep one")
        if known is not None and question not in known:
            raise unknown_id(question, len(known), os.fspath(path), line)
        language = str(row.get("lang") or "").strip()
        if known is not None and language not in ("", known[question].language.strip()):
            problem = f"the language is {language!r}, but the question's is {known[question].language.strip()!r}"
            raise InputError(problem, file=path, line=line, key=question)
        passages = [_passage(ctx, i, path, line, question) for i, ctx in enumerate(row["ctxs"])]
        texts[question] = [text for text, _, _ in passages]
        if passages and all(id is not None for _, id, _ in passages):
            ids[question] = [id for _, id, _ in passages]
        if passages and all(score is not None for _, _, score in passages):
            scores[question] = [score for _, _, score in passages]
    return Ranked("ctxs" if ids else "xor", os.fspath(path), ids, texts, scores)


def _question_id(row: Mapping[str, Any], by_text: Mapping[str, list[str]], path: str | os.PathLike, line: int) -> str:
    for key in _ID_KEYS:
        if key in row:
            if not isinstance(row[key], str | int) or isinstance(row[key], bool):
                raise InputError("neither a string nor a number", file=path, line=line, key=key, remedy=_SHAPE)
            return str(row[key])
    ids = by_text.get(row.get("question"), []) if isinstance(row.get("question"), str) else []
    if len(ids) != 1:
        problem = "no id, and " + ("several questions have" if ids else "no question has") + " its text"
        raise InputError(problem, file=path, line=line, key="id", remedy=_SHAPE)
    return ids[0]


def _passage(
    ctx: Any, i: int, path: str | os.PathLike, line: int, question: str
) -> tuple[str, str | None, float | None]:
    """Text, id and score of one of `ctxs`; the latter two may be absent."""
    if isinstance(ctx, str):
        return ctx, None, None
    if not isinstance(ctx, dict) or not isinstance(ctx.get("text"), str):
        raise InputError(f"ctxs[{i}] has no text", file=path, line=line, key=question, remedy=_SHAPE)
    id, score = ctx.get("id"), ctx.get("score")
    try:
        return ctx["text"], None if id is None else str(id), None if score is None else float(score)
    except (TypeError, ValueError) as error:
        raise InputError(f"the score of ctxs[{i}] is no number", file=path, line=line, key=question) from error


def with_texts(run: Ranked, corpus: str | os.PathLike) -> Ranked:
    """Looks up the texts of a TREC run's passages.

    Args:
      run: as read; one that has texts is returned unchanged.
      corpus: the passages, a TSV or a token store's folder.

    Raises:
      InputError: if a passage is not in the corpus, or the corpus can't be read.
    """
    if run.texts:
        return run
    wanted = {id for ids in run.ids.values() for id in ids}
    if Path(corpus).is_dir():
        from class_jax.corpus.store import TokenStore

        store = TokenStore.open(corpus)
        known = {id: store.passage(store.row(id)).text for id in wanted}
    else:
        from class_jax.corpus.passages import read_passages

        known = {passage.id: passage.text for passage in read_passages(corpus) if passage.id in wanted}
    lacking = next((id for ids in run.ids.values() for id in ids if id not in known), None)
    if lacking is not None:
        raise InputError("not a passage of the corpus", file=corpus, key=lacking, remedy=f"is {run.file} of this one?")
    return replace(run, texts={question: [known[id] for id in ids] for question, ids in run.ids.items()})


def read_relevant(path: str | os.PathLike, questions: Sequence[Question] | None = None) -> dict[str, set[str]]:
    """Reads which passages are right: TREC qrels, a JSON object, question id -> list of passage ids, or JSON lines.

    Args:
      path: the file. Of qrels (`question 0 passage relevance`), those with a relevance above 0 count. JSON lines are
        `{"id": ..., "passages": [ids]}`, as training's evaluation reads them.
      questions: if given, ids of other questions are errors.

    Raises:
      InputError: naming line and id, for a missing or empty file, another shape or an unknown id.
    """
    known = None if questions is None else {question.id for question in questions}
    relevant: dict[str, set[str]] = {}
    start = next((text.lstrip("\ufeff \t") for _, text in numbered_lines(path) if text.strip()), None)
    if start is None:
        raise InputError("the file is empty", file=path)
    if start.startswith("{"):
        for line, question, given in _passage_lines(path) if _is_record(start) else json_entries(path, "{"):
            if not isinstance(given, list) or not all(isinstance(id, str) for id in given):
                raise InputError("not a list of passage ids", file=path, line=line, key=question)
            if known is not None and question not in known:
                raise unknown_id(question, len(known), os.fspath(path), line)
            relevant.setdefault(question, set()).update(given)
        return relevant
    for line, text in numbered_lines(path):
        cells = text.split()
        if not cells:
            continue
        if len(cells) != 4 or not cells[3].lstrip("-").isdecimal():
            remedy = "write: question 0 passage relevance"
            raise InputError("not a line of TREC qrels", file=path, line=line, remedy=remedy)
        if known is not None and cells[0] not in known:
            raise unknown_id(cells[0], len(known), os.fspath(path), line)
        if int(cells[3]) > 0:
            relevant.setdefault(cells[0], set()).add(cells[2])
    return relevant


def _is_record(text: str) -> bool:
    """Whether a line is a whole JSON object with an id and passages."""
    try:
        record = json.loads(text)
    except ValueError:
        return False
    return isinstance(record, dict) and {"id", "passages"} <= record.keys()


def _passage_lines(path: str | os.PathLike) -> Iterator[tuple[int, str, Any]]:
    """Line, question id and passages of JSON lines."""
    for line, text in numbered_lines(path):
        if not text.strip():
            continue
        if not _is_record(text):
            raise InputError('not {"id": ..., "passages": [...]}', file=path, line=line, remedy="one object a line")
        record = json.loads(text)
        yield line, str(record["id"]), record["passages"]
