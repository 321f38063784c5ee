# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Batches for training: questions joined, in NumPy, with the passages of their current lists.

A batch is a function of (seed, step, question table, passage lists) and nothing else, so the saved state is
a few numbers: a run resumed at any step, on any number of hosts, sees the batches it would have seen.

Axes: B questions, N passages per question, Q question tokens, P passage tokens, A answer tokens.
"""

import collections
import concurrent.futures
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from class_jax.corpus.inputs import encode_question
from class_jax.errors import InputError
from class_jax.objectives.batch import Batch, Stage
from class_jax.questions.table import QuestionTable, Ragged
from class_jax.training.noise import add_noise
from class_jax.training.sampler import LanguageSampler, counter_rng

if TYPE_CHECKING:
    from class_jax.corpus.store import TokenStore
    from class_jax.corpus.vocabulary import Vocabulary
    from class_jax.refresh.lists import PassageLists
    from class_jax.training.token_slots import Packer

_ANSWER_STREAM = 2
_NOISE_STREAM = 3
_LISTS_KEPT = 4
# Checkpoints of version 0.1 have numbers.
_NUMBERED_STAGES = {1: Stage.STAGE1.value, 2: Stage.END_TO_END.value}


class Teacher(Protocol):
    """A teacher that scores on the CPU, such as BM25; it reads English only."""

    def scores(self, texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Scores every question against every passage.

        Args:
          texts: [B] English questions.
          rows: [M] rows of passages in the token store.

        Returns:
          [B, M] float32, higher is better.
        """


class TeacherTexts(NamedTuple):
    """What a teacher that is a model reads, in its own tokens.

    Attributes:
      vocabulary: the teacher's.
      store: the run's passages in the same rows, as tokens of that vocabulary.
      max_question_tokens: longer questions are cut.
    """

    vocabulary: "Vocabulary"
    store: "TokenStore"
    max_question_tokens: int = 50

    def question(self, text: str) -> np.ndarray:
        """Returns the tokens of an English question, [Q] int32, without end of sequence."""
        return np.array(encode_question(self.vocabulary, text, "en", self.max_question_tokens), np.int32)


def bucket(length: int, buckets: Sequence[int], key: str) -> int:
    """Returns the smallest bucket that holds `length` tokens.

    Raises:
      InputError: no bucket does.
    """
    for size in buckets:
        if length <= size:
            return size
    raise InputError(f"{length} tokens don't fit the largest bucket {buckets[-1]}", key=key, remedy="add a bucket")


class Feed:
    """The batches of a run, by step.

    Args:
      table: the questions.
      store: the passages (`class_jax.corpus.store.TokenStore`).
      lists: ranked passage rows of every question (`class_jax.refresh.lists.PassageLists`), or None
        until `set_lists`.
      batch_size: questions a step over all hosts, B (in stage 1: parallel pairs).
      num_passages: passages per question, N.
      seed: of the question order and of the choice among a question's answers.
      stage: "stage1" for distillation on parallel pairs, "end_to_end" for stage 2 and fine-tuning.
      host_index: this host; it gets the `host_index`-th of `host_count` equal slices of every array.
      host_count: number of hosts that read different slices; see `class_jax.distributed.sharding.host_share`.
      question_buckets: lengths that Q may take, ascending; likewise the other two for P and A. A batch takes
        the smallest that holds it on all hosts, so that all hosts agree on shapes and few are compiled.
      teacher: scores passages for the English questions of stage 1; None where the teacher is a model.
      teacher_temperature: divides the teacher's scores.
      teacher_texts: what the teacher reads where it is a model, which scores in the training step.
      exponent: of the language sampling.
      noise: (ids of pieces, runs to expect) put into questions at random; see `class_jax.training.noise`.
      packer: counts the slots of the batch's packed tokens; None leaves them padded.

    Raises:
      InputError: a setting or the questions don't fit the others.
    """

    def __init__(
        self,
        table: QuestionTable,
        store: "TokenStore",
        lists: "PassageLists | None",
        batch_size: int,
        num_passages: int,
        seed: int,
        stage: Stage | str,
        host_index: int = 0,
        host_count: int = 1,
        question_buckets: Sequence[int] = (16, 32, 50),
        passage_buckets: Sequence[int] = (64, 128, 200),
        answer_buckets: Sequence[int] = (8, 16, 24, 32, 40, 50),
        teacher: Teacher | None = None,
        teacher_temperature: float = 1.0,
        teacher_texts: TeacherTexts | None = None,
        exponent: float = 0.5,
        noise: tuple[np.ndarray, float] | None = None,
        packer: "Packer | None" = None,
    ):
        self.table, self.store, self.teacher = table, store, teacher
        self.batch_size, self.num_passages, self.stage = batch_size, num_passages, Stage.parse(stage)
        self.host_index, self.host_count = host_index, host_count
        self.question_buckets = tuple(question_buckets)
        self.passage_buckets = tuple(passage_buckets)
        self.answer_buckets = tuple(answer_buckets)
        self.teacher_temperature, self.teacher_texts = teacher_temperature, teacher_texts
        self.noise, self.packer = noise, packer
        self._check_settings()
        self.sampler = LanguageSampler(table.language_codes, seed, exponent)
        self._lock = threading.Lock()
        self._built = -1  # the latest step whose batch was built
        self._schedule: tuple[tuple[int, PassageLists], ...] = ()  # (first step, lists), ascending
        if lists is not None:
            self.set_lists(lists)

    def _check_settings(self) -> None:
        for key, value in (("batch_size", self.batch_size), ("num_passages", self.num_passages)):
            if value < 1:
                raise InputError(f"{value} is less than 1", key=key)
        if not 0 <= self.host_index < self.host_count:
            raise InputError(f"host {self.host_index} of {self.host_count}", key="host_index")
        if self.batch_size % self.host_count:
            raise InputError(
                f"{self.batch_size} questions can't be split among {self.host_count} hosts",
                key="batch_size",
                remedy="use a multiple of the number of hosts",
            )
        for key in ("question_buckets", "passage_buckets", "answer_buckets"):
            sizes = getattr(self, key)
            if not sizes or sizes[0] < 1 or any(a >= b for a, b in itertools.pairwise(sizes)):
                raise InputError(f"{sizes} is not an ascending list of lengths", key=key)
        if (self.teacher is not None or self.teacher_texts is not None) and self.stage is not Stage.STAGE1:
            raise InputError("only stage 1 has a teacher", key="teacher", remedy="leave it out")
        if not self.teacher_temperature > 0:
            raise InputError(f"{self.teacher_temperature} is not positive", key="teacher_temperature")
        if self.stage is Stage.STAGE1:
            lacking = np.flatnonzero(self.table.english_tokens.lengths == 0)
            if lacking.size:
                raise InputError(
                    f"question {self.table.id(lacking[0])!r} has no English (nor have {lacking.size - 1} others)",
                    key="stage",
                    remedy="stage 1 needs parallel questions",
                )
        if self.store.manifest["vocabulary"]["fingerprint"] != self.table.vocabulary_fingerprint:
            raise InputError(
                "the questions and the token store have different vocabularies",
                key="vocabulary",
                remedy="build both with the same SentencePiece model",
            )

    def set_lists(self, lists: "PassageLists", from_step: int | None = None) -> int:
        """Switches to other passage lists, whole: no batch mixes two versions.

        Args:
          lists: the lists.
          from_step: the first step that uses them; by default the first whose batch is not built yet, which
            under `prefetch` depends on how far ahead the thread is. Give it where runs must be repeatable.

        Returns:
          The first step that uses them.

        Raises:
          InputError: the lists are not of these questions and passages, have fewer passages than
            `num_passages`, or the batch of `from_step` is built already.
        """
        questions, ranks = lists.rows.shape
        if questions != len(self.table):
            raise InputError(
                f"passage lists of {questions} questions for a table of {len(self.table)}",
                key=f"lists version {lists.version}",
                remedy="make the lists again for these questions",
            )
        if ranks < self.num_passages:
            raise InputError(
                f"passage lists of {ranks} for num_passages {self.num_passages}",
                key=f"lists version {lists.version}",
                remedy="make longer lists or lower num_passages",
            )
        for what, made_for, mine in (
            ("corpus", lists.corpus, self.store.fingerprint),
            ("question table", lists.questions, self.table.fingerprint),
        ):
            if made_for and made_for != mine:
                raise InputError(
                    f"passage lists of another {what} ({made_for[:12]}, now {mine[:12]})",
                    key=f"lists version {lists.version}",
                    remedy="make the lists again for these questions and passages",
                )
        with self._lock:
            first = self._built + 1 if from_step is None else from_step
            if first <= self._built:
                raise InputError(
                    f"the batch of step {self._built} is built already",
                    key="from_step",
                    remedy=f"use {self._built + 1} or more",
                )
            kept = tuple((step, old) for step, old in self._schedule if step < first)
            self._schedule = (*kept, (first, lists))[-_LISTS_KEPT:]
        return first

    def lists_step(self, step: int) -> int:
        """Returns the training step of the weights that made the passage lists of the batch of `step`.

        Raises:
          InputError: there are none.
        """
        return self._lists_at(step).step

    def rows_between(self, start: int, stop: int) -> np.ndarray:
        """Returns the question rows that steps start..stop-1 train on, [questions] int64, sorted, each once."""
        return np.unique(self.sampler.draws(start * self.batch_size, stop * self.batch_size))

    def question_rows(self, step: int) -> np.ndarray:
        """Returns the rows of the question table that `step` trains on, of all hosts, [B] int64."""
        return self.sampler.rows(step, self.batch_size)

    def batch(self, step: int) -> Batch:
        """Builds this host's slice of the batch of `step`; the slices of all hosts concatenate to the whole.

        Returns:
          NumPy arrays [B / hosts, ...] (`teacher_scores`: [B / hosts, B * N]). `teacher_scores` is set with a
          teacher that scores on the CPU, the other teacher fields with teacher texts, slots with a packer; slots
          are the same on all hosts.

        Raises:
          InputError: there are no passage lists, or too short ones for a question of this step.
        """
        with self._lock:
            lists = self._lists_at(step)
            self._built = max(self._built, step)
        rows = self.question_rows(step)
        passages = self._passage_rows(rows, lists)
        answers = self._answer_rows(rows, step)
        share = self.batch_size // self.host_count
        mine = slice(self.host_index * share, (self.host_index + 1) * share)
        batch, question_lengths = self._readings(rows, answers, step)
        passage_lengths = self.store.lengths[passages.ravel()].reshape(passages.shape)
        P = bucket(int(passage_lengths.max()), self.passage_buckets, "passage_buckets")
        ids, lengths = self.store.batch(passages[mine], length=P)
        batch |= {"passage_ids": ids, "passage_lengths": lengths}
        if self.packer is not None:
            batch["token_slots"] = self.packer(question_lengths, passage_lengths, stage=self.stage)
        if self.teacher is not None:
            english = [self.table.english(row) for row in rows[mine]]
            scores = np.asarray(self.teacher.scores(english, passages.ravel()), np.float32)
            batch["teacher_scores"] = scores / np.float32(self.teacher_temperature)
        if self.teacher_texts is not None:
            batch |= self._teacher_readings(self.teacher_texts, rows, passages, mine)
        return Batch(**batch)

    def state(self, step: int | None = None) -> dict[str, Any]:
        """Returns what a checkpoint needs to continue, as a small JSON object.

        Args:
          step: the next step to train; the step after the last built batch by default, which runs ahead
            of the training under `prefetch`: pass it then.
        """
        with self._lock:
            step = self._built + 1 if step is None else step
            schedule = self._schedule
        current = max((first for first, _ in schedule if first <= step), default=0)
        return {
            **self._identity(),
            "step": step,
            "lists": [[first, int(lists.version)] for first, lists in schedule if first >= current],
        }

    def restore(self, state: dict[str, Any], load_lists: "Callable[[int], PassageLists] | None" = None) -> int:
        """Continues from a saved state.

        Args:
          state: what `state` returned.
          load_lists: returns the passage lists of a version; without it the lists that are set must be
            those of the state already.

        Returns:
          The next step to train.

        Raises:
          InputError: the state is of other questions, passages, seed or batch size, or its lists are missing.
        """
        for key, mine in self._identity().items():
            saved = state.get(key)
            if key == "stage":
                saved = _NUMBERED_STAGES.get(saved, saved)
            if saved != mine:
                raise InputError(
                    f"the saved run has {saved!r}, this one {mine!r}",
                    key=f"feed.{key}",
                    remedy="continue with the saved run's data and settings, or start a new run",
                )
        step = int(state["step"])
        with self._lock:
            self._built = step - 1
        if load_lists is not None:
            with self._lock:
                self._built, self._schedule = -1, ()
            for first, version in state["lists"]:
                self.set_lists(load_lists(version), from_step=first)
            with self._lock:
                self._built = step - 1
        found = self.state(step)["lists"]
        if [version for _, version in found] != [version for _, version in state["lists"]]:
            raise InputError(
                f"the saved run used versions {state['lists']}, set are {found}",
                key="feed.lists",
                remedy="load the passage lists that the checkpoint names",
            )
        return step

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.sampler.seed,
            "exponent": self.sampler.exponent,
            "batch_size": self.batch_size,
            "stage": self.stage.value,
            "num_passages": self.num_passages,
            "questions": self.table.fingerprint,
            "passages": self.store.fingerprint,
        }

    def _lists_at(self, step: int) -> "PassageLists":
        for first, lists in reversed(self._schedule):
            if first <= step:
                return lists
        raise InputError(
            f"step {step} has no passage lists", key="lists", remedy="search passages for the questions first"
        )

    def _passage_rows(self, rows: np.ndarray, lists: "PassageLists") -> np.ndarray:
        """Returns the first N passages of each question's list but its own passage, [B, N] int64."""
        candidates = np.asarray(lists.rows[rows], np.int64)
        usable = (candidates >= 0) & (candidates != self.table.own_passages[rows][:, None])
        counts = usable.sum(axis=1)
        if (short := np.flatnonzero(counts < self.num_passages)).size:
            raise InputError(
                f"question {self.table.id(rows[short[0]])!r} has {counts[short[0]]} passages in its list, "
                f"num_passages asks for {self.num_passages}",
                key=f"lists version {lists.version}",
                remedy="make longer lists or lower num_passages",
            )
        if candidates.max() >= self.store.num_passages:
            raise InputError(
                f"passage row {candidates.max()} in a store of {self.store.num_passages} passages",
                key=f"lists version {lists.version}",
                remedy="make the lists again for this token store",
            )
        best = np.argsort(~usable, axis=1, kind="stable")[:, : self.num_passages]
        return np.take_along_axis(candidates, best, axis=1)

    def _answer_rows(self, rows: np.ndarray, step: int) -> np.ndarray:
        """Draws one answer a question, [B] rows of `table.answer_tokens`; -1 for a question without any."""
        first, stop = self.table.answer_offsets[rows], self.table.answer_offsets[rows + 1]
        draws = counter_rng(self.sampler.seed, _ANSWER_STREAM, step).random(len(rows))
        return np.where(stop > first, first + (draws * (stop - first)).astype(np.int64), -1)

    def _readings(self, rows: np.ndarray, answers: np.ndarray, step: int) -> tuple[dict[str, Any], np.ndarray]:
        """Returns this host's question and answer arrays, B readings, or 2B in stage 1 (English first).

        And the questions' lengths on all hosts: packing needs them.
        """
        table, english_count = self.table, 0
        Q = int(table.question_tokens.lengths[rows].max())
        if self.stage is Stage.STAGE1:
            Q = max(Q, int(table.english_tokens.lengths[rows].max()))
            english_count = len(rows)
            rows, answers = np.tile(rows, 2), np.tile(answers, 2)
        Q = bucket(Q, self.question_buckets, "question_buckets")
        A = bucket(int(table.answer_tokens.row_lengths(answers).max()), self.answer_buckets, "answer_buckets")
        question_ids, question_lengths = self._questions(rows, english_count, Q, step)
        share = len(rows) // self.host_count
        mine = slice(self.host_index * share, (self.host_index + 1) * share)
        answer_ids, answer_lengths = table.answer_tokens.padded(answers[mine], A)
        readings = {
            "question_ids": question_ids[mine],
            "question_lengths": question_lengths[mine],
            "answer_ids": answer_ids,
            "answer_lengths": answer_lengths,
        }
        return readings, question_lengths

    def _questions(self, rows: np.ndarray, english_count: int, Q: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the questions of all hosts, ids [readings, Q] and lengths; the first of `rows` are English.

        Noise is drawn for the whole batch, so that it does not depend on the number of hosts.
        """
        english_ids, english_lengths = self.table.english_tokens.padded(rows[:english_count], Q)
        other_ids, other_lengths = self.table.question_tokens.padded(rows[english_count:], Q)
        ids, lengths = np.concatenate([english_ids, other_ids]), np.concatenate([english_lengths, other_lengths])
        if self.noise is None:
            return ids, lengths
        return add_noise(ids, lengths, *self.noise, counter_rng(self.sampler.seed, _NOISE_STREAM, step, 0))

    def _teacher_readings(
        self, texts: TeacherTexts, rows: np.ndarray, passages: np.ndarray, mine: slice
    ) -> dict[str, Any]:
        """Returns what a teacher model reads of this host's slice; all hosts agree on the shapes."""
        questions = [texts.question(self.table.english(row)) for row in rows]
        tokens = Ragged(np.concatenate(questions), np.cumsum([0, *map(len, questions)]))
        Q = bucket(int(tokens.lengths.max()), self.question_buckets, "question_buckets")
        all_lengths = texts.store.lengths[passages.ravel()].reshape(passages.shape)
        P = bucket(int(all_lengths.max()), self.passage_buckets, "passage_buckets")
        question_ids, question_lengths = tokens.padded(np.arange(len(rows))[mine], Q)
        passage_ids, passage_lengths = texts.store.batch(passages[mine], length=P)
        readings = {
            "teacher_question_ids": question_ids,
            "teacher_question_lengths": question_lengths,
            "teacher_passage_ids": passage_ids,
            "teacher_passage_lengths": passage_lengths,
        }
        if self.packer is not None:
            readings["teacher_token_slots"] = self.packer(tokens.lengths, all_lengths, stage=Stage.STAGE1)
        return readings


def prefetch(feed: Feed, start: int, depth: int = 2) -> Iterator[Batch]:
    """Yields the batches of steps start, start + 1, ... in order, building up to `depth` ahead in one thread.

    An error in building a batch is raised here when that batch's turn comes. Close the generator to stop.
    """
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="feed") as thread:
        pending: collections.deque[concurrent.futures.Future] = collections.deque()
        step = start
        try:
            while True:
                while len(pending) <= depth:
                    pending.append(thread.submit(feed.batch, step))
                    step += 1
                yield pending.popleft().result()
        finally:
            thread.shutdown(wait=True, cancel_futures=True)
