# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Answers to a file of questions, each kept as soon as it is given; and whether a passage supports an answer."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from class_jax.common.files import replacing
from class_jax.common.work_log import WorkLog
from class_jax.errors import InputError
from class_jax.evaluation.text import contains_answer
from class_jax.questions.readers import Question, read_xor

# Questions whose answers are kept at once; with an index they are searched together, too.
_BLOCK = 64


class AnyPassage(Protocol):
    """A passage that was read: `class_jax.api.ReadPassage`."""

    id: str
    title: str
    text: str
    score: float
    attention: float


class AnyAnswer(Protocol):
    """An answer of a model: `class_jax.api.Answer`."""

    question: str
    answer: str
    log_probability: float
    passages: Sequence[AnyPassage]
    timings: Mapping[str, float]


def answer_file(
    model: Any,
    corpus: Any,
    questions: Path,
    out: Path,
    *,
    passages: int,
    beams: int,
    max_answer_tokens: int,
    language: str | None = None,
    batch: int | None = None,
) -> int:
    """Answers a file of questions; returns how many predictions `out` holds.

    Each answer goes to `log_path(out)` as soon as its batch is done; a second start with the same model, corpus and
    settings keeps the answers there, even if the first was killed while it wrote.

    Args:
      model: a `class_jax.CLASS`.
      corpus: a `class_jax.Searcher`.
      questions: XOR-TyDi QA JSON lines.
      out: predictions to write, a JSON object from question ids to answers.
      passages, beams, max_answer_tokens, batch: see `CLASS.answer`.
      language: of all questions; each question's own if None.

    Raises:
      InputError: for a bad question file, a log of another model, corpus or setting, a disk that refuses a write; and
        see `CLASS.answer`.
    """
    asked = list(read_xor(questions))
    if not asked:
        raise InputError("no questions", file=questions, remedy='write {"id": ..., "question": ..., "lang": ...}')
    made_with = {
        "model": model.fingerprint,
        "corpus": corpus.store.fingerprint,
        "index": None if corpus.index is None else f"{corpus.index.kind} {corpus.index.model}",
        "passages": passages,
        "beams": beams,
        "max_answer_tokens": max_answer_tokens,
        "language": language,
    }
    settings = {"beams": beams, "max_answer_tokens": max_answer_tokens, "batch": batch}
    return answer_logged(
        asked, out, made_with, lambda left: _answers(model, corpus, left, passages, language, settings)
    )


def answer_logged(
    questions: list[Question],
    out: Path,
    made_with: dict[str, Any],
    answering: Callable[[list[Question]], Iterable[tuple[Question, AnyAnswer]]],
    log_file: Path | None = None,
) -> int:
    """Answers questions that the log of `out` has no answer of, then writes all predictions; returns how many.

    Args:
      questions: all of them.
      out: predictions to write.
      made_with: what decides the answers; a log made with something else is refused.
      answering: yields questions with their answers, in any order, of those it is given.
      log_file: where the log is; `log_path(out)` if None.

    Raises:
      InputError: see `class_jax.common.work_log.WorkLog`.
    """
    from tqdm import tqdm

    with WorkLog(log_file or log_path(out), made_with, "answers", ("question", "answer")) as log:
        left = [q for q in questions if log.entries.get(q.id, {}).get("question") != _digest(q)]
        done = len(questions) - len(left)
        with tqdm(total=len(questions), initial=done, unit="question", desc="answer", disable=None) as bar:
            for question, given in answering(left):
                log.write(question.id, _entry(question, given))
                bar.update()
    predictions = {q.id: log.entries[q.id]["answer"] for q in questions}
    with replacing(out) as f:
        json.dump(predictions, f, ensure_ascii=False, indent=0)
        f.write("\n")
    return len(predictions)


def log_path(out: Path) -> Path:
    """Where the answers are kept one by one, with passages and scores, while a file is being answered and after."""
    return out.with_name(f"{out.stem}.log.jsonl")


def supported_by(answer: str, passages: Sequence[AnyPassage]) -> list[int]:
    """Which passages hold the text of an answer: their places in the list, from 1.

    See `class_jax.evaluation.text.contains_answer`.
    """
    texts = (f"{passage.title}\n{passage.text}" for passage in passages)
    return [place for place, text in enumerate(texts, start=1) if contains_answer(text, answer)]


def confidence(answer: AnyAnswer) -> float:
    """The probability that the model gives to the whole answer: exp of its log-probability."""
    return math.exp(answer.log_probability)


def answer_record(answer: AnyAnswer) -> dict[str, Any]:
    """An answer with its confidence, the ids of the passages that hold its text, and what was read; JSON-able."""
    places = supported_by(answer.answer, answer.passages)
    fields = ("id", "title", "text", "score", "attention")
    return {
        "question": answer.question,
        "answer": answer.answer,
        "log_probability": answer.log_probability,
        "confidence": confidence(answer),
        "supported_by": [answer.passages[place - 1].id for place in places],
        "passages": [{name: getattr(passage, name) for name in fields} for passage in answer.passages],
        "timings": dict(answer.timings),
    }


def _answers(
    model: Any,
    corpus: Any,
    questions: list[Question],
    passages: int,
    language: str | None,
    settings: Mapping[str, Any],
) -> Iterator[tuple[Question, AnyAnswer]]:
    """Answers as batches are done. Without an index all is retrieved first: a search reads the whole corpus."""
    block = _BLOCK if corpus.index is not None else max(1, len(questions))
    for start in range(0, len(questions), block):
        part = questions[start : start + block]
        texts, languages = [q.text for q in part], [language or q.language for q in part]
        found = model.retrieve(texts, corpus, passages, languages)
        for i, given in model.read(texts, found, corpus.store, **settings):
            yield part[i], given


def _entry(question: Question, answer: AnyAnswer) -> dict[str, Any]:
    """What the log keeps of an answer."""
    return {
        "question": _digest(question),
        "answer": answer.answer,
        "log_probability": answer.log_probability,
        "passages": [[p.id, p.score, p.attention] for p in answer.passages],
        "timings": answer.timings,
    }


def _digest(question: Question) -> str:
    """Distinguishes a question from another one with the same id."""
    return hashlib.sha256(f"{question.language}\t{question.text}".encode()).hexdigest()[:16]
