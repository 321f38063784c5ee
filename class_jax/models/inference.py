# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Compiled functions of a trained model: encoding, reading, decoding; used in training and after it."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from class_jax.models import generation
from class_jax.models.class_model import ClassModel, Encoded, Memory, Params, merge, model_graph
from class_jax.models.config import ModelConfig
from class_jax.models.encode import DualEncoder

# Activations of one layer while passages are read; on a CPU they should fit its cache: a third of the time is saved.
_READ_BYTES = 2 * 2**30
_READ_BYTES_CPU = 12 * 2**20


def retriever_params(params: Params) -> Params:
    """The parameters that retrieval needs, in a tree of the same form; the others become scalars.

    For a copy that outlives a training step (a refresh in the background): less than half of the whole.
    """
    first = jax.tree.map(lambda x: x[:1], params["encoder"]["reader_layers"])
    kept = {
        "embed": params["embed"],
        "encoder": {
            "relative_bias": params["encoder"]["relative_bias"],
            "retriever_layers": params["encoder"]["retriever_layers"],
            "reader_layers": {"attention": {name: first["attention"][name] for name in ("norm", "q", "k")}},
        },
    }
    if "dense_head" in params:
        kept["dense_head"] = params["dense_head"]

    def select(whole: Any, part: Any) -> Any:
        if not isinstance(whole, dict):
            return np.zeros((), whole.dtype) if part is None else part
        return {name: select(child, None if part is None else part.get(name)) for name, child in whole.items()}

    return select(params, kept)


@functools.cache
def encoder(config: ModelConfig) -> DualEncoder:
    """Compiled functions by which retrieval calls the model; they take `retriever_params`."""
    config = dataclasses.replace(config, dropout_rate=0.0, remat="none")
    graph = model_graph(config)

    @jax.jit
    def questions(params: Params, ids: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        encoded = merge(graph, params).encode_questions(ids, lengths)
        return encoded.vectors, encoded.mask

    @jax.jit
    def passages(params: Params, ids: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        encoded = merge(graph, params).encode_passages(ids, lengths)
        return encoded.vectors, encoded.mask

    return DualEncoder(questions=questions, passages=passages, kind=config.retriever)


@functools.cache
def reader(config: ModelConfig) -> Callable[..., generation.CrossMemory]:
    """Compiled reading, the first half of answering; compiled once for each shape of its arguments.

    Returns:
      `f(params, question_ids [B,Q], question_lengths [B], passage_ids [B,N,P], passage_lengths [B,N])`; a passage of no
      tokens is none: nothing of its row is attended to.
    """
    config = dataclasses.replace(config, dropout_rate=0.0, remat="none")
    graph = model_graph(config)

    @jax.jit
    def read(params: Params, *batch: jax.Array) -> generation.CrossMemory:
        model = merge(graph, params)
        return generation.project(model, _read(model, *batch))

    return read


@functools.cache
def decoder(
    config: ModelConfig,
    max_tokens: int,
    beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
) -> Callable[[Params, generation.CrossMemory], generation.Answers]:
    """Compiled decoding of what `reader` returns: `f(params, memory)`; see `generation.decode`."""
    config = dataclasses.replace(config, dropout_rate=0.0, remat="none")
    graph = model_graph(config)

    @jax.jit
    def decode(params: Params, memory: generation.CrossMemory) -> generation.Answers:
        return generation.decode(
            merge(graph, params),
            memory,
            max_tokens,
            beams,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
        )

    return decode


def _read(
    model: ClassModel,
    question_ids: jax.Array,
    question_lengths: jax.Array,
    passage_ids: jax.Array,
    passage_lengths: jax.Array,
) -> Memory:
    """Encodes questions and passages and joins them, a few joint rows at a time: memory does not grow with N."""
    (B, N, P), Q = passage_ids.shape, question_ids.shape[1]
    questions = model.encode_questions(question_ids, question_lengths)
    rows = _rows_at_once(model.config, Q + P, B * N)
    # What fills the last chunk reads the last row once more.
    at = jnp.minimum(jnp.arange(-(-B * N // rows) * rows), B * N - 1).reshape(-1, rows)
    flat_ids, flat_lengths = passage_ids.reshape(B * N, P), passage_lengths.reshape(-1)

    def chunk(at: jax.Array) -> Memory:
        passages: Encoded = model.encode_passages(flat_ids[at], flat_lengths[at])
        own: Encoded = jax.tree.map(lambda x: x[at // N], questions)
        memory = model.read(own, jax.tree.map(lambda x: x[:, None], passages))
        return Memory(memory.states[:, 0], memory.mask[:, 0] & (flat_lengths[at] > 0)[:, None])

    chunks = jax.lax.map(chunk, at)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[: B * N].reshape(B, N, *x.shape[2:]), chunks)


def _rows_at_once(config: ModelConfig, T: int, rows: int) -> int:
    """Joint rows of T tokens whose activations in one layer stay below `_READ_BYTES`."""
    features = 6 * config.d_model + 3 * config.d_ff + 2 * config.num_heads * T
    held = _READ_BYTES_CPU if jax.default_backend() == "cpu" else _READ_BYTES
    chunks = -(-rows // max(1, held // (4 * T * features)))
    return -(-rows // chunks)


def pad_rows(rows: Sequence[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Token lists -> ids [len(rows), size], padded with 0, and lengths [len(rows)]; longer ones are cut."""
    ids = np.zeros((len(rows), size), np.int32)
    lengths = np.zeros(len(rows), np.int32)
    for i, row in enumerate(rows):
        lengths[i] = min(len(row), size)
        ids[i, : lengths[i]] = row[:size]
    return ids, lengths


def bucket_of(length: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `length`, or the largest bucket."""
    return next((size for size in sorted(buckets) if size >= length), max(buckets))


def retriever_fingerprint(params: Params, config: ModelConfig) -> str:
    """SHA-256 over the weights that make vectors, so that an index knows the model that it fits.

    Two models that differ only in what reads (upper layers, decoder) have the same: their indexes are interchangeable.
    """
    digest = hashlib.sha256(f"{config.retriever} {config.retriever_layer} {config.retriever_head}".encode())
    on_host = jax.tree.map(np.asarray, params)  # cut there: on a device each cut would be a program to compile
    for path, leaf in jax.tree_util.tree_leaves_with_path(retriever_params(on_host)):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(np.asarray(leaf)).tobytes())
    return digest.hexdigest()
