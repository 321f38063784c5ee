# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Functions that register question files with seqio: one task per language, and a mixture of them.

`register_stage1("class_stage1", path, vocabulary_path)` makes tasks `class_stage1_ar`, `class_stage1_bn`, ... and
the mixture `class_stage1` with rates n_i^0.5 (paper section 3.1). Each returns the mixture's name, so that a gin
file can write ``class_jax.training.questions.task = @tasks.register_stage1()``. Registering again with the same
arguments does nothing; with others it is an error. Training examples have the features that `tasks.examples` lists.
"""

import collections
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import gin
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.questions import readers
from class_jax.questions.readers import Question

Reader = Callable[[], Iterable[Question]]
_registered: dict[str, Any] = {}


@gin.configurable(module="tasks")
def register_stage1(
    name: str = "class_stage1", path: str = gin.REQUIRED, vocabulary_path: str = gin.REQUIRED, exponent: float = 0.5
) -> str:
    """Registers stage-1 pairs (`readers.read_parallel`); see `register` for the rest."""
    return register(name, {"train": functools.partial(readers.read_parallel, path)}, vocabulary_path, exponent)


@gin.configurable(module="tasks")
def register_parallel_lines(
    name: str = "class_parallel",
    paths: Mapping[str, Sequence[str]] = gin.REQUIRED,
    vocabulary_path: str = gin.REQUIRED,
    exponent: float = 0.5,
) -> str:
    """Registers answerless stage-1 pairs in parallel line files.

    Args:
      name: of the mixture.
      paths: for each language the English file and the other one.
      vocabulary_path: as in `register`.
      exponent: as in `register`.
    """

    def read() -> Iterator[Question]:
        for language, (english, other) in sorted(paths.items()):
            yield from readers.read_parallel_lines(english, other, language)

    identity = tuple((language, *map(os.fspath, pair)) for language, pair in sorted(paths.items()))
    return register(name, {"train": read}, vocabulary_path, exponent, identity=identity)


@gin.configurable(module="tasks")
def register_stage2(
    name: str = "class_stage2", path: str = gin.REQUIRED, vocabulary_path: str = gin.REQUIRED, exponent: float = 0.5
) -> str:
    """Registers stage-2 anchor questions (`readers.read_anchor_questions`); see `register` for the rest."""
    return register(name, {"train": functools.partial(readers.read_anchor_questions, path)}, vocabulary_path, exponent)


@gin.configurable(module="tasks")
def register_nq(
    name: str = "nq",
    path: str = gin.REQUIRED,
    vocabulary_path: str = gin.REQUIRED,
    dev_path: str | None = None,
    exponent: float = 0.5,
) -> str:
    """Registers Natural Questions (`readers.read_nq`); see `register` for the rest."""
    return register(name, _splits(readers.read_nq, path, dev_path), vocabulary_path, exponent)


@gin.configurable(module="tasks")
def register_xor(
    name: str = "xor_retrieve",
    path: str = gin.REQUIRED,
    vocabulary_path: str = gin.REQUIRED,
    dev_path: str | None = None,
    exponent: float = 0.5,
) -> str:
    """Registers XOR-Retrieve or XOR-Full (`readers.read_xor`); see `register` for the rest."""
    return register(name, _splits(readers.read_xor, path, dev_path), vocabulary_path, exponent)


@gin.configurable(module="tasks")
def register_mkqa(
    name: str = "mkqa",
    path: str = gin.REQUIRED,
    vocabulary_path: str = gin.REQUIRED,
    languages: Sequence[str] = readers.MKQA_LANGUAGES,
    keep_unanswerable: bool = False,
    exponent: float = 0.5,
) -> str:
    """Registers MKQA (`readers.read_mkqa`), a benchmark without training data, as split `test`."""
    read = functools.partial(readers.read_mkqa, path, tuple(languages), keep_unanswerable=keep_unanswerable)
    return register(name, {"test": read}, vocabulary_path, exponent)


@gin.configurable(module="tasks")
def register_benchmark(
    name: str = gin.REQUIRED,
    builder: str = gin.REQUIRED,
    data_dir: str = gin.REQUIRED,
    vocabulary_path: str = gin.REQUIRED,
    exponent: float = 0.5,
) -> str:
    """Registers every split of a benchmark that TFDS has prepared (`tasks.benchmarks`).

    Args:
      name: of the mixture.
      builder: `xor_tydi_qa/retrieve`, `xor_tydi_qa/full` or `mkqa`.
      data_dir: where TFDS prepared it.
      vocabulary_path: as in `register`.
      exponent: as in `register`.

    Raises:
      InputError: as `register`; or the benchmark isn't prepared in `data_dir`.
    """
    from class_jax.tasks import benchmarks

    splits = {
        split: functools.partial(benchmarks.read_benchmark, builder, data_dir, split)
        for split in benchmarks.splits_of(builder, data_dir)
    }
    return register(name, splits, vocabulary_path, exponent)


def register(
    name: str,
    splits: Mapping[str, Reader],
    vocabulary_path: str,
    exponent: float = 0.5,
    identity: Any = None,
) -> str:
    """Registers a task ``{name}_{language}`` for each language found, and the mixture `name` of them.

    The files are read once now, to find the languages and their sizes, and once per task that is used; nothing
    of them is kept in memory.

    Args:
      name: of the mixture.
      splits: a reader for each split; the first split decides the rates.
      vocabulary_path: SentencePiece model file, or the id of a Hub repository that has one.
      exponent: task i is mixed in at a rate of n_i^exponent, n_i its number of questions.
      identity: what makes two registrations alike; by default the readers' functions and arguments.

    Returns:
      `name`.

    Raises:
      InputError: the name is registered with other arguments, seqio is not installed, or a file is bad.
    """
    seqio = _import_seqio()
    if identity is None:
        identity = tuple((split, r.func, tuple(map(_plain, r.args)), r.keywords) for split, r in splits.items())
    identity = (identity, os.fspath(vocabulary_path), exponent)
    if name in _registered:
        if _registered[name] != identity:
            raise InputError(
                f"task {name!r} is registered already, with other arguments", key="name", remedy="choose another name"
            )
        return name
    from class_jax.tasks import examples

    vocabulary_file = Vocabulary.load(vocabulary_path).path
    counts = {split: collections.Counter(q.language for q in read()) for split, read in splits.items()}
    languages = sorted(set().union(*counts.values()))
    if not languages:
        raise InputError("there is no question", key=name, remedy="check the files")
    taken = {name, *(f"{name}_{language}" for language in languages)} & {
        *seqio.TaskRegistry.names(),
        *seqio.MixtureRegistry.names(),
    }
    if taken:
        raise InputError(f"{min(taken)!r} is the name of another task", key="name", remedy="choose another name")
    rates = []
    for language in languages:
        sizes = {split: count[language] for split, count in counts.items() if count[language]}
        readers_of_language = {split: functools.partial(_of_language, splits[split], language) for split in sizes}
        task = f"{name}_{language}"
        examples.add_task(task, readers_of_language, sizes, os.fspath(vocabulary_file))
        rates.append((task, float(next(iter(sizes.values()))) ** exponent))
    seqio.MixtureRegistry.add(name, rates)
    _registered[name] = identity
    return name


def _plain(argument: Any) -> Any:
    """Makes a path given as a string and one given as a `Path` compare equal."""
    return os.fspath(argument) if isinstance(argument, os.PathLike) else argument


def _of_language(read: Reader, language: str) -> Iterator[Question]:
    return (question for question in read() if question.language == language)


def _splits(reader: Callable[[str], Iterable[Question]], path: str, dev_path: str | None) -> dict[str, Reader]:
    splits = {"train": functools.partial(reader, path)}
    if dev_path is not None:
        splits["validation"] = functools.partial(reader, dev_path)
    return splits


@functools.cache
def _import_seqio() -> Any:
    """Imports seqio, keeping the accelerators out of TensorFlow's sight: it would take all their memory."""
    try:
        import seqio
        import tensorflow as tf
    except ImportError as error:
        raise InputError(
            f"seqio can't be imported ({error})", key="tasks", remedy="pip install 'class-jax[data]'"
        ) from error
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return seqio
