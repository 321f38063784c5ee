# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A question, and the questions of a reader as a value."""

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ParamSpec

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Attributes:
      id: unique among the questions that are used together.
      text: the question as published: not normalised, without the ``question:`` prefix.
      answers: every accepted answer; empty where none is known (test input, retrieval-only training data).
      language: code of the language of `text`.
      english: the same question in English, where the data is parallel.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    language: str
    english: str | None = None


class Questions:
    """The questions of a reader: a value, whose every iteration reads the files from their beginning.

    Two of the same reader and arguments are equal. The representation, such as
    ``read_xor(path='xor_dev_full_v1_1.jsonl')``, is the same in every process.

    Args:
      read: the generator function.
      arguments: its arguments by name, those that were given.
    """

    __slots__ = ("_arguments", "_read")

    def __init__(self, read: Callable[..., Iterator[Question]], arguments: inspect.BoundArguments):
        self._read, self._arguments = read, arguments

    def __iter__(self) -> Iterator[Question]:
        return self._read(*self._arguments.args, **self._arguments.kwargs)

    def __repr__(self) -> str:
        given = (f"{name}={_shown(value)}" for name, value in self._arguments.arguments.items())
        return f"{self._read.__name__}({', '.join(given)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Questions) and self._read is other._read and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


def rereadable(read: Callable[P, Iterator[Question]]) -> Callable[P, Questions]:
    """Makes a generator function return `Questions`: no file is opened before an iteration."""
    signature = inspect.signature(read)

    @functools.wraps(read)
    def questions(*args: P.args, **kwargs: P.kwargs) -> Questions:
        read(*args, **kwargs)  # runs nothing, but refuses wrong arguments in Python's own words
        return Questions(read, signature.bind(*args, **kwargs))

    questions.__annotations__ = {**read.__annotations__, "return": Questions}
    return questions


def _shown(value: Any) -> str:
    """A path as its string, a set in order."""
    if isinstance(value, os.PathLike):
        return repr(os.fspath(value))
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(repr, value)))}}}"
    return repr(value)
