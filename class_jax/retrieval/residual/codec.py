# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Token vectors in a few bytes: nearest centroid, and the rest in bits that go where they change scores most.

The idea of centroids and residuals is that of ColBERTv2 and PLAID (arXiv 2112.01488, 2205.09707), which store unit
vectors and give every residual dimension 1 or 2 bits. Here vectors have no common length and scores may be negative;
what must be small is the error of a dot product with a question token q, E[(q.e)^2] = e' S e, S = E[q q']. So:

1. Vectors are moved to coordinates in which question tokens are white: x = v T with T T = S, and q -> q T^-1. Dot
   products do not change, and Euclidean error becomes the error of scores. (Without sample questions T = 1.)
2. x = centroid + s u: the residual's size s is stored in a few bits, its direction u, rotated to principal axes, in
   more.
3. An error matters as often as MaxSim takes the vector (`importance.win_rates`), and residual sizes differ by a factor
   of ten and more. Vectors fall into classes by s sqrt(weight), and each class has its own number of bytes, shared out
   among its dimensions: every byte goes where it lowers the weighted mean squared error most, so that the mean number
   of bits is that which was asked for.

A uniform quantiser is linear in the bits of its code, so q.x is too: no vector is ever decompressed (`weights`).

A stored vector of class j has `header_bytes + bytes[j]` bytes: centroid and, in the bits above it, size
(little-endian); then bits.

Axes: Q question tokens, K head dim; M passages; T vectors; C centroids; J classes; S sample question tokens.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from class_jax.common.files import replacing
from class_jax.errors import InputError
from class_jax.retrieval.index import REBUILD
from class_jax.retrieval.residual.importance import win_rates
from class_jax.retrieval.residual.kmeans import assign, kmeans

# Bits that a size takes at least; what is left of the header's last byte goes to it too.
_SIZE_BITS = 4
# Weight of a vector that no sample question took, in shares of the mean.
_NEVER_TAKEN = 0.1
# Steps of the best uniform quantisers of a normal variable of variance 1 (Max 1960), by bits.
_STEPS = np.array([0, 1.5956, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308])
_MOST_BITS = len(_STEPS) - 1
# Share of the mean that is added to every eigenvalue of S: questions to come are not quite like those seen.
_SHRINKAGE = 0.02
CLASSES = 16
"""J: kinds of vectors, each with its own number of bytes."""
# Multiples of the normal variable's best step that are tried for each axis.
_STRETCHES = np.linspace(0.7, 1.4, 15)
_FITTED = 20_000
_ARRAYS = ("centroids", "transform", "rotation", "steps", "floor", "edges", "sizes", "widths")


class Coded(NamedTuple):
    """What vectors became.

    Attributes:
      centroids: of each vector, [T] int32.
      classes: of each vector, [T] uint8.
      rows: for each class the rows of its vectors in order, [T_j, R_j] uint8.
      listed: [T] bool; no list needs to lead to the others, which MaxSim rarely takes.
      error: squared error summed over the vectors, in white coordinates.
    """

    centroids: np.ndarray
    classes: np.ndarray
    rows: list[np.ndarray]
    listed: np.ndarray
    error: float


@dataclasses.dataclass(frozen=True, eq=False)
class Codec:
    """How the vectors of an index are coded.

    Attributes:
      centroids: [C, K] float16, in white coordinates. (In int8 they would cost what they save: tokens that are nearly
        alike in all passages, such as the last one, win often and have residuals below its rounding errors.)
      transform: T, [K, K] float32, symmetric.
      rotation: [K, K] float32, columns are principal axes of the residuals' directions.
      steps: [9, K] float32, step of the quantiser of each number of bits along each axis, for a residual of size 1.
      floor: [] float32, added to the share of question tokens that a vector wins, to make its weight.
      edges: [J + 1] float32, classes of s sqrt(weight).
      sizes: [J, 2] float32, smallest and largest residual size of each class.
      widths: [J, K] uint8, bits of each axis.
    """

    centroids: np.ndarray
    transform: np.ndarray
    rotation: np.ndarray
    steps: np.ndarray
    floor: np.ndarray
    edges: np.ndarray
    sizes: np.ndarray
    widths: np.ndarray

    @classmethod
    def train(
        cls,
        seen: np.ndarray,
        sample: np.ndarray,
        lengths: np.ndarray,
        questions: np.ndarray | None,
        *,
        centroids: int,
        share_out: Callable[[float, float], float],
        seed: int = 0,
        progress: bool | None = None,
    ) -> "Codec":
        """Fits a codec to the vectors of sample passages.

        Args:
          seen: vectors that the centroids are fitted to, [T', K] float32.
          sample: vectors of another draw of passages, [T, K] float32. All else is fitted to these: residuals of the
            vectors that centroids were fitted to are smaller than those of the corpus.
          lengths: [M], how many of them each passage has.
          questions: tokens of sample questions, [S, K] float32; None where there are none.
          centroids: C.
          share_out: given the bytes of a header, and entries of lists for each vector (different centroids of a passage
            over its vectors), returns how many bytes the bits of a residual may take on the average.
          seed: of the first centroids.
          progress: show a bar.
        """
        moment = None if questions is None else questions.T.astype(np.float64) @ questions / len(questions)
        transform = _root(moment, sample.shape[1])
        stored = kmeans(seen @ transform, centroids, seed=seed, progress=progress).astype(np.float16)
        middle = stored.astype(np.float32)
        white = sample @ transform
        nearest = assign(white, middle)
        rest = white - middle[nearest]
        sizes = _sizes(rest)
        floor = np.float32(_NEVER_TAKEN * len(lengths) / len(sample))
        matters = _weights(sample, lengths, questions, floor)
        marks = sizes * np.sqrt(matters)
        directions, share = rest / sizes[:, None], marks**2 / (marks**2).sum()
        values, axes = np.linalg.eigh((directions.T * share) @ directions)
        rotation = np.ascontiguousarray(axes[:, ::-1], np.float32)
        deviations = np.sqrt(np.maximum(values[::-1], 1e-6)).astype(np.float32)
        some = slice(None, None, -(-len(directions) // _FITTED))
        steps, errors = _fitted(directions[some] @ rotation, share[some], deviations)
        edges = _edges(marks)
        classes = _classes(edges, marks)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        listed = _listed(matters, floor, questions)
        entries = len(np.unique((owner * len(middle) + nearest)[listed])) / len(sample)
        widths = _share_out(marks, classes, errors, share_out(_header_bytes(len(middle)), entries))
        spans = _size_spans(sizes, classes)
        return cls(stored, transform, rotation, steps, np.array(floor), edges, spans, widths)

    @property
    def width(self) -> int:
        """K."""
        return self.transform.shape[0]

    @property
    def header_bytes(self) -> int:
        """Bytes of a centroid and a size."""
        return _header_bytes(len(self.centroids))

    def nearest(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the centroid of each vector [T, K], int32 [T]."""
        return assign(vectors @ self.transform, self.middle)

    def encode(self, vectors: np.ndarray, lengths: np.ndarray, questions: np.ndarray | None) -> "Coded":
        """Codes the vectors of passages.

        Args:
          vectors: [T, K] float32.
          lengths: [M], how many of them each passage has.
          questions: the sample question tokens that the codec was fitted with, or None.
        """
        white = vectors @ self.transform
        codes = assign(white, self.middle)
        rest = white - self.middle[codes]
        sizes = _sizes(rest)
        matters = _weights(vectors, lengths, questions, self.floor)
        classes = _classes(self.edges, sizes * np.sqrt(matters))
        low, span = self._size_scale
        most = self._size_table.shape[1] - 1
        marks = np.rint((np.log2(sizes) - low[classes]) / span[classes] * most).clip(0, most).astype(np.uint32)
        along = (rest / self._size_table[classes, marks][:, None]) @ self.rotation
        heads = codes.astype(np.uint32) | marks << self._centroid_bits
        rows, error = [], 0.0
        for j, widths in enumerate(self.widths):
            here = np.flatnonzero(classes == j)
            steps, levels = self._steps(j), 2.0 ** widths.astype(np.float32)
            cells = np.clip(np.floor(along[here] / np.where(widths, steps, 1) + levels / 2), 0, levels - 1)
            missed = (along[here] - (cells - (levels - 1) / 2) * steps) * self._size_table[j, marks[here]][:, None]
            error += float((missed.astype(np.float64) ** 2).sum())
            axis, plane = self._layout(j)
            bits = (cells.astype(np.uint8)[:, axis] >> plane) & 1
            header = heads[here].astype("<u4").view(np.uint8).reshape(-1, 4)[:, : self.header_bytes]
            rows.append(np.concatenate([header, np.packbits(bits, axis=1, bitorder="little")], axis=1))
        return Coded(codes, classes, rows, _listed(matters, self.floor, questions), error)

    def questions(self, vectors: np.ndarray) -> np.ndarray:
        """Moves question vectors [..., K] to the coordinates of the centroids."""
        return (vectors @ self._inverse).astype(np.float32)

    def weights(self, white: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Turns question tokens into what their products with stored vectors are made of.

        Args:
          white: [Q, K], from `questions`.

        Returns:
          For each class, what each stored bit adds to the products, [bits, Q] float32, and a constant, [Q] float32;
          `q . x = q . centroid + s (bits @ weights + constant)`.
        """
        turned = white @ self.rotation  # [Q, K]
        found = []
        for j, widths in enumerate(self.widths):
            scaled = (turned * self._steps(j)).T.astype(np.float32)  # [K, Q]
            axis, plane = self._layout(j)
            constant = -((2.0**widths - 1) / 2).astype(np.float32) @ scaled
            found.append((scaled[axis] * (2.0**plane)[:, None].astype(np.float32), constant))
        return found

    @functools.cached_property
    def middle(self) -> np.ndarray:
        """The centroids, [C, K] float32 in white coordinates."""
        return self.centroids.astype(np.float32)

    def heads(self, rows: np.ndarray) -> np.ndarray:
        """Returns the centroid of stored rows [T, bytes], int64 [T]."""
        return _joined(rows[:, : self.header_bytes]) & ((1 << self._centroid_bits) - 1)

    def products(self, rows: np.ndarray, j: int, weights: jax.Array, constant: jax.Array, near: jax.Array) -> jax.Array:
        """Dot products of stored vectors of one class with question tokens, [T, Q] float32.

        Args:
          rows: [T, R_j] uint8, as stored.
          j: the class.
          weights, constant: the class's part of `weights`.
          near: [C, Q], products of the centroids.
        """
        return _products(
            rows,
            weights,
            constant,
            self._size_table[j],
            near,
            centroid_bits=self._centroid_bits,
            header=self.header_bytes,
        )

    def save(self, path: Path) -> None:
        """Writes the codec as one `.npz` file."""
        with replacing(path, "wb") as f:
            np.savez(f, **{name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: Path) -> "Codec":
        """Reads a codec.

        Raises:
          InputError: if the file is not one.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in _ARRAYS})
        except (OSError, ValueError, KeyError) as error:
            raise InputError("not the codec of a residual index", file=path, remedy=REBUILD) from error

    @functools.cached_property
    def _inverse(self) -> np.ndarray:
        return np.linalg.inv(self.transform.astype(np.float64)).astype(np.float32)

    @functools.cached_property
    def _centroid_bits(self) -> int:
        return _bits_for(len(self.centroids))

    @functools.cached_property
    def _size_scale(self) -> tuple[np.ndarray, np.ndarray]:
        logs = np.log2(self.sizes)
        return logs[:, 0], np.maximum(logs[:, 1] - logs[:, 0], 1e-3)

    @functools.cached_property
    def _size_table(self) -> np.ndarray:
        """The residual size of each class and stored mark, [J, marks] float32."""
        low, span = self._size_scale
        marks = 1 << min(8, 8 * self.header_bytes - self._centroid_bits)
        return (2.0 ** (low[:, None] + span[:, None] * np.arange(marks) / (marks - 1))).astype(np.float32)

    def _steps(self, j: int) -> np.ndarray:
        return np.take_along_axis(self.steps, self.widths[j][None].astype(np.int64), 0)[0]

    def _layout(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        """The axis and the place value of each stored bit of class j."""
        widths = self.widths[j].astype(np.int64)
        axis = np.repeat(np.arange(len(widths)), widths)
        plane = np.arange(len(axis)) - np.repeat(np.cumsum(widths) - widths, widths)
        return axis, plane.astype(np.uint8)


def _weights(vectors: np.ndarray, lengths: np.ndarray, questions: np.ndarray | None, floor: float) -> np.ndarray:
    """How much the error of each vector [T, K] matters, [T] float32: alike for all where there are no questions."""
    if questions is None:
        return np.full(len(vectors), floor, np.float32)
    return win_rates(vectors, lengths, questions) + floor


def _listed(matters: np.ndarray, floor: float, questions: np.ndarray | None) -> np.ndarray:
    """Vectors [T] that win often enough to find their passage by them."""
    return np.full(len(matters), True) if questions is None else matters >= 2 * floor


@functools.partial(jax.jit, static_argnames=("centroid_bits", "header"))
def _products(
    rows: jax.Array,
    weights: jax.Array,
    constant: jax.Array,
    sizes: jax.Array,
    near: jax.Array,
    *,
    centroid_bits: int,
    header: int,
) -> jax.Array:
    heads = _joined(rows[:, :header].astype(jnp.uint32))
    bits = (rows[:, header:, None] >> jnp.arange(8, dtype=jnp.uint8)) & 1
    rest = bits.reshape(len(rows), -1).astype(jnp.float32) @ weights + constant
    return near[heads & ((1 << centroid_bits) - 1)] + sizes[heads >> centroid_bits][:, None] * rest


def _joined(header: Any) -> Any:
    """The little-endian number in rows of bytes [T, n]."""
    return sum(header[:, i].astype("uint32") << (8 * i) for i in range(header.shape[1]))


def _bits_for(centroids: int) -> int:
    return max(1, (centroids - 1).bit_length())


def _header_bytes(centroids: int) -> int:
    return -(-(_bits_for(centroids) + _SIZE_BITS) // 8)


def _root(moment: np.ndarray | None, width: int) -> np.ndarray:
    """The symmetric square root of S, with its smallest eigenvalues lifted, scaled to mean 1."""
    if moment is None:
        return np.eye(width, dtype=np.float32)
    values, axes = np.linalg.eigh(np.asarray(moment, np.float64))
    values = np.maximum(values, 0) / max(values.mean(), np.finfo(np.float64).tiny) + _SHRINKAGE
    return np.ascontiguousarray((axes * np.sqrt(values)) @ axes.T, np.float32)


def _sizes(rest: np.ndarray) -> np.ndarray:
    """Root mean square of each residual, [T] float32; never 0."""
    return np.maximum(np.sqrt((rest**2).mean(axis=1)), 1e-6).astype(np.float32)


def _edges(marks: np.ndarray) -> np.ndarray:
    """Class borders, evenly spaced in the logarithm except for the outermost, [J + 1] float32."""
    low, high = np.quantile(marks, [0.02, 0.998])
    return np.geomspace(low, max(high, low * 1.01), CLASSES + 1).astype(np.float32)


def _classes(edges: np.ndarray, marks: np.ndarray) -> np.ndarray:
    return np.clip(np.searchsorted(edges, marks, "right") - 1, 0, len(edges) - 2).astype(np.uint8)


def _size_spans(sizes: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Smallest and largest size of each class, with room for those that the sample lacks, [J, 2] float32."""
    spans = np.ones((CLASSES, 2))
    for j in np.unique(classes):
        here = sizes[classes == j]
        spans[j] = here.min() / 1.2, here.max() * 1.2
    return spans.astype(np.float32)


def _fitted(along: np.ndarray, share: np.ndarray, deviations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best steps of uniform quantisers for residuals [T, K] weighted by `share` [T], and their mean squared errors.

    Both are [9, K], by bits.
    """
    share = (share / share.sum()).astype(np.float32)
    steps, errors = np.zeros((len(_STEPS), along.shape[1])), np.tile(share @ along**2, (len(_STEPS), 1))
    for width in range(1, len(_STEPS)):
        errors[width] = np.inf
        for stretch in _STRETCHES:
            tried = _STEPS[width] * stretch * deviations
            cells = np.clip(np.floor(along / tried + 2 ** (width - 1)), 0, 2**width - 1)
            missed = share @ (along - (cells - (2**width - 1) / 2) * tried) ** 2
            better = missed < errors[width]
            steps[width, better], errors[width, better] = tried[better], missed[better]
    return steps.astype(np.float32), errors


def _share_out(marks: np.ndarray, classes: np.ndarray, errors: np.ndarray, left: float) -> np.ndarray:
    """Bits of each class and axis, [J, K] uint8: whole bytes for a class, `left` bytes on the average."""
    shares = np.bincount(classes, minlength=CLASSES) / len(marks)
    energy = np.bincount(classes, marks.astype(np.float64) ** 2, CLASSES) / np.maximum(shares * len(marks), 1)
    plans, left_over = _byte_plans(errors)
    given = np.zeros(CLASSES, int)
    while True:
        more = np.minimum(given + 1, len(plans) - 1)
        gains = np.where(
            (given < len(plans) - 1) & (shares <= left) & (shares > 0), energy * (left_over[given] - left_over[more]), 0
        )
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            return plans[given].astype(np.uint8)
        given[best] += 1
        left -= shares[best]


def _byte_plans(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For 0, 1, 2, ... bytes: the best bits of each axis [n, K], and the squared error that they leave [n]."""
    axes = np.arange(errors.shape[1])
    widths = np.zeros(len(axes), int)
    plans, left = [widths.copy()], [errors[0].sum()]
    for _ in range(len(axes) * _MOST_BITS // 8):
        for _ in range(8):
            gains = errors[widths, axes] - errors[np.minimum(widths + 1, _MOST_BITS), axes]
            gains[widths == _MOST_BITS] = -1
            widths[int(np.argmax(gains))] += 1
        plans.append(widths.copy())
        left.append(float(errors[widths, axes].sum()))
    return np.array(plans), np.array(left)
