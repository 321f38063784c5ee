# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""ScaNN behind the interface of an index: shards of stored vectors, merged by NumPy.

The folder holds `shards/NNN/`, each a `ScannIndex` of consecutive passages below ScaNN's limits. Builds are not
reproducible, so an index is kept, not made again. Dense hits carry ScaNN's own scores; multi-vector candidates, found
by their tokens, are scored by MaxSim over their stored vectors, for which the index knows the folder of the vectors.

Axes: B questions, M passages, Q question tokens, K head dim; T vectors.
"""

import functools
import os
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from class_jax.common.files import file_entry, replacing_folder
from class_jax.errors import InputError
from class_jax.retrieval.index import REBUILD, StoredIndex, checked_questions, write_manifest
from class_jax.retrieval.rescore import Rescorer, with_stored
from class_jax.retrieval.scann.index import MAX_VECTORS, ScannIndex, ranked_by_tokens
from class_jax.retrieval.vectors import VectorStore

# ScaNN holds a shard's vectors in memory while it is built and searched (84 bytes a 64-d vector).
SHARD_VECTORS = 100_000_000
# Hits that a search usually asks for.
_USUAL_HITS = 100
_READ_PASSAGES = 8192


class ScannKind(StoredIndex):
    """A ScaNN index of stored vectors. Made by `build_scann` or `open`; ScaNN is loaded by the first search.

    Attributes:
      kind: "scann".
      retriever, model, corpus, num_passages: see `class_jax.retrieval.index.Index`.
      folder: of the index.
      manifest: its manifest.
      neighbours: multi-vector: token vectors found for each question token in each shard.
      candidates: multi-vector: passages scored in full for each question; None: 4 times k, at least 256.
      exact: multi-vector: scores candidates; None takes the stored vectors that the index was built from.
    """

    kind = "scann"

    def __init__(self, folder: Path, manifest: dict):
        """Takes a checked manifest; see `open`."""
        super().__init__(folder, manifest)
        self.neighbours = 256
        self.candidates: int | None = None
        self.exact: Rescorer | None = None

    def search(self, vectors: np.ndarray, mask: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Finds about the k best passages of every question; see `class_jax.retrieval.index.Index`."""
        width = self.manifest["width"]
        vectors, mask = checked_questions(vectors, mask, k, retriever=self.retriever, width=width)
        rows, scores = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        for b, (question, real) in enumerate(zip(vectors, mask, strict=True)):
            if not real.any():
                continue
            if self.retriever == "dense":
                found, values = self._hits(question, k + int(self.deleted.sum()))
                found, values = found[0], values[0]
            else:
                found = self._candidates(question[real], self.candidates or max(4 * k, 256))
                values = self._exact(question[real], found) if len(found) else np.zeros(0, np.float32)
            kept = ~self.deleted[found]
            found, values = found[kept], values[kept]
            order = np.lexsort((found, -values))[:k]
            rows[b, : len(order)], scores[b, : len(order)] = found[order], values[order]
        return rows, scores

    def _hits(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best vectors of every shard: passage rows and dot products, [queries, hits]."""
        rows, values = [], []
        for shard in self._shards:
            positions, found = shard.nearest(queries, min(k, len(shard.owners)))
            rows.append(shard.owners[positions])
            values.append(found)
        return np.concatenate(rows, axis=1), np.concatenate(values, axis=1)

    def _candidates(self, question: np.ndarray, count: int) -> np.ndarray:
        owners, values = self._hits(question, self.neighbours)
        return ranked_by_tokens(owners, values, count, -1)

    @functools.cached_property
    def _exact(self) -> Rescorer:
        if self.exact is not None:
            return self.exact
        path = self.folder / self.manifest["vectors_folder"]
        vectors = VectorStore.open(path)
        if vectors.fingerprint != self.manifest["vectors_fingerprint"]:
            raise InputError("not the vectors that the index was built from", file=path, remedy=REBUILD)
        return with_stored(vectors)

    @functools.cached_property
    def _shards(self) -> list[ScannIndex]:
        return [ScannIndex.load(self.folder / name) for name in self.manifest["shards"]]


def build_scann(
    vectors: VectorStore,
    folder: str | os.PathLike,
    *,
    shard_vectors: int = SHARD_VECTORS,
) -> ScannKind:
    """Builds an index of stored vectors; it appears in `folder` whole or not at all.

    Args:
      vectors: of the corpus; a multi-vector index needs them again when it searches.
      folder: where the index goes; an older one there is replaced.
      shard_vectors: vectors of one ScaNN index, at most `scann_index.MAX_VECTORS`.

    Raises:
      InputError: if ScaNN is not installed, or the disk is full.
    """
    folder = Path(folder)
    if not 0 < shard_vectors <= MAX_VECTORS:
        raise InputError(f"{shard_vectors} is not within 1 to {MAX_VECTORS}", key="shard_vectors")
    source, shards = vectors.manifest, []
    with (
        replacing_folder(folder) as aside,
        tqdm(total=vectors.num_passages, unit="passage", desc="index (scann)", disable=None) as bar,
    ):
        first = 0
        while first < vectors.num_passages:
            fits = int(np.searchsorted(vectors.offsets, vectors.offsets[first] + shard_vectors, "right")) - 1
            stop = min(max(fits, first + 1), vectors.num_passages)
            name = f"shards/{len(shards):03d}"
            _build_shard(vectors, first, stop).save(aside / name)
            shards.append(name)
            bar.update(stop - first)
            first = stop
        names = sorted(p.relative_to(aside).as_posix() for p in aside.rglob("*") if p.is_file())
        write_manifest(
            aside,
            {
                "kind": "scann",
                **{key: source[key] for key in ("retriever", "model", "corpus", "vocabulary", "passages", "width")},
                "vectors_folder": os.path.relpath(vectors.folder.resolve(), folder.resolve()),
                "vectors_fingerprint": vectors.fingerprint,
                "shards": shards,
                "deleted": None,
                "files": {name: file_entry(aside / name) for name in names},
            },
        )
    return ScannKind.open(folder)


def _build_shard(vectors: VectorStore, first: int, stop: int) -> ScannIndex:
    total = int(vectors.offsets[stop] - vectors.offsets[first])
    lengths = np.asarray(vectors.lengths[first:stop], np.int64)
    with tempfile.TemporaryFile() as scratch:
        # ScaNN copies what is not float32 as a whole; a map of a file stays on the disk.
        scratch.truncate(total * vectors.width * 4)
        whole = np.memmap(scratch, np.float32, "r+", shape=(total, vectors.width))
        for start in range(first, stop, _READ_PASSAGES):
            end = min(start + _READ_PASSAGES, stop)
            at = vectors.offsets[[start, end]] - vectors.offsets[first]
            whole[at[0] : at[1]] = vectors.read(start, end)
        owners = np.repeat(np.arange(first, stop), lengths)
        source = vectors.manifest
        names = {"kind": vectors.retriever, "model": source["model"], "corpus": source["corpus"]}
        return ScannIndex.build(whole, owners, k=_USUAL_HITS, **names)
