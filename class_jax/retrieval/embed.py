# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Embeds a corpus into files, in parts that are pieces of work: an interrupted run loses the part that it was in.

Axes: M passages, P passage tokens, K head dim; T vectors.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from class_jax.common.batching import length_batches, power_of_two
from class_jax.common.files import file_entry, remove_leftovers, replacing
from class_jax.common.work import RECORDS, WorkFolder, refuse_other
from class_jax.corpus.store import TokenStore
from class_jax.distributed import SINGLE_PROCESS, ProcessGroup
from class_jax.distributed.agreement import refuse_differences
from class_jax.errors import InputError, nearest
from class_jax.models.encode import PASSAGE_BUCKETS, DualEncoder, Params, embed_passages, padded_batch
from class_jax.retrieval.index import MANIFEST, read_manifest, write_manifest
from class_jax.retrieval.vectors import DTYPES, VectorStore

_LENGTHS = "lengths.bin"
_REMEDY = "give another folder, or delete this one"
# Batches whose vectors may be in transfer from the device while the next ones are computed.
_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class EmbedSettings:
    """How a corpus is embedded.

    Attributes:
      dtype: what is written: "float32", "float16", "bfloat16", or "int8" with one float32 scale a vector.
      batch: passages encoded at once on each device.
      part_passages: passages of one part; a killed run loses the part that it was in.
      buckets: padded passage lengths.
    """

    dtype: str = "float16"
    batch: int = 64
    part_passages: int = 16384
    buckets: tuple[int, ...] = PASSAGE_BUCKETS

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise InputError(f"unknown type {self.dtype!r}", key="dtype", remedy=nearest(self.dtype, DTYPES))
        if self.batch < 1 or self.part_passages < 1:
            raise InputError("must be 1 or more", key="batch" if self.batch < 1 else "part_passages")


def embed_corpus(
    encoder: DualEncoder,
    params: Params,
    store: TokenStore,
    folder: str | os.PathLike,
    *,
    model: str,
    settings: EmbedSettings | None = None,
    progress: bool | None = None,
    hosts: ProcessGroup = SINGLE_PROCESS,
) -> VectorStore:
    """Embeds every passage of a token store, resuming what an interrupted run left in `folder`.

    Passages of like length are encoded together. A batch is sharded over all devices of a host; hosts take parts in
    turn (`class_jax.distributed.start.join_process_group` first, and a folder that all of them see), and host 0 writes
    the manifest.

    Args:
      encoder: the model's retriever.
      params: its parameters.
      store: the corpus.
      folder: where the vectors go.
      model: `class_jax.models.inference.retriever_fingerprint` of the weights.
      settings: None takes the defaults.
      progress: True shows a bar with passages a second and the time left, None on a terminal only.
      hosts: those that share the work.

    Returns:
      The vectors, opened.

    Raises:
      InputError: if hosts differ in any of this; `folder` holds something else, or vectors of other weights, corpus or
        settings; a vector is not finite, or not a float16; the disk is full.
    """
    settings, folder = settings or EmbedSettings(), Path(folder)
    plan = {
        "retriever": encoder.kind,
        "model": model,
        "corpus": store.fingerprint,
        "vocabulary": store.manifest["vocabulary"]["fingerprint"],
        "passages": store.num_passages,
        "dtype": settings.dtype,
        "part_passages": settings.part_passages,
    }
    host, work = hosts.index, WorkFolder(folder, _REMEDY)
    refuse_differences(dict(enumerate(hosts.exchange("what is embedded", plan))))
    if host == 0:
        _check_folder(work, plan)
    hosts.meet("plan")
    if (folder / MANIFEST).is_file():
        return VectorStore.open(folder)
    count = -(-store.num_passages // settings.part_passages)
    mine = range(host, count, hosts.count)
    done = {part for part in mine if work.piece(_name(part), plan) is not None}
    sizes = {part: _rows_of(part, store, settings)[1] - _rows_of(part, store, settings)[0] for part in mine}
    devices = jax.local_devices()
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    held = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    with tqdm(
        total=sum(sizes.values()),
        initial=sum(sizes[part] for part in done),
        unit="passage",
        desc="embed" if hosts.count == 1 else f"embed (host {host})",
        disable=None if progress is None else not progress,
    ) as bar:
        for part in mine:
            if part not in done:

                def make(part: int = part) -> dict[str, int]:
                    vectors = _embed_part(encoder, held, store, part, settings, sharding, bar.update)
                    return _write_part(folder, part, vectors, settings.dtype)

                work.run(_name(part), make, inputs=plan, outputs=_files_of(part, settings.dtype))
    hosts.meet("parts")
    if host == 0:
        _finish(work, plan, count, store)
    hosts.meet("manifest")
    return VectorStore.open(folder)


def _name(part: int) -> str:
    return f"parts/{part:05d}"


def _files_of(part: int, dtype: str) -> list[str]:
    return [f"{_name(part)}.vectors", *([f"{_name(part)}.scales"] if dtype == "int8" else [])]


def _rows_of(part: int, store: TokenStore, settings: EmbedSettings) -> tuple[int, int]:
    first = part * settings.part_passages
    return first, min(first + settings.part_passages, store.num_passages)


def _check_folder(work: WorkFolder, plan: dict[str, Any]) -> None:
    """Refuses a folder that holds anything but the (perhaps unfinished) vectors of the same plan."""
    folder = work.path
    if not folder.exists():
        return
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder, "exact")
        refuse_other({key: manifest.get(key) for key in plan}, plan, file=folder, remedy=_REMEDY)
        work.forget()
    elif {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {"parts", RECORDS, _LENGTHS}:
        raise InputError("the folder holds something else", file=folder, remedy="give an empty or new folder")
    for piece in work.pieces():
        refuse_other(piece.inputs, plan, file=folder, remedy=_REMEDY)
        return


def _embed_part(
    encoder: DualEncoder,
    params: Params,
    store: TokenStore,
    part: int,
    settings: EmbedSettings,
    sharding: NamedSharding,
    update: Callable[[int], None],
) -> np.ndarray:
    """Returns the vectors of one part's passages, [T, K] float32 in the order of the store."""
    first, stop = _rows_of(part, store, settings)
    lengths = np.asarray(store.lengths[first:stop], np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths if encoder.kind == "multi_vector" else np.ones_like(lengths))])
    devices = len(sharding.mesh.devices)
    batch = devices * min(settings.batch, power_of_two(-(-len(lengths) // devices)))
    whole, waiting = None, []

    def collect() -> None:
        nonlocal whole
        members, embedded = waiting.pop(0)
        vectors, mask = jax.device_get(embedded)
        if whole is None:
            whole = np.empty((int(offsets[-1]), vectors.shape[-1]), np.float32)
        if encoder.kind == "dense":
            whole[members] = vectors[: len(members)]
        else:
            mask = mask[: len(members)]
            within = np.broadcast_to(np.arange(mask.shape[1]), mask.shape)[mask]
            whole[np.repeat(offsets[members], mask.sum(1)) + within] = vectors[: len(members)][mask]
        update(len(members))

    for members, length in length_batches(lengths, batch, settings.buckets):
        ids, counts, _ = padded_batch(store, first + members, batch, length)
        waiting.append((members, embed_passages(encoder, params, *jax.device_put((ids, counts), sharding))))
        if len(waiting) > _IN_FLIGHT:
            collect()
    while waiting:
        collect()
    if not np.isfinite(whole).all():
        at = int(np.flatnonzero(~np.isfinite(whole).all(axis=1))[0])
        row = first + int(np.searchsorted(offsets, at, "right")) - 1
        raise InputError("the model's vectors are not finite", key=f"passage {store.id(row)}", remedy="check the model")
    return whole


def quantised(vectors: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns vectors [T, K] float32 in the type stored, and the scales [T] float32 of int8.

    Raises:
      InputError: if a number is too large for float16.
    """
    if dtype != "int8":
        with np.errstate(over="ignore"):
            stored = vectors.astype(DTYPES[dtype])
        if dtype == "float16" and not np.isfinite(stored).all():
            raise InputError("vectors too large for float16", key="dtype", remedy="store them as bfloat16 or int8")
        return stored, None
    scales = np.maximum(np.abs(vectors).max(axis=1), np.finfo(np.float32).tiny) / 127
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def _write_part(folder: Path, part: int, vectors: np.ndarray, dtype: str) -> dict[str, int]:
    """Writes a part's files; returns the width and the number of its vectors."""
    for name, array in zip(_files_of(part, dtype), quantised(vectors, dtype), strict=False):
        with replacing(folder / name, "wb") as f:
            f.write(np.ascontiguousarray(array).view(np.uint8).data)
    return {"width": vectors.shape[1], "vectors": len(vectors)}


def _finish(work: WorkFolder, plan: dict[str, Any], parts: int, store: TokenStore) -> None:
    """Writes the lengths and the manifest, by which the folder becomes an index."""
    folder, files, widths, vectors = work.path, {}, set(), 0
    for part in range(parts):
        piece = work.piece(_name(part))
        files |= {name: {"bytes": size, "sha256": digest} for name, (size, digest) in piece.files.items()}
        widths.add(piece.result["width"])
        vectors += piece.result["vectors"]
    for name in (_LENGTHS, MANIFEST):
        remove_leftovers(folder / name)
    if plan["retriever"] == "multi_vector":
        with replacing(folder / _LENGTHS, "wb") as f:
            f.write(np.asarray(store.lengths).astype("<u2").tobytes())
        files[_LENGTHS] = file_entry(folder / _LENGTHS)
    write_manifest(
        folder, {"kind": "exact", **plan, "width": widths.pop(), "vectors": vectors, "deleted": None, "files": files}
    )
    work.forget()
