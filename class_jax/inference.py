# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A trained model at work: compiled functions that encode, retrieve and answer; used in training and after it."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from class_jax.models import generation
from class_jax.models.class_model import Encoded, Params, merge, model_graph
from class_jax.models.config import ModelConfig
from class_jax.retrieval.encode import Encoder


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
            return jnp.zeros((), whole.dtype) if part is None else part
        return {name: select(child, None if part is None else part.get(name)) for name, child in whole.items()}

    return select(params, kept)


@functools.cache
def encoder(config: ModelConfig) -> Encoder:
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

    return Encoder(questions=questions, passages=passages, kind=config.retriever)


@functools.cache
def answerer(config: ModelConfig, max_tokens: int) -> Callable[..., generation.Answers]:
    """Compiled `f(params, question_ids [B,Q], question_lengths [B], passage_ids [B,N,P], passage_lengths [B,N])`."""
    config = dataclasses.replace(config, dropout_rate=0.0, remat="none")
    graph = model_graph(config)

    @jax.jit
    def answer(
        params: Params,
        question_ids: jax.Array,
        question_lengths: jax.Array,
        passage_ids: jax.Array,
        passage_lengths: jax.Array,
    ) -> generation.Answers:
        model = merge(graph, params)
        B, N, P = passage_ids.shape
        questions = model.encode_questions(question_ids, question_lengths)
        flat = model.encode_passages(passage_ids.reshape(B * N, P), passage_lengths.reshape(-1))
        passages: Encoded = jax.tree.map(lambda x: x.reshape(B, N, *x.shape[1:]), flat)
        return generation.greedy(model, model.read(questions, passages), max_tokens)

    return answer


def pad_rows(rows: Sequence[np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Token lists -> ids [len(rows), size], padded with 0, and lengths [len(rows)]; longer ones are cut."""
    ids = np.zeros((len(rows), size), np.int32)
    lengths = np.zeros(len(rows), np.int32)
    for i, row in enumerate(rows):
        lengths[i] = min(len(row), size)
        ids[i, : lengths[i]] = row[:size]
    return ids, lengths


def round_up(length: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `length`, or the largest bucket."""
    return next((size for size in sorted(buckets) if size >= length), max(buckets))


def retriever_fingerprint(params: Params, config: ModelConfig) -> str:
    """SHA-256 over the weights that make vectors, so that an index knows the model that it fits.

    Two models that differ only in what reads (upper layers, decoder) have the same: their indexes are interchangeable.
    """
    digest = hashlib.sha256(f"{config.retriever} {config.retriever_layer} {config.retriever_head}".encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(retriever_params(params)):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(np.asarray(leaf)).tobytes())
    return digest.hexdigest()
