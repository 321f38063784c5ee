# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The models that score: mBART with language tags, mT5, and the reader of a trained CLASS.

Shapes by the legend in `class_jax.reranking.score`.
"""

import functools
import hashlib
import math
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from class_jax.corpus.mbart_vocabulary import MBartVocabulary
from class_jax.errors import InputError, nearest
from class_jax.models import class_model, generation, mbart
from class_jax.models import layers as nn
from class_jax.reranking.score import Scorer, SourcePassage, Target

if TYPE_CHECKING:
    from class_jax.api import CLASS

KINDS = ("auto", "mbart", "mt5", "class")
PLAIN_TEMPLATE = "{title} {text}"
CLASS_TEMPLATE = "title: {title} context: {text}"  # what its encoder was trained on
MAX_PASSAGE_TOKENS = 512
MAX_QUESTION_TOKENS = 64
# Logits that are held at once: a question's, over 250,000 pieces, take 20 MB.
_LOGITS_BYTES = 256 * 2**20
_ROWS_CPU = 4
_TOKENS = 64


def load_scorer(
    model: str | os.PathLike,
    kind: str = "auto",
    *,
    vocabulary: str | os.PathLike | None = None,
    tags: bool = True,
    template: str | None = None,
    dtype: str | None = None,
    max_passage_tokens: int = MAX_PASSAGE_TOKENS,
) -> Scorer:
    """Loads a scorer.

    Args:
      model: a folder in Hugging Face's layout, a training run's folder, or a hub id.
      kind: one of `KINDS`; "auto" asks the model's `config.json`.
      vocabulary: SentencePiece model, if not beside the weights.
      tags: whether mBART is given the languages of passage and question as tags.
      template: of the passage, with {title} and {text}; by default what the kind is used to.
      dtype: of the matrix products, "float32" (default) or "bfloat16".
      max_passage_tokens: longer passages are cut.

    Raises:
      InputError: for an unknown kind or template, or weights or a vocabulary that are missing, damaged or another
        model's.
    """
    if kind not in KINDS:
        raise InputError(f"unknown scorer {kind!r}", key="scorer", remedy=nearest(kind, KINDS))
    if template is not None:
        _check_template(template)
    found = _kind(model)
    if kind == "auto":
        kind = found
    elif (kind == "mbart") != (found == "mbart"):
        raise InputError(f"is of kind {found!r}, not {kind!r}", file=model, key="scorer", remedy="leave out --scorer")
    if kind == "mbart":
        from class_jax.checkpoints.mbart_files import load_mbart

        config, params, beside = load_mbart(model, dtype=dtype or "float32")
        path = vocabulary or beside
        if path is None:
            raise InputError(
                "no sentencepiece.bpe.model beside the weights", file=model, remedy="give it as --vocabulary"
            )
        opened = MBartVocabulary(path, config.vocab_size)
        return MBartScorer(config, params, opened, tags, template or PLAIN_TEMPLATE, max_passage_tokens)
    from class_jax.api import CLASS

    loaded = CLASS.from_pretrained(model, vocabulary=vocabulary, dtype=dtype)
    return T5Scorer(loaded, template or (CLASS_TEMPLATE if kind == "class" else PLAIN_TEMPLATE), max_passage_tokens)


def _kind(model: str | os.PathLike) -> str:
    from class_jax.checkpoints.hub import local_folder
    from class_jax.common.files import read_json

    folder = Path(local_folder(model))
    if (folder / "config.gin").is_file() or not (folder / "config.json").is_file():
        return "class"
    content = read_json(folder / "config.json")
    if content.get("model_type") == "mbart":
        return "mbart"
    return "class" if {"retriever_layer", "retrieval_layer"} & content.keys() else "mt5"


def _check_template(template: str) -> None:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise InputError(f"not a template ({error})", key="template", remedy=f"as in {PLAIN_TEMPLATE!r}") from error
    if "text" not in fields or fields - {"title", "text"}:
        raise InputError(
            f"{template!r} needs {{text}}, may have {{title}}, and nothing else",
            key="template",
            remedy=f"as in {PLAIN_TEMPLATE!r}",
        )


class MBartScorer:
    """mBART or mBART-50: the source's tag names the passage's language, the target's tag the question's.

    mBART-50 has the tag in front on both sides, and the decoder is given the end of sequence, then the tag. mBART has
    it behind the source, and the decoder is given it first. Without tags both read the bare passage, and the decoder
    is given the end of sequence. The tag's own probability does not count.

    Args:
      config, params: the model's.
      vocabulary: the model's.
      tags: whether the model is given language tags.
      template: of the passage.
      max_passage_tokens: longer passages are cut; never more than the model has positions.
    """

    def __init__(
        self,
        config: mbart.MBartConfig,
        params: class_model.Params,
        vocabulary: MBartVocabulary,
        tags: bool = True,
        template: str = PLAIN_TEMPLATE,
        max_passage_tokens: int = MAX_PASSAGE_TOKENS,
    ):
        self.config, self.params, self.vocabulary = config, jax.device_put(params), vocabulary
        self.tags, self.template = tags, template
        self.max_source = min(max_passage_tokens, config.max_positions)
        self.max_target = min(MAX_QUESTION_TOKENS, config.max_positions)
        self._functions = _mbart_functions(config)
        self._encode, self._decode, self._log_probabilities, self._generate = self._functions

    @functools.cached_property
    def fingerprint(self) -> str:
        """See `Scorer`."""
        form = (self.config.fingerprint, self.vocabulary.fingerprint, self.tags, self.template, self.max_source)
        return _fingerprint(self.params, *form)

    def source(self, passage: SourcePassage) -> tuple[list[int], bool]:
        """See `Scorer`."""
        if self.tags and passage.language is None:
            remedy = "give --passage-language or --passage-languages, or score without tags"
            raise InputError("its language is not known", key=f"passage {passage.id!r}", remedy=remedy)
        tag = [self.vocabulary.tag(passage.language)] if self.tags else []
        tokens = self.vocabulary.encode(_render(self.template, passage))
        room = self.max_source - len(tag) - 1
        kept = tokens[:room]
        ids = [*tag, *kept, self.config.eos_id] if self.vocabulary.is_mbart50 else [*kept, self.config.eos_id, *tag]
        return ids, len(tokens) > room

    def target(self, question: str, language: str | None) -> tuple[Target, bool]:
        """See `Scorer`."""
        tokens = self.vocabulary.encode(question)
        in_front = self.tags and self.vocabulary.is_mbart50
        room = self.max_target - 1 - in_front
        labels = [*tokens[:room], self.config.eos_id]
        cut = len(tokens) > room
        if not self.tags:
            return Target(self.config.start_id, labels, 0), cut
        tag = self.vocabulary.tag(language)
        return (Target(self.config.start_id, [tag, *labels], 1) if in_front else Target(tag, labels, 0)), cut

    def encode(self, ids: np.ndarray, lengths: np.ndarray) -> mbart.MBartMemory:
        """See `Scorer`."""
        return self._encode(self.params, ids, lengths)

    def log_probabilities(
        self,
        memory: mbart.MBartMemory,
        rows: np.ndarray,
        inputs: np.ndarray,
        labels: np.ndarray,
        counted: np.ndarray,
    ) -> np.ndarray:
        """See `Scorer`."""
        states = self._decode(self.params, memory, rows, inputs)
        return _where(counted, states, labels, functools.partial(self._log_probabilities, self.params))

    def generate(self, memory: mbart.MBartMemory, language: str | None, max_tokens: int) -> list[str]:
        """The likeliest question of each encoded passage [M], greedily; in `language` where the model is given tags."""
        tag = np.int32(self.vocabulary.tag(language)) if self.tags else None
        return [self.vocabulary.decode(ids) for ids in np.asarray(self._generate(self.params, memory, tag, max_tokens))]

    def forward(self) -> Callable[..., jax.Array]:
        """What `class_jax.reranking.adapt` trains: (params, ids, lengths, rows, inputs, labels) -> as `Scorer`'s."""
        return _forward(*self._functions[:3])

    def with_params(self, params: class_model.Params) -> "MBartScorer":
        """A copy of the scorer with other parameters."""
        return MBartScorer(self.config, params, self.vocabulary, self.tags, self.template, self.max_source)

    def save(self, folder: str | os.PathLike) -> None:
        """Writes weights and vocabulary to a folder that `load_scorer` reads.

        Raises:
          InputError: if the folder holds other things, or the disk refuses.
        """
        from class_jax.checkpoints.mbart_files import save_mbart

        save_mbart(folder, self.params, self.config, self.vocabulary)


class T5Scorer:
    """mT5, or the reader of a trained CLASS; neither has language tags.

    The encoder sees only the passage: its tokens go through the retriever's layers, then, joined with a question of no
    tokens, through the reader's. That is a plain mT5's encoder, since the two halves share positions and the passage
    then starts at position 0. The decoder, which CLASS trained to give answers, is asked for the question.

    Args:
      model: the model with its vocabulary.
      template: of the passage.
      max_passage_tokens: longer passages are cut.
    """

    def __init__(self, model: "CLASS", template: str = CLASS_TEMPLATE, max_passage_tokens: int = MAX_PASSAGE_TOKENS):
        self.model, self.template = model, template
        self.max_source, self.max_target = max_passage_tokens, MAX_QUESTION_TOKENS
        self._functions = _t5_functions(model.config)
        self._encode, self._decode, self._log_probabilities, self._generate = self._functions

    @functools.cached_property
    def fingerprint(self) -> str:
        """See `Scorer`."""
        model = self.model
        return _fingerprint({}, model.fingerprint, model.vocabulary.fingerprint, self.template, self.max_source)

    def source(self, passage: SourcePassage) -> tuple[list[int], bool]:
        """See `Scorer`."""
        return self._ended(_render(self.template, passage), self.max_source)

    def target(self, question: str, language: str | None) -> tuple[Target, bool]:
        """See `Scorer`; the language is ignored."""
        labels, cut = self._ended(question, self.max_target)
        return Target(0, labels, 0), cut

    def encode(self, ids: np.ndarray, lengths: np.ndarray) -> generation.CrossMemory:
        """See `Scorer`."""
        return self._encode(self.model.params, ids, lengths)

    def log_probabilities(
        self,
        memory: generation.CrossMemory,
        rows: np.ndarray,
        inputs: np.ndarray,
        labels: np.ndarray,
        counted: np.ndarray,
    ) -> np.ndarray:
        """See `Scorer`."""
        params = self.model.params
        states = self._decode(params, memory, rows, inputs)
        return _where(counted, states, labels, functools.partial(self._log_probabilities, params))

    @property
    def params(self) -> class_model.Params:
        """The model's."""
        return self.model.params

    def generate(self, memory: generation.CrossMemory, language: str | None, max_tokens: int) -> list[str]:
        """The likeliest question, greedily, from each encoded passage [M]; `language` is ignored."""
        found = jax.device_get(self._generate(self.model.params, memory, max_tokens))
        decode = self.model.vocabulary.decode
        return [decode(ids[:length]) for ids, length in zip(found.ids, found.lengths, strict=True)]

    def forward(self) -> Callable[..., jax.Array]:
        """See `MBartScorer.forward`."""
        return _forward(*self._functions[:3])

    def with_params(self, params: class_model.Params) -> "T5Scorer":
        """A copy of the scorer with other parameters."""
        from class_jax.api import CLASS

        changed = CLASS(self.model.config, params, self.model.vocabulary)
        return T5Scorer(changed, self.template, self.max_source)

    def save(self, folder: str | os.PathLike) -> None:
        """See `MBartScorer.save`."""
        self.model.save_pretrained(folder)

    def _ended(self, text: str, room: int) -> tuple[list[int], bool]:
        vocabulary = self.model.vocabulary
        tokens = vocabulary.encode(text)
        return [*tokens[: room - 1], vocabulary.eos_id], len(tokens) > room - 1


@functools.cache
def _mbart_functions(config: mbart.MBartConfig) -> tuple[Callable, Callable, Callable, Callable]:
    """Compiled encoding, decoding, scoring and generation; kept, so that two scorers of one shape compile once."""
    graph = mbart.mbart_graph(config)

    @jax.jit
    def encode(params: Any, ids: jax.Array, lengths: jax.Array) -> mbart.MBartMemory:
        model = class_model.merge(graph, params)
        at_once = math.gcd(len(ids), _rows_at_once(len(ids)))
        chunks = jax.tree.map(lambda x: x.reshape(-1, at_once, *x.shape[1:]), (ids, lengths))
        states = jax.lax.map(lambda chunk: model.encode(*chunk), chunks)
        return model.project(states.reshape(*ids.shape, -1), lengths)

    @jax.jit
    def decode(params: Any, memory: Any, rows: jax.Array, inputs: jax.Array) -> jax.Array:
        return class_model.merge(graph, params).decode(memory, inputs, rows)

    @jax.jit
    def log_probabilities(params: Any, states: jax.Array, labels: jax.Array) -> jax.Array:
        return token_log_probabilities(class_model.merge(graph, params).logits, states, labels, config.vocab_size)

    @functools.partial(jax.jit, static_argnums=3)
    def generate(params: Any, memory: Any, tag: jax.Array | None, max_tokens: int) -> jax.Array:
        return mbart.generate(class_model.merge(graph, params), memory, max_tokens, language_id=tag).ids[:, 0]

    return encode, decode, log_probabilities, generate


def _rows_at_once(rows: int) -> int:
    """Passages that go through the encoder together: on a CPU few, so that its caches hold what a layer computes."""
    return min(rows, _ROWS_CPU) if jax.default_backend() == "cpu" else rows


@functools.cache
def _t5_functions(config: Any) -> tuple[Callable, Callable, Callable, Callable]:
    graph = class_model.model_graph(config)

    @jax.jit
    def encode(params: Any, ids: jax.Array, lengths: jax.Array) -> generation.CrossMemory:
        model = class_model.merge(graph, params)
        return generation.project(model, read_without_question(model, ids, lengths))

    @jax.jit
    def decode(params: Any, memory: Any, rows: jax.Array, inputs: jax.Array) -> jax.Array:
        return _t5_states(class_model.merge(graph, params), memory, rows, inputs)

    @jax.jit
    def log_probabilities(params: Any, states: jax.Array, labels: jax.Array) -> jax.Array:
        return token_log_probabilities(class_model.merge(graph, params).logits, states, labels, config.vocab_size)

    @functools.partial(jax.jit, static_argnums=2)
    def generate(params: Any, memory: Any, max_tokens: int) -> generation.Answers:
        return generation.decode(class_model.merge(graph, params), memory, max_tokens)

    return encode, decode, log_probabilities, generate


def read_without_question(model: class_model.ClassModel, ids: jax.Array, lengths: jax.Array) -> class_model.Memory:
    """Passages [M, P] of [M] tokens, read without a question: as a plain mT5's encoder would."""
    passages = jax.tree.map(lambda x: x[:, None], model.encode_passages(ids, lengths))
    M, D = len(ids), model.config.d_model
    nothing = class_model.Encoded(
        jnp.zeros((M, 0, D), passages.states.dtype), jnp.zeros(M, jnp.int32), jnp.zeros((M, 0))
    )
    return model.read(nothing, passages)


def _forward(encode: Callable, decode: Callable, log_probabilities: Callable) -> Callable[..., jax.Array]:
    def forward(
        params: Any, ids: jax.Array, lengths: jax.Array, rows: jax.Array, inputs: jax.Array, labels: jax.Array
    ) -> jax.Array:
        states = decode(params, encode(params, ids, lengths), rows, inputs)
        found = log_probabilities(params, states.reshape(-1, states.shape[-1]), labels.reshape(-1))
        return found.reshape(labels.shape)

    return forward


def _where(counted: np.ndarray, states: jax.Array, labels: np.ndarray, log_probabilities: Callable) -> np.ndarray:
    """Log-probabilities [R, A] of labels [R, A] where they count, else 0, after states [R, A, D].

    The states that count are gathered and filled up to a multiple of `_TOKENS`: each number of them is compiled.
    """
    at = np.flatnonzero(counted)
    filled = np.concatenate([at, np.repeat(at[:1], -len(at) % _TOKENS)])
    chosen = jnp.take(states.reshape(-1, states.shape[-1]), filled, axis=0)
    values = np.asarray(log_probabilities(chosen, labels.reshape(-1)[filled]))
    found = np.zeros(labels.shape, np.float32)
    found.reshape(-1)[at] = values[: len(at)]
    return found


def _t5_states(
    model: class_model.ClassModel, memory: generation.CrossMemory, rows: jax.Array, inputs: jax.Array
) -> jax.Array:
    """`CLASS.decode` up to the logits, from keys and values that pairs share: inputs [R, A] -> [R, A, D]."""
    A = inputs.shape[-1]
    bias = model.decoder.relative_bias(A, A) + jnp.where(jnp.tril(jnp.ones((A, A), bool)), 0.0, nn.MASKED)
    mask_bias = jnp.where(memory.mask[:, 0], 0.0, nn.MASKED)[:, None, None, :][rows]
    graph, params = nnx.split(model.decoder.layers)

    def body(x: jax.Array, xs: tuple) -> tuple[jax.Array, None]:
        layer_params, keys, values = xs
        layer = nnx.merge(graph, layer_params)
        x = layer.self_attention.self_attend(x, bias, None, None)
        cross = layer.cross_attention
        weights = nn.attention_probabilities(cross.queries(cross.norm(x)), keys[rows], None, mask_bias)
        return layer.mlp(x + cross.output(nn.mix(weights, values[rows])), None), None

    x = model.embed.embedding[...][inputs].astype(model.config.dtype)
    x, _ = jax.lax.scan(body, x, (params, memory.keys, memory.values))
    return model.decoder.norm(x)


def token_log_probabilities(
    logits: Callable[[jax.Array], jax.Array], states: jax.Array, labels: jax.Array, vocab_size: int
) -> jax.Array:
    """Log-probabilities [...] of labels [...] after states [..., D]; never holds the logits of all.

    Args:
      logits: [..., D] -> [..., V].
      states, labels: as above.
      vocab_size: V.
    """
    at_once = min(labels.size, max(1, _LOGITS_BYTES // (4 * vocab_size)))

    def one(xs: tuple[jax.Array, jax.Array]) -> jax.Array:
        state, label = xs
        values = logits(state)
        return values[label] - jax.nn.logsumexp(values)

    flat = jax.lax.map(one, (states.reshape(-1, states.shape[-1]), labels.reshape(-1)), batch_size=at_once)
    return flat.reshape(labels.shape)


def _render(template: str, passage: SourcePassage) -> str:
    return template.format(title=passage.title, text=passage.text).strip()


def _fingerprint(params: class_model.Params, *parts: Any) -> str:
    digest = hashlib.sha256(repr(parts).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(np.asarray(leaf)).tobytes())
    return digest.hexdigest()
