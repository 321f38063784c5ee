# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Hyper-parameters of the model."""

import dataclasses
import hashlib
import json

from class_jax.errors import InputError, nearest

_RETRIEVERS = ("multi_vector", "dense")
_REMAT = ("none", "full", "dots")
_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """mT5 / T5 v1.1 with the retriever in its lower half (CLASS, section 2.2).

    Attributes:
      vocab_size: V, rows of the embedding (may exceed the vocabulary's pieces, as mT5's 250112 do).
      d_model: D. d_kv: K. d_ff: F. num_heads: H.
      num_layers: encoder layers. num_decoder_layers: decoder layers.
      relative_attention_num_buckets, relative_attention_max_distance: of T5's relative position bias.
      dropout_rate: used in training only.
      layer_norm_epsilon: of every RMS norm.
      retriever: "multi_vector" (the paper's default) or "dense".
      retriever_layer: number of encoder layers in which a question and a passage don't see each other (the paper's
        B); the next layer's projections give the multi-vector scores. Defaults to half the encoder.
      retriever_head: the attention head whose queries and keys are the multi-vector representation.
      dtype: type of the matrix products; parameters, softmax, norms and losses stay float32.
      initializer_factor: multiplies the standard deviation of every initial kernel (Hugging Face's name).
      embedding_stddev: standard deviation of the initial embeddings. 1 as in T5; a from-scratch run of few steps
        learns much faster from 0.1 and an initializer_factor of 0.3: Adam's steps have a fixed size, so they move
        small weights further.
      symmetric_retriever: whether the keys that multi-vector retrieval compares start as its queries do. Equal tokens
        then match from the first step, as in BM25: for runs that begin from nothing.
      remat: what a layer recomputes in its backward pass: "none", "dots" (all but matrix products) or "full".
    """

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_decoder_layers: int
    num_heads: int
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    retriever: str = "multi_vector"
    retriever_layer: int | None = None
    retriever_head: int = 6
    initializer_factor: float = 1.0
    embedding_stddev: float = 1.0
    symmetric_retriever: bool = False
    dtype: str = "float32"
    remat: str = "none"

    def __post_init__(self):
        if self.retriever_layer is None:
            object.__setattr__(self, "retriever_layer", self.num_layers // 2)
        for key, known in (("retriever", _RETRIEVERS), ("remat", _REMAT), ("dtype", _DTYPES)):
            if getattr(self, key) not in known:
                value = getattr(self, key)
                raise InputError(
                    f"unknown value {value!r}", key=f"ModelConfig.{key}", remedy=nearest(str(value), known)
                )
        if not 0 < self.retriever_layer < self.num_layers:
            raise InputError(
                f"is {self.retriever_layer}, but the encoder has {self.num_layers} layers",
                key="ModelConfig.retriever_layer",
                remedy=f"choose 1 to {self.num_layers - 1}: one layer at least must read jointly",
            )
        if self.retriever == "multi_vector" and not 0 <= self.retriever_head < self.num_heads:
            raise InputError(
                f"is {self.retriever_head}, but there are {self.num_heads} heads",
                key="ModelConfig.retriever_head",
                remedy=f"choose 0 to {self.num_heads - 1}",
            )

    @property
    def num_reader_layers(self) -> int:
        """Encoder layers in which question and passage attend jointly."""
        return self.num_layers - self.retriever_layer

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what decides the parameters' shapes and meaning; the other settings may change freely."""
        shape = dataclasses.asdict(self)
        for key in ("dtype", "remat", "dropout_rate", "initializer_factor", "embedding_stddev", "symmetric_retriever"):
            del shape[key]
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()
