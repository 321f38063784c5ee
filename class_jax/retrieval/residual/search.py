# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Search of a residual index: candidates by centroids, then MaxSim with the candidates' coded vectors.

1. Each question token finds its nearest centroids, and in their lists passages; a passage's score is estimated by its
   best centroid for each token, and where it is in no list by the worst centroid that was looked at (it can't be much
   better there). This needs no norms: lists go by dot products of the centroids themselves, negative ones too.
2. The passages with the highest estimates are scored by MaxSim over all their coded vectors.
3. Where `exact` is given, the best of these are scored again with true vectors.

Axes: B questions, M passages, N candidates, Q question tokens, K head dim; T vectors; C centroids; J classes.
"""

import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from class_jax.common.batching import power_of_two
from class_jax.retrieval.index import StoredIndex, checked_questions
from class_jax.retrieval.rescore import Rescorer
from class_jax.retrieval.residual.codec import Codec

_SMALLEST_CALL = 1024
SPAN_BLOCK = 32
"""Passages whose places are counted from one base; see `build`."""


class ResidualIndex(StoredIndex):
    """An index of token vectors in a few bytes each, memory-mapped. Made by `build_residual` or `open`.

    Attributes:
      kind: "residual".
      retriever, model, corpus, num_passages: see `class_jax.retrieval.index.Index`.
      folder: of the index.
      manifest: its manifest.
      probes: centroids looked at for each question token.
      candidates: passages scored in full for each question; None: 20 times k, at least 1,000.
      exact: scores candidates with true vectors, or None; see `rescore`.
      rescore: passages that `exact` scores; None: twice k.
    """

    kind = "residual"

    def __init__(self, folder: Path, manifest: dict):
        """Takes a checked manifest; see `open`."""
        super().__init__(folder, manifest)
        self.width: int = manifest["width"]
        self.probes = 32
        self.candidates: int | None = None
        self.exact: Rescorer | None = None
        self.rescore: int | None = None

    @functools.cached_property
    def codec(self) -> Codec:
        """How vectors are coded; read by the first search."""
        return Codec.load(self.folder / "codec.npz")

    def bytes_on_disk(self) -> dict[str, int]:
        """Returns the bytes of the whole index by what they hold; the values sum to the size of its files."""
        sums = {"codec": self.manifest["files"]["codec.npz"]["bytes"]}
        sums["manifest"] = (self.folder / "manifest.json").stat().st_size
        sums["deleted"] = self.manifest["files"][self.manifest["deleted"]]["bytes"] if self.manifest["deleted"] else 0
        for segment in self.manifest["segments"]:
            for name, section in segment["sections"].items():
                kind = "vectors" if name.startswith("class_") else name
                size = int(np.prod(section["shape"])) * np.dtype(section["dtype"]).itemsize
                sums[kind] = sums.get(kind, 0) + size
        whole = sum(entry["bytes"] for entry in self.manifest["files"].values()) + sums["manifest"]
        return sums | {"padding": whole - sum(sums.values())}

    def centroids_of(self, row: int) -> np.ndarray:
        """Returns the centroid of each vector of a passage, int64 [P], class by class."""
        place = next(i for i, s in enumerate(self.manifest["segments"]) if row < s["first"] + s["passages"])
        starts, stops = self._places(place, np.array([row - self.manifest["segments"][place]["first"]]))
        spans = enumerate(zip(starts[0], stops[0], strict=True))
        heads = [self.codec.heads(self._section(place, f"class_{j}")[a:b]) for j, (a, b) in spans]
        return np.concatenate(heads).astype(np.int64)

    def search(self, vectors: np.ndarray, mask: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Finds about the k best passages of every question; see `class_jax.retrieval.index.Index`.

        Scores are MaxSim with the coded vectors; exact where `exact` is set.
        """
        vectors, mask = checked_questions(vectors, mask, k, retriever=self.retriever, width=self.width)
        rows, scores = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        kept = k if self.exact is None else max(self.rescore or 2 * k, k)
        wanted = max(kept, self.candidates or max(20 * k, 1000))
        for b, (question, real) in enumerate(zip(vectors, mask, strict=True)):
            white = self.codec.questions(question[real])
            if not len(white):
                continue
            found, values = self._score(white, self._candidates(white, wanted))
            order = np.lexsort((found, -values))[:kept]
            found, values = found[order], values[order]
            if self.exact is not None:
                values = np.asarray(self.exact(question[real], found), np.float32)
                order = np.lexsort((found, -values))
                found, values = found[order], values[order]
            rows[b, : min(k, len(found))], scores[b, : min(k, len(found))] = found[:k], values[:k]
        return rows, scores

    def _candidates(self, white: np.ndarray, wanted: int) -> np.ndarray:
        """Returns the rows [N] of the passages with the highest estimates for a question [Q, K], ascending."""
        near = white @ self.codec.middle.T  # [Q, C]
        probes = min(self.probes, near.shape[1])
        probed = np.argpartition(-near, probes - 1, axis=1)[:, :probes]
        values = np.take_along_axis(near, probed, 1)
        # Ascending, so that the best of a passage's centroids is written last.
        order = np.argsort(values, axis=1)
        probed, values = np.take_along_axis(probed, order, 1), np.take_along_axis(values, order, 1)
        best_rows, best_estimates = [], []
        for i, segment in enumerate(self.manifest["segments"]):
            starts, lists = self._section(i, "list_starts"), self._section(i, "lists")
            estimates = np.zeros(segment["passages"], np.float32)
            for near_token, token_values in zip(probed, values, strict=True):
                first, last = starts[near_token].astype(np.int64), starts[near_token + 1].astype(np.int64)
                gain = np.zeros(segment["passages"], np.float32)
                gain[lists[ranges(first, last)]] = np.repeat(token_values - token_values[0], last - first)
                estimates += gain
            estimates[self.deleted[segment["first"] : segment["first"] + segment["passages"]]] = -np.inf
            few = min(wanted, len(estimates))
            chosen = np.argpartition(-estimates, few - 1)[:few]
            chosen = chosen[estimates[chosen] > -np.inf]
            best_rows.append(chosen + segment["first"])
            best_estimates.append(estimates[chosen])
        rows, estimates = np.concatenate(best_rows), np.concatenate(best_estimates)
        if len(rows) > wanted:
            rows = rows[np.argpartition(-estimates, wanted - 1)[:wanted]]
        return np.sort(rows)

    def _score(self, white: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows [N], ascending, and their MaxSim [N] float32 with a question [Q, K]."""
        tokens = power_of_two(len(white))
        padded = np.pad(white, ((0, tokens - len(white)), (0, 0)))
        near = jnp.asarray(self.codec.middle @ padded.T)
        weights = [tuple(map(jnp.asarray, pair)) for pair in self.codec.weights(padded)]
        best = np.full((len(rows), len(white)), -np.inf, np.float32)
        for i, segment in enumerate(self.manifest["segments"]):
            here = slice(*np.searchsorted(rows, [segment["first"], segment["first"] + segment["passages"]]))
            if here.start == here.stop:
                continue
            starts, stops = self._places(i, rows[here] - segment["first"])
            for j, pair in enumerate(weights):
                counts = stops[:, j] - starts[:, j]
                held = np.flatnonzero(counts)
                if not len(held):
                    continue
                stored = self._section(i, f"class_{j}")[ranges(starts[held, j], stops[held, j])]
                found = self._products(stored, pair, j, near)[:, : len(white)]
                firsts = np.concatenate([[0], np.cumsum(counts[held])[:-1]])
                at = here.start + held
                best[at] = np.maximum(best[at], np.maximum.reduceat(found, firsts, axis=0))
        return rows, best.sum(axis=1)

    def _products(self, stored: np.ndarray, pair: tuple, j: int, near: jnp.ndarray) -> np.ndarray:
        """Dot products [T, Q] of stored rows of class j, padded so that few shapes are compiled."""
        size = max(_SMALLEST_CALL, power_of_two(len(stored)))
        # Eighths between powers of two waste less.
        step = max(_SMALLEST_CALL, size // 8)
        size = -(-len(stored) // step) * step
        given = np.zeros((size, stored.shape[1]), np.uint8)
        given[: len(stored)] = stored
        return np.asarray(self.codec.products(given, j, *pair, near))[: len(stored)]

    @functools.cached_property
    def _maps(self) -> dict[int, np.ndarray]:
        return {}

    def _places(self, segment: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the vectors of passages [n] of a segment start and stop within each class, [n, J] int64 each."""
        spans, bases = self._section(segment, "spans"), self._section(segment, "span_bases")
        starts, stops = (bases[at // SPAN_BLOCK].astype(np.int64) + spans[at] for at in (rows, rows + 1))
        return starts, stops

    def _section(self, segment: int, name: str) -> np.ndarray:
        """Maps one section of a segment."""
        if segment not in self._maps:
            self._maps[segment] = np.memmap(self.folder / "segments" / f"{segment:05d}.bin", np.uint8, "r")
        where = self.manifest["segments"][segment]["sections"][name]
        size = int(np.prod(where["shape"])) * np.dtype(where["dtype"]).itemsize
        raw = self._maps[segment][where["offset"] : where["offset"] + size]
        return np.asarray(raw).view(where["dtype"]).reshape(where["shape"])


def ranges(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Returns the numbers of all ranges one after the other, int64.

    >>> ranges(np.array([3, 10]), np.array([5, 13])).tolist()
    [3, 4, 10, 11, 12]
    """
    counts = stops - starts
    ends = np.cumsum(counts)
    if not len(ends) or not ends[-1]:
        return np.zeros(0, np.int64)
    return np.arange(ends[-1]) + np.repeat(starts - (ends - counts), counts)
