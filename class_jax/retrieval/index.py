# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The interface of an index of a corpus, and the manifest that says of which kind the index in a folder is.

An index is a folder: `manifest.json` and the files that it names with their sizes and digests. Opening one reads the
manifest only; the rest is memory-mapped or read by the first search.

Axes: B questions, M passages, Q question tokens, K head dim.
"""

import functools
import hashlib
import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np

from class_jax.common.files import digest_file, file_entry, read_json, replacing, write_json
from class_jax.errors import InputError, nearest

FORMAT, VERSION = "class_jax index", 1
MANIFEST = "manifest.json"
REBUILD = "build the index again"
# kind -> the class that opens it; imported when asked for, because ScaNN brings TensorFlow.
KINDS = {
    "exact": ("class_jax.retrieval.vectors", "ExactIndex"),
    "residual": ("class_jax.retrieval.residual", "ResidualIndex"),
    "scann": ("class_jax.retrieval.scann.kind", "ScannKind"),
}
_IDENTITY = ("kind", "retriever", "model", "corpus", "vocabulary", "passages", "width")


@runtime_checkable
class Index(Protocol):
    """An index of one corpus by one model's vectors.

    Attributes:
      kind: one of `KINDS`.
      retriever: "multi_vector" or "dense".
      model: `class_jax.models.inference.retriever_fingerprint` of the weights that made the vectors.
      corpus: `TokenStore.fingerprint`.
      num_passages: M, deleted ones included.
    """

    kind: str
    retriever: Literal["multi_vector", "dense"]
    model: str
    corpus: str
    num_passages: int

    def search(self, vectors: np.ndarray, mask: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Finds the k best passages of every question.

        Args:
          vectors: [B, Q, K] float32; dense [B, K].
          mask: [B, Q] bool, which question tokens are real; None: all are. Ignored for dense vectors.
          k: passages per question.

        Returns:
          rows [B, k] int64 of the token store and scores [B, k] float32, best first, equal scores by row; -1 and -inf
          where there are no more.

        Raises:
          InputError: for vectors of another width or number of axes, or that are not finite; a k below 1.
        """
        ...


class StoredIndex:
    """An index that is a folder with a manifest; what the kinds share.

    Attributes:
      kind: of the index; set by the class.
      retriever, model, corpus, num_passages: see `Index`.
      folder: of the index.
      manifest: its manifest.
    """

    kind: str

    def __init__(self, folder: Path, manifest: dict):
        """Takes a checked manifest; see `open`."""
        self.folder, self.manifest = folder, manifest
        self.retriever, self.model, self.corpus = (manifest[key] for key in ("retriever", "model", "corpus"))
        self.num_passages: int = manifest["passages"]

    @classmethod
    def open(cls, folder: str | os.PathLike, *, verify: bool = False) -> Self:
        """Opens an index; only the manifest is read. See `open_index`."""
        manifest = read_manifest(folder, cls.kind)
        check_files(folder, manifest["files"], verify)
        return cls(Path(folder), manifest)

    @functools.cached_property
    def deleted(self) -> np.ndarray:
        """[M] bool, passages that are never returned."""
        return read_deleted(self.folder, self.manifest)

    def delete(self, rows: np.ndarray) -> None:
        """Takes passages out of every later search; see `delete_rows`."""
        self.manifest, self.deleted = delete_rows(self.folder, self.manifest, rows)


def open_index(folder: str | os.PathLike, *, verify: bool = False) -> Index:
    """Opens the index in a folder, whatever its kind; only the manifest is read.

    Args:
      folder: of the index; the folder that `class-jax embed` writes is one too, of the kind "exact".
      verify: compare every file with its digest too (reads the whole index once).

    Raises:
      InputError: if there is no index, its kind is unknown, or a file is missing, has another size or, under `verify`,
        other bytes.
    """
    manifest = read_manifest(folder)
    module, name = KINDS[manifest["kind"]]
    return getattr(importlib.import_module(module), name).open(folder, verify=verify)


def check_model(index: Index, fingerprint: str, allow_other: bool = False) -> None:
    """Checks that an index was made with the weights in use.

    Args:
      index: the index.
      fingerprint: `class_jax.models.inference.retriever_fingerprint` of the weights in use.
      allow_other: accept other weights (scores then mean little; for experiments with stale indexes).

    Raises:
      InputError: naming both fingerprints.
    """
    if index.model != fingerprint and not allow_other:
        raise InputError(
            f"the index was made with the weights {index.model[:12] or '(unknown)'}, not with {fingerprint[:12]}",
            key="model",
            remedy="embed the corpus with this model, or allow other weights (--allow-other-model)",
        )


def check_corpus(index: Index, fingerprint: str) -> None:
    """Checks that an index was made of the token store in use.

    Raises:
      InputError: naming both fingerprints.
    """
    if index.corpus != fingerprint:
        raise InputError(
            f"the index was made of the corpus {index.corpus[:12] or '(unknown)'}, not of {fingerprint[:12]}",
            key="corpus",
            remedy="give the token store that it was made of, or embed this one",
        )


def write_manifest(folder: str | os.PathLike, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the manifest of an index, with the format and a digest over all of it; returns what was written.

    Args:
      folder: of the index, whose files are complete.
      manifest: at least kind, retriever, model, corpus, vocabulary, passages, width (K) and files
        (name -> bytes and sha256, see `class_jax.common.files.file_entry`).
    """
    whole = {"format": FORMAT, "version": VERSION, **manifest}
    whole["fingerprint"] = _digest(whole)
    write_json(Path(folder) / MANIFEST, whole)
    return whole


def read_manifest(folder: str | os.PathLike, kind: str | None = None) -> dict[str, Any]:
    """Reads and checks the manifest of an index.

    Args:
      folder: of the index.
      kind: what it must be; None takes every known kind.

    Raises:
      InputError: if there is none, it was edited or damaged, or is of another format or kind.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        left = Path(folder) / "parts"
        remedy = "let `class-jax embed` finish: it resumes where it stopped" if left.is_dir() else "check the path"
        raise InputError("no index here", file=folder, remedy=remedy)
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError("not an index of class_jax", file=path, remedy=REBUILD)
    if manifest.get("version") != VERSION:
        raise InputError(f"version {manifest.get('version')}, but this program reads {VERSION}", file=path)
    content = {key: value for key, value in manifest.items() if key != "fingerprint"}
    if manifest.get("fingerprint") != _digest(content) or {*_IDENTITY, "files"} - manifest.keys():
        raise InputError("damaged: its content does not fit its own digest", file=path, remedy=REBUILD)
    if manifest["kind"] not in KINDS:
        raise InputError(f"unknown kind {manifest['kind']!r}", file=path, remedy=nearest(manifest["kind"], KINDS))
    if kind is not None and manifest["kind"] != kind:
        raise InputError(f"the index is of the kind {manifest['kind']!r}, not {kind!r}", file=folder)
    return manifest


def check_files(folder: str | os.PathLike, files: Mapping[str, Mapping[str, Any]], verify: bool) -> None:
    """Compares files with their entries: sizes, and under `verify` digests.

    Raises:
      InputError: naming the first file that is missing or altered.
    """
    for name, entry in files.items():
        path = Path(folder) / name
        if not path.is_file():
            raise InputError("missing from the index", file=path, remedy=REBUILD)
        if (found := path.stat().st_size) != entry["bytes"]:
            raise InputError(f"{found} bytes, not {entry['bytes']}", file=path, remedy=REBUILD)
        if verify and digest_file(path) != entry["sha256"]:
            raise InputError("damaged: its bytes are not those that were written", file=path, remedy=REBUILD)


def read_deleted(folder: str | os.PathLike, manifest: Mapping[str, Any]) -> np.ndarray:
    """Returns which passages of an index were deleted, [M] bool; reads a file only where any were."""
    gone = np.zeros(manifest["passages"], bool)
    if (name := manifest.get("deleted")) is not None:
        # An index that grew since has more passages than the file.
        bits = np.unpackbits(np.fromfile(Path(folder) / name, np.uint8))[: len(gone)]
        gone[: len(bits)] = bits
    return gone


def delete_rows(
    folder: str | os.PathLike, manifest: Mapping[str, Any], rows: np.ndarray
) -> tuple[dict[str, Any], np.ndarray]:
    """Takes passages out of every later search of an index; their data stay until the index is built again.

    Args:
      folder: of the index.
      manifest: its manifest.
      rows: [n] passage rows.

    Returns:
      The new manifest and all passages deleted so far, [M] bool.

    Raises:
      InputError: if a row does not exist.
    """
    rows, gone = np.asarray(rows, np.int64), read_deleted(folder, manifest)
    if rows.size and not (rows.min() >= 0 and rows.max() < len(gone)):
        raise InputError(f"rows are 0 to {len(gone) - 1}", file=folder, key="rows")
    gone[rows] = True
    old = manifest.get("deleted")
    # A new file each time: the files of a manifest that was read a moment ago stay as they were.
    name = f"deleted-{0 if old is None else int(old[len('deleted-') : -len('.bin')]) + 1}.bin"
    with replacing(Path(folder) / name, "wb") as f:
        f.write(np.packbits(gone).data)
    files = {key: value for key, value in manifest["files"].items() if key != old}
    files[name] = file_entry(Path(folder) / name)
    content = {key: value for key, value in manifest.items() if key != "fingerprint"}
    new = write_manifest(folder, content | {"deleted": name, "files": files})
    if old is not None:
        (Path(folder) / old).unlink(missing_ok=True)
    return new, gone


def checked_questions(
    vectors: np.ndarray, mask: np.ndarray | None, k: int, *, retriever: str, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Checks what `Index.search` was given.

    Args:
      vectors: [B, Q, K], or [B, K] for a dense index.
      mask: [B, Q] bool or None.
      k: passages per question.
      retriever: of the index.
      width: of the index's vectors.

    Returns:
      vectors [B, Q, K] float32 (dense: Q = 1), padding set to 0, and mask [B, Q] bool.

    Raises:
      InputError: if they do not fit the index, are not finite, or k is below 1.
    """
    if k < 1:
        raise InputError(f"{k} passages a question asked for", key="k", remedy="ask for 1 or more")
    vectors = np.asarray(vectors, np.float32)
    axes = 2 if retriever == "dense" else 3
    if vectors.ndim != axes or vectors.shape[-1] != width:
        wanted = f"[B, {width}]" if axes == 2 else f"[B, Q, {width}]"
        raise InputError(
            f"question vectors {list(vectors.shape)} for an index of {wanted}",
            key="vectors",
            remedy="embed the questions with the model that made the index",
        )
    if axes == 2:
        vectors, mask = vectors[:, None], None
    mask = np.ones(vectors.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    if mask.shape != vectors.shape[:2]:
        raise InputError(f"a mask {list(mask.shape)} for question vectors {list(vectors.shape)}", key="mask")
    vectors = np.where(mask[..., None], vectors, 0)
    if not np.isfinite(vectors).all():
        question = int(np.argmin(np.isfinite(vectors).all(axis=(1, 2))))
        raise InputError("the question's vectors are not finite", key=f"question {question}")
    return vectors, mask


def _digest(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
