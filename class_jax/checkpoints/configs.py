# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The model's configuration in Hugging Face's `config.json`, and as far as the shapes of its tensors give it."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from class_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from class_jax.models.config import ModelConfig

_SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
_DEFAULT_HEAD = 6  # the paper's
# The part of `config.json` that Hugging Face's layout has no keys for; transformers keeps it and does not use it.
_OWN = "class_jax"


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """How texts become what a model is given; a model is used with what it was trained with.

    Attributes:
      max_question_tokens, max_passage_tokens, max_answer_tokens: longer texts are cut.
      normalise_questions: whether the typographic marks of questions that are not English are made plain.

    Raises:
      InputError: for a setting of the wrong type or below 1.
    """

    max_question_tokens: int = 50
    max_passage_tokens: int = 200
    max_answer_tokens: int = 50
    normalise_questions: bool = True

    def __post_init__(self):
        if not isinstance(self.normalise_questions, bool):
            raise InputError(f"is {self.normalise_questions!r}", key="normalise_questions", remedy="give true or false")
        for key in ("max_question_tokens", "max_passage_tokens", "max_answer_tokens"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"is {value!r}", key=key, remedy="give a whole number of at least 1")


PAPER = TextConfig()


def config_document(config: "ModelConfig", texts: TextConfig = PAPER) -> dict[str, Any]:
    """The content of the `config.json` that this project writes: `config_to_hf`, and what has no place there.

    `config_from_hf` and `text_config` read it.
    """
    own = {"retriever": config.retriever, "retriever_head": config.retriever_head, "dtype": config.dtype}
    return config_to_hf(config) | {_OWN: own | dataclasses.asdict(texts)}


def text_config(document: Mapping[str, Any]) -> TextConfig:
    """Reads how texts are cut from a `config.json`; the paper's lengths where the file, another project's, has none.

    Raises:
      InputError: for a setting of the wrong type or below 1.
    """
    own = _own(document)
    return TextConfig(**{f.name: own[f.name] for f in dataclasses.fields(TextConfig) if f.name in own})


def _own(document: Mapping[str, Any]) -> Mapping[str, Any]:
    own = document.get(_OWN, {})
    if not isinstance(own, Mapping):
        raise InputError(f"is {own!r}", key=_OWN, remedy="give an object, or leave it out")
    return own


def config_from_hf(config: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a Hugging Face `config.json` as keyword arguments of `ModelConfig`.

    As in the reference, a `retriever_layer` without `retriever_head` (or with null) means the dense retriever. A
    plain mT5, which has neither, becomes multi-vector at half the encoder with head 6, or its last head if it has
    fewer (mT5-small has 6).

    Raises:
      InputError: if a size is missing, or the model is not of mT5's kind (gated GELU, separate output head).
    """
    missing = [key for key in _SIZES if not isinstance(config.get(key), int)]
    if missing:
        raise InputError("no whole number", key=", ".join(missing), remedy="is this the config.json of a T5 model?")
    activation = config.get("feed_forward_proj", "relu")
    if activation != "gated-gelu":
        raise InputError(f"is {activation!r}", key="feed_forward_proj", remedy="mT5 and T5 v1.1 have 'gated-gelu'")
    if config.get("tie_word_embeddings", False):
        raise InputError(
            "is true", key="tie_word_embeddings", remedy="mT5 and T5 v1.1 have an output head of their own"
        )
    kwargs = {key: config[key] for key in _SIZES}
    decoder_layers = config.get("num_decoder_layers")
    kwargs["num_decoder_layers"] = config["num_layers"] if decoder_layers is None else decoder_layers
    kwargs["relative_attention_num_buckets"] = config.get("relative_attention_num_buckets", 32)
    kwargs["relative_attention_max_distance"] = config.get("relative_attention_max_distance", 128)
    kwargs["dropout_rate"] = config.get("dropout_rate", 0.1)
    kwargs["layer_norm_epsilon"] = config.get("layer_norm_epsilon", 1e-6)
    # ReAtt's own code says "retrieval_layer" and "retrieval_head".
    layer = config.get("retriever_layer", config.get("retrieval_layer"))
    head = config.get("retriever_head", config.get("retrieval_head"))
    kwargs["retriever_layer"] = config["num_layers"] // 2 if layer is None else layer
    own = _own(config)
    if "dtype" in own:
        kwargs["dtype"] = own["dtype"]
    if layer is not None and head is None:
        # A dense retriever has no head, but the fingerprint of its configuration counts the setting.
        unused = {"retriever_head": own["retriever_head"]} if "retriever_head" in own else {}
        return kwargs | unused | {"retriever": "dense"}
    if head is None:
        head = min(_DEFAULT_HEAD, config["num_heads"] - 1)
    return kwargs | {"retriever": "multi_vector", "retriever_head": head}


def config_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Keyword arguments of `ModelConfig` as far as the shapes of Hugging Face tensors give them.

    Dense projections give the retriever's kind and layer. What no shape gives is T5's and the paper's default: the
    distance of the last position bucket, the norms' epsilon, and without dense projections the retriever's layer and
    head.

    Raises:
      InputError: if a tensor from which a size is read is missing.
    """

    def size(name: str, axis: int) -> int:
        if name not in shapes:
            raise InputError("is missing, and with it a size of the model", key=name, remedy=nearest(name, shapes))
        return shapes[name][axis]

    def layers(side: str) -> int:
        return 1 + max(int(name.split(".")[2]) for name in shapes if name.startswith(f"{side}.block."))

    first = "encoder.block.0.layer"
    heads = size(f"{first}.0.SelfAttention.relative_attention_bias.weight", 1)
    kwargs = {
        "vocab_size": size("shared.weight", 0),
        "d_model": size("shared.weight", 1),
        "d_kv": size(f"{first}.0.SelfAttention.q.weight", 0) // heads,
        "d_ff": size(f"{first}.1.DenseReluDense.wi_0.weight", 0),
        "num_layers": layers("encoder"),
        "num_decoder_layers": layers("decoder"),
        "num_heads": heads,
        "relative_attention_num_buckets": size(f"{first}.0.SelfAttention.relative_attention_bias.weight", 0),
    }
    dense = [int(name.split(".")[2]) for name in shapes if name.endswith(".SelfAttention.query_proj.weight")]
    if dense:
        return kwargs | {"retriever": "dense", "retriever_layer": dense[0]}
    return kwargs | {"retriever": "multi_vector", "retriever_head": min(_DEFAULT_HEAD, heads - 1)}


def config_to_hf(config: "ModelConfig") -> dict[str, Any]:
    """The content of a `config.json` that the reference and transformers' mT5 read."""
    hf = {key: getattr(config, key) for key in _SIZES}
    for key in (
        "num_decoder_layers",
        "relative_attention_num_buckets",
        "relative_attention_max_distance",
        "dropout_rate",
        "layer_norm_epsilon",
        "retriever_layer",
    ):
        hf[key] = getattr(config, key)
    if config.retriever == "multi_vector":
        hf["retriever_head"] = config.retriever_head
    return hf | {
        "architectures": ["MT5ForConditionalGeneration"],
        "model_type": "mt5",
        "feed_forward_proj": "gated-gelu",
        "dense_act_fn": "gelu_new",
        "is_gated_act": True,
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "tokenizer_class": "T5Tokenizer",
        "use_cache": True,
    }
