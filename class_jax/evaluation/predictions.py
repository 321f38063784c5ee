# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Reads prediction files in the official XOR-TyDi QA formats; errors name the line and the id."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from class_jax.errors import InputError
from class_jax.evaluation.scores import unknown_id
from class_jax.questions.question import Question

_BLANK = " \t\r\n"


def read_answers(path: str | os.PathLike, questions: Sequence[Question] | None = None) -> dict[str, str]:
    """Reads predicted answers: one JSON object, question id -> answer, or id -> `{"answer": answer}`.

    Args:
      path: the file.
      questions: if given, an id that none of them has is an error here, where the line is known.

    Raises:
      InputError: naming line and id, for a missing or empty file, invalid UTF-8 or JSON, another shape,
        a duplicate or unknown id.
    """
    known = None if questions is None else {question.id for question in questions}
    answers: dict[str, str] = {}
    for line, id, value in json_entries(path, "{"):
        answer = value.get("answer") if isinstance(value, dict) else value
        if not isinstance(answer, str):
            problem = f"the prediction is {_kind(value)}, not a string"
            raise InputError(problem, file=path, line=line, key=id, remedy='write {"question id": "answer", ...}')
        _check_id(id, answers, known, path, line)
        answers[id] = answer
    return answers


def _check_id(id: str, seen: Any, known: Any, path: str | os.PathLike, line: int) -> None:
    if id in seen:
        raise InputError("second prediction for this id", file=path, line=line, key=id, remedy="keep one")
    if known is not None and id not in known:
        raise unknown_id(id, len(known), os.fspath(path), line)


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")


def json_entries(path: str | os.PathLike, opening: str) -> Iterator[tuple[int, str, Any]]:
    """Yields (line, key, value) of each entry of the JSON object ("{") or array ("["; key "") in a file.

    A JSON parser would drop the lines and all but the last of duplicate keys: this one reads the outer
    level itself and leaves the values to the parser.

    Raises:
      InputError: naming the line, for a missing or empty file, invalid UTF-8 or JSON, another outer shape.
    """
    text = _read(path)
    found = text.lstrip(_BLANK)[0]
    if found != opening:
        kinds = {"{": "an object", "[": "an array"}
        got = kinds.get(found, "neither an object nor an array")
        raise InputError(f"the file holds {got}, not {kinds[opening]}", file=path, line=_line(text, text.index(found)))
    decode = json.JSONDecoder().raw_decode
    closing = {"{": "}", "[": "]"}[opening]
    at = _skip(text, text.index(opening) + 1)
    line, counted = 1, 0
    first = True
    try:
        while text[at : at + 1] != closing or not first:
            line, counted = line + text.count("\n", counted, at), at
            key = ""
            if opening == "{":
                if text[at : at + 1] != '"':
                    raise json.JSONDecodeError("expected a question id in double quotes", text, at)
                key, at = decode(text, at)
                at = _expect(text, _skip(text, at), ":")
            value, at = decode(text, at)
            yield line, key, value
            first = False
            at = _skip(text, at)
            if text[at : at + 1] == closing:
                break
            at = _expect(text, at, ",")
        if text[at + 1 :].strip(_BLANK):
            raise json.JSONDecodeError("something follows the end", text, _skip(text, at + 1))
    except json.JSONDecodeError as error:
        raise InputError(f"not valid JSON ({error.msg})", file=path, line=error.lineno) from error


def _read(path: str | os.PathLike) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError("no such file", file=path) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError("not valid UTF-8", file=path, line=line, remedy="save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"could not be read ({error.strerror})", file=path) from error
    if not text.strip(_BLANK):
        raise InputError("the file is empty", file=path)
    return text


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _BLANK:
        at += 1
    return at


def _expect(text: str, at: int, mark: str) -> int:
    if text[at : at + 1] != mark:
        raise json.JSONDecodeError(f"expected {mark!r}", text, at)
    return _skip(text, at + 1)
