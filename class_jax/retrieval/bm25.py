# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""BM25 over any mixture of scripts: a baseline, and a teacher for stage 1 where there is no English model.

Axes: B queries, M passages, R given passage rows, T terms.
"""

import array
import functools
import json
import logging
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from class_jax.common.files import digest_file, read_json, replacing_folder, write_json
from class_jax.errors import InputError

FORMAT = 1
_INSTALL = "pip install 'class-jax[retrieve]'"
_ARRAYS = ("weights", "passages", "starts")

# Scripts written without blanks, and Hangul, whose particles attach to the word: [first, last] code points.
_BIGRAM_RANGES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul letters
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # Han iteration mark, zero
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3130, 0x318F),  # Hangul compatibility letters
    (0x31F0, 0x31FF),  # Katakana extensions
    (0x3400, 0x4DBF),  # Han extension A
    (0x4E00, 0x9FFF),  # Han
    (0xA9E0, 0xA9FF),  # Myanmar extended B
    (0xAA60, 0xAA7F),  # Myanmar extended A
    (0xAC00, 0xD7FF),  # Hangul syllables
    (0xF900, 0xFAFF),  # Han compatibility
    (0x20000, 0x3FFFF),  # Han extensions B and later
)
_JOINERS = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))


class Titled(Protocol):
    """A passage's text and title."""

    title: str
    text: str


class PassageSource(Protocol):
    """The part of the token store that BM25 reads (class_jax.corpus.store.TokenStore)."""

    num_passages: int
    fingerprint: str

    def passage(self, row: int) -> Titled:
        """Returns the passage at `row`."""
        ...


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    """Words with their combining marks, which `\\w` leaves out: Indic vowel signs would cut every word to pieces."""
    marks, first = [], None
    for code in range(0x300, sys.maxunicode + 2):
        is_mark = code <= sys.maxunicode and unicodedata.category(chr(code)) in ("Mn", "Mc")
        if is_mark and first is None:
            first = code
        elif not is_mark and first is not None:
            marks.append(f"{chr(first)}-{chr(code - 1)}")
            first = None
    return re.compile(rf"[\w{''.join(marks)}]+")


@functools.cache
def _bigram_pattern() -> re.Pattern[str]:
    return re.compile("([" + "".join(f"{chr(a)}-{chr(b)}" for a, b in _BIGRAM_RANGES) + "]+)")


class Tokeniser:
    """Splits text of any script into search terms.

    NFKC, lower case, words; runs of Han, Kana, Hangul, Thai, Lao, Myanmar and Khmer become character bigrams
    (a run of one character is unchanged).

    Args:
      stopwords: leave out the usual English stop words.
      stem: reduce words in ASCII letters by the English Snowball stemmer.

    >>> Tokeniser()("The Rivers of Finland; 日本語 2010年")
    ['rivers', 'finland', '日本', '本語', '2010', '年']
    """

    def __init__(self, *, stopwords: bool = True, stem: bool = False):
        self.stopwords, self.stem = stopwords, stem
        self._dropped: frozenset[str] = frozenset(_english_stopwords() if stopwords else ())
        self._new_stemmer = _stemmer_class() if stem else None

    def __call__(self, text: str) -> list[str]:
        """Returns the terms of one text, in order, repeats included."""
        terms = []
        for word in _word_pattern().findall(unicodedata.normalize("NFKC", text).lower().translate(_JOINERS)):
            if word.isascii():
                if word not in self._dropped:
                    terms.append(word)
                continue
            for part in filter(None, _bigram_pattern().split(word)):
                if len(part) > 1 and _bigram_pattern().match(part):
                    terms.extend(part[i : i + 2] for i in range(len(part) - 1))
                else:
                    terms.append(part)
        if self._new_stemmer is not None:
            # A stemmer object is not safe to share between threads, and cheap to make.
            stemmer = self._new_stemmer("english")
            terms = [stemmer.stemWord(term) if term.isascii() else term for term in terms]
        return terms


class BM25:
    """An inverted index with the BM25 weight of every (term, passage) pair worked out in advance.

    Attributes:
      terms: term -> column.
      num_passages: passages in the index.
      corpus: fingerprint of the token store it was built from, or "".
    """

    def __init__(
        self,
        tokeniser: Tokeniser,
        terms: dict[str, int],
        arrays: dict[str, np.ndarray],
        num_passages: int,
        corpus: str = "",
        settings: dict[str, Any] | None = None,
    ):
        """Use `build`, `from_store` or `load`.

        Args:
          tokeniser: the one that made the terms.
          terms: term -> column.
          arrays: `weights` [pairs] float32 and `passages` [pairs] int32, by column, passages ascending within one;
            `starts` [T + 1] int64, where each column begins.
          num_passages: passages in the index.
          corpus: fingerprint of the token store.
          settings: what the index was built with, for the manifest.
        """
        self.terms, self.num_passages, self.corpus = terms, num_passages, corpus
        self._tokeniser, self._arrays, self._settings = tokeniser, arrays, settings or {}

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        *,
        stopwords: bool = True,
        stem: bool = False,
        k1: float = 0.9,
        b: float = 0.4,
        corpus: str = "",
        total: int | None = None,
        progress: bool | None = None,
    ) -> "BM25":
        """Indexes texts, one passage each, row by row.

        Args:
          texts: read once, in row order; only term numbers are kept in memory.
          stopwords: leave out English stop words.
          stem: stem English words.
          k1: saturation of term counts; the default is the usual one for 100-word passages.
          b: strength of length normalisation; likewise.
          corpus: fingerprint of the token store, checked on loading.
          total: number of texts, for the progress bar.
          progress: True shows a bar, False hides it, None shows it on a terminal.

        Raises:
          InputError: if there are no texts or none has a term, or bm25s (or PyStemmer) is not installed.
        """
        bm25s = _import_bm25s()
        tokeniser = Tokeniser(stopwords=stopwords, stem=stem)
        terms: dict[str, int] = {}
        passages = []
        hidden = None if progress is None else not progress
        for text in tqdm(texts, total=total, unit="passage", desc="BM25", disable=hidden):
            passages.append(array.array("i", [terms.setdefault(term, len(terms)) for term in tokeniser(text)]))
        if not terms:
            raise InputError("no text to index", key="corpus", remedy="give passages that hold words")
        index = bm25s.BM25(k1=k1, b=b, method="lucene")
        index.index((passages, terms), create_empty_token=False, show_progress=False)
        scores = index.scores
        arrays = {
            "weights": np.asarray(scores["data"], np.float32),
            "passages": np.asarray(scores["indices"], np.int32),
            "starts": np.asarray(scores["indptr"], np.int64),
        }
        settings = {"stopwords": stopwords, "stem": stem, "k1": k1, "b": b}
        return cls(tokeniser, dict(terms), arrays, len(passages), corpus, settings)

    @classmethod
    def from_store(cls, store: PassageSource, **settings: Any) -> "BM25":
        """Indexes every passage of a token store, title before text; `settings` are those of `build`."""
        passages = (store.passage(row) for row in range(store.num_passages))
        texts = (f"{passage.title} {passage.text}" for passage in passages)
        return cls.build(texts, corpus=store.fingerprint, total=store.num_passages, **settings)

    def search(
        self,
        texts: Sequence[str],
        k: int,
        *,
        exclude: np.ndarray | None = None,
        allowed: np.ndarray | None = None,
        progress: bool | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the k best passages of every query.

        Args:
          texts: B queries.
          k: passages per query.
          exclude: [B] int, a row that is never returned for the query, -1 for none.
          allowed: [M] bool, which rows may be returned; None allows all.
          progress: True shows a bar, False hides it, None shows it on a terminal once a second has passed.

        Returns:
          rows [B, k] int64 and scores [B, k] float32, best first, equal scores by row; passages that share no term
          with the query score 0 and fill the list where too few share one.

        Raises:
          InputError: if fewer than k passages may be returned, or a mask has the wrong shape.
        """
        if allowed is not None and np.shape(allowed) != (self.num_passages,):
            raise InputError(
                f"a mask of {self.num_passages} passages is needed, not {np.shape(allowed)}", key="allowed"
            )
        if exclude is not None and np.shape(exclude) != (len(texts),):
            raise InputError(f"one row for each of {len(texts)} queries is needed", key="exclude")
        barred = None if allowed is None else ~np.asarray(allowed, bool)
        left = self.num_passages - (0 if barred is None else int(barred.sum()))
        rows, found = np.empty((len(texts), k), np.int64), np.empty((len(texts), k), np.float32)
        hidden, delay = (None, 1) if progress is None else (not progress, 0)
        for i, text in enumerate(tqdm(texts, unit="query", desc="BM25 search", disable=hidden, delay=delay)):
            own = -1 if exclude is None else int(exclude[i])
            excluded = own >= 0 and (barred is None or not barred[own])
            if not 0 < k <= left - excluded:
                raise InputError(
                    f"{k} passages a query asked for where {left - excluded} may be returned",
                    key="k",
                    remedy="ask for fewer or add passages",
                )
            scores = self._all_scores(text)
            if barred is not None:
                scores[barred] = -np.inf
            if excluded:
                scores[own] = -np.inf
            rows[i] = _best(scores, k)
            found[i] = scores[rows[i]]
        return rows, found

    def scores(self, texts: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Scores given passages, by looking them up only in the columns of the queries' terms.

        Args:
          texts: B queries.
          rows: [R] passage rows, in any order, repeats allowed.

        Returns:
          [B, R] float32 BM25 scores, the same as `search` gives to those passages (up to rounding).

        Raises:
          InputError: if a row is outside the corpus.
        """
        rows = np.asarray(rows, np.int64)
        if rows.ndim != 1 or (len(rows) and not (rows.min() >= 0 and rows.max() < self.num_passages)):
            raise InputError(f"rows must be [R] within 0..{self.num_passages - 1}", key="rows")
        wanted, back = np.unique(rows, return_inverse=True)
        counts = [self._columns(text) for text in texts]
        used = {column: i for i, column in enumerate(dict.fromkeys(c for count in counts for c in count))}
        weights = np.zeros((len(used), len(wanted)), np.float32)
        for column, i in used.items():
            passages, values = self._column(column)
            at = np.searchsorted(passages, wanted)
            at[at == len(passages)] = 0
            hit = passages[at] == wanted
            weights[i, hit] = values[at[hit]]
        queries = np.zeros((len(texts), len(used)), np.float32)
        for i, count in enumerate(counts):
            for column, times in count.items():
                queries[i, used[column]] = times
        return (queries @ weights)[:, back]

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the index as arrays and JSON, whole or not at all.

        Raises:
          InputError: if the disk refuses the write.
        """
        with replacing_folder(folder) as aside:
            for name in _ARRAYS:
                np.save(aside / f"{name}.npy", self._arrays[name], allow_pickle=False)
            with open(aside / "terms.json", "w", encoding="utf-8") as f:
                json.dump(list(self.terms), f, ensure_ascii=False)
            manifest = {
                "format": FORMAT,
                "corpus": self.corpus,
                "num_passages": self.num_passages,
                "settings": self._settings,
                "digests": {p.name: digest_file(p) for p in sorted(aside.iterdir())},
            }
            write_json(aside / "manifest.json", manifest)

    @classmethod
    def load(cls, folder: str | os.PathLike, *, corpus: str | None = None) -> "BM25":
        """Opens a saved index; the arrays are memory-mapped.

        Args:
          folder: where `save` wrote it.
          corpus: fingerprint of the token store in use; None leaves it unchecked.

        Raises:
          InputError: if a file is missing or altered, or the index belongs to another corpus.
        """
        folder = Path(folder)
        manifest = read_json(folder / "manifest.json")
        rebuild = "build the index again"
        names = {*(f"{name}.npy" for name in _ARRAYS), "terms.json"}
        needed = {"format", "corpus", "num_passages", "settings", "digests"}
        if not isinstance(manifest, dict) or needed - manifest.keys() or set(manifest["digests"]) != names:
            raise InputError("not a BM25 index", file=folder / "manifest.json", remedy=rebuild)
        if manifest["format"] != FORMAT:
            raise InputError(f"format {manifest['format']}, but this version reads {FORMAT}", file=folder)
        if corpus is not None and manifest["corpus"] != corpus:
            raise InputError("built from another corpus", file=folder, key="corpus", remedy=rebuild)
        for name, digest in manifest["digests"].items():
            if not (folder / name).is_file() or digest_file(folder / name) != digest:
                raise InputError("missing or altered since it was written", file=folder / name, remedy=rebuild)
        arrays = {n: np.load(folder / f"{n}.npy", mmap_mode="r", allow_pickle=False) for n in _ARRAYS}
        terms = {term: i for i, term in enumerate(read_json(folder / "terms.json"))}
        settings = manifest["settings"]
        tokeniser = Tokeniser(stopwords=settings["stopwords"], stem=settings["stem"])
        return cls(tokeniser, terms, arrays, manifest["num_passages"], manifest["corpus"], settings)

    def _columns(self, text: str) -> Counter[int]:
        """Returns how often each known term occurs in the text, by column, in a fixed order."""
        return Counter(self.terms[term] for term in self._tokeniser(text) if term in self.terms)

    def _column(self, column: int) -> tuple[np.ndarray, np.ndarray]:
        span = slice(self._arrays["starts"][column], self._arrays["starts"][column + 1])
        return self._arrays["passages"][span], self._arrays["weights"][span]

    def _all_scores(self, text: str) -> np.ndarray:
        scores = np.zeros(self.num_passages, np.float32)
        for column, times in self._columns(text).items():
            passages, values = self._column(column)
            scores[passages] += values * np.float32(times)
        return scores


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """Returns the positions [k] of the highest of scores [M], equal scores by position."""
    if k < len(scores):
        last = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > last)
        level = np.flatnonzero(scores == last)[: k - len(above)]
        above = np.concatenate([above, level])
    else:
        above = np.arange(len(scores))
    return above[np.lexsort((above, -scores[above]))]


def _import_bm25s() -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise InputError("bm25s is not installed", key="BM25", remedy=_INSTALL) from error
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
    return bm25s


def _english_stopwords() -> Sequence[str]:
    _import_bm25s()
    from bm25s.stopwords import STOPWORDS_EN

    return STOPWORDS_EN


def _stemmer_class() -> Any:
    try:
        from Stemmer import Stemmer
    except ImportError as error:
        raise InputError("PyStemmer is not installed", key="stem", remedy=_INSTALL) from error
    return Stemmer
