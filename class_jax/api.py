# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A trained model for its users: load it, embed questions, answer them from a corpus.

    from class_jax import CLASS, Searcher

    model = CLASS.from_pretrained("model")
    corpus = Searcher.open("store", "index", vocabulary=model.vocabulary)
    for answer in model.answer(["mikä joki virtaa Pariisin läpi?"], corpus, passages=100, languages="fi"):
        print(answer.answer, answer.passages[0].title)

Axes: B questions, N passages of one question, Q question tokens, P passage tokens, A answer tokens.
"""

import dataclasses
import functools
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from class_jax.common.batching import bucket_lengths, length_batches, power_of_two
from class_jax.corpus.inputs import PREFIXES, normalise_question, question_text
from class_jax.corpus.store import TokenStore
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.models import inference
from class_jax.models.class_model import Params
from class_jax.models.config import ModelConfig
from class_jax.models.encode import Vectors, encode_questions
from class_jax.retrieval.exact import exact_search
from class_jax.retrieval.index import Index, check_corpus, check_model, open_index

_log = logging.getLogger(__name__)

MAX_QUESTION_TOKENS = 50
# Padded lengths when reading: finer than for retrieval, since all passages of a batch share them.
READ_BUCKETS = (32, 64, 96, 128, 160, 200)
READ_QUESTION_BUCKETS = (16, 24, 32, 40, 50)
# Keys and values that the decoder may hold for one batch of questions, and questions of a batch at most.
_MEMORY_BYTES = 16 * 2**30
_MEMORY_BYTES_CPU = 2**30
_MAX_BATCH = 16


@dataclasses.dataclass(frozen=True)
class ReadPassage:
    """A passage that was read for an answer.

    Attributes:
      id, title, text: as in the corpus.
      score: the retriever's.
      attention: P_ca, the share of the reader's attention that it got (paper, section 3.2.2).
    """

    id: str
    title: str
    text: str
    score: float
    attention: float


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
      question: as given.
      answer: its text.
      log_probability: natural logarithm, summed over the answer's tokens with the end of sequence.
      passages: what was read, in the retriever's order.
      timings: seconds to "retrieve", "read" and "decode": of the question's batch, divided by its questions.
    """

    question: str
    answer: str
    log_probability: float
    passages: list[ReadPassage]
    timings: dict[str, float]


class Retrieved(NamedTuple):
    """Passages found for B questions, best first.

    Attributes:
      rows: of the token store, [B, N] int64; -1 where there was no more.
      scores: [B, N] float32.
      seconds: of the search, by question.
      tokens: of the questions, as they were searched for.
    """

    rows: np.ndarray
    scores: np.ndarray
    seconds: float
    tokens: list[np.ndarray]


class Searcher:
    """A corpus to answer from: its token store, and an index of it if one was built.

    Without an index every search embeds the whole corpus anew: exact, and fit for small corpora.

    Args:
      store: the passages' tokens and texts.
      index: of that store; None searches exactly.
      allow_other_weights: accept an index that other weights made.

    Raises:
      InputError: if the index was made of another corpus.
    """

    def __init__(self, store: TokenStore, index: Index | None = None, *, allow_other_weights: bool = False):
        if index is not None:
            check_corpus(index, store.fingerprint)
        self.store, self.index, self.allow_other_weights = store, index, allow_other_weights

    @classmethod
    def open(
        cls,
        store: str | os.PathLike,
        index: str | os.PathLike | None = None,
        *,
        vocabulary: Vocabulary | None = None,
        allow_other_weights: bool = False,
    ) -> "Searcher":
        """Opens the folders of a token store and of its index.

        Raises:
          InputError: if either is missing or damaged, the store was made with another vocabulary, or the index of
            another store.
        """
        opened = TokenStore.open(store, vocabulary)
        return cls(opened, None if index is None else open_index(index), allow_other_weights=allow_other_weights)

    def check(self, model: "CLASS") -> None:
        """Checks that the model fits.

        Raises:
          InputError: if the store has another vocabulary, or the index other weights or the other kind of vectors.
        """
        made_with = self.store.manifest["vocabulary"]["fingerprint"]
        if made_with != model.vocabulary.fingerprint:
            raise InputError(
                f"made with the vocabulary {made_with[:12]}, but the model has {model.vocabulary.fingerprint[:12]}",
                file=self.store.folder,
                remedy="build the token store with the model's vocabulary",
            )
        if self.index is None:
            return
        if self.index.retriever != model.config.retriever:
            raise InputError(
                f"the index holds vectors of a {self.index.retriever} retriever, but the model's is "
                f"{model.config.retriever}",
                remedy="embed the corpus with this model",
            )
        check_model(self.index, model.retriever_fingerprint, self.allow_other_weights)


class CLASS:
    """A trained model with its vocabulary.

    Attributes:
      config: sizes and kind of retriever.
      params: its parameters, on the device.
      vocabulary: its vocabulary.

    Raises:
      InputError: if the vocabulary has more pieces than the model has embeddings.
    """

    def __init__(self, config: ModelConfig, params: Params, vocabulary: Vocabulary):
        if vocabulary.pieces > config.vocab_size:
            raise InputError(
                f"has {vocabulary.pieces} pieces, but the model embeds {config.vocab_size}: it is another model's",
                file=vocabulary.path,
                remedy="give the vocabulary that the model was trained with",
            )
        self.config, self.params, self.vocabulary = config, jax.device_put(params), vocabulary

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: str | os.PathLike,
        *,
        vocabulary: str | os.PathLike | Vocabulary | None = None,
        dtype: str | None = None,
        revision: str | None = None,
    ) -> "CLASS":
        """Loads a model: a folder, a training run's folder, or a Hugging Face hub id.

        Args:
          folder_or_hub_id: what `save_pretrained`, `class-jax convert` or a training run wrote, or a hub id.
          vocabulary: SentencePiece model, by path or hub id; None takes the one beside the weights.
          dtype: type of the matrix products, "float32" or "bfloat16"; parameters stay float32.
          revision: of the hub's repository.

        Raises:
          InputError: if the weights or the vocabulary are missing, damaged or don't fit each other.
        """
        from class_jax.checkpoints.pretrained import load_pretrained

        if (Path(folder_or_hub_id) / "config.gin").is_file():
            return cls.from_run(folder_or_hub_id, vocabulary=vocabulary, dtype=dtype)
        config, params, beside = load_pretrained(folder_or_hub_id, revision=revision)
        if vocabulary is None and beside is None:
            raise InputError(
                "no vocabulary beside the weights",
                file=folder_or_hub_id,
                remedy="give the model's SentencePiece model (--vocabulary), by path or hub id",
            )
        return cls(_with_dtype(config, dtype), params, _vocabulary(beside if vocabulary is None else vocabulary))

    @classmethod
    def from_run(
        cls,
        folder: str | os.PathLike,
        *,
        vocabulary: str | os.PathLike | Vocabulary | None = None,
        dtype: str | None = None,
    ) -> "CLASS":
        """Loads the newest whole checkpoint of a training run, finished or not; arguments as in `from_pretrained`.

        Raises:
          InputError: if the folder is no run, has no whole checkpoint, or its vocabulary is missing.
        """
        from class_jax.configuration.gin_files import configured
        from class_jax.training import weights
        from class_jax.training.config import TrainConfig

        settings = Path(folder) / "config.gin"
        if not settings.is_file():
            raise InputError("not a training run: it has no config.gin", file=folder, remedy="check the path")
        run = configured(TrainConfig, [str(settings)], [])
        opened = _vocabulary(run.data.vocabulary if vocabulary is None else vocabulary)
        params = weights.load_params(str(folder), run.model, vocabulary=opened.fingerprint)
        return cls(_with_dtype(run.model, dtype), params, opened)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes weights, configuration and vocabulary to a folder, in the Hugging Face layout.

        Raises:
          InputError: if the disk refuses.
        """
        from class_jax.checkpoints.pretrained import save_pretrained

        with tempfile.TemporaryDirectory() as aside:
            path = Path(aside) / "spiece.model"
            path.write_bytes(self.vocabulary.model)
            save_pretrained(folder, jax.device_get(self.params), self.config, vocabulary=path)

    @functools.cached_property
    def retriever_fingerprint(self) -> str:
        """SHA-256 of the weights that make vectors; an index is bound to it."""
        return inference.retriever_fingerprint(self.params, self.config)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all weights and of what gives them their meaning."""
        digest = hashlib.sha256(self.config.fingerprint.encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.params):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(np.asarray(leaf)).data)
        return digest.hexdigest()

    @functools.cached_property
    def _retriever(self) -> Params:
        return inference.retriever_params(self.params)

    def tokenise(self, questions: Sequence[str], languages: str | Sequence[str] | None = None) -> list[np.ndarray]:
        """Tokens of each question, int32 [<= 50].

        Args:
          questions: their texts.
          languages: code of each, or one for all; questions that are not English are normalised, and so are those
            whose language is not given (None).

        Raises:
          InputError: for an empty question, an unknown language, or another number of languages.
        """
        if isinstance(questions, str):
            raise InputError("one string where a list of questions is needed", key="questions", remedy="[question]")
        codes = [languages] * len(questions) if languages is None or isinstance(languages, str) else list(languages)
        if len(codes) != len(questions):
            raise InputError(f"{len(codes)} languages for {len(questions)} questions", key="languages")
        found = []
        for i, (question, code) in enumerate(zip(questions, codes, strict=True)):
            if not question.strip():
                raise InputError("the question is empty", key=f"question {i + 1}", remedy="ask something")
            text = f"{PREFIXES[0]} {normalise_question(question)}" if code is None else question_text(question, code)
            tokens = self.vocabulary.encode(text)
            if len(tokens) > MAX_QUESTION_TOKENS:
                shown = question if len(question) <= 60 else question[:60] + "..."
                limit = MAX_QUESTION_TOKENS
                _log.warning("question %d cut from %d to %d tokens: %s", i + 1, len(tokens), limit, shown)
            found.append(np.asarray(tokens[:MAX_QUESTION_TOKENS], np.int32))
        return found

    def encode_questions(self, questions: Sequence[str], languages: str | Sequence[str] | None = None) -> Vectors:
        """Vectors of questions, on the host: [B, Q, K] and mask [B, Q], or dense [B, E]; raises as `tokenise` does."""
        return self._embed(self.tokenise(questions, languages))

    def retrieve(
        self,
        questions: Sequence[str],
        index: Searcher | TokenStore,
        passages: int = 100,
        languages: str | Sequence[str] | None = None,
    ) -> Retrieved:
        """Finds the best passages of each question; arguments and errors as in `answer`."""
        _positive("passages", passages)
        tokens, corpus = self.tokenise(questions, languages), _searcher(index)
        corpus.check(self)
        k, begun = min(passages, corpus.store.num_passages), time.perf_counter()
        if not tokens:
            return Retrieved(np.empty((0, k), np.int64), np.empty((0, k), np.float32), 0.0, [])
        if corpus.index is None:
            encoder = inference.encoder(self.config)
            rows, scores = exact_search(encoder, self._retriever, corpus.store, tokens, k)
        else:
            vectors, mask = self._embed(tokens)
            mask = mask if self.config.retriever == "multi_vector" else None
            rows, scores = corpus.index.search(vectors, mask, k)
        return Retrieved(rows, scores, (time.perf_counter() - begun) / len(tokens), tokens)

    def answer(
        self,
        questions: Sequence[str],
        index: Searcher | TokenStore,
        passages: int = 100,
        languages: str | Sequence[str] | None = None,
        *,
        beams: int = 1,
        max_answer_tokens: int = 50,
        batch: int | None = None,
        progress: bool | None = None,
    ) -> list[Answer]:
        """Answers questions from a corpus.

        Args:
          questions: B texts.
          index: the corpus; a token store alone is searched exactly.
          passages: N, read for each question; all of a corpus that has fewer.
          languages: code of each question, or one for all; see `tokenise`.
          beams: 1 decodes greedily, as in the paper; more search with that many beams.
          max_answer_tokens: A.
          batch: questions read at once; None chooses by the memory that they take.
          progress: True shows a bar, False hides it, None shows it on a terminal.

        Returns:
          One `Answer` for each question, in order.

        Raises:
          InputError: for an empty question, an unknown language, an index that other weights or another corpus made, a
            store with another vocabulary, or numbers below 1.
        """
        corpus = _searcher(index)
        found = self.retrieve(questions, corpus, passages, languages)
        settings = {"beams": beams, "max_answer_tokens": max_answer_tokens, "batch": batch}
        reading = self.read(questions, found, corpus.store, **settings)
        disable = None if progress is None else not progress
        answers: list[Answer | None] = [None] * len(questions)
        with tqdm(total=len(questions), unit="question", desc="answer", disable=disable) as bar:
            for i, answer in reading:
                answers[i] = answer
                bar.update()
        return answers

    def read(
        self,
        questions: Sequence[str],
        found: Retrieved,
        store: TokenStore,
        *,
        beams: int = 1,
        max_answer_tokens: int = 50,
        batch: int | None = None,
    ) -> Iterator[tuple[int, Answer]]:
        """Answers from passages already found: yields (position, answer) by batches of like length; see `answer`."""
        _positive("beams", beams)
        _positive("max_answer_tokens", max_answer_tokens)
        if not found.tokens:
            return
        if not (found.rows >= 0).any(axis=1).all():
            lost = int(np.argmin((found.rows >= 0).any(axis=1)))
            raise InputError("the index found no passage", key=f"question {lost + 1}", remedy="build the index again")
        longest = np.where(found.rows >= 0, store.lengths[np.maximum(found.rows, 0)], 0).max(axis=1)
        batch = self._batch(batch, found.rows.shape[1], int(longest.max()), len(questions))
        run_reader = inference.reader(self.config)
        run_decoder = inference.decoder(self.config, max_answer_tokens, beams)
        for members, P in length_batches(longest, batch, READ_BUCKETS):
            arrays = _padded(found.tokens, found.rows, store, members, batch, P)
            begun = time.perf_counter()
            memory = jax.block_until_ready(run_reader(self.params, *arrays))
            read = time.perf_counter()
            answers = jax.device_get(run_decoder(self.params, memory))
            del memory  # or the next batch's would lie beside it
            done, share = time.perf_counter(), len(members)
            seconds = {"retrieve": found.seconds, "read": (read - begun) / share, "decode": (done - read) / share}
            for place, i in enumerate(members.tolist()):
                text = self.vocabulary.decode(answers.ids[place, : answers.lengths[place]])
                shown = _passages(store, found.rows[i], found.scores[i], answers.passage_attention[place])
                yield i, Answer(questions[i], text, float(answers.log_probabilities[place]), shown, dict(seconds))

    def _embed(self, tokens: Sequence[np.ndarray]) -> Vectors:
        return encode_questions(inference.encoder(self.config), self._retriever, tokens)

    def _batch(self, batch: int | None, N: int, P: int, count: int) -> int:
        """Questions at once: as asked, or as many as the decoder's keys and values leave room for."""
        if batch is None:
            config = self.config
            width = config.num_decoder_layers * 2 * config.num_heads * config.d_kv
            question = N * (P + MAX_QUESTION_TOKENS) * width * np.dtype(jax.numpy.dtype(config.dtype)).itemsize
            held = _MEMORY_BYTES_CPU if jax.default_backend() == "cpu" else _MEMORY_BYTES
            batch = max(1, min(_MAX_BATCH, held // question))
        _positive("batch", batch)
        return min(batch, power_of_two(count))


def _padded(
    tokens: Sequence[np.ndarray], rows: np.ndarray, store: TokenStore, members: np.ndarray, batch: int, P: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What `inference.reader` takes, for one batch; a short one is filled up with its first question."""
    taken = np.concatenate([members, np.repeat(members[:1], batch - len(members))])
    Q = int(bucket_lengths(np.array([len(tokens[i]) for i in members]), READ_QUESTION_BUCKETS).max())
    question_ids, question_lengths = inference.pad_rows([tokens[i] for i in taken], Q)
    there = rows[taken] >= 0
    passage_ids, passage_lengths = store.batch(np.maximum(rows[taken], 0), P)
    return question_ids, question_lengths, passage_ids, np.where(there, passage_lengths, 0)


def _passages(store: TokenStore, rows: np.ndarray, scores: np.ndarray, attention: np.ndarray) -> list[ReadPassage]:
    found = []
    for row, score, share in zip(rows.tolist(), scores.tolist(), attention.tolist(), strict=True):
        if row >= 0:
            passage = store.passage(row)
            found.append(ReadPassage(passage.id, passage.title, passage.text, score, share))
    return found


def _searcher(index: Searcher | TokenStore) -> Searcher:
    return index if isinstance(index, Searcher) else Searcher(index)


def _vocabulary(given: str | os.PathLike | Vocabulary) -> Vocabulary:
    return given if isinstance(given, Vocabulary) else Vocabulary.load(given)


def _with_dtype(config: ModelConfig, dtype: str | None) -> ModelConfig:
    return config if dtype is None else dataclasses.replace(config, dtype=dtype)


def _positive(key: str, value: int) -> None:
    if value < 1:
        raise InputError(f"is {value}", key=key, remedy="give 1 or more")
