# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Readers of the public question files as published.

A reader returns `Questions`: a value that can be iterated any number of times, and reads the file each time, row by
row. An iteration raises `InputError` with file, line and key at the first bad row.
"""

import ast
import csv
import gzip
import json
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from class_jax.corpus.inputs import LANGUAGES
from class_jax.corpus.passages import Passage
from class_jax.errors import InputError, nearest
from class_jax.questions.masking import MASK, mask_other
from class_jax.questions.question import Question, rereadable

TRAINING_LANGUAGES = ("ar", "bn", "de", "es", "fi", "fr", "it", "ja", "kn", "ko", "ml", "ru", "ta", "te", "zh")
"""The paper's 15 pre-training languages (section 4.1)."""
XOR_LANGUAGES = ("ar", "bn", "fi", "ja", "ko", "ru", "te")
"""The languages of XOR-TyDi QA."""
MKQA_LANGUAGES = (
    *("ar", "da", "de", "en", "es", "fi", "fr", "he", "hu", "it", "ja", "km", "ko", "ms", "nl", "no", "pl", "pt"),
    *("ru", "sv", "th", "tr", "vi", "zh_cn", "zh_hk", "zh_tw"),
)
"""The languages of MKQA, as its files spell them."""
KNOWN_LANGUAGES = frozenset(LANGUAGES)
"""Every language code; the default of what a reader accepts."""

MASKED = ("all", "latin")
"""Languages in whose stage-1 questions the answer is masked; see `read_parallel`."""
_UNANSWERABLE = frozenset({"unanswerable", "long_answer"})


@rereadable
def read_xor(
    path: str | os.PathLike, *, languages: Collection[str] = KNOWN_LANGUAGES, needs_answers: bool = False
) -> Iterator[Question]:
    """Reads XOR-TyDi QA (XOR-Retrieve or XOR-Full) JSON lines: `id`, `question`, `lang` and, mostly, `answers`.

    Blanks around `lang` are stripped: the public training file spells Arabic ``" ar"``.

    Args:
      path: the `.jsonl` file, gzipped or not.
      languages: accepted language codes.
      needs_answers: whether a question without answers (as in test input) is an error.

    Raises:
      InputError: no such file, not UTF-8, not JSON, a missing or mistyped key, a duplicate id, an empty
        question, an unknown language.
    """
    ids = _Ids(path)
    for line, record in _json_lines(path):
        question_id = str(_get(record, "id", (str, int), path, line))
        ids.add(question_id, line)
        text = _text(_get(record, "question", str, path, line), path, line, "question")
        language = _language(_get(record, "lang", str, path, line), languages, path, line, "lang")
        if needs_answers or "answers" in record:
            answers = _answers(_get(record, "answers", list, path, line), path, line, "answers")
        else:
            answers = ()
        if needs_answers and not answers:
            raise InputError("no answers", file=path, line=line, key="answers", remedy="remove the question")
        yield Question(question_id, text, answers, language)


@rereadable
def read_nq(path: str | os.PathLike, *, languages: Collection[str] = KNOWN_LANGUAGES) -> Iterator[Question]:
    """Reads Natural Questions as DPR publishes it: question, tab, a Python list of answers.

    A third column, where there is one, holds the language; English otherwise. The id of a question is its
    row number from 0, as in the public passage lists.

    Raises:
      InputError: no such file, not UTF-8, a wrong number of columns, a second column that is no list of
        strings, an empty question, an unknown language.
    """
    rows = csv.reader((text + "\n" for _, text in _lines(path)), delimiter="\t")
    row_number = 0
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise InputError(f"not a readable row ({error})", file=path, line=rows.line_num) from error
        if row is None:
            return
        if not row:
            continue
        line = rows.line_num
        if len(row) not in (2, 3):
            raise InputError(
                f"{len(row)} columns instead of 2 or 3",
                file=path,
                line=line,
                remedy="write question<TAB>answer list, with an optional third column for the language",
            )
        text = _text(row[0], path, line, "question")
        language = _language(row[2], languages, path, line, "language") if len(row) == 3 else "en"
        yield Question(str(row_number), text, _literal_answers(row[1], path, line), language)
        row_number += 1


@rereadable
def read_mkqa(
    path: str | os.PathLike,
    languages: Iterable[str] = MKQA_LANGUAGES,
    *,
    keep_unanswerable: bool = False,
) -> Iterator[Question]:
    """Reads MKQA as published (`mkqa.jsonl` or `mkqa.jsonl.gz`): one record per question, all languages in it.

    The id of a question is ``{language}-{example_id}``, since all languages share one `example_id`.
    Answers are each answer's text followed by its aliases, without repetitions.

    Args:
      path: the file.
      languages: the languages to yield, in this order within a record.
      keep_unanswerable: whether questions of the types `unanswerable` and `long_answer`, and those whose
        answers have no text, are yielded (with no answers) rather than skipped.

    Raises:
      InputError: no such file, not UTF-8, not JSON, a missing or mistyped key, a duplicate id, a language
        that MKQA or the record does not have.
    """
    languages = tuple(languages)
    for language in languages:
        _language(language, MKQA_LANGUAGES, None, None, "languages")
    ids = _Ids(path)
    for line, record in _json_lines(path):
        example_id = str(_get(record, "example_id", (str, int), path, line))
        ids.add(example_id, line)
        queries = _get(record, "queries", dict, path, line)
        all_answers = _get(record, "answers", dict, path, line)
        for language in languages:
            text = _text(_get(queries, language, str, path, line, "queries."), path, line, f"queries.{language}")
            given = _get(all_answers, language, list, path, line, "answers.")
            answers = _mkqa_answers(given, path, line, f"answers.{language}")
            if answers or keep_unanswerable:
                yield Question(f"{language}-{example_id}", text, answers, language)


@rereadable
def read_parallel(
    path: str | os.PathLike, *, languages: Collection[str] = KNOWN_LANGUAGES, mask: str = "all"
) -> Iterator[Question]:
    """Reads stage-1 pairs: id, English cloze question, question in the other language, answer; tab-separated.

    The id starts with the language (``fi-17``). Where the answer occurs in the other-language question it is
    replaced by ``_X_``, so that the question doesn't give it away; the English question comes masked already and
    goes to `Question.english` unchanged.

    Args:
      path: the file.
      languages: accepted language codes.
      mask: in which languages: ``all``, as the public code's loader does, or ``latin``, only those in Latin script, as
        the paper says (footnote 2; see `masking.mask_other`, by which mined pairs are written). They differ where
        another script's sentence holds the answer's very string, a number or a name in Latin letters.

    Raises:
      InputError: no such file, not UTF-8, a wrong number of columns, an empty column, a duplicate id, an id
        without a known language, another `mask`.
    """
    if mask not in MASKED:
        raise InputError(f"unknown value {mask!r}", key="read_parallel.mask", remedy=nearest(mask, MASKED))
    for line, (question_id, english, text, answer) in _tab_rows(path, ("id", "english", "question", "answer")):
        prefix = question_id.partition("-")[0]
        language = _language(prefix, languages, path, line, "id", "start the id with its language, as in fi-17")
        if language == "en":
            raise InputError(
                "a pair of English and English", file=path, line=line, key=question_id, remedy="remove the row"
            )
        masked = text.replace(answer, MASK) if mask == "all" else mask_other(text, answer, language)
        yield Question(question_id, masked, (answer,), language, english)


@rereadable
def read_anchor_questions(
    path: str | os.PathLike, *, languages: Collection[str] = KNOWN_LANGUAGES
) -> Iterator[Question]:
    """Reads stage-2 questions made from anchor texts (paper section 3.2): id, question, answer; tab-separated.

    The id starts with the language (``ko-17``). As in the reference, an id that starts with no language
    code at all (digits only, say) is an English question.

    Raises:
      InputError: no such file, not UTF-8, a wrong number of columns, an empty column, a duplicate id, an
        unknown language.
    """
    for line, (question_id, text, answer) in _tab_rows(path, ("id", "question", "answer")):
        prefix, dash, _ = question_id.partition("-")
        named = bool(dash) and re.fullmatch(r"[A-Za-z_]+", prefix)
        language = _language(prefix, languages, path, line, "id") if named else "en"
        yield Question(question_id, text, (answer,), language)


@rereadable
def read_parallel_lines(
    english_path: str | os.PathLike,
    other_path: str | os.PathLike,
    language: str,
    *,
    languages: Collection[str] = KNOWN_LANGUAGES,
) -> Iterator[Question]:
    """Reads two files whose n-th lines are one question in English and in `language`; there are no answers.

    The id is ``{language}-{line number from 1}``. Such questions train only the retriever: the reader's
    losses mask them.

    Raises:
      InputError: no such file, not UTF-8, an empty line, files of different lengths, an unknown language.
    """
    language = _language(language, languages, None, None, "language")
    english_lines, other_lines = _lines(english_path), _lines(other_path)
    for line, other in other_lines:
        _, english = next(english_lines, (line, None))
        if english is None:
            raise InputError(f"ends before line {line}", file=english_path, remedy=f"pair it with {other_path}")
        yield Question(
            f"{language}-{line}",
            _text(other, other_path, line, language),
            (),
            language,
            _text(english, english_path, line, "en"),
        )
    extra = next(english_lines, None)
    if extra is not None:
        raise InputError(f"ends before line {extra[0]}", file=other_path, remedy=f"pair it with {english_path}")


def read_xquad(
    path: str | os.PathLike,
    *,
    language: str | None = None,
    english_path: str | os.PathLike | None = None,
) -> tuple[list[Question], list[str]]:
    """Reads the questions of an XQuAD file (SQuAD 1.1 JSON).

    Args:
      path: the file.
      language: its language; read from a name such as `xquad.ar.json` where left out.
      english_path: the English file, for `Question.english`; paired by XQuAD's own ids.

    Returns:
      The questions, with ids ``{language}-{public id}`` (the public id is the same in every language), and
      for each question the id of its paragraph in `read_xquad_paragraphs` (the same in every language too).

    Raises:
      InputError: no such file, not JSON, a missing or mistyped key, a duplicate id, no known language, a
        question that the English file lacks.
    """
    if language is None:
        language = Path(path).name.removesuffix(".json").rpartition(".")[2]
    language = _language(language, KNOWN_LANGUAGES, path, None, "language", "pass language=...")
    english: dict[str, str] = {}
    if english_path is not None:
        english_questions, _ = read_xquad(english_path, language="en")
        english = {question.id.removeprefix("en-"): question.text for question in english_questions}
    ids = _Ids(path)
    questions, paragraph_ids = [], []
    for paragraph_id, _, paragraph in _squad_paragraphs(path):
        for record in _get(paragraph, "qas", list, path):
            public_id = _get(record, "id", str, path)
            ids.add(public_id)
            if english_path is not None and public_id not in english:
                raise InputError(f"no question of {path}", file=english_path, key=public_id)
            text = _text(_get(record, "question", str, path), path, None, public_id)
            given = [_get(answer, "text", str, path) for answer in _get(record, "answers", list, path)]
            answers = _answers(given, path, None, public_id)
            questions.append(Question(f"{language}-{public_id}", text, answers, language, english.get(public_id)))
            paragraph_ids.append(paragraph_id)
    return questions, paragraph_ids


def read_xquad_paragraphs(path: str | os.PathLike) -> list[Passage]:
    """Reads the paragraphs of an XQuAD file as passages with ids ``xquad-{article}-{paragraph}``, from 0.

    Raises:
      InputError: no such file, not JSON, a missing or mistyped key.
    """
    return [
        Passage(paragraph_id, _text(_get(paragraph, "context", str, path), path, None, paragraph_id), title)
        for paragraph_id, title, paragraph in _squad_paragraphs(path)
    ]


class _Ids:
    """The ids seen so far in a file, to name both lines of a duplicate."""

    def __init__(self, path: str | os.PathLike):
        self._path = path
        self._lines: dict[str, int | None] = {}

    def add(self, question_id: str, line: int | None = None) -> None:
        if question_id in self._lines:
            first = self._lines[question_id]
            where = "" if first is None else f" (first on line {first})"
            raise InputError(
                f"duplicate id{where}", file=self._path, line=line, key=question_id, remedy="remove one of the two"
            )
        self._lines[question_id] = line


def _lines(path: str | os.PathLike) -> Iterator[tuple[int, str]]:
    """Yields (line number from 1, line without its end), splitting only at newlines."""
    line = 0
    try:
        with gzip.open(path) if os.fspath(path).endswith(".gz") else open(path, "rb") as f:
            for line, raw in enumerate(f, start=1):
                yield line, raw.decode("utf-8-sig" if line == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"not valid UTF-8 (byte {error.start + 1})", file=path, line=line, remedy="convert the file to UTF-8"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"not a whole gzip file ({error})", file=path, remedy="fetch it again") from error
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", file=path, remedy="check the path") from error


def _json_lines(path: str | os.PathLike) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in _lines(path):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(
                f"not valid JSON ({error.msg}, column {error.colno})", file=path, line=line, remedy="mend the line"
            ) from error
        if not isinstance(record, dict):
            raise InputError("not a JSON object", file=path, line=line, remedy="write one object a line")
        yield line, record


def _tab_rows(path: str | os.PathLike, columns: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """Yields (line, cells) of a headerless TSV without quoting; the first column is a unique id."""
    ids = _Ids(path)
    for line, text in _lines(path):
        if not text.strip():
            continue
        cells = text.split("\t")
        if len(cells) != len(columns):
            raise InputError(
                f"{len(cells)} columns instead of {len(columns)}",
                file=path,
                line=line,
                remedy="write " + "<TAB>".join(columns),
            )
        cells = [_text(cell, path, line, column) for cell, column in zip(cells, columns, strict=True)]
        ids.add(cells[0], line)
        yield line, cells


def _squad_paragraphs(path: str | os.PathLike) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields (paragraph id, article title, paragraph record)."""
    text = "\n".join(line for _, line in _lines(path))
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON ({error.msg})", file=path, line=error.lineno) from error
    for i, article in enumerate(_get(document, "data", list, path)):
        title = _get(article, "title", str, path) if isinstance(article, dict) and "title" in article else ""
        for j, paragraph in enumerate(_get(article, "paragraphs", list, path)):
            yield f"xquad-{i}-{j}", title.replace("_", " "), paragraph


def _get(
    record: Mapping[str, Any],
    key: str,
    kind: type | tuple[type, ...],
    path: str | os.PathLike,
    line: int | None = None,
    prefix: str = "",
) -> Any:
    if not isinstance(record, dict):
        raise InputError(f"not an object with a key {key!r}", file=path, line=line)
    if key not in record:
        raise InputError(
            "missing key", file=path, line=line, key=prefix + key, remedy=f"add it; {nearest(key, record)}"
        )
    value = record[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise InputError(f"{type(value).__name__} instead of {expected}", file=path, line=line, key=prefix + key)
    return value


def _text(text: str, path: str | os.PathLike, line: int | None, key: str) -> str:
    text = text.strip()
    if not text:
        raise InputError("empty text", file=path, line=line, key=key, remedy="fill it in or remove the row")
    return text


def _language(
    language: str,
    languages: Collection[str],
    path: str | os.PathLike | None,
    line: int | None,
    key: str,
    remedy: str | None = None,
) -> str:
    language = language.strip()
    if language not in languages:
        hint = nearest(language, languages)
        raise InputError(
            f"unknown language {language!r}",
            file=path,
            line=line,
            key=key,
            remedy=f"{remedy}; {hint}" if remedy else hint,
        )
    return language


def _answers(given: list[Any], path: str | os.PathLike, line: int | None, key: str) -> tuple[str, ...]:
    """Strips answers and drops repetitions; blank ones are dropped as long as one with text is left."""
    for answer in given:
        if not isinstance(answer, str):
            raise InputError(f"an answer is {type(answer).__name__} instead of str", file=path, line=line, key=key)
    answers = tuple(dict.fromkeys(answer.strip() for answer in given if answer.strip()))
    if given and not answers:
        raise InputError("every answer is empty", file=path, line=line, key=key, remedy="give an answer or []")
    return answers


def _literal_answers(text: str, path: str | os.PathLike, line: int) -> tuple[str, ...]:
    try:
        given = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise InputError(
            f"not a list of answers: {text[:60]!r}", file=path, line=line, key="answers", remedy="write ['a', 'b']"
        ) from error
    if not isinstance(given, (list, tuple)):
        raise InputError(
            f"{type(given).__name__} instead of a list", file=path, line=line, key="answers", remedy="write ['a', 'b']"
        )
    return _answers(list(given), path, line, "answers")


def _mkqa_answers(given: list[Any], path: str | os.PathLike, line: int, key: str) -> tuple[str, ...]:
    texts: list[str] = []
    for answer in given:
        if not isinstance(answer, dict):
            raise InputError(f"an answer is {type(answer).__name__} instead of dict", file=path, line=line, key=key)
        if answer.get("type") in _UNANSWERABLE:
            continue
        texts.extend(text for text in (answer.get("text"), *(answer.get("aliases") or ())) if text)
    return _answers(texts, path, line, key) if texts else ()
