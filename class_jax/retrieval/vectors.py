# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stored vectors of a corpus, memory-mapped, and exact search over them: the yardstick of every other index.

Files of the folder, which `class_jax.retrieval.embed` writes, beside the manifest:

| file | per | holds |
|---|---|---|
| `lengths.bin` | passage | vectors of each passage, uint16 (multi-vector only) |
| `parts/NNNNN.vectors` | vector | K numbers of the manifest's `dtype`, passages in the order of the token store |
| `parts/NNNNN.scales` | vector | float32 that the int8 numbers are multiplied by (int8 only) |

Axes: B questions, M passages, Q question tokens, P passage tokens, K head dim; T vectors; C questions of a chunk.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from tqdm import tqdm

from class_jax.common.batching import length_batches, power_of_two
from class_jax.errors import InputError
from class_jax.models import scoring
from class_jax.models.encode import PASSAGE_BUCKETS
from class_jax.retrieval.index import (
    REBUILD,
    check_files,
    checked_questions,
    delete_rows,
    read_deleted,
    read_manifest,
)

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "int8": np.int8}
# Similarities [C, Q, M, P] held at once; on a CPU they should fit its cache.
_CHUNK_BYTES = 256 * 2**20
_CHUNK_BYTES_CPU = 8 * 2**20
_IN_FLIGHT = 2
_NO_ROW = np.iinfo(np.int32).max


class Padded(NamedTuple):
    """Stored vectors of M passages, padded to one length.

    Attributes:
      vectors: [M, P, K] of the store's type; dense: P = 1.
      scales: [M, P] float32 to multiply by; ones unless int8.
      mask: [M, P] bool, which vectors are real.
    """

    vectors: np.ndarray
    scales: np.ndarray
    mask: np.ndarray


class VectorStore:
    """The vectors of every passage of a corpus. Open one with `VectorStore.open`.

    Attributes:
      folder: of the vectors.
      manifest: its manifest.
      retriever: "multi_vector" or "dense".
      width: K.
      num_passages: M.
      num_vectors: T.
      dtype: name of the stored type, a key of `DTYPES`.
      fingerprint: SHA-256 over the digests of all stored vectors, and what made them; deletions don't change it.
    """

    def __init__(self, folder: Path, manifest: dict):
        """Takes a checked manifest; see `open`."""
        self.folder, self.manifest = folder, manifest
        self.retriever, self.width, self.dtype = manifest["retriever"], manifest["width"], manifest["dtype"]
        self.num_passages, self.num_vectors = manifest["passages"], manifest["vectors"]
        self.part_passages: int = manifest["part_passages"]
        digests = {name: e["sha256"] for name, e in manifest["files"].items() if not name.startswith("deleted-")}
        content = [*(manifest[key] for key in ("retriever", "model", "corpus", "dtype", "width")), digests]
        self.fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        self._parts: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}

    @classmethod
    def open(cls, folder: str | os.PathLike, *, verify: bool = False) -> "VectorStore":
        """Opens stored vectors; only the manifest is read.

        Raises:
          InputError: see `class_jax.retrieval.index.open_index`.
        """
        manifest = read_manifest(folder, "exact")
        check_files(folder, manifest["files"], verify)
        return cls(Path(folder), manifest)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Vectors of each passage, [M] integers."""
        if self.retriever == "dense":
            return np.ones(self.num_passages, np.uint16)
        return np.memmap(self.folder / "lengths.bin", "<u2", "r")

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """Where each passage's vectors start, counted over the corpus: [M + 1] int64."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns the vectors of passages `start` to `stop`, [T, K] float32."""
        whole = np.empty((int(self.offsets[stop] - self.offsets[start]), self.width), np.float32)
        done = 0
        while start < stop:
            part = start // self.part_passages
            end = min(stop, (part + 1) * self.part_passages)
            vectors, scales, first = self._part(part)
            here = slice(int(self.offsets[start]) - first, int(self.offsets[end]) - first)
            out = whole[done : done + here.stop - here.start]
            out[:] = vectors[here]
            if scales is not None:
                out *= scales[here, None]
            done, start = done + len(out), end
        return whole

    def blocks(self, passages: int, start: int = 0) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yields (first row, row after the last, vectors [T, K] float32) of `passages` passages at a time."""
        for first in range(start, self.num_passages, passages):
            stop = min(first + passages, self.num_passages)
            yield first, stop, self.read(first, stop)

    def sample(self, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Returns about `count` vectors [n, K] float32, those of passages drawn at random, and how many each has."""
        share = min(1.0, count / max(self.num_vectors, 1))
        rows = np.random.default_rng(seed).permutation(self.num_passages)[: max(1, round(share * self.num_passages))]
        rows = np.sort(rows)
        read = np.concatenate([self.read(row, row + 1) for row in rows.tolist()])
        return read, np.asarray(self.lengths[rows], np.int64)

    def padded(self, rows: np.ndarray, length: int, size: int) -> Padded:
        """Returns the vectors of ascending passage `rows` [m], padded to `length`, and to `size` passages."""
        rows = np.asarray(rows, np.int64)
        vectors = np.zeros((size, length, self.width), DTYPES[self.dtype])
        scales, mask = np.ones((size, length), np.float32), np.zeros((size, length), bool)
        mask[: len(rows)] = np.arange(length) < np.asarray(self.lengths)[rows][:, None]
        for part in np.unique(rows // self.part_passages):
            here = np.flatnonzero(rows // self.part_passages == part)
            stored, stored_scales, first = self._part(int(part))
            # Places after a passage are read at its first vector; the mask blanks them.
            at = self.offsets[rows[here]][:, None] - first + np.where(mask[here], np.arange(length), 0)
            vectors[here] = stored[at]
            if stored_scales is not None:
                scales[here] = stored_scales[at]
        return Padded(vectors, scales, mask)

    def _part(self, part: int) -> tuple[np.ndarray, np.ndarray | None, int]:
        """Maps one part: vectors [T, K], their scales [T] or None, and where the part starts in the corpus."""
        if part not in self._parts:
            self._parts[part] = map_part(self.folder / "parts", part, self.dtype, self.width)
        return *self._parts[part], int(self.offsets[part * self.part_passages])


def map_part(folder: Path, part: int, dtype: str, width: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Maps the files of one part: vectors [T, K] of the stored type, and scales [T] float32 where int8."""
    path = folder / f"{part:05d}.vectors"
    vectors = np.memmap(path, DTYPES[dtype], "r").reshape(-1, width)
    scales = np.memmap(path.with_suffix(".scales"), "<f4", "r") if dtype == "int8" else None
    return vectors, scales


class ExactIndex:
    """Exact search over stored vectors (paper, section 2.2): every passage is scored, in a stream.

    Attributes:
      kind: "exact".
      retriever, model, corpus, num_passages: see `class_jax.retrieval.index.Index`.
      store: the vectors.
    """

    kind = "exact"

    def __init__(self, store: VectorStore):
        """Takes opened vectors; see `open`."""
        self.store = store
        self.retriever, self.num_passages = store.retriever, store.num_passages
        self.model: str = store.manifest["model"]
        self.corpus: str = store.manifest["corpus"]

    @classmethod
    def open(cls, folder: str | os.PathLike, *, verify: bool = False) -> "ExactIndex":
        """Opens the folder that `class-jax embed` wrote; see `class_jax.retrieval.index.open_index`."""
        return cls(VectorStore.open(folder, verify=verify))

    @functools.cached_property
    def deleted(self) -> np.ndarray:
        """[M] bool, passages that are never returned."""
        return read_deleted(self.store.folder, self.store.manifest)

    def delete(self, rows: np.ndarray) -> None:
        """Takes passages out of every later search; see `class_jax.retrieval.index.delete_rows`."""
        self.store.manifest, self.deleted = delete_rows(self.store.folder, self.store.manifest, rows)

    def search(
        self,
        vectors: np.ndarray,
        mask: np.ndarray | None,
        k: int,
        *,
        allowed: np.ndarray | None = None,
        batch_passages: int = 512,
        progress: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds the k best passages of every question; see `class_jax.retrieval.index.Index`.

        Args:
          vectors: [B, Q, K] or [B, K].
          mask: [B, Q] bool or None.
          k: passages per question.
          allowed: [M] bool, which passages may be returned; None: all.
          batch_passages: passages scored at once.
          progress: show a bar.

        Returns:
          rows [B, k] int64 and scores [B, k] float32.

        Raises:
          InputError: see `Index.search`; and if a stored vector is not finite.
        """
        vectors, mask = checked_questions(vectors, mask, k, retriever=self.retriever, width=self.store.width)
        rows, scores = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        if not len(vectors):
            return rows, scores
        wanted = np.flatnonzero(~self.deleted if allowed is None else allowed & ~self.deleted)
        if not len(wanted):
            return rows, scores
        lengths = np.asarray(self.store.lengths)[wanted]
        batch = min(batch_passages, power_of_two(len(wanted)))
        buckets = (1,) if self.retriever == "dense" else PASSAGE_BUCKETS
        held = _CHUNK_BYTES_CPU if jax.default_backend() == "cpu" else _CHUNK_BYTES
        each = 4 * batch * vectors.shape[1] * int(lengths.max(initial=1))
        chunk = min(1 << max(int(held // each).bit_length() - 1, 0), power_of_two(len(vectors)))
        questions = _chunked(vectors, mask, chunk)
        shape = (*questions[1].shape[:2], k)
        best = jnp.full(shape, -jnp.inf, jnp.float32), jnp.full(shape, _NO_ROW, jnp.int32)
        dispatched = []
        with tqdm(total=len(wanted), unit="passage", desc="exact search", disable=None if progress else True) as bar:
            for members, length in length_batches(lengths, batch, buckets):
                at = np.full(batch, -1, np.int32)
                at[: len(members)] = wanted[members]
                best = _merge(*questions, *self.store.padded(wanted[members], length, batch), at, best)
                # Waiting for an earlier batch bounds the memory on the device.
                dispatched.append(best[0])
                if len(dispatched) > _IN_FLIGHT:
                    jax.block_until_ready(dispatched.pop(0))
                bar.update(len(members))
        found, at = (np.asarray(x).reshape(-1, k)[: len(vectors)] for x in best)
        if np.isposinf(found).any():
            raise InputError("a stored vector is not finite", file=self.store.folder, remedy=REBUILD)
        real = at != _NO_ROW
        rows[real], scores[real] = at[real], found[real]
        return rows, scores


def _chunked(vectors: np.ndarray, mask: np.ndarray, chunk: int) -> tuple[jax.Array, jax.Array]:
    """Lays questions [B, Q, K] out as [G, C, Q, K], filled up with empty ones; the same of the mask."""
    filler = -len(vectors) % chunk
    shaped = (
        np.concatenate([x, np.zeros((filler, *x.shape[1:]), x.dtype)]).reshape(-1, chunk, *x.shape[1:])
        for x in (vectors, mask)
    )
    return tuple(map(jnp.asarray, shaped))


@jax.jit
def _merge(
    queries: jax.Array,
    query_mask: jax.Array,
    stored: jax.Array,
    scales: jax.Array,
    mask: jax.Array,
    at: jax.Array,
    best: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Merges one batch of passages [M, P, K] with rows `at` [M] (-1: filler) into the best k of questions [G, C, Q, K].

    Returns:
      scores and rows [G, C, k], highest first, equal scores by row; +inf where a vector is not finite.
    """
    vectors = stored.astype(jnp.float32) * scales[..., None]
    sound = (jnp.isfinite(vectors).all(-1) | ~mask).all(-1)
    k = best[0].shape[-1]

    def chunk(given: tuple) -> tuple[jax.Array, jax.Array]:
        part, part_mask, (old_scores, old_rows) = given
        scores = scoring.maxsim(part, part_mask, vectors, mask)
        scores = jnp.where(sound, jnp.where(scores == 0, 0.0, scores), jnp.inf)
        scores = jnp.where(at >= 0, scores, -jnp.inf)
        new_scores, places = jax.lax.top_k(scores, min(k, scores.shape[-1]))
        new_rows = jnp.where(new_scores == -jnp.inf, _NO_ROW, at[places])
        falling = -jnp.concatenate([old_scores, new_scores], axis=-1)
        falling, rows = jax.lax.sort((falling, jnp.concatenate([old_rows, new_rows], axis=-1)), num_keys=2)
        return -falling[:, :k], rows[:, :k]

    return jax.lax.map(chunk, (queries, query_mask, best))
