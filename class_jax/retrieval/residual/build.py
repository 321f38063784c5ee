# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Builds a residual index of stored vectors: one stream over them, a segment of passages at a time.

Files of the folder, beside the manifest:

| file | holds |
|---|---|
| `codec.npz` | centroids and how residuals are coded (`codec.Codec`) |
| `segments/NNNNN.bin` | up to 65,536 passages: the sections below, one after the other |
| `deleted-N.bin` | one bit a passage, where passages were deleted |

| section | per | holds |
|---|---|---|
| `span_bases` | block of passages | for each class, where its vectors start (uint32) |
| `spans` | passage | for each class, where its vectors start after the block's (uint16); one row more: where they end |
| `list_starts` | centroid | where its list starts, and one entry more (uint32) |
| `lists` | (centroid, passage) | passages with a vector of note at the centroid, as uint16 within the segment |
| `class_J` | vector | centroid, size and residual bits |

Passages are numbered from 0 in each segment so that lists take two bytes an entry, and so that a build is resumed and
an index grown by whole segments.

Axes: M passages, K head dim; T vectors; C centroids; J classes.
"""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from class_jax.common.files import digest_file, file_entry, remove_leftovers, replacing
from class_jax.common.work import RECORDS, Piece, WorkFolder, refuse_other
from class_jax.errors import InputError
from class_jax.retrieval.index import MANIFEST, REBUILD, read_manifest, write_manifest
from class_jax.retrieval.residual.codec import CLASSES, Codec
from class_jax.retrieval.residual.kmeans import count_for
from class_jax.retrieval.residual.search import SPAN_BLOCK, ResidualIndex
from class_jax.retrieval.vectors import VectorStore

_CODEC = "codec.npz"
_REMEDY = "give another folder, or delete this one"
_OF_THE_VECTORS = ("retriever", "model", "corpus", "vocabulary", "passages", "width", "vectors")
SEGMENT_PASSAGES = 1 << 16
_ALIGNMENT = 64
# Passages whose float32 vectors are held at once.
_BLOCK = 2048
# What a manifest takes for itself and for each segment, about.
_MANIFEST_BYTES = 2048
# What a file of arrays takes beside them, about.
_NPZ_BYTES = 2560
_CAUTION = 0.998
# The least number of vectors that everything but the centroids is fitted to.
_FITTED = 50_000


@dataclasses.dataclass(frozen=True)
class ResidualSettings:
    """How a residual index is built.

    Attributes:
      bytes_per_vector: of the whole index on the disk; what centroids and lists leave of it goes to the residuals.
      centroids: C, at most 65,536; None chooses by the number of vectors.
      sample: vectors per centroid that the centroids are fitted to.
      segment_passages: passages of a segment, at most 65,536.
      seed: of the sample and the first centroids.
    """

    bytes_per_vector: float = 24.0
    centroids: int | None = None
    sample: int = 50
    segment_passages: int = SEGMENT_PASSAGES
    seed: int = 0

    def __post_init__(self):
        for key, low, high in (
            ("bytes_per_vector", 1, 1024),
            ("centroids", 1, 1 << 16),
            ("sample", 1, 1 << 20),
            ("segment_passages", 1, SEGMENT_PASSAGES),
        ):
            value = getattr(self, key)
            if value is not None and not low <= value <= high:
                raise InputError(f"{value} is not within {low} to {high}", key=key)


def build_residual(
    vectors: VectorStore,
    folder: str | os.PathLike,
    *,
    questions: np.ndarray | None = None,
    settings: ResidualSettings | None = None,
    progress: bool | None = None,
) -> ResidualIndex:
    """Builds an index, resuming what an interrupted build of the same index left in `folder`.

    Memory: the sample for k-means, and the coded vectors of one segment (about 200 MB at 65,536 passages of 64-d).

    Args:
      vectors: of the corpus.
      folder: where the index goes.
      questions: token vectors [S, K] float32 of sample questions like those to come (`question_tokens`); bits are
        spent where they matter to these.
      settings: None takes the defaults.
      progress: True shows bars, None on a terminal only.

    Raises:
      InputError: if the vectors are dense, or `folder` holds something else; the bytes are too few; the disk is full.
    """
    settings, folder = settings or ResidualSettings(), Path(folder)
    if vectors.retriever != "multi_vector":
        raise InputError("a residual index is of token vectors", key="retriever", remedy="use the kind scann or exact")
    if vectors.num_vectors and int(np.max(vectors.lengths)) * SPAN_BLOCK >= 1 << 16:
        raise InputError(f"a passage has {np.max(vectors.lengths)} vectors", file=vectors.folder, remedy="cut passages")
    if questions is not None and (np.ndim(questions) != 2 or np.shape(questions)[1] != vectors.width):
        raise InputError(f"{np.shape(questions)} for vectors of width {vectors.width}", key="questions")
    plan = {"vectors": vectors.fingerprint, **dataclasses.asdict(settings), "questions": _digest(questions)}
    work = WorkFolder(folder, _REMEDY)
    _check_folder(work, plan)
    if (folder / MANIFEST).is_file():
        return ResidualIndex.open(folder)

    def make_codec() -> None:
        count = settings.centroids or count_for(vectors.num_vectors)
        seen, _ = vectors.sample(settings.sample * count, settings.seed)
        made = Codec.train(
            seen,
            *vectors.sample(max(settings.sample * count // 4, _FITTED), settings.seed + 1),
            questions,
            centroids=count,
            share_out=functools.partial(_left_for_residuals, settings, vectors, count),
            seed=settings.seed,
            progress=progress,
        )
        made.save(folder / _CODEC)

    work.run("codec", make_codec, inputs=plan, outputs=[_CODEC])
    codec = Codec.load(folder / _CODEC)
    pieces = write_segments(work, vectors, codec, questions, 0, 0, settings.segment_passages, progress)
    _finish(folder, vectors, plan, pieces)
    work.forget()
    return ResidualIndex.open(folder)


def _left_for_residuals(
    settings: ResidualSettings, vectors: VectorStore, centroids: int, header: float, entries: float
) -> float:
    """Bytes a vector for the bits of residuals, once all else has its own; see `Codec.train`."""
    segments = -(-vectors.num_passages // settings.segment_passages)
    codec = 2 * centroids * vectors.width + 8 * vectors.width**2 + (4 * 9 + CLASSES) * vectors.width + _NPZ_BYTES
    spans = (2 + 4 / SPAN_BLOCK) * CLASSES * (vectors.num_passages + segments)
    starts = 4 * (centroids + 1) * segments
    fixed = codec + spans + starts + _MANIFEST_BYTES * (1 + segments) + _ALIGNMENT * CLASSES * segments
    least = header + 2 * entries + fixed / vectors.num_vectors
    # The sample's lists and classes are not quite the corpus's.
    left = settings.bytes_per_vector * _CAUTION - least
    if left < 0:
        raise InputError(
            f"{settings.bytes_per_vector:g} bytes a vector don't hold centroids and lists, which take {least:.1f}",
            key="bytes_per_vector",
            remedy="allow more, or take fewer centroids",
        )
    return left


def grow(
    index: ResidualIndex,
    vectors: VectorStore,
    *,
    questions: np.ndarray | None = None,
    progress: bool | None = None,
) -> ResidualIndex:
    """Appends the passages that a grown corpus has more, coded with the index's own centroids.

    Args:
      index: of the first passages of the corpus.
      vectors: of the grown corpus, by the same model: the first passages as they were, new ones after them.
      questions: the sample question tokens that the index was built with.
      progress: as in `build_residual`.

    Returns:
      The grown index, opened. Its manifest's `segments` hold the mean squared error of each: if that of the new ones is
      far above that of the first ones, the centroids don't fit the new passages (drift): build the index again.

    Raises:
      InputError: if the vectors are of other weights, the corpus is not the index's with passages appended, or the
        questions are others.
    """
    manifest, old = index.manifest, index.num_passages
    if manifest["plan"]["questions"] != _digest(questions):
        raise InputError(
            "the index was built with other sample questions",
            file=index.folder,
            key="questions",
            remedy="give those that it was built with" if manifest["plan"]["questions"] else "leave them out",
        )
    if vectors.manifest["model"] != index.model:
        raise InputError("the vectors are of other weights than the index", file=vectors.folder, key="model")
    if vectors.num_passages < old or manifest["vectors"] != int(vectors.offsets[old]):
        raise InputError(
            f"the corpus does not begin with the index's {old} passages", file=vectors.folder, remedy=REBUILD
        )
    _check_same_start(index, vectors)
    size, place, work = manifest["segment_passages"], len(manifest["segments"]), WorkFolder(index.folder, _REMEDY)
    pieces = write_segments(work, vectors, index.codec, questions, old, place, size, progress)
    changed = dict(manifest, corpus=vectors.manifest["corpus"], passages=vectors.num_passages)
    changed["vectors"] = vectors.num_vectors
    changed["segments"] = [*manifest["segments"], *(piece.result for piece in pieces)]
    changed["files"] = manifest["files"] | _entries(pieces)
    write_manifest(index.folder, {key: value for key, value in changed.items() if key != "fingerprint"})
    work.forget()
    return ResidualIndex.open(index.folder)


def _check_same_start(index: ResidualIndex, vectors: VectorStore) -> None:
    """Codes some of the index's passages again: nearly all of their vectors must get the centroids that they have."""
    rows = np.linspace(0, index.num_passages - 1, min(64, index.num_passages)).astype(np.int64)
    same = total = 0
    for row in rows.tolist():
        stored, new = index.centroids_of(row), index.codec.nearest(vectors.read(row, row + 1))
        total += len(new)
        same += (
            len(new) - np.abs(np.bincount(stored, minlength=1 << 16) - np.bincount(new, minlength=1 << 16)).sum() / 2
        )
    if same < 0.95 * total:
        raise InputError(
            f"the corpus does not begin with the index's {index.num_passages} passages",
            file=vectors.folder,
            remedy=REBUILD,
        )


def question_tokens(vectors: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the vectors of the real tokens of questions [B, Q, K] with mask [B, Q]: [S, K] float32."""
    return np.asarray(vectors, np.float32)[np.asarray(mask, bool)]


def _digest(questions: np.ndarray | None) -> str | None:
    return None if questions is None else hashlib.sha256(np.asarray(questions, "<f4").tobytes()).hexdigest()


def write_segments(
    work: WorkFolder,
    vectors: VectorStore,
    codec: Codec,
    questions: np.ndarray | None,
    first: int,
    place: int,
    size: int,
    progress: bool | None,
) -> list[Piece]:
    """Codes passages from row `first` on into segments numbered from `place`; finished ones are kept.

    Args:
      work: the index's folder, where each segment is a piece of work.
      vectors, codec, questions: what is coded, and how.
      first: row of the first passage.
      place: number of the first segment.
      size: passages of a segment.
      progress: show a bar.

    Returns:
      Each segment's piece; its result is the segment's entry in the manifest.
    """
    made_with = {
        "vectors": vectors.fingerprint,
        "codec": digest_file(work.path / _CODEC),
        "questions": _digest(questions),
    }
    starts = range(first, vectors.num_passages, size)
    inputs = {
        f"segments/{place + i:05d}": made_with | {"first": start, "stop": min(start + size, vectors.num_passages)}
        for i, start in enumerate(starts)
    }
    found = {name: work.piece(name, given) for name, given in inputs.items()}
    done = sum(piece.result["passages"] for piece in found.values() if piece is not None)
    with tqdm(
        total=vectors.num_passages - first,
        initial=done,
        unit="passage",
        desc="compress",
        disable=None if progress is None else not progress,
    ) as bar:
        for name, given in inputs.items():
            if found[name] is None:

                def make(name: str = name, start: int = given["first"], stop: int = given["stop"]) -> dict[str, Any]:
                    sections, error = _coded(vectors, codec, questions, start, stop, bar.update)
                    places = _write_segment(work.path / f"{name}.bin", sections)
                    return {"sections": places, "first": start, "passages": stop - start, "error": error}

                found[name] = work.run(name, make, inputs=given, outputs=[f"{name}.bin"], replace_other=True)
    return list(found.values())


def _coded(
    vectors: VectorStore,
    codec: Codec,
    questions: np.ndarray | None,
    start: int,
    stop: int,
    update: Callable[[int], None],
) -> tuple[dict[str, np.ndarray], float]:
    """Codes the passages of one segment; returns its sections, and the mean squared error of a vector."""
    classes, centroids = len(codec.widths), len(codec.centroids)
    counts, rows, pairs, error, total = [], [[] for _ in range(classes)], [], 0.0, 0
    for first in range(start, stop, _BLOCK):
        last = min(first + _BLOCK, stop)
        lengths = np.asarray(vectors.lengths[first:last], np.int64)
        coded = codec.encode(vectors.read(first, last), lengths, questions)
        owner = np.repeat(np.arange(first - start, last - start), lengths)
        counts.append(
            np.bincount((owner - (first - start)) * classes + coded.classes, minlength=len(lengths) * classes)
        )
        for kept, new in zip(rows, coded.rows, strict=True):
            kept.append(new)
        found = (coded.centroids.astype(np.uint32) << 16) | owner.astype(np.uint32)
        pairs.append(np.unique(found[coded.listed]))
        error, total = error + coded.error, total + len(found)
        update(last - first)
    held = np.concatenate(counts).reshape(-1, classes)
    listed = np.sort(np.concatenate(pairs))  # blocks share no passage, so no pair comes twice
    starts = np.concatenate([np.zeros((1, classes), np.int64), np.cumsum(held, axis=0)])
    bases = starts[::SPAN_BLOCK]
    sections = {
        "spans": (starts - np.repeat(bases, SPAN_BLOCK, axis=0)[: len(starts)]).astype("<u2"),
        "span_bases": bases.astype("<u4"),
        "list_starts": np.searchsorted(listed >> 16, np.arange(centroids + 1)).astype("<u4"),
        "lists": (listed & 0xFFFF).astype("<u2"),
    }
    return sections | {f"class_{j}": np.concatenate(part) for j, part in enumerate(rows)}, error / max(total, 1)


def _write_segment(path: Path, sections: dict[str, np.ndarray]) -> dict[str, Any]:
    """Writes a segment; returns where each of its sections is."""
    places, at = {}, 0
    with replacing(path, "wb") as f:
        for name, array in sections.items():
            places[name] = {"offset": at, "dtype": array.dtype.str, "shape": list(array.shape)}
            f.write(np.ascontiguousarray(array).data)
            padding = -array.nbytes % _ALIGNMENT
            f.write(bytes(padding))
            at += array.nbytes + padding
    return places


def _check_folder(work: WorkFolder, plan: dict[str, Any]) -> None:
    """Refuses a folder that holds anything but the (perhaps unfinished) index of the same plan."""
    folder = work.path
    if not folder.exists():
        return
    if (folder / MANIFEST).is_file():
        refuse_other(read_manifest(folder, "residual")["plan"], plan, file=folder, remedy=_REMEDY)
        work.forget()
    elif {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {"segments", RECORDS, _CODEC}:
        raise InputError("the folder holds something else", file=folder, remedy="give an empty or new folder")


def _finish(folder: Path, vectors: VectorStore, plan: dict[str, Any], pieces: list[Piece]) -> None:
    """Writes the manifest, by which the folder becomes an index."""
    source = vectors.manifest
    remove_leftovers(folder / MANIFEST)
    write_manifest(
        folder,
        {
            "kind": "residual",
            **{key: source[key] for key in _OF_THE_VECTORS},
            "segment_passages": plan["segment_passages"],
            "segments": [piece.result for piece in pieces],
            "files": _entries(pieces) | {_CODEC: file_entry(folder / _CODEC)},
            "deleted": None,
            "plan": plan,
        },
    )


def _entries(pieces: list[Piece]) -> dict[str, dict[str, Any]]:
    """The manifest's entries of all files of some pieces."""
    files = [item for piece in pieces for item in piece.files.items()]
    return {name: {"bytes": size, "sha256": digest} for name, (size, digest) in files}
