# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The training questions as columns of numpy arrays: millions of them in tens of bytes each."""

import array
import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from class_jax.corpus.inputs import encode_answer, encode_question
from class_jax.errors import InputError, nearest
from class_jax.questions.question import Question

if TYPE_CHECKING:
    from class_jax.corpus.vocabulary import Vocabulary


class Ragged:
    """Sequences of different lengths, end to end in one array.

    Args:
      values: all elements, [sum of lengths].
      offsets: where each sequence starts, and the end, [sequences + 1] int64.
    """

    def __init__(self, values: np.ndarray, offsets: np.ndarray):
        self.values, self.offsets = values, offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Length of every sequence, [sequences] int64."""
        return np.diff(self.offsets)

    def row_lengths(self, rows: np.ndarray) -> np.ndarray:
        """Returns the lengths of some rows, of the shape of `rows`; row -1 is an empty sequence."""
        return np.where(rows < 0, 0, self.offsets[rows + 1] - self.offsets[rows])

    def padded(self, rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Gathers rows, each cut to `length` or padded with 0.

        Returns:
          Ids [rows, length] int32 and lengths [rows] int32; row -1 is an empty sequence.
        """
        lengths = np.minimum(self.row_lengths(rows), length).astype(np.int32)
        ids = np.zeros((len(rows), length), np.int32)
        filled = np.arange(length) < lengths[:, None]
        ids[filled] = self.values[(self.offsets[rows][:, None] + np.arange(length))[filled]]
        return ids, lengths

    def take(self, rows: np.ndarray) -> "Ragged":
        """Returns the sequences of some rows, in the order of `rows`."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Ragged(self.values[places], offsets)


class _RaggedBuilder:
    """Collects sequences in growing typed buffers, not in Python lists."""

    def __init__(self, typecode: str):
        self._values = array.array(typecode)
        self._offsets = array.array("q", [0])

    def add(self, values: Iterable[int]) -> None:
        self._values.extend(values)
        self._offsets.append(len(self._values))

    def add_text(self, text: str) -> None:
        self._values.frombytes(text.encode("utf-8"))
        self._offsets.append(len(self._values))

    def done(self) -> Ragged:
        dtype = np.uint8 if self._values.typecode == "B" else np.int32
        return Ragged(np.array(self._values, dtype), np.array(self._offsets, np.int64))


@dataclass(frozen=True, eq=False)
class QuestionTable:
    """Questions by row: 0 .. len(table) - 1.

    Attributes:
      ids: UTF-8 bytes of the ids; see `id`.
      texts: UTF-8 bytes of the questions as published; see `text`.
      english_texts: likewise in English, empty where there is none; see `english`.
      question_tokens: tokens of each question (at most 50, no end of sequence).
      english_tokens: tokens of each English counterpart, empty where there is none.
      answer_tokens: tokens of each answer of all questions (at most 50, with end of sequence).
      answer_offsets: [questions + 1] int64; the answers of question i are rows
        ``answer_offsets[i] .. answer_offsets[i + 1] - 1`` of `answer_tokens`, none for retrieval-only data.
      languages: language codes, sorted.
      language_codes: [questions] int16, the place of each question's language in `languages`.
      own_passages: [questions] int64, the store row of the passage that a synthetic question was made from, or -1.
      vocabulary_fingerprint: of the vocabulary that made the tokens.
    """

    ids: Ragged
    texts: Ragged
    english_texts: Ragged
    question_tokens: Ragged
    english_tokens: Ragged
    answer_tokens: Ragged
    answer_offsets: np.ndarray
    languages: tuple[str, ...]
    language_codes: np.ndarray
    own_passages: np.ndarray
    vocabulary_fingerprint: str

    def __len__(self) -> int:
        return len(self.language_codes)

    def id(self, row: int) -> str:
        """Returns the id of a question."""
        return _decode(self.ids[row])

    def text(self, row: int) -> str:
        """Returns a question as published."""
        return _decode(self.texts[row])

    def english(self, row: int) -> str:
        """Returns a question's English counterpart, empty where there is none."""
        return _decode(self.english_texts[row])

    def language(self, row: int) -> str:
        """Returns the code of a question's language."""
        return self.languages[self.language_codes[row]]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of everything that a batch depends on; equal tables have equal fingerprints."""
        digest = hashlib.sha256(repr((self.languages, self.vocabulary_fingerprint)).encode())
        columns = (self.ids, self.texts, self.english_texts)
        tokens = (self.question_tokens, self.english_tokens, self.answer_tokens)
        arrays = [part for ragged in (*columns, *tokens) for part in (ragged.values, ragged.offsets)]
        for part in (*arrays, self.answer_offsets, self.language_codes, self.own_passages):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        return digest.hexdigest()

    @classmethod
    def from_questions(
        cls,
        questions: Iterable[Question],
        vocabulary: "Vocabulary",
        own_passages: Sequence[int] | np.ndarray | None = None,
        max_question_tokens: int = 50,
        max_answer_tokens: int = 50,
    ) -> "QuestionTable":
        """Tokenises questions, streaming.

        Args:
          questions: the questions, in the order of the table's rows.
          vocabulary: their vocabulary.
          own_passages: for each question the store row of the passage it was made from, -1 for none.
          max_question_tokens: where questions are cut.
          max_answer_tokens: where answers are cut, the end of sequence included.

        Raises:
          InputError: an id occurs twice, a language is unknown, or `own_passages` is of another length.
        """

        def encoded() -> Iterator[_Row]:
            for question in questions:
                yield _Row(
                    question,
                    encode_question(vocabulary, question.text, question.language, max_question_tokens),
                    encode_question(vocabulary, question.english, "en", max_question_tokens)
                    if question.english
                    else [],
                    [encode_answer(vocabulary, answer, max_answer_tokens) for answer in question.answers],
                )

        return _collect(encoded(), vocabulary.fingerprint, own_passages)

    @classmethod
    def from_task(
        cls,
        name: str,
        split: str = "train",
        own_passages: Sequence[int] | np.ndarray | None = None,
        max_question_tokens: int = 50,
        max_answer_tokens: int = 50,
    ) -> "QuestionTable":
        """Reads every question of a registered seqio task or mixture once.

        The examples have the features that `class_jax.tasks.examples` lists. Rows are in the order of the question
        files, whatever the tasks by language are called: the same table as `from_questions` makes of the mixture's
        reader. A mixture of several such mixtures has their questions one after the other, by name. The mixture's
        rates say how seqio would sample; the table holds each question once, and training samples its languages by
        `class_jax.training.sampler`.

        Args:
          name: of a registered task or mixture.
          split: of it.
          own_passages: as in `from_questions`, in the order of the rows.
          max_question_tokens: where questions are cut.
          max_answer_tokens: where answers are cut, the end of sequence included.

        Raises:
          InputError: seqio is not installed, there is no such task or split, an id occurs twice.
        """
        seqio = import_seqio()
        from class_jax.corpus.vocabulary import Vocabulary

        known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
        if name not in known:
            raise InputError(f"no task or mixture {name!r}", key="task", remedy=nearest(name, known))
        tasks = seqio.get_subtasks(seqio.get_mixture_or_task(name))
        splits = {s for task in tasks for s in task.splits}
        if split not in splits:
            raise InputError(f"no split {split!r}", key=name, remedy=nearest(split, splits))
        vocabulary = Vocabulary.load(tasks[0].output_features["inputs"].vocabulary.sentencepiece_model_file)
        lengths = {"inputs": max_question_tokens, "english": max_question_tokens, "targets": max_answer_tokens}
        places: list[tuple[str, int]] = []

        def encoded() -> Iterator[_Row]:
            for task in tasks:
                if split not in task.splits:
                    continue
                dataset = task.get_dataset(sequence_length=lengths, split=split, shuffle=False, num_epochs=1)
                for example in dataset.as_numpy_iterator():
                    if missing := _FEATURES - example.keys():
                        remedy = "register it by class_jax.tasks.Mixture"
                        raise InputError(f"has no feature {min(missing)!r}", key=task.name, remedy=remedy)
                    places.append((example["collection"].decode("utf-8"), int(example["row"])))
                    yield _row_of_example(example)

        table = _collect(encoded(), vocabulary.fingerprint, None)
        order = np.array(sorted(range(len(places)), key=places.__getitem__), np.int64)
        return dataclasses.replace(_reordered(table, order), own_passages=_own_passages(own_passages, len(order)))


def import_seqio() -> Any:
    """Imports seqio, with the accelerators hidden from TensorFlow, which would take all their memory.

    Raises:
      InputError: if it can't be imported.
    """
    try:
        import seqio
        import tensorflow as tf
    except ImportError as error:
        raise InputError(
            f"seqio can't be imported ({error})",
            key="tasks",
            remedy="pip install 'class-jax[train]', or set data.DataConfig.questions to a reader",
        ) from error
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return seqio


@dataclass(slots=True)
class _Row:
    question: Question
    tokens: Sequence[int]
    english_tokens: Sequence[int]
    answer_tokens: list[Sequence[int]]


_FEATURES = frozenset(
    ("id", "question", "language", "english_question", "inputs", "english", "answers", "collection", "row")
)


def _row_of_example(example: dict) -> _Row:
    """Turns an example of a task of `tasks` into a row; its answers are padded with 0."""
    names = ("id", "question", "language", "english_question")
    question_id, text, language, english = (example[name].decode("utf-8") for name in names)
    question = Question(question_id, text, (), language, english or None)
    answers = [answer[answer != 0].tolist() for answer in example["answers"]]
    return _Row(question, example["inputs"].tolist(), example["english"].tolist(), answers)


def _collect(
    rows: Iterable[_Row], vocabulary_fingerprint: str, own_passages: Sequence[int] | np.ndarray | None
) -> QuestionTable:
    ids, texts, english_texts = (_RaggedBuilder("B") for _ in range(3))
    tokens, english_tokens, answer_tokens = (_RaggedBuilder("i") for _ in range(3))
    answer_offsets, languages = array.array("q", [0]), []
    seen: set[str] = set()
    for row in tqdm(rows, desc="questions", unit="q", disable=None):
        question = row.question
        if question.id in seen:
            raise InputError("duplicate question id", key=question.id, remedy="rename or remove one of the two")
        seen.add(question.id)
        ids.add_text(question.id)
        texts.add_text(question.text)
        english_texts.add_text(question.english or "")
        tokens.add(row.tokens)
        english_tokens.add(row.english_tokens)
        for answer in row.answer_tokens:
            answer_tokens.add(answer)
        answer_offsets.append(answer_offsets[-1] + len(row.answer_tokens))
        languages.append(question.language)
    own = _own_passages(own_passages, len(languages))
    names = tuple(sorted(set(languages)))
    place = {name: i for i, name in enumerate(names)}
    return QuestionTable(
        ids=ids.done(),
        texts=texts.done(),
        english_texts=english_texts.done(),
        question_tokens=tokens.done(),
        english_tokens=english_tokens.done(),
        answer_tokens=answer_tokens.done(),
        answer_offsets=np.array(answer_offsets, np.int64),
        languages=names,
        language_codes=np.fromiter((place[name] for name in languages), np.int16, len(languages)),
        own_passages=own,
        vocabulary_fingerprint=vocabulary_fingerprint,
    )


def _decode(raw: np.ndarray) -> str:
    return raw.tobytes().decode("utf-8")


def _own_passages(given: Sequence[int] | np.ndarray | None, count: int) -> np.ndarray:
    own = np.full(count, -1, np.int64) if given is None else np.asarray(given, np.int64)
    if own.shape != (count,):
        raise InputError(
            f"{own.shape[0] if own.ndim else 0} own passages for {count} questions",
            key="own_passages",
            remedy="give one row or -1 for each question",
        )
    return own


def _reordered(table: QuestionTable, order: np.ndarray) -> QuestionTable:
    """The same questions in another order."""
    columns = ("ids", "texts", "english_texts", "question_tokens", "english_tokens")
    counts = np.diff(table.answer_offsets)[order]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    answers = np.repeat(table.answer_offsets[order] - offsets[:-1], counts) + np.arange(offsets[-1])
    return dataclasses.replace(
        table,
        **{name: getattr(table, name).take(order) for name in columns},
        answer_tokens=table.answer_tokens.take(answers),
        answer_offsets=offsets,
        language_codes=table.language_codes[order],
        own_passages=table.own_passages[order],
    )
