# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Sentence embedders behind one interface: what mining compares sentences of two languages by.

Axes: S sentences, D features.
"""

import dataclasses
import functools
import hashlib
import logging
import re
import unicodedata
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from class_jax.errors import InputError, nearest

_log = logging.getLogger(__name__)
_INSTALL = "pip install 'class-jax[torch]'"


class Embedder(Protocol):
    """Turns sentences of any language into vectors of one space.

    Attributes:
      fingerprint: of all that decides the vectors.
      uses_links: whether `links` change the vectors; where not, nobody needs to look them up.
      min_similarity: cosine below which two sentences have nothing to do with each other, whatever their margin; 0 for
        embedders whose cosines are never near 0, as the trained ones' are.
    """

    fingerprint: str
    uses_links: bool
    min_similarity: float

    def embed(
        self, sentences: Sequence[str], language: str, links: Sequence[Sequence[str]] | None = None
    ) -> np.ndarray:
        """Embeds sentences.

        Args:
          sentences: S texts.
          language: of all of them.
          links: for each sentence, the English titles of the pages that it links to or names; None where unknown.

        Returns:
          [S, D] float32 unit vectors. A sentence in which nothing is found to go by gives zeros.
        """
        ...


@dataclasses.dataclass(frozen=True)
class EmbedderConfig:
    """How sentences are embedded.

    Attributes:
      kind: "links" (offline), "simcse" (the paper's, trained by `class_jax.synthesis.stage1.simcse`) or
        "sentence_transformers".
      model: of "simcse", a folder of weights with their vocabulary; of "sentence_transformers", a folder or hub id.
      batch: sentences encoded at a time.
      max_tokens: of "simcse"; longer sentences are cut.
      dimensions: of "links": D.
    """

    kind: str = "links"
    model: str | None = None
    batch: int = 128
    max_tokens: int = 128
    dimensions: int = 2048

    def __post_init__(self):
        kinds = ("links", "simcse", "sentence_transformers")
        if self.kind not in kinds:
            raise InputError(
                f"unknown value {self.kind!r}", key="EmbedderConfig.kind", remedy=nearest(self.kind, kinds)
            )
        if (self.model is None) != (self.kind == "links"):
            problem = "must be set" if self.model is None else "is set, but links have no model"
            raise InputError(problem, key="EmbedderConfig.model", remedy=f"for kind {self.kind!r}")


@functools.lru_cache(maxsize=2)
def open_embedder(config: EmbedderConfig) -> Embedder:
    """Opens an embedder, once a process.

    Raises:
      InputError: if its model can't be loaded, or what it needs is not installed.
    """
    if config.kind == "simcse":
        return SimcseEmbedder(config.model, batch=config.batch, max_tokens=config.max_tokens)
    if config.kind == "sentence_transformers":
        return SentenceTransformersEmbedder(config.model, batch=config.batch)
    return LinkEmbedder(config.dimensions)


_WORD = re.compile(r"\w+")
_GROUPED = re.compile(r"(?<=\d)[ \u00a0\u202f.,'’](?=\d{3}(?!\d))")
_DIGITS = re.compile(r"\d+(?:[.,]\d+)?")


class LinkEmbedder:
    """The offline default, which learns nothing: sentences are alike that link to the same articles.

    Three parts, each of length 1 before weighting: titles linked to (mapped to English over the language links, the
    only part that speaks of meaning across scripts), numbers (digits of any script), and character trigrams of words
    in Latin letters (names that are spelt alike). It finds pairs of sentences about the same things, not translations:
    a page without links, or whose sentences all name the same, gives nothing or noise. For training data of quality
    use a trained embedder.

    Args:
      dimensions: features are hashed into so many.
    """

    uses_links = True
    # Most of these cosines are near 0: the ratio of two such numbers says nothing.
    min_similarity = 0.2
    _WEIGHTS = (("link", 0.6), ("number", 0.25), ("trigram", 0.15))

    def __init__(self, dimensions: int = 2048) -> None:
        if dimensions < 1:
            raise InputError(f"is {dimensions}", key="EmbedderConfig.dimensions", remedy="choose 1024 or more")
        self._dimensions = dimensions
        self.fingerprint = f"links-1-{dimensions}"

    def embed(
        self, sentences: Sequence[str], language: str, links: Sequence[Sequence[str]] | None = None
    ) -> np.ndarray:
        """Embeds sentences; see `Embedder`."""
        del language
        vectors = np.zeros((len(sentences), self._dimensions), np.float32)
        for i, sentence in enumerate(sentences):
            features = {
                "link": links[i] if links is not None else (),
                "number": numbers_in(sentence),
                "trigram": _trigrams(sentence),
            }
            for kind, weight in self._WEIGHTS:
                self._add(vectors[i], kind, features[kind], weight)
        return _unit(vectors)

    def _add(self, vector: np.ndarray, kind: str, features: Iterable[str], weight: float) -> None:
        """Adds a part of length sqrt(weight), so that a cosine is the weighted mean of the parts'."""
        distinct = sorted(set(features))
        if not distinct:
            return
        hashes = [zlib.crc32(f"{kind} {feature}".encode()) for feature in distinct]
        signs = np.array([1.0 if value & 1 else -1.0 for value in hashes], np.float32)
        places = np.array([(value >> 1) % self._dimensions for value in hashes])
        np.add.at(vector, places, signs * np.float32(np.sqrt(weight / len(distinct))))


def numbers_in(sentence: str) -> list[str]:
    """Returns the numbers of a sentence in ASCII digits, without separators of thousands, a decimal comma as a point.

    >>> numbers_in("১৯৪৫ 12.345 ja 3,5")
    ['1945', '12345', '3.5']
    """
    ascii_digits = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in sentence)
    return [number.replace(",", ".") for number in _DIGITS.findall(_GROUPED.sub("", ascii_digits))]


def _trigrams(sentence: str) -> list[str]:
    found = []
    for word in _WORD.findall(unicodedata.normalize("NFKD", sentence).lower()):
        if word.isascii() and len(word) > 2 and not word.isdecimal():
            found += [f" {word} "[i : i + 3] for i in range(len(word))]
    return found


class SimcseEmbedder:
    """The paper's way: the mean-pooled encoder of a model trained by `class_jax.synthesis.stage1.simcse`.

    Args:
      folder: of weights in any layout that `load_pretrained` reads, with their vocabulary; or a hub id.
      batch: sentences encoded at a time.
      max_tokens: longer sentences are cut.

    Raises:
      InputError: if there are no weights or no vocabulary there.
    """

    uses_links = False
    min_similarity = 0.0

    def __init__(self, folder: str, *, batch: int = 128, max_tokens: int = 128) -> None:
        # JAX is loaded in the processes that encode, and only there.
        import jax

        from class_jax.checkpoints.pretrained import load_pretrained
        from class_jax.corpus.vocabulary import Vocabulary
        from class_jax.models.class_model import merge, model_graph
        from class_jax.synthesis.stage1 import simcse

        config, params, vocabulary, _ = load_pretrained(folder)
        if vocabulary is None:
            raise InputError("no vocabulary beside the weights", file=folder, remedy="put its spiece.model there")
        self._vocabulary, self._batch, self._max_tokens = Vocabulary.load(vocabulary), batch, max_tokens
        part = simcse.trained_part(params)
        digest = hashlib.sha256(f"{self._vocabulary.fingerprint} {max_tokens}".encode())
        for path, leaf in jax.tree_util.tree_leaves_with_path(part):
            digest.update(jax.tree_util.keystr(path).encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        self.fingerprint = digest.hexdigest()
        config = dataclasses.replace(config, dropout_rate=0.0, remat="none")
        self._params = jax.device_put(simcse.with_stand_ins(part, config))
        graph = model_graph(config)
        self._encode = jax.jit(
            lambda params, ids, lengths: simcse.unit(simcse.sentence_vectors(merge(graph, params), ids, lengths))
        )
        self._width = config.d_model

    def embed(
        self, sentences: Sequence[str], language: str, links: Sequence[Sequence[str]] | None = None
    ) -> np.ndarray:
        """Embeds sentences; see `Embedder`."""
        from class_jax.models.inference import bucket_of, pad_rows
        from class_jax.synthesis.stage1.simcse import tokens_of

        del language, links
        rows = [tokens_of(self._vocabulary, sentence, self._max_tokens) for sentence in sentences]
        buckets = [size for size in (16, 32, 64) if size < self._max_tokens] + [self._max_tokens]
        vectors = np.zeros((len(rows), self._width), np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), self._batch):
            chosen = order[start : start + self._batch]
            batch = [rows[i] for i in chosen]
            # Few shapes, so that few are compiled: a short batch is filled with its last row.
            batch += [batch[-1]] * (self._batch - len(batch))
            ids, lengths = pad_rows(batch, bucket_of(max(map(len, batch)), buckets))
            vectors[chosen] = np.asarray(self._encode(self._params, ids, lengths))[: len(chosen)]
        return vectors


class SentenceTransformersEmbedder:
    """Any model of the sentence-transformers library, such as `sentence-transformers/LaBSE`.

    Args:
      model: a folder or hub id.
      batch: sentences encoded at a time.

    Raises:
      InputError: if the library is not installed, or the model can't be loaded.
    """

    uses_links = False
    min_similarity = 0.0

    def __init__(self, model: str, *, batch: int = 128) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            problem = "sentence-transformers is not installed"
            raise InputError(problem, key="EmbedderConfig.kind", remedy=_INSTALL) from error
        try:
            self._model: Any = SentenceTransformer(model)
        except (OSError, ValueError) as error:
            problem = f"can't be loaded ({str(error).splitlines()[0]})"
            raise InputError(
                problem, file=model, key="EmbedderConfig.model", remedy="give a folder or hub id"
            ) from error
        self._batch = batch
        self.fingerprint = f"sentence-transformers {model} {_folder_stamp(model)}".strip()

    def embed(
        self, sentences: Sequence[str], language: str, links: Sequence[Sequence[str]] | None = None
    ) -> np.ndarray:
        """Embeds sentences; see `Embedder`."""
        del language, links
        vectors = self._model.encode(list(sentences), batch_size=self._batch, convert_to_numpy=True)
        return _unit(np.asarray(vectors, np.float32).reshape(len(sentences), -1))


def _folder_stamp(model: str) -> str:
    """Sizes of a local model's files: which its name does not show."""
    path = Path(model)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else []
    return " ".join(f"{p.relative_to(path)}:{p.stat().st_size}" for p in files)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Scales rows to length 1; zeros stay zeros, and what is not finite stays so."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
