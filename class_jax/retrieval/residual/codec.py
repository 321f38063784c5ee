# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Token vectors in a few bytes: nearest centroid, and the rest in bits that go where they change scores most.

The idea of centroids and residuals is that of ColBERTv2 and PLAID (arXiv 2112.01488, 2205.09707), which store unit
vectors and give every residual dimension 1 or 2 bits. Here vectors have no common length and scores may be negative;
what must be small is the error of a dot product with a question token q, E[(q.e)^2] = e' S e, S = E[q q']. So:

1. Vectors are moved to coordinates in which question tokens are white: x = v T with T T = S, and q -> q T^-1. Dot
   products stay as they are, and Euclidean error now *is* the error of scores. (Without sample questions T = 1.)
2. x = centroid + s u: the residual's size s is stored in one byte, its direction u, rotated to principal axes, in bits.
3. Residual sizes differ by a factor of ten and more. Vectors fall into classes by s, and each class has its own number
   of bytes, shared out among its dimensions: every byte goes where it lowers the mean squared error most, so that the
   mean number of bits is that which was asked for.

A uniform quantiser is linear in the bits of its code, so q.x is too: no vector is ever decompressed (`weights`).

A stored vector of class j is `3 + bytes[j]` bytes: centroid (2, little-endian), size (1), bits.

Axes: Q question tokens, K head dim; T vectors; C centroids; J classes.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from class_jax.errors import InputError
from class_jax.files import replacing
from class_jax.retrieval.index import REBUILD
from class_jax.retrieval.residual.kmeans import assign, kmeans

HEADER_BYTES = 3
# Best uniform quantisers of a normal variable of variance 1 (Max 1960), by bits: step and mean squared error.
_STEPS = np.array([0, 1.5956, 0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.0569, 0.0308])
_ERRORS = np.array([1, 0.3634, 0.1188, 0.03744, 0.01154, 0.003495, 0.001041, 0.000304, 0.0000877])
_MOST_BITS = len(_STEPS) - 1
# Share of the mean that is added to every eigenvalue of S: questions to come are not quite like those seen.
_SHRINKAGE = 0.02
_CLASSES = 6
_ARRAYS = ("centroids", "transform", "rotation", "deviations", "edges", "widths")


@dataclasses.dataclass(frozen=True, eq=False)
class Codec:
    """How the vectors of an index are coded.

    Attributes:
      centroids: [C, K] float16, in white coordinates.
      transform: T, [K, K] float32, symmetric.
      rotation: [K, K] float32, columns are principal axes of the residuals' directions.
      deviations: [K] float32, standard deviation of a residual of size 1 along each axis.
      edges: [J + 1] float32, classes of residual sizes.
      widths: [J, K] uint8, bits of each axis.
    """

    centroids: np.ndarray
    transform: np.ndarray
    rotation: np.ndarray
    deviations: np.ndarray
    edges: np.ndarray
    widths: np.ndarray

    @classmethod
    def train(
        cls,
        sample: np.ndarray,
        moment: np.ndarray | None,
        *,
        centroids: int,
        bits: float,
        seed: int = 0,
        progress: bool | None = None,
    ) -> "Codec":
        """Fits a codec to sample vectors.

        Args:
          sample: [T, K] float32.
          moment: S, mean of q q' over question tokens, [K, K]; None where no questions are at hand.
          centroids: C.
          bits: mean bits per dimension spent on the residuals (2 or 4 in ColBERTv2's terms; fractions are fine).
          seed: of the first centroids.
          progress: show a bar.
        """
        transform = _root(moment, sample.shape[1])
        white = sample @ transform
        middle = kmeans(white, centroids, seed=seed, progress=progress).astype(np.float16)
        rest = white - middle.astype(np.float32)[assign(white, middle.astype(np.float32))]
        sizes = _sizes(rest)
        directions = rest / sizes[:, None]
        values, axes = np.linalg.eigh(directions.T @ directions / len(rest))
        rotation = np.ascontiguousarray(axes[:, ::-1], np.float32)
        deviations = np.sqrt(np.maximum(values[::-1], 1e-6)).astype(np.float32)
        edges = _edges(sizes)
        widths = _share_out(sizes, edges, deviations, bits)
        return cls(middle, transform, rotation, deviations, edges, widths)

    @property
    def width(self) -> int:
        """K."""
        return self.transform.shape[0]

    @property
    def row_bytes(self) -> list[int]:
        """Bytes of a stored vector of each class, [J]."""
        return [HEADER_BYTES + int(bits.sum()) // 8 for bits in self.widths]

    def encode(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray], float]:
        """Codes vectors [T, K] float32.

        Returns:
          centroid of each vector [T] int32, its class [T] uint8, for each class the rows of its vectors in order
          [T_j, row_bytes[j]] uint8, and the squared error summed over the vectors (in white coordinates).
        """
        white = vectors @ self.transform
        middle = self._middle
        codes = assign(white, middle)
        rest = white - middle[codes]
        sizes = _sizes(rest)
        classes = np.clip(np.searchsorted(self.edges, sizes, "right") - 1, 0, len(self.widths) - 1).astype(np.uint8)
        low, span = self._size_scale
        marks = np.clip(np.rint((np.log2(sizes) - low[classes]) / span[classes] * 255), 0, 255).astype(np.uint8)
        along = (rest / self._size_table[classes, marks][:, None]) @ self.rotation
        rows, error = [], 0.0
        for j, widths in enumerate(self.widths):
            here = np.flatnonzero(classes == j)
            steps, levels = self._steps(j), 2.0 ** widths.astype(np.float32)
            cells = np.clip(np.floor(along[here] / np.where(widths, steps, 1) + levels / 2), 0, levels - 1)
            missed = (along[here] - (cells - (levels - 1) / 2) * steps) * self._size_table[j, marks[here]][:, None]
            error += float((missed.astype(np.float64) ** 2).sum())
            axis, plane = self._layout(j)
            bits = (cells.astype(np.uint8)[:, axis] >> plane) & 1
            header = np.stack([codes[here] & 255, codes[here] >> 8, marks[here]], axis=1).astype(np.uint8)
            rows.append(np.concatenate([header, np.packbits(bits, axis=1, bitorder="little")], axis=1))
        return codes, classes, rows, error

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

    def size_table(self) -> np.ndarray:
        """Returns the residual size s of each class and byte, [J, 256] float32."""
        return self._size_table

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
    def _middle(self) -> np.ndarray:
        return self.centroids.astype(np.float32)

    @functools.cached_property
    def _inverse(self) -> np.ndarray:
        return np.linalg.inv(self.transform.astype(np.float64)).astype(np.float32)

    @functools.cached_property
    def _size_scale(self) -> tuple[np.ndarray, np.ndarray]:
        logs = np.log2(self.edges)
        return logs[:-1], np.maximum(np.diff(logs), 1e-3)

    @functools.cached_property
    def _size_table(self) -> np.ndarray:
        low, span = self._size_scale
        return (2.0 ** (low[:, None] + span[:, None] * np.arange(256) / 255)).astype(np.float32)

    def _steps(self, j: int) -> np.ndarray:
        return (_STEPS[self.widths[j]] * self.deviations).astype(np.float32)

    def _layout(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        """The axis and the place value of each stored bit of class j."""
        widths = self.widths[j].astype(np.int64)
        axis = np.repeat(np.arange(len(widths)), widths)
        plane = np.arange(len(axis)) - np.repeat(np.cumsum(widths) - widths, widths)
        return axis, plane.astype(np.uint8)


@jax.jit
def products(rows: jax.Array, weights: jax.Array, constant: jax.Array, sizes: jax.Array, near: jax.Array) -> jax.Array:
    """Dot products of stored vectors of one class with question tokens, [T, Q] float32.

    Args:
      rows: [T, 3 + bytes] uint8, as stored.
      weights: [bits, Q]. constant: [Q]; see `Codec.weights`.
      sizes: [256], the class's row of `Codec.size_table`.
      near: [C, Q], products of the centroids.
    """
    codes = rows[:, 0].astype(jnp.int32) | (rows[:, 1].astype(jnp.int32) << 8)
    bits = (rows[:, HEADER_BYTES:, None] >> jnp.arange(8, dtype=jnp.uint8)) & 1
    rest = bits.reshape(len(rows), -1).astype(jnp.float32) @ weights + constant
    return near[codes] + sizes[rows[:, 2].astype(jnp.int32)][:, None] * rest


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


def _edges(sizes: np.ndarray) -> np.ndarray:
    """Class borders of residual sizes, evenly spaced in the logarithm but for the outermost."""
    low, high = np.quantile(sizes, [0.02, 0.98])
    inner = np.geomspace(low, max(high, low * 1.01), _CLASSES + 1)
    # Sizes beyond the sample's are clipped to these.
    inner[0], inner[-1] = min(sizes.min(), low) * 0.5, sizes.max() * 2
    return inner.astype(np.float32)


def _share_out(sizes: np.ndarray, edges: np.ndarray, deviations: np.ndarray, bits: float) -> np.ndarray:
    """Bits of each class and axis, [J, K] uint8: whole bytes for a class, `bits` a dimension on the average."""
    classes = np.clip(np.searchsorted(edges, sizes, "right") - 1, 0, _CLASSES - 1)
    shares = np.bincount(classes, minlength=_CLASSES) / len(sizes)
    energy = np.bincount(classes, sizes.astype(np.float64) ** 2, _CLASSES) / np.maximum(shares * len(sizes), 1)
    plans, errors = _byte_plans(deviations.astype(np.float64) ** 2)
    given, left = np.zeros(_CLASSES, int), bits * len(deviations) / 8
    while True:
        more = np.minimum(given + 1, len(plans) - 1)
        gains = np.where(
            (given < len(plans) - 1) & (shares <= left) & (shares > 0), energy * (errors[given] - errors[more]), 0
        )
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            return plans[given].astype(np.uint8)
        given[best] += 1
        left -= shares[best]


def _byte_plans(variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For 0, 1, 2, ... bytes: the best bits of each axis [n, K], and the squared error that they leave [n]."""
    widths = np.zeros(len(variances), int)
    plans, errors = [widths.copy()], [variances.sum()]
    for _ in range(len(variances) * _MOST_BITS // 8):
        for _ in range(8):
            gains = variances * (_ERRORS[widths] - _ERRORS[np.minimum(widths + 1, _MOST_BITS)])
            widths[int(np.argmax(gains))] += 1
        plans.append(widths.copy())
        errors.append(float((variances * _ERRORS[widths]).sum()))
    return np.array(plans), np.array(errors)
