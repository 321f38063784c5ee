# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Folders of given vectors, as `class-jax embed` writes them, and what search over them must find."""

import numpy as np

from class_jax.common.files import file_entry
from class_jax.retrieval import index as indexes
from class_jax.retrieval.embed import quantised
from class_jax.retrieval.vectors import VectorStore

K, PART = 8, 32


def write_vectors(folder, passages, *, dtype="float32", retriever="multi_vector", model="m" * 64, corpus="c" * 64):
    """Stores given vectors, a [P, K] array for each passage, as `class-jax embed` would."""
    (folder / "parts").mkdir(parents=True)
    files = {}

    def write(name, array):
        (folder / name).write_bytes(np.ascontiguousarray(array).tobytes())
        files[name] = file_entry(folder / name)

    for part, start in enumerate(range(0, len(passages), PART)):
        stored, scales = quantised(np.concatenate(passages[start : start + PART]).astype(np.float32), dtype)
        write(f"parts/{part:05d}.vectors", stored)
        if scales is not None:
            write(f"parts/{part:05d}.scales", scales)
    if retriever == "multi_vector":
        write("lengths.bin", np.array([len(p) for p in passages], "<u2"))
    manifest = {"kind": "exact", "retriever": retriever, "model": model, "corpus": corpus, "vocabulary": "v" * 64}
    manifest |= {"passages": len(passages), "width": passages[0].shape[1], "vectors": sum(map(len, passages))}
    manifest |= {"dtype": dtype, "part_passages": PART, "deleted": None, "files": files}
    indexes.write_manifest(folder, manifest)
    return VectorStore.open(folder)


def made_passages(count=90, seed=0, width=K, longest=12):
    """Vectors with norms that differ by a factor of several, and scores of either sign."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        vectors = rng.normal(size=(rng.integers(1, longest + 1), width))
        found.append((vectors * rng.lognormal(sigma=0.5, size=(len(vectors), 1))).astype(np.float32))
    return found


def made_questions(count=7, seed=1, width=K, tokens=5):
    rng = np.random.default_rng(seed)
    mask = np.arange(tokens) < rng.integers(1, tokens + 1, count)[:, None]
    return rng.normal(size=(count, tokens, width)).astype(np.float32), mask


def brute_force(passages, vectors, mask):
    return np.array([[(q[m] @ p.T).max(1).sum() for p in passages] for q, m in zip(vectors, mask, strict=True)])
