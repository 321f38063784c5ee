# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The mixtures that the gin files name: the paper's, the demo's and the real run's questions."""

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from class_jax.tasks.registration import Mixture

from class_jax.errors import InputError, nearest
from class_jax.questions import readers
from class_jax.questions.question import Questions
from class_jax.questions.real_pairs import training_pairs
from class_jax.questions.selection import joined, of_languages, sample

Path = str | os.PathLike
_answered = functools.partial(readers.read_xor, needs_answers=True)


def _seven_languages(path: Path, mask: str = "all") -> Questions:
    return of_languages(readers.read_parallel(path, mask=mask), readers.XOR_LANGUAGES)


def _shots(path: Path, count: int, seed: int = 0) -> Questions:
    return sample(_answered(path), count, seed=seed)


def _shots_of_each_language(path: Path, count: int, seed: int = 0) -> Questions:
    return sample(_answered(path), count, per_language=True, seed=seed)


class Standard(NamedTuple):
    """What a name means.

    Attributes:
      title: in words.
      read: reads one file.
      split: the split that its files are.
    """

    title: str
    read: Callable[..., Questions]
    split: str = "train"


STANDARD = {
    "class_stage1": Standard("stage 1: parallel pairs mined in Wikipedia, in 15 languages", readers.read_parallel),
    "class_stage1_7_languages": Standard("of these, the languages of XOR-TyDi QA", _seven_languages),
    "class_stage1_code_switching": Standard("stage 1: code-switched pairs", readers.read_parallel),
    "class_stage1_translated": Standard("stage 1: machine-translated pairs", readers.read_parallel),
    "class_stage2": Standard("stage 2: questions made from anchors", readers.read_anchor_questions),
    "class_stage2_cloze": Standard("stage 2: cloze questions", readers.read_anchor_questions),
    "nq": Standard("Natural Questions", readers.read_nq),
    "xor_retrieve": Standard("XOR-Retrieve", _answered),
    "xor_retrieve_shots": Standard("XOR-Retrieve, `count` questions in all", _shots),
    "xor_full": Standard("XOR-Full", _answered),
    "xor_full_shots": Standard("XOR-Full, `count` questions of each language", _shots_of_each_language),
    "xor_full_augmented": Standard("XOR-Full and translated questions, two files", _answered),
    "mkqa": Standard("MKQA, a benchmark without training data", readers.read_mkqa, "test"),
    "demo_stage1": Standard("the demo's stage 1", readers.read_parallel),
    "demo_stage2": Standard("the demo's stage 2", readers.read_anchor_questions),
    "demo_reader": Standard("the demo's questions with answers", _answered),
    "demo_reader_augmented": Standard("the demo's questions with answers and translated ones, two files", _answered),
    "real_parallel": Standard("human translations and XQuAD, in a folder of public data", training_pairs),
}
"""Mixtures by name."""


def mixture(
    name: str, files: Path | Sequence[Path], dev_files: Path | Sequence[Path] | None = None, **settings: Any
) -> Mixture:
    """One of `STANDARD` over files.

    Args:
      name: of the mixture, which says how its files are read.
      files: a file, or several that are read one after the other.
      dev_files: likewise for split `validation`.
      **settings: further arguments of the mixture's reader, such as `count` or `mask`.

    Raises:
      InputError: no mixture has the name, or its reader has no such setting.
    """
    if name not in STANDARD:
        raise InputError(f"no mixture {name!r}", key="tasks.mixture.name", remedy=nearest(name, STANDARD))
    _, read, split = STANDARD[name]
    _, *known = inspect.signature(read).parameters
    for setting in sorted(settings.keys() - set(known)):
        raise InputError(f"{name} has no such setting", key=f"tasks.mixture.{setting}", remedy=nearest(setting, known))

    def over(paths: Path | Sequence[Path]) -> Questions:
        several = [paths] if isinstance(paths, Path) else paths
        parts = [read(os.fspath(path), **settings) for path in several]
        return parts[0] if len(parts) == 1 else joined(*parts)

    try:
        splits = {split: over(files)}
    except TypeError as error:
        raise InputError(str(error), key=f"tasks.mixture, {name!r}", remedy="set it in the gin file") from error
    if dev_files is not None:
        splits["validation"] = over(dev_files)
    return Mixture(name, splits)


def benchmark(name: str, builder: str, data_dir: Path) -> Mixture:
    """Every split of a benchmark that TFDS has prepared (`tasks.benchmarks`).

    Args:
      name: of the mixture.
      builder: `xor_tydi_qa/retrieve`, `xor_tydi_qa/full` or `mkqa`.
      data_dir: where TFDS prepared it.

    Raises:
      InputError: an unknown benchmark, or one that is not prepared in `data_dir`.
    """
    from class_jax.tasks import benchmarks

    splits = benchmarks.splits_of(builder, data_dir)
    return Mixture(name, {split: benchmarks.read_benchmark(builder, data_dir, split) for split in splits})
