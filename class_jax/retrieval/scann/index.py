# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""ScaNN indexes: of one vector a passage (dense), or of every token vector (multi-vector).

Multi-vector search finds candidates by their tokens and then scores them in full by MaxSim, with the passages embedded
again: token vectors of a large corpus are too many to keep.

Axes: B questions, M passages, Q question tokens, P passage tokens, K head dim; T vectors of an index.
"""

import dataclasses
import functools
import logging
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from class_jax.common.batching import length_batches, power_of_two
from class_jax.common.files import digest_file, read_json, replacing_folder, write_json
from class_jax.errors import InputError
from class_jax.models import scoring
from class_jax.models.encode import (
    PASSAGE_BUCKETS,
    QUESTION_BUCKETS,
    DualEncoder,
    Params,
    Tokens,
    Vectors,
    allowed_rows,
    check_enough,
    embed_passages,
    encode_questions,
    padded_batch,
)
from class_jax.retrieval.exact import checked_exclude

FORMAT = 1
# ScaNN's own ceiling on the vectors of one index.
MAX_VECTORS = 2**30
_TRAINING_SAMPLE = 250_000
_PAIRS_AT_ONCE = 1024
_QUESTIONS_AT_ONCE = 256
_REBUILD = "build the index again"
_log = logging.getLogger(__name__)

Report = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class ScannSettings:
    """How ScaNN partitions and searches.

    Attributes:
      leaves: partitions; 0 compares every vector exactly.
      probes: partitions searched for a query.
      reorder: hits that are scored again with int8 vectors (without that, recall stops at about .83).
    """

    leaves: int
    probes: int
    reorder: int

    @classmethod
    def for_size(cls, vectors: int, k: int, brute_force_below: int = 10_000) -> "ScannSettings":
        """Chooses settings for an index of `vectors` vectors that is asked for `k` hits."""
        if vectors < brute_force_below:
            return cls(0, 0, k)
        leaves = max(1, round(math.sqrt(vectors)))
        # A tenth of the leaves gives recall@100 of about .92 at 1,000 leaves; few leaves need a larger share.
        return cls(leaves, min(leaves, max(40, leaves // 10)), max(4 * k, 128))


class ScannIndex:
    """Vectors in ScaNN, and the passage that each belongs to. Made by `build`, `build_index` or `load`.

    Attributes:
      owners: [T] int64, row of the passage that each vector belongs to.
      kind: "dense" or "multi_vector".
      settings: how it searches.
      model: fingerprint of the weights that made the vectors, or "".
      corpus: fingerprint of the token store, or "".
    """

    def __init__(
        self,
        searcher: Any,
        owners: np.ndarray,
        width: int,
        *,
        kind: str,
        settings: ScannSettings,
        model: str = "",
        corpus: str = "",
    ):
        self._searcher, self.owners, self._width = searcher, owners, width
        self.kind, self.settings, self.model, self.corpus = kind, settings, model, corpus

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        owners: np.ndarray,
        *,
        kind: str,
        k: int = 100,
        settings: ScannSettings | None = None,
        model: str = "",
        corpus: str = "",
        threads: int = 0,
    ) -> "ScannIndex":
        """Builds an index for the dot product. ScaNN takes no seed: two builds differ, so keep the built one.

        Args:
          vectors: [T, E] float32; a memory map is not read into memory as a whole.
          owners: [T] int64 passage rows.
          kind: "dense" or "multi_vector".
          k: hits that a search usually asks for.
          settings: None chooses by size.
          model: fingerprint of the weights.
          corpus: fingerprint of the token store.
          threads: for building; 0 takes all cores.

        Raises:
          InputError: if there are no vectors or too many, or ScaNN is not installed.
        """
        if not 0 < len(vectors) <= MAX_VECTORS:
            raise InputError(
                f"{len(vectors)} vectors where ScaNN takes 1 to {MAX_VECTORS}",
                key="scann",
                remedy="use the exact backend or the dense retriever",
            )
        settings = settings or ScannSettings.for_size(len(vectors), k)
        scann = _import_scann()
        builder = scann.scann_ops_pybind.builder(vectors, k, "dot_product").set_n_training_threads(threads)
        if settings.leaves:
            sample = min(len(vectors), _TRAINING_SAMPLE)
            builder = builder.tree(
                num_leaves=settings.leaves, num_leaves_to_search=settings.probes, training_sample_size=sample
            )
            builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2, training_sample_size=sample)
            builder = builder.reorder(settings.reorder, quantize=scann.ReorderType.INT8)
        else:
            builder = builder.score_brute_force()
        owners = np.ascontiguousarray(owners, np.int64)
        return cls(builder.build(), owners, vectors.shape[1], kind=kind, settings=settings, model=model, corpus=corpus)

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Finds the k vectors with the highest dot products, searching more leaves where the first ones hold fewer.

        Args:
          queries: [B, E].
          k: hits per query, at most T.

        Returns:
          positions [B, k] int64 and scores [B, k] float32 (int8 precision unless brute force), best first; all
          are real hits: ScaNN's own padding (id 0, NaN) never gets out.

        Raises:
          InputError: if k is more than T, or the width is not that of the index.
        """
        if queries.ndim != 2 or queries.shape[1] != self._width:
            raise InputError(f"queries {queries.shape} for vectors of width {self._width}", key="scann")
        if not 0 < k <= len(self.owners):
            raise InputError(f"{k} hits asked of an index of {len(self.owners)} vectors", key="k")
        queries = np.ascontiguousarray(queries, np.float32)
        positions, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        short, probes = np.arange(len(queries)), self.settings.probes
        while len(short):
            found, values = self._searcher.search_batched_parallel(
                queries[short],
                final_num_neighbors=k,
                pre_reorder_num_neighbors=max(self.settings.reorder, k),
                leaves_to_search=probes if self.settings.leaves else None,
            )
            full = np.isfinite(values).all(axis=1)
            positions[short[full]], scores[short[full]] = found[full], values[full]
            short = short[~full]
            if len(short) and probes >= self.settings.leaves:
                raise InputError("ScaNN returned fewer hits than there are vectors", key="scann", remedy=_REBUILD)
            probes = min(4 * probes, self.settings.leaves)
        return positions, scores

    def save(self, folder: str | os.PathLike) -> None:
        """Writes the index, whole or not at all.

        Raises:
          InputError: if the disk refuses the write.
        """
        with replacing_folder(folder) as aside:
            (aside / "scann").mkdir()
            self._searcher.serialize(os.fspath(aside / "scann"), relative_path=True)
            np.save(aside / "owners.npy", self.owners, allow_pickle=False)
            manifest = {
                "format": FORMAT,
                "kind": self.kind,
                "width": self._width,
                "vectors": len(self.owners),
                "settings": dataclasses.asdict(self.settings),
                "model": self.model,
                "corpus": self.corpus,
                "digests": {name: digest_file(aside / name) for name in _files(aside)},
            }
            write_json(aside / "manifest.json", manifest)

    @classmethod
    def load(cls, folder: str | os.PathLike, *, model: str | None = None, corpus: str | None = None) -> "ScannIndex":
        """Reads an index into memory (ScaNN does not memory-map).

        Args:
          folder: where `save` wrote it.
          model: fingerprint of the weights in use; None leaves it unchecked.
          corpus: fingerprint of the token store in use; None leaves it unchecked.

        Raises:
          InputError: if a file is missing, altered or not of the index, or the index belongs to another model or
            corpus.
        """
        folder = Path(folder)
        manifest = read_json(folder / "manifest.json")
        needed = {"format", "kind", "width", "vectors", "settings", "model", "corpus", "digests"}
        if not isinstance(manifest, dict) or needed - manifest.keys():
            raise InputError("not a ScaNN index", file=folder / "manifest.json", remedy=_REBUILD)
        if manifest["format"] != FORMAT:
            raise InputError(f"format {manifest['format']}, but this version reads {FORMAT}", file=folder)
        for key, mine in (("model", model), ("corpus", corpus)):
            if mine is not None and manifest[key] != mine:
                raise InputError(f"built for another {key}", file=folder, key=key, remedy=_REBUILD)
        # Exactly these files: ScaNN would unpickle a file of ids that someone laid beside them.
        there = set(_files(folder)) - {"manifest.json"}
        if odd := there ^ set(manifest["digests"]):
            raise InputError("missing, or not of the index", file=folder / min(odd), remedy=_REBUILD)
        for name, digest in manifest["digests"].items():
            if name.endswith(".pkl") or digest_file(folder / name) != digest:
                raise InputError("altered since it was written", file=folder / name, remedy=_REBUILD)
        searcher = _import_scann().scann_ops_pybind.load_searcher(os.fspath(folder / "scann"))
        owners = np.load(folder / "owners.npy", mmap_mode="r", allow_pickle=False)
        rest = {key: manifest[key] for key in ("kind", "model", "corpus")}
        return cls(searcher, owners, manifest["width"], settings=ScannSettings(**manifest["settings"]), **rest)


def build_index(
    encoder: DualEncoder,
    params: Params,
    store: Tokens,
    *,
    k: int = 100,
    allowed: np.ndarray | None = None,
    batch_passages: int = 512,
    buckets: Sequence[int] = PASSAGE_BUCKETS,
    settings: ScannSettings | None = None,
    model: str = "",
    scratch: str | os.PathLike | None = None,
    report: Report | None = None,
) -> ScannIndex:
    """Embeds the allowed passages of a corpus and indexes them.

    Args:
      encoder: the model's retriever.
      params: its parameters.
      store: the token store.
      k: hits that a search usually asks for.
      allowed: [passages] bool, which rows enter the index; None takes all.
      batch_passages: passages embedded at once.
      buckets: padded passage lengths.
      settings: None chooses by size.
      model: fingerprint of the weights.
      scratch: folder for the float32 vectors while building; they are removed afterwards.
      report: called with (passages done, passages in all) while embedding.

    Raises:
      InputError: if there are no or too many vectors, or they are not finite, or the disk is full.
    """
    rows = allowed_rows(store, allowed)
    lengths = np.asarray(store.lengths)[rows]
    total = len(rows) if encoder.kind == "dense" else int(lengths.sum(dtype=np.int64))
    if total > MAX_VECTORS:
        raise InputError(
            f"{total} vectors where ScaNN takes at most {MAX_VECTORS}",
            key="scann",
            remedy="use the exact backend or the dense retriever",
        )
    batch = min(batch_passages, power_of_two(max(len(rows), 1)))
    with tempfile.TemporaryDirectory(prefix=".vectors-", dir=scratch) as folder:
        vectors, owners, written = None, np.empty(total, np.int64), 0
        done = 0
        for members, length in length_batches(lengths, batch, buckets):
            ids, counts, at = padded_batch(store, rows[members], batch, length)
            part = jax.device_get(embed_passages(encoder, params, ids, counts))
            kept, whose = _real_vectors(encoder, part, at)
            if vectors is None:
                vectors = _scratch_array(Path(folder) / "vectors.npy", (total, kept.shape[1]))
            vectors[written : written + len(kept)] = kept
            owners[written : written + len(kept)] = whose
            written += len(kept)
            done += len(members)
            if report is not None:
                report(done, len(rows))
        vectors = np.empty((0, 1), np.float32) if vectors is None else vectors[:written]
        return ScannIndex.build(
            vectors, owners[:written], kind=encoder.kind, k=k, settings=settings, model=model, corpus=store.fingerprint
        )


def scann_search(
    index: ScannIndex,
    encoder: DualEncoder,
    params: Params,
    store: Tokens,
    questions: Sequence[np.ndarray],
    k: int,
    *,
    exclude: np.ndarray | None = None,
    candidates: int | None = None,
    neighbours: int = 64,
    batch_passages: int = 512,
    buckets: Sequence[int] = PASSAGE_BUCKETS,
    question_buckets: Sequence[int] = QUESTION_BUCKETS,
    report: Report | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds about the k best passages of every question.

    Args:
      index: of the passages that may be retrieved, made with the same weights.
      encoder: the model's retriever.
      params: its parameters.
      store: the token store.
      questions: B token arrays without padding.
      k: passages per question.
      exclude: [B] int, a row that is never returned for the question (its own passage), -1 for none.
      candidates: multi-vector: passages per question that are scored in full; None takes max(4k, 256).
      neighbours: multi-vector: token vectors found for each question token.
      batch_passages: candidates embedded at once.
      buckets: padded passage lengths.
      question_buckets: padded question lengths.
      report: multi-vector: called with (candidates done, candidates in all) while scoring in full.

    Returns:
      rows [B, k] int64 and scores [B, k] float32, best first: exact MaxSim, or ScaNN's own dot products (dense).

    Raises:
      InputError: if fewer than k passages may be retrieved, or index and encoder do not go together.
    """
    for key, mine, other in (("kind", index.kind, encoder.kind), ("corpus", index.corpus, store.fingerprint)):
        if mine != other:
            raise InputError(f"the index is for {key} {mine!r}, not {other!r}", key=key, remedy=_REBUILD)
    exclude = checked_exclude(exclude, len(questions))
    check_enough(np.unique(index.owners), k, exclude)
    if not len(questions):
        return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
    vectors = encode_questions(encoder, params, questions, buckets=question_buckets)
    if encoder.kind == "dense":
        return _dense_hits(index, vectors.vectors, k, exclude)
    rows = _candidates(index, vectors, max(candidates or max(4 * k, 256), k), k, neighbours, exclude)
    scores = _score_in_full(encoder, params, store, vectors, rows, batch_passages, buckets, report)
    order = np.lexsort((rows, -scores))[:, :k]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def _dense_hits(index: ScannIndex, queries: np.ndarray, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    positions, scores = index.nearest(queries, min(k + bool((exclude >= 0).any()), len(index.owners)))
    rows = index.owners[positions]
    # A stable sort moves the question's own passage to the end and leaves the rest in order.
    order = np.argsort(rows == exclude[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


def _candidates(
    index: ScannIndex, questions: Vectors, count: int, k: int, neighbours: int, exclude: np.ndarray
) -> np.ndarray:
    """Returns candidate rows [B, count] int64, -1 where a question has fewer, at least k for every question."""
    chosen = np.full((len(exclude), count), -1, np.int64)
    waiting, neighbours = np.arange(len(exclude)), min(neighbours, len(index.owners))
    while len(waiting):
        still = []
        for start in range(0, len(waiting), _QUESTIONS_AT_ONCE):
            part = waiting[start : start + _QUESTIONS_AT_ONCE]
            mask = questions.mask[part]
            positions, scores = index.nearest(questions.vectors[part][mask], neighbours)
            cuts = np.cumsum(mask.sum(axis=1))[:-1]
            for i, at, values in zip(part, np.split(positions, cuts), np.split(scores, cuts), strict=True):
                rows = ranked_by_tokens(index.owners[at], values, count, exclude[i])
                chosen[i, : len(rows)] = rows
                if len(rows) < k:
                    still.append(i)
        waiting, neighbours = np.array(still, np.int64), min(4 * neighbours, len(index.owners))
    return chosen


def ranked_by_tokens(owners: np.ndarray, scores: np.ndarray, count: int, own: int) -> np.ndarray:
    """Ranks the passages of one question's token hits by an estimate of MaxSim.

    A question token that did not find the passage counts with its worst hit: the passage can't do better there.

    Args:
      owners: [Q, n] passage rows of the hits.
      scores: [Q, n] their dot products.
      count: passages to keep.
      own: row to leave out.

    Returns:
      Passage rows, best first, at most `count`.
    """
    rows, place = np.unique(owners, return_inverse=True)
    best = np.repeat(scores.min(axis=1, keepdims=True), len(rows), axis=1)
    np.maximum.at(best, (np.arange(len(owners))[:, None], place.reshape(owners.shape)), scores)
    order = np.argsort(-best.sum(axis=0), kind="stable")
    return rows[order[rows[order] != own]][:count]


def _score_in_full(
    encoder: DualEncoder,
    params: Params,
    store: Tokens,
    questions: Vectors,
    rows: np.ndarray,
    batch: int,
    buckets: Sequence[int],
    report: Report | None,
) -> np.ndarray:
    """Scores candidates [B, C] exactly: every passage that is a candidate anywhere is embedded once."""
    scores = np.full(rows.shape, -np.inf, np.float32)
    pairs = np.flatnonzero(rows >= 0)
    pairs = pairs[np.argsort(rows.flat[pairs], kind="stable")]
    passages, starts = np.unique(rows.flat[pairs], return_index=True)
    starts = np.append(starts, len(pairs))
    batch, done = min(batch, power_of_two(len(passages))), 0
    for members, length in length_batches(np.asarray(store.lengths)[passages], batch, buckets):
        ids, counts, _ = padded_batch(store, passages[members], batch, length)
        embedded = embed_passages(encoder, params, ids, counts)
        here = np.concatenate([pairs[starts[i] : starts[i + 1]] for i in members])
        whose = np.repeat(np.arange(len(members)), starts[members + 1] - starts[members])
        for start in range(0, len(here), _PAIRS_AT_ONCE):
            part = here[start : start + _PAIRS_AT_ONCE]
            fill = (0, _PAIRS_AT_ONCE - len(part))
            asked = np.pad(part // rows.shape[1], fill)
            given = Vectors(questions.vectors[asked], questions.mask[asked])
            found = _score_pairs(encoder, given, embedded, np.pad(whose[start : start + _PAIRS_AT_ONCE], fill))
            scores.flat[part] = np.asarray(found)[: len(part)]
        done += len(members)
        if report is not None:
            report(done, len(passages))
    if np.isnan(scores).any() or np.isposinf(scores).any():
        raise InputError("the model's scores are not finite", key="scann", remedy="use earlier weights")
    return scores


@functools.partial(jax.jit, static_argnames="encoder")
def _score_pairs(encoder: DualEncoder, questions: Vectors, passages: Vectors, at: jax.Array) -> jax.Array:
    """Returns MaxSim [n] of questions [n, Q, K] with the passages [M, P, K] at the places `at` [n]."""
    vectors, mask = passages.vectors[at][:, None], passages.mask[at][:, None]
    return scoring.maxsim_own(*questions, vectors, mask, mean=encoder.mean)[:, 0]


def _real_vectors(encoder: DualEncoder, part: Vectors, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vectors [n, E] float32 that are not padding, and the rows [n] of their passages."""
    if encoder.kind == "dense":
        kept, whose = part.vectors[at >= 0], at[at >= 0]
    else:
        real = part.mask & (at >= 0)[:, None]
        kept, whose = part.vectors[real], np.broadcast_to(at[:, None], real.shape)[real]
    kept = np.asarray(kept, np.float32)
    if not np.isfinite(kept).all():
        raise InputError("the model's vectors are not finite", key="scann", remedy="use earlier weights")
    return kept, whose


def _scratch_array(path: Path, shape: tuple[int, int]) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, "w+", np.float32, shape)
    except OSError as error:
        raise InputError(f"could not be written ({error.strerror})", file=path, remedy="free some space") from error


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


@functools.cache
def _import_scann() -> Any:
    """Imports ScaNN, and TensorFlow before it, which is kept off the accelerator."""
    install = "pip install 'class-jax[retrieve]'"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise InputError("TensorFlow is not installed", key="scann", remedy=install) from error
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:
        _log.warning("TensorFlow was started before ScaNN and may hold accelerator memory")
    try:
        import scann
    except (ImportError, tf.errors.OpError) as error:
        raise InputError(f"ScaNN can't be imported ({error})", key="scann", remedy=install) from error
    return scann
