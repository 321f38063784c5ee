# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A reader's questions are a value: read as often as asked, equal where reader and arguments are."""

import inspect
from pathlib import Path

import pytest

from class_jax.errors import InputError
from class_jax.questions import readers
from class_jax.questions.question import Question, Questions, rereadable
from class_jax.questions.selection import of_languages, sample


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("fi-1\tkuka\tRisto\nko-2\t누가\tRisto\n", encoding="utf-8")
    return path


def test_each_iteration_reads_the_file_from_its_beginning(path):
    questions = readers.read_anchor_questions(path)
    first = iter(questions)
    assert next(first).id == "fi-1"
    assert [q.id for q in questions] == ["fi-1", "ko-2"]  # an iteration under way does not disturb another
    assert [q.id for q in first] == ["ko-2"]
    path.write_text("en-3\twho\tRisto\n", encoding="utf-8")
    assert [q.id for q in questions] == ["en-3"]


def test_no_file_is_opened_before_an_iteration(tmp_path):
    questions = readers.read_nq(tmp_path / "absent.csv")
    for _ in range(2):
        with pytest.raises(InputError, match=r"absent\.csv"):
            list(questions)


def test_equal_where_reader_and_arguments_are(path):
    one = readers.read_anchor_questions(str(path))
    for same in (readers.read_anchor_questions(path), readers.read_anchor_questions(path=Path(path))):
        assert same == one and hash(same) == hash(one) and repr(same) == repr(one)
    for other in (
        readers.read_anchor_questions(f"{path}.gz"),
        readers.read_anchor_questions(path, languages=("fi",)),
        readers.read_parallel(path),
        list(one),
    ):
        assert other != one


def test_the_representation_names_reader_arguments_and_what_they_are_made_of():
    xor = readers.read_xor(Path("x.jsonl"), languages=frozenset(("fi", "ar", "te")), needs_answers=True)
    assert repr(xor) == "read_xor(path='x.jsonl', languages={'ar', 'fi', 'te'}, needs_answers=True)"
    drawn = sample(of_languages(readers.read_nq("nq.csv"), ("en",)), count=5)
    inner = "of_languages(questions=read_nq(path='nq.csv'), languages=('en',))"
    assert repr(drawn) == f"sample(questions={inner}, count=5)"


def test_wrong_arguments_are_refused_where_they_are_given():
    with pytest.raises(TypeError, match=r"read_nq\(\) missing 1 required positional argument: 'path'"):
        readers.read_nq()
    with pytest.raises(TypeError, match=r"read_xor.*'need_answers'"):
        readers.read_xor("x.jsonl", need_answers=True)


def test_a_reader_keeps_its_name_and_signature():
    @rereadable
    def read_two(language: str = "fi"):
        """Two questions."""
        for i in range(2):
            yield Question(f"q{i}", "kuka", (), language)

    assert isinstance(read_two(), Questions) and len(list(read_two("ko"))) == 2
    assert (read_two.__name__, read_two.__doc__) == ("read_two", "Two questions.")
    assert list(inspect.signature(read_two).parameters) == ["language"]
