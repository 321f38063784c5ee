# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Question files as a seqio mixture: one task per language, and the mixture of them."""

import collections
import os
from collections.abc import Iterable, Mapping

from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.questions.question import Question
from class_jax.questions.table import import_seqio

_registered: dict[str, tuple[str, ...]] = {}
"""The tasks of each mixture registered here."""


class Mixture:
    """Questions that can be registered with seqio under a name: a value, which opens no file and imports no TensorFlow.

    Args:
      name: of the mixture.
      splits: the questions of each split, which can be iterated more than once (see `class_jax.questions.readers`).
    """

    def __init__(self, name: str, splits: Mapping[str, Iterable[Question]]):
        self.name, self.splits = name, dict(splits)

    def __repr__(self) -> str:
        return f"Mixture({self.name!r}, {self.splits!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mixture) and (self.name, self.splits) == (other.name, other.splits)

    def __hash__(self) -> int:
        return hash(repr(self))

    def register(self, vocabulary_path: str | os.PathLike, exponent: float = 0.5) -> str:
        """Registers a task ``{name}_{language}`` for each language found, and the mixture of them.

        The files are read once here, to find the languages and their sizes, and once for each task that is used;
        nothing of them is kept in memory. Registering a name again replaces the task. Training examples have
        the features that `tasks.examples` lists.

        Args:
          vocabulary_path: SentencePiece model file, or the id of a Hub repository that has one.
          exponent: task i is mixed in at a rate of n_i^exponent, n_i its number of questions in the first split.

        Returns:
          The name.

        Raises:
          InputError: another task has the name, seqio is not installed, or a file is missing or bad.
        """
        seqio = import_seqio()
        from class_jax.tasks import examples

        vocabulary_file = str(Vocabulary.load(vocabulary_path).path)
        counts = {split: collections.Counter(q.language for q in read) for split, read in self.splits.items()}
        languages = sorted(set().union(*counts.values()))
        if not languages:
            raise InputError("there is no question", key=self.name, remedy="check the files")
        names = {language: f"{self.name}_{language}" for language in languages}
        replaced = _registered.get(self.name, ())
        others = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()} - {*replaced}
        others -= {self.name} if self.name in _registered else set()
        if taken := {self.name, *names.values()} & others:
            raise InputError(f"{min(taken)!r} is the name of another task", key="name", remedy="choose another name")
        for name in replaced:
            seqio.TaskRegistry.remove(name)
        seqio.MixtureRegistry.remove(self.name)
        rates = []
        for language, name in names.items():
            sizes = {split: count[language] for split, count in counts.items() if count[language]}
            splits = {split: self.splits[split] for split in sizes}
            examples.add_task(name, self.name, language, splits, sizes, vocabulary_file)
            rates.append((name, float(next(iter(sizes.values()))) ** exponent))
        seqio.MixtureRegistry.add(self.name, rates)
        _registered[self.name] = tuple(names.values())
        return self.name
