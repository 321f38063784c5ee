# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The training pairs of the real run: human translations of questions, and most questions of XQuAD.

They are in a folder of public data: `xor_parallel/{lang}-en.{lang,en}` (XOR-TyDi QA's human translations) and
`xquad/xquad.{en,ar,de,ru}.json` (XQuAD).
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from class_jax.questions.question import Question, rereadable
from class_jax.questions.readers import read_parallel_lines, read_xquad

PARALLEL_LANGUAGES = ("ar", "bn", "fi", "ja", "ko", "ru", "te")
XQUAD_LANGUAGES = ("ar", "de", "ru")


def is_training(question_id: str) -> bool:
    """The fixed rule: 70% of XQuAD's questions, by the hash of their public id, the same in every language."""
    return hashlib.sha256(question_id.encode()).digest()[0] < 0.7 * 256


@rereadable
def training_pairs(data: str | os.PathLike) -> Iterator[Question]:
    """The training questions with their English: seven languages' parallel questions, and 70% of XQuAD's.

    Args:
      data: the folder of public data.

    Raises:
      InputError: as `read_parallel_lines` and `read_xquad`.
    """
    folder = Path(data)
    for language in PARALLEL_LANGUAGES:
        stem = folder / "xor_parallel" / f"{language}-en"
        yield from read_parallel_lines(f"{stem}.en", f"{stem}.{language}", language)
    for language in XQUAD_LANGUAGES:
        questions, _ = xquad_questions(folder, language)
        yield from (question for question in questions if is_training(question.id.partition("-")[2]))


def xquad_questions(data: str | os.PathLike, language: str) -> tuple[list[Question], list[str]]:
    """All of XQuAD's questions in a language with their English, and the paragraph of each; see `read_xquad`."""
    folder = Path(data) / "xquad"
    return read_xquad(folder / f"xquad.{language}.json", english_path=folder / "xquad.en.json")
