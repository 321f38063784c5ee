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
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from class_jax.checkpoints.configs import PAPER, TextConfig
from class_jax.common.batching import bucket_lengths
from class_jax.corpus.inputs import PREFIXES, language_code, normalise_question
from class_jax.corpus.store import TokenStore
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.models import answering, inference
from class_jax.models.class_model import Params
from class_jax.models.config import ModelConfig
from class_jax.models.encode import PASSAGE_BUCKETS, Vectors
from class_jax.retrieval import explanation
from class_jax.retrieval.exact import exact_search
from class_jax.retrieval.index import Index, check_corpus, check_model, open_index

_log = logging.getLogger(__name__)

# Without an index, a corpus of at most so many passages is embedded in one padded length, or in two: compiling for
# more lengths takes longer than what they save.
_ONE_LENGTH, _TWO_LENGTHS = 512, 20_000


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


@dataclasses.dataclass(frozen=True)
class Explanation(explanation.ScoreExplanation):
    """Why a passage was found for a question, token by token, and what the reader made of it.

    Attributes:
      passage, score, matches: the passage, its MaxSim score and each question token's part in it.
      question: as given.
      answer: the reader's, from the best passages.
      rank: the passage's place among those, from 1; None if it is not among them.
      attention: P_ca, the share of the reader's attention that it got (paper, section 3.2.2); None if it was not read.
    """

    question: str
    answer: str
    rank: int | None
    attention: float | None


class Retrieved(NamedTuple):
    """Passages found for B questions, best first.

    Attributes:
      rows: of the token store, [B, N] int64; -1 where there was no more.
      scores: [B, N] float32.
      seconds: of the search, by question.
      tokens: of the questions, as they were searched for.
      plan: the batches in which they were embedded and are to be read; None leaves that to `CLASS.read`.
    """

    rows: np.ndarray
    scores: np.ndarray
    seconds: float
    tokens: list[np.ndarray]
    plan: answering.Plan | None = None


class Searcher:
    """A corpus to answer from: its token store, and an index of it if one was built.

    Without an index every search embeds the whole corpus again: exact, and fit for small corpora.

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

    @functools.cached_property
    def longest(self) -> int:
        """Tokens of the longest passage."""
        return int(np.max(self.store.lengths, initial=1))

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
      texts: how its texts are cut.

    Args:
      config, params, vocabulary, texts: as above.
      clock: seconds from any start, for `Answer.timings`.

    Raises:
      InputError: if the vocabulary has more pieces than the model has embeddings.

    Example:
      >>> from class_jax import CLASS, Searcher
      >>> model = CLASS.from_pretrained("runs/demo/stage2")
      >>> corpus = Searcher.open("runs/demo/data/store", vocabulary=model.vocabulary)
      >>> [found] = model.answer(["Which river flows through the town?"], corpus, passages=20, languages="en")
      >>> found.answer, found.passages[0].title
      >>> why = model.explain(found.question, corpus, found.passages[0].id, passages=20, language="en")
      >>> [(match.question_token, match.passage_token, match.share) for match in why.matches]
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Params,
        vocabulary: Vocabulary,
        texts: TextConfig = PAPER,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ):
        if vocabulary.pieces > config.vocab_size:
            raise InputError(
                f"has {vocabulary.pieces} pieces, but the model embeds {config.vocab_size}: it is another model's",
                file=vocabulary.path,
                remedy="give the vocabulary that the model was trained with",
            )
        self.config, self.params, self.vocabulary, self.texts = config, jax.device_put(params), vocabulary, texts
        self._clock = clock

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: str | os.PathLike,
        *,
        vocabulary: str | os.PathLike | Vocabulary | None = None,
        dtype: str | None = None,
        revision: str | None = None,
    ) -> "CLASS":
        """Loads a model: a folder, a training run's folder (finished or not), or a Hugging Face hub id.

        Of a folder only `config.json`, vocabulary, weights and digests are read; no gin is parsed.

        Args:
          folder_or_hub_id: what `save_pretrained`, `class-jax convert` or a training run wrote, or a hub id. Of a run
            the newest whole checkpoint counts.
          vocabulary: SentencePiece model, by path or hub id; None takes the one beside the weights.
          dtype: type of the matrix products, "float32" or "bfloat16"; None takes that of the folder's `config.json`.
            Parameters stay float32.
          revision: of the hub's repository.

        Raises:
          InputError: if the weights or the vocabulary are missing, damaged or don't fit each other.
        """
        from class_jax.checkpoints.pretrained import load_pretrained

        config, params, beside, texts = load_pretrained(folder_or_hub_id, revision=revision)
        chosen = beside if vocabulary is None else vocabulary
        if chosen is None:
            raise InputError(
                "no vocabulary beside the weights",
                file=folder_or_hub_id,
                remedy="give the model's SentencePiece model (--vocabulary), by path or hub id",
            )
        return cls(_with_dtype(config, dtype), params, _vocabulary(chosen), texts)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Writes weights, configuration and vocabulary to a folder, in the Hugging Face layout, with digests.

        Raises:
          InputError: if the disk refuses, or the folder holds anything but a model.
        """
        from class_jax.checkpoints.pretrained import save_pretrained

        save_pretrained(folder, jax.device_get(self.params), self.config, self.vocabulary, texts=self.texts)

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

    def tokenise(self, questions: Sequence[str], languages: str | Sequence[str] | None = None) -> list[np.ndarray]:
        """Tokens of each question, int32 [<= `texts.max_question_tokens`].

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
            is_english = code is not None and language_code(code) == "en"
            text = normalise_question(question) if self.texts.normalise_questions and not is_english else question
            tokens, limit = self.vocabulary.encode(f"{PREFIXES[0]} {text}"), self.texts.max_question_tokens
            if len(tokens) > limit:
                shown = question if len(question) <= 60 else question[:60] + "..."
                _log.warning("question %d cut from %d to %d tokens: %s", i + 1, len(tokens), limit, shown)
            found.append(np.asarray(tokens[:limit], np.int32))
        return found

    def encode_questions(self, questions: Sequence[str], languages: str | Sequence[str] | None = None) -> Vectors:
        """Vectors of questions, in NumPy: [B, Q, K] and mask [B, Q], or dense [B, E]; raises as `tokenise` does."""
        tokens = self.tokenise(questions, languages)
        return self._embed(self._plan(tokens, passages=1, longest=1))

    def retrieve(
        self,
        questions: Sequence[str],
        index: Searcher | TokenStore,
        passages: int = 100,
        languages: str | Sequence[str] | None = None,
        *,
        batch: int | None = None,
    ) -> Retrieved:
        """Finds the best passages of each question; arguments and errors as in `answer`."""
        _positive("passages", passages)
        tokens, corpus = self.tokenise(questions, languages), _searcher(index)
        corpus.check(self)
        k, begun = min(passages, corpus.store.num_passages), self._clock()
        if not tokens:
            return Retrieved(np.empty((0, k), np.int64), np.empty((0, k), np.float32), 0.0, [])
        plan = self._plan(tokens, k, corpus.longest, batch)
        vectors = self._embed(plan)
        if corpus.index is None:
            buckets = _search_buckets(corpus.store.num_passages, plan.passage_tokens)
            encoder = inference.encoder(self.config)
            rows, scores = exact_search(encoder, self.params, corpus.store, vectors, k, buckets=buckets)
        else:
            mask = np.asarray(vectors.mask) if self.config.retriever == "multi_vector" else None
            rows, scores = corpus.index.search(np.asarray(vectors.vectors), mask, k)
        return Retrieved(rows, scores, (self._clock() - begun) / len(tokens), tokens, plan)

    def answer(
        self,
        questions: Sequence[str],
        index: Searcher | TokenStore,
        passages: int = 100,
        languages: str | Sequence[str] | None = None,
        *,
        beams: int = 1,
        max_answer_tokens: int | None = None,
        batch: int | None = None,
        progress: bool | None = None,
    ) -> list[Answer]:
        """Answers questions from a corpus.

        Args:
          questions: B texts.
          index: the corpus; a token store is searched exactly.
          passages: N, read for each question; all of a corpus that has fewer.
          languages: code of each question, or one for all; see `tokenise`.
          beams: 1 decodes greedily, as in the paper; more search with that many beams.
          max_answer_tokens: A; None takes the model's own (50 in the paper).
          batch: questions read at once; None chooses by the memory that they take.
          progress: True shows a bar, False hides it, None shows it on a terminal.

        Returns:
          One `Answer` for each question, in order.

        Raises:
          InputError: for an empty question, an unknown language, an index that other weights or another corpus made, a
            store with another vocabulary, or numbers below 1.
        """
        corpus = _searcher(index)
        found = self.retrieve(questions, corpus, passages, languages, batch=batch)
        reading = self.read(questions, found, corpus.store, beams=beams, max_answer_tokens=max_answer_tokens)
        disable = None if progress is None else not progress
        answers: dict[int, Answer] = {}
        with tqdm(total=len(questions), unit="question", desc="answer", disable=disable) as bar:
            for i, answer in reading:
                answers[i] = answer
                bar.update()
        return [answers[i] for i in range(len(questions))]

    def read(
        self,
        questions: Sequence[str],
        found: Retrieved,
        store: TokenStore,
        *,
        beams: int = 1,
        max_answer_tokens: int | None = None,
        batch: int | None = None,
    ) -> Iterator[tuple[int, Answer]]:
        """Answers from passages already found: yields (position, answer) by batches of like length; see `answer`.

        The batches are those of `found.plan`, unless there is none or `batch` is given.
        """
        _positive("beams", beams)
        max_tokens = self.texts.max_answer_tokens if max_answer_tokens is None else max_answer_tokens
        _positive("max_answer_tokens", max_tokens)
        if not found.tokens:
            return
        has_any = (found.rows >= 0).any(axis=1)
        if not has_any.all():
            key = f"question {int(np.argmin(has_any)) + 1}"
            raise InputError("the index found no passage", key=key, remedy="build the index again")
        plan = found.plan
        if plan is None or batch is not None:
            longest = int(np.max(store.lengths[np.maximum(found.rows, 0)]))
            plan = self._plan(found.tokens, found.rows.shape[1], longest, batch)
        read = functools.partial(answering.read, max_tokens=max_tokens, beams=beams, clock=self._clock)
        for reading in read(self.config, self.params, plan, found.rows, store):
            share = len(reading.members)
            seconds = {"read": reading.read_seconds / share, "decode": reading.decode_seconds / share}
            for place, i in enumerate(reading.members.tolist()):
                text = self.vocabulary.decode(reading.ids[place, : reading.lengths[place]])
                shown = _passages(store, found.rows[i], found.scores[i], reading.passage_attention[place])
                timings = {"retrieve": found.seconds} | seconds
                yield i, Answer(questions[i], text, float(reading.log_probabilities[place]), shown, timings)

    def explain(
        self,
        question: str,
        index: Searcher | TokenStore,
        passage: str | None = None,
        *,
        passages: int = 20,
        language: str | None = None,
    ) -> Explanation:
        """Explains token by token why a passage was found, and what the reader made of it.

        Args:
          question: its text.
          index: the corpus, as in `answer`.
          passage: id of the passage; None takes the one that the reader attended to most.
          passages: N, how many are read beside each other.
          language: code of the question.

        Raises:
          InputError: for an unknown passage, a dense retriever (it has no token matches); and see `answer`.
        """
        corpus = _searcher(index)
        if passage is not None:
            corpus.store.row(passage)  # refuses an unknown one before anything is computed
        [answer] = self.answer([question], corpus, passages, language, progress=False)
        read = {p.id: (rank, p.attention) for rank, p in enumerate(answer.passages, start=1)}
        if passage is None:
            passage = max(answer.passages, key=lambda p: p.attention).id
        found = explanation.explain_passage(self, corpus.store, question, passage, language)
        rank, attention = read.get(passage, (None, None))
        return Explanation(found.passage, found.score, found.matches, question, answer.answer, rank, attention)

    def _embed(self, plan: answering.Plan) -> Vectors:
        return answering.embed_batches(inference.encoder(self.config), self.params, plan)

    def _plan(
        self, tokens: Sequence[np.ndarray], passages: int, longest: int, batch: int | None = None
    ) -> answering.Plan:
        return answering.plan_batches(tokens, self.config, passages, longest, rows=batch)


def _passages(store: TokenStore, rows: np.ndarray, scores: np.ndarray, attention: np.ndarray) -> list[ReadPassage]:
    found = []
    for row, score, share in zip(rows.tolist(), scores.tolist(), attention.tolist(), strict=True):
        if row >= 0:
            passage = store.passage(row)
            found.append(ReadPassage(passage.id, passage.title, passage.text, score, share))
    return found


def _search_buckets(passages: int, longest: int) -> Sequence[int]:
    """Padded lengths in which a corpus is embedded for one search."""
    if passages > _TWO_LENGTHS:
        return PASSAGE_BUCKETS
    half = int(bucket_lengths(np.array([longest // 2]), PASSAGE_BUCKETS)[0])
    return (longest,) if passages <= _ONE_LENGTH else (half, longest)


def _searcher(index: Searcher | TokenStore) -> Searcher:
    return index if isinstance(index, Searcher) else Searcher(index)


def _vocabulary(given: str | os.PathLike | Vocabulary) -> Vocabulary:
    return given if isinstance(given, Vocabulary) else Vocabulary.load(given)


def _with_dtype(config: ModelConfig, dtype: str | None) -> ModelConfig:
    return config if dtype is None else dataclasses.replace(config, dtype=dtype)


def _positive(key: str, value: int) -> None:
    if value < 1:
        raise InputError(f"is {value}", key=key, remedy="give 1 or more")
