# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""CLASS: one encoder-decoder that retrieves with its lower layers and reads with the rest (paper, section 2.2)."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from class_jax.models import layers as nn
from class_jax.models.config import ModelConfig
from class_jax.models.packing import Slots

Params = dict[str, Any]


class Encoded(NamedTuple):
    """One side (questions or passages) after the retriever's layers.

    Attributes:
      states: hidden states after the last retriever layer, [..., tokens, D].
      lengths: tokens that are not padding, [...].
      vectors: what retrieval compares: [..., tokens, K] (multi-vector) or [..., E] (dense), float32.
    """

    states: jax.Array
    lengths: jax.Array
    vectors: jax.Array

    @property
    def mask(self) -> jax.Array:
        """True where a token is not padding, [..., tokens]."""
        return length_mask(self.lengths, self.states.shape[-2])


class Memory(NamedTuple):
    """Final encoder output of each question's joint rows.

    Attributes:
      states: [B, N, T, D].
      mask: True where a token is not padding, [B, N, T].
    """

    states: jax.Array
    mask: jax.Array


def length_mask(lengths: jax.Array, size: int) -> jax.Array:
    """[...] lengths -> [..., size] booleans, True for the first `length` positions."""
    return jnp.arange(size) < lengths[..., None]


def _mask_bias(mask: jax.Array) -> jax.Array:
    """[R, S] booleans -> additive [R, 1, 1, S]."""
    return jnp.where(mask, 0.0, nn.MASKED)[:, None, None, :]


class DenseHead(nnx.Module):
    """The dense variant's projections and their shared norm (in the reference: of layer B's attention)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        D, E = config.d_model, config.num_heads * config.d_kv
        stddev = config.initializer_factor * D**-0.5
        self.query_proj = nn.Kernel((D, E), ("embed", "vector"), stddev, rngs)
        self.passage_proj = nn.Kernel((D, E), ("embed", "vector"), stddev, rngs)
        self.norm = nn.RMSNorm(E, config.layer_norm_epsilon, ("vector",))


class Encoder(nnx.Module):
    """Encoder layers, split where questions and passages join."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        def make(rngs: nnx.Rngs) -> nn.EncoderLayer:
            return nn.EncoderLayer(config, rngs=rngs)

        self.relative_bias = nn.RelativeBias(config, bidirectional=True, rngs=rngs)
        self.retriever_layers = nn.stack(make, config.retriever_layer, rngs)
        self.reader_layers = nn.stack(make, config.num_reader_layers, rngs)
        self.norm = nn.RMSNorm(config.d_model, config.layer_norm_epsilon)


class Decoder(nnx.Module):
    """Decoder layers."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.relative_bias = nn.RelativeBias(config, bidirectional=False, rngs=rngs)
        self.layers = nn.stack(lambda rngs: nn.DecoderLayer(config, rngs=rngs), config.num_decoder_layers, rngs)
        self.norm = nn.RMSNorm(config.d_model, config.layer_norm_epsilon)


class ClassModel(nnx.Module):
    """The unified retriever and reader.

    A question is encoded once (`encode_questions`), a passage once (`encode_passages`), however many pairs they form;
    `read` joins them for the upper layers, `decode` gives the answer's logits.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        D, V = config.d_model, config.vocab_size
        self.embed = nn.Embedding((V, D), ("vocab", "embed"), config.embedding_stddev, rngs)
        self.encoder = Encoder(config, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs)
        self.head = nn.Kernel((D, V), ("embed", "vocab"), config.initializer_factor * D**-0.5, rngs)
        if config.retriever == "dense":
            self.dense_head = DenseHead(config, rngs=rngs)

    @jax.named_scope("questions")
    def encode_questions(self, ids: jax.Array, lengths: jax.Array, key: jax.Array | None = None) -> Encoded:
        """Encodes questions [B, Q] of [B] tokens with the retriever's layers; no passage is seen."""
        states = self._retriever_layers(ids, lengths, key)
        return Encoded(states, lengths, self._vectors(states, lengths, side="query"))

    @jax.named_scope("passages")
    def encode_passages(
        self, ids: jax.Array, lengths: jax.Array, key: jax.Array | None = None, slots: Slots | None = None
    ) -> Encoded:
        """Encodes passages [M, P] of [M] tokens with the retriever's layers; no question is seen.

        With `slots` their tokens are packed, see `layers.encode_rows`.
        """
        states = self._retriever_layers(ids, lengths, key, slots)
        return Encoded(states, lengths, self._vectors(states, lengths, side="passage"))

    @jax.named_scope("read")
    def read(
        self, questions: Encoded, passages: Encoded, key: jax.Array | None = None, slots: Slots | None = None
    ) -> Memory:
        """Joins each question [B, Q, D] with its passages [B, N, P, D] and runs the upper encoder layers.

        A joint row is the question's tokens, then at once the passage's: position |q| whatever |q| is, as in the
        reference, so the learnt relative positions hold. With `slots` the rows' tokens are packed, see
        `layers.encode_rows`.
        """
        B, N = passages.lengths.shape
        states, mask = join(questions, passages)
        T = states.shape[2]
        rows, lengths = states.reshape(B * N, T, -1), (questions.lengths[:, None] + passages.lengths).reshape(B * N)
        layers_key, out_key = nn.keys_for(key, 2)
        layers, bias = self.encoder.reader_layers, self.encoder.relative_bias(T, T)
        rows = nn.encode_rows(layers, rows, lengths, bias, layers_key, remat=self.config.remat, slots=slots)
        rows = nn.dropout(self.encoder.norm(rows), self.config.dropout_rate, out_key)
        return Memory(rows.reshape(B, N, T, -1), mask)

    @jax.named_scope("decode")
    def decode(
        self, memory: Memory, answer_ids: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Teacher-forced decoding.

        Args:
          memory: the joint rows of B questions.
          answer_ids: target tokens [B, A] (padding 0); shifted right here, the start token is 0.
          key: dropout key or None.

        Returns:
          Logits [B, A, V], float32, and P_ca [B, N] (paper, section 3.2.2): the last layer's cross-attention of the
          first output position, summed over each row's tokens and averaged over heads. P_ca carries gradient; the
          loss stops it where it is a target. It is taken before dropout, so it sums to 1.
        """
        B, N, T, D = memory.states.shape
        config = self.config
        A = answer_ids.shape[1]
        inputs = jnp.pad(answer_ids, ((0, 0), (1, 0)))[:, :A]
        embed_key, layers_key, out_key = nn.keys_for(key, 3)
        x = nn.dropout(self._embed(inputs), config.dropout_rate, embed_key)
        causal = jnp.where(jnp.tril(jnp.ones((A, A), bool)), 0.0, nn.MASKED)
        bias = self.decoder.relative_bias(A, A) + causal
        states, memory_bias = memory.states.reshape(B, N * T, D), _mask_bias(memory.mask.reshape(B, N * T))

        def apply(layer: nn.DecoderLayer, carry: tuple, layer_key: jax.Array | None) -> tuple:
            # Each layer overwrites the first position's attention: only the last layer's is wanted.
            x, first = layer(carry[0], bias, states, memory_bias, layer_key)
            return x, first.mean(axis=1).reshape(B, N, T).sum(axis=-1)

        carry = (x, jnp.zeros((B, N), jnp.float32))
        x, passage_attention = nn.scan_layers(self.decoder.layers, apply, carry, layers_key, remat=config.remat)
        x = nn.dropout(self.decoder.norm(x), config.dropout_rate, out_key)
        return self.logits(x), passage_attention

    @jax.named_scope("head")
    def logits(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., V], float32."""
        return nn.matmul(x, self.head.kernel[...].astype(x.dtype), jnp.float32)

    def _embed(self, ids: jax.Array) -> jax.Array:
        return self.embed.embedding[...][ids].astype(self.config.dtype)

    def _retriever_layers(
        self, ids: jax.Array, lengths: jax.Array, key: jax.Array | None, slots: Slots | None = None
    ) -> jax.Array:
        embed_key, layers_key = nn.keys_for(key, 2)
        x = nn.dropout(self._embed(ids), self.config.dropout_rate, embed_key)
        layers, bias = self.encoder.retriever_layers, self.encoder.relative_bias(ids.shape[-1], ids.shape[-1])
        return nn.encode_rows(layers, x, lengths, bias, layers_key, remat=self.config.remat, slots=slots)

    def _vectors(self, states: jax.Array, lengths: jax.Array, side: str) -> jax.Array:
        """The representation that retrieval compares; see `Encoded.vectors`."""
        attention = self.encoder.reader_layers.attention
        normed = nn.rms_norm(states, attention.norm.scale[...][0], self.config.layer_norm_epsilon)
        if self.config.retriever == "multi_vector":
            kernel = (attention.q if side == "query" else attention.k).kernel[...][0, :, self.config.retriever_head]
            return jnp.einsum(
                "...td,dk->...tk", normed, kernel.astype(normed.dtype), preferred_element_type=jnp.float32
            )
        mask = length_mask(lengths, states.shape[-2])[..., None]
        mean = jnp.where(mask, normed, 0).astype(jnp.float32).sum(axis=-2) / lengths[..., None]
        head = self.dense_head
        kernel = (head.query_proj if side == "query" else head.passage_proj).kernel[...]
        return head.norm(mean @ kernel)


def join(questions: Encoded, passages: Encoded) -> tuple[jax.Array, jax.Array]:
    """Joint rows: question [B, Q, D] and passages [B, N, P, D] -> states [B, N, Q + P, D], mask [B, N, Q + P].

    Row (b, n) is the question's |q| tokens, the passage's |p| tokens, then padding.
    """
    Q, P = questions.states.shape[-2], passages.states.shape[-2]
    position = jnp.arange(Q + P)
    question_lengths = questions.lengths[:, None]
    from_question = position < question_lengths
    question_part = jnp.pad(questions.states, ((0, 0), (0, P), (0, 0)))
    # Token t of the row is token t - |q| of the passage.
    source = jnp.clip(position - question_lengths, 0, P - 1)
    passage_part = jnp.take_along_axis(passages.states, source[:, None, :, None], axis=2)
    states = jnp.where(from_question[:, None, :, None], question_part[:, None], passage_part)
    mask = position < (questions.lengths[:, None] + passages.lengths)[..., None]
    return states, mask


def create(config: ModelConfig, seed: int = 0) -> ClassModel:
    """A newly initialised model."""
    model = ClassModel(config, rngs=nnx.Rngs(seed))
    if config.symmetric_retriever and config.retriever == "multi_vector":
        attention, compared = model.encoder.reader_layers.attention, (0, slice(None), config.retriever_head)
        # T5 folds attention's division by sqrt(K) into the queries' first values: keys start that much larger.
        same = attention.q.kernel[...][compared] * config.d_kv**0.5
        attention.k.kernel[...] = attention.k.kernel[...].at[compared].set(same)
    return model


def split(model: ClassModel) -> tuple[Any, Params]:
    """Splits a model into its structure and its parameter tree (nested dicts of arrays)."""
    graph, state = nnx.split(model, nnx.Param)
    return graph, plain_tree(nnx.as_pure(state))


def merge(graph: Any, params: Params) -> ClassModel:
    """The model with the given parameters; the inverse of `split`."""
    return nnx.merge(graph, params)


def model_graph(config: ModelConfig) -> Any:
    """The structure that `merge` joins with parameters; allocates none."""
    return _abstract(config)[0]


def param_shapes(config: ModelConfig) -> Params:
    """Shape and type of every parameter, in a tree like that of `split`; allocates none."""
    return plain_tree(nnx.as_pure(_abstract(config)[1]))


def param_axes(config: ModelConfig) -> Params:
    """Logical axis names of every parameter, in a tree like that of `split`; leaves are tuples of names.

    Dimensions that stack layers are called "layers".
    """

    def axes(param: nnx.Param) -> tuple[str, ...]:
        names = param.get_metadata("axes")
        return ("layers",) * (len(param.shape) - len(names)) + tuple(names)

    return plain_tree(jax.tree.map(axes, _abstract(config)[1], is_leaf=lambda x: isinstance(x, nnx.Param)))


@functools.cache
def _abstract(config: ModelConfig) -> tuple[Any, nnx.State]:
    """Structure and parameters' shapes; kept, since tracing the model's making takes longer than all who ask for it."""
    return nnx.split(nnx.eval_shape(lambda: create(config)), nnx.Param)


def plain_tree(tree: Any) -> Any:
    """Nested dicts of what a pure NNX state holds."""
    return {name: plain_tree(child) for name, child in tree.items()} if isinstance(tree, Mapping) else tree
