# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""mBART's weights in Hugging Face's layout, in and out of this project's parameter tree.

PyTorch keeps a matrix as [out, in] and each layer under its own name; here kernels are [in, out] and layers are stacked
along a leading axis.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from class_jax.checkpoints.differences import differences
from class_jax.checkpoints.hub import local_folder
from class_jax.checkpoints.huggingface import MAX_SHARD_BYTES
from class_jax.checkpoints.leaves import LazyArray
from class_jax.checkpoints.pretrained import check_replaceable
from class_jax.checkpoints.tensor_files import TensorFiles, read_tensors, write_tensors
from class_jax.common.files import read_json, replacing_folder, write_json
from class_jax.corpus.mbart_vocabulary import VOCABULARY_FILE, MBartVocabulary
from class_jax.errors import InputError
from class_jax.models.mbart import POSITION_OFFSET, MBartConfig

Params = dict[str, Any]

# The one table under its other names, and positions that old versions computed: files may hold them or not.
_TIED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
_SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "d_model",
    "encoder_layers": "encoder_layers",
    "decoder_layers": "decoder_layers",
    "encoder_attention_heads": "encoder_heads",
    "decoder_attention_heads": "decoder_heads",
    "encoder_ffn_dim": "encoder_ffn",
    "decoder_ffn_dim": "decoder_ffn",
}
_BOS_ID = 0  # no sequence of these models has it
_ATTENTION = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "o"}


class _Weight(NamedTuple):
    """Where a Hugging Face tensor goes: path in the tree, row of the stack there (or None), and its own shape."""

    path: tuple[str, ...]
    layer: int | None
    shape: tuple[int, ...]

    @property
    def leaf(self) -> tuple[int, ...]:
        """Shape of the tensor in the tree, without the axis of layers."""
        if self.path == ("logits_bias",):
            return self.shape[1:]
        # The embeddings are tables, which both layouts keep as [rows, features].
        return self.shape[::-1] if self.path[-1] == "kernel" else self.shape

    def inward(self, tensor: np.ndarray) -> np.ndarray:
        """The tensor as the tree has it."""
        return (tensor.T if self.path[-1] == "kernel" else tensor).reshape(self.leaf)

    def outward(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `inward`."""
        return (array.T if self.path[-1] == "kernel" else array).reshape(self.shape)


def load_mbart(
    folder_or_hub_id: str | os.PathLike, *, dtype: str = "float32", revision: str | None = None
) -> tuple[MBartConfig, Params, Path | None]:
    """Loads an mBART or mBART-50 from a folder, or from the Hugging Face Hub.

    Args:
      folder_or_hub_id: a folder in Hugging Face's layout, or a hub id (`facebook/mbart-large-50`).
      dtype: of the matrix products, "float32" or "bfloat16"; parameters become float32.
      revision: on the Hub.

    Returns:
      The configuration; the parameters, nested dictionaries of NumPy arrays, as
      `class_jax.models.class_model.merge` takes them; the SentencePiece model beside the weights, or None.

    Raises:
      InputError: in one line: no such folder or model, not an mBART, damaged, or parameters missing, unknown or wrongly
        shaped, each by name.
    """
    folder = local_folder(folder_or_hub_id, revision)
    config = mbart_config_from_hf(read_json(folder / "config.json"), file=folder / "config.json", dtype=dtype)
    vocabulary = folder / VOCABULARY_FILE
    return config, to_mbart_params(read_tensors(folder), config), vocabulary if vocabulary.is_file() else None


def mbart_config_from_hf(
    content: Mapping[str, Any], *, file: str | os.PathLike | None = None, dtype: str = "float32"
) -> MBartConfig:
    """Reads a Hugging Face `config.json`.

    Args:
      content: of the file.
      file: its path, for the error.
      dtype: of the matrix products.

    Raises:
      InputError: if the model is no mBART, a size is missing, or a special token is unset.
    """
    if content.get("model_type") != "mbart":
        raise InputError(
            f"the model is of type {content.get('model_type')!r}", file=file, key="model_type", remedy="give an mBART"
        )
    missing = [key for key in _SIZES if not isinstance(content.get(key), int)]
    if missing:
        raise InputError("no whole number", file=file, key=", ".join(missing))
    return MBartConfig(
        **{ours: content[theirs] for theirs, ours in _SIZES.items()},
        max_positions=content.get("max_position_embeddings", 1024),
        activation=content.get("activation_function", "gelu"),
        scale_embedding=content.get("scale_embedding", False),
        pad_id=content.get("pad_token_id", 1),
        eos_id=content.get("eos_token_id", 2),
        # The target is shifted with its last token in front, and that is the end of sequence in mBART-50.
        start_id=content.get("decoder_start_token_id") or content.get("eos_token_id", 2),
        dtype=dtype,
    )


def to_mbart_params(tensors: Mapping[str, np.ndarray], config: MBartConfig) -> Params:
    """Arranges Hugging Face tensors as the model's parameter tree, float32, reading one at a time.

    Raises:
      InputError: listing all parameters that are missing, unknown or wrongly shaped; or naming a copy of the embedding
        that differs from it.
    """
    lazy, weights = TensorFiles.of(tensors).lazy, _weights(config)
    shared = weights["model.shared.weight"]
    found = {name: f"shape {array.shape}" for name, array in lazy.items()}
    wanted = {name: f"shape {weight.shape}" for name, weight in {**weights, **dict.fromkeys(_TIED, shared)}.items()}
    problem = differences(found, wanted, optional=_TIED)
    if problem:
        raise InputError(problem, remedy="use the checkpoint's own config.json")
    counts = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    flat: dict[tuple[str, ...], np.ndarray] = {}
    for name, weight in weights.items():
        array = weight.inward(np.asarray(lazy[name].load(), np.float32))
        if weight.layer is None:
            flat[weight.path] = np.ascontiguousarray(array)
        else:
            if weight.path not in flat:
                flat[weight.path] = np.empty((counts[weight.path[0]], *array.shape), np.float32)
            flat[weight.path][weight.layer] = array
    _check_tied(lazy, flat[shared.path])
    params: Params = {}
    for path, array in flat.items():
        node = params
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = array
    return params


def to_mbart_tensors(params: Params, config: MBartConfig) -> TensorFiles:
    """The inverse of `to_mbart_params`: Hugging Face tensors by name, each cut from the tree when it is asked for.

    Args:
      params: as `to_mbart_params` returns them; arrays of NumPy, or of JAX and fully addressable.
      config: of the model that they belong to.

    Raises:
      InputError: listing all arrays that are missing, unknown or wrongly shaped.
    """
    weights = _weights(config)
    counts = {"encoder": config.encoder_layers, "decoder": config.decoder_layers}
    wanted = {
        weight.path: weight.leaf if weight.layer is None else (counts[weight.path[0]], *weight.leaf)
        for weight in weights.values()
    }
    leaves = {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]
    }
    problem = differences(
        {"/".join(path): f"shape {np.shape(leaf)}" for path, leaf in leaves.items()},
        {"/".join(path): f"shape {shape}" for path, shape in wanted.items()},
        found_in="the parameters",
    )
    if problem:
        raise InputError(problem, remedy="use the configuration that the parameters were made with")

    def read(weight: _Weight) -> np.ndarray:
        leaf = leaves[weight.path]
        return weight.outward(np.asarray(leaf if weight.layer is None else leaf[weight.layer]))

    return TensorFiles(
        {
            name: LazyArray(weight.shape, np.dtype(leaves[weight.path].dtype), functools.partial(read, weight))
            for name, weight in weights.items()
        }
    )


def mbart_config_to_hf(config: MBartConfig) -> dict[str, Any]:
    """The content of a Hugging Face `config.json`; `mbart_config_from_hf` reads it, and transformers does."""
    return {
        "model_type": "mbart",
        "architectures": ["MBartForConditionalGeneration"],
        "is_encoder_decoder": True,
        "tie_word_embeddings": True,
        **{theirs: getattr(config, ours) for theirs, ours in _SIZES.items()},
        "num_hidden_layers": config.encoder_layers,
        "max_position_embeddings": config.max_positions,
        "activation_function": config.activation,
        "scale_embedding": config.scale_embedding,
        "bos_token_id": _BOS_ID,
        "pad_token_id": config.pad_id,
        "eos_token_id": config.eos_id,
        "decoder_start_token_id": config.start_id,
        "forced_eos_token_id": config.eos_id,
    }


def save_mbart(
    folder: str | os.PathLike,
    params: Params,
    config: MBartConfig,
    vocabulary: MBartVocabulary | None = None,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a folder that `load_mbart` and transformers read, whole or not at all; digests of all tensors beside them.

    Args:
      folder: to be written. A folder of weights that is there already is replaced.
      params: as `load_mbart` returns them; arrays of NumPy or JAX.
      config: of the model.
      vocabulary: written beside the weights, with the name of transformers' tokenizer for it.
      max_shard_bytes: files grow no larger than that, except a single larger tensor.

    Raises:
      InputError: if the folder holds anything but weights, arrays don't fit the configuration, or the disk refuses a
        write.
    """
    check_replaceable(folder)
    tensors = to_mbart_tensors(params, config)
    kept = str(tensors.lazy["model.shared.weight"].dtype)
    with replacing_folder(folder) as aside:
        write_json(aside / "config.json", mbart_config_to_hf(config) | {"torch_dtype": kept})
        if vocabulary is not None:
            (aside / VOCABULARY_FILE).write_bytes(vocabulary.model)
            tokeniser = "MBart50Tokenizer" if vocabulary.is_mbart50 else "MBartTokenizer"
            write_json(aside / "tokenizer_config.json", {"tokenizer_class": tokeniser})
        write_tensors(aside, tensors, max_shard_bytes=max_shard_bytes).write()


def _check_tied(lazy: Mapping[str, Any], embedding: np.ndarray) -> None:
    for name in _TIED:
        if name in lazy and not np.array_equal(np.asarray(lazy[name].load(), np.float32), embedding):
            raise InputError("differs from model.shared.weight", key=name, remedy="mBART's table is one")


def _weights(config: MBartConfig) -> dict[str, _Weight]:
    V, D = config.vocab_size, config.d_model
    weights = {
        "model.shared.weight": _Weight(("embed", "embedding"), None, (V, D)),
        "final_logits_bias": _Weight(("logits_bias",), None, (1, V)),
    }
    for side, count, ffn in (
        ("encoder", config.encoder_layers, config.encoder_ffn),
        ("decoder", config.decoder_layers, config.decoder_ffn),
    ):
        weights[f"model.{side}.embed_positions.weight"] = _Weight(
            (side, "positions", "embedding"), None, (config.max_positions + POSITION_OFFSET, D)
        )
        weights |= _norm(f"model.{side}.layernorm_embedding", (side, "embedding_norm"), None, D)
        weights |= _norm(f"model.{side}.layer_norm", (side, "norm"), None, D)
        attentions = {"self_attn": "attention" if side == "encoder" else "self_attention"}
        if side == "decoder":
            attentions["encoder_attn"] = "cross_attention"
        for i in range(count):
            layer, path = f"model.{side}.layers.{i}", (side, "layers")
            for theirs, ours in attentions.items():
                weights |= _norm(f"{layer}.{theirs}_layer_norm", (*path, ours, "norm"), i, D)
                for projection, letter in _ATTENTION.items():
                    weights |= _linear(f"{layer}.{theirs}.{projection}", (*path, ours, letter), i, D, D)
            weights |= _norm(f"{layer}.final_layer_norm", (*path, "mlp", "norm"), i, D)
            weights |= _linear(f"{layer}.fc1", (*path, "mlp", "wi"), i, ffn, D)
            weights |= _linear(f"{layer}.fc2", (*path, "mlp", "wo"), i, D, ffn)
    return weights


def _norm(name: str, path: tuple[str, ...], layer: int | None, features: int) -> dict[str, _Weight]:
    return {
        f"{name}.weight": _Weight((*path, "scale"), layer, (features,)),
        f"{name}.bias": _Weight((*path, "bias"), layer, (features,)),
    }


def _linear(name: str, path: tuple[str, ...], layer: int, outputs: int, inputs: int) -> dict[str, _Weight]:
    return {
        f"{name}.weight": _Weight((*path, "kernel"), layer, (outputs, inputs)),
        f"{name}.bias": _Weight((*path, "bias"), layer, (outputs,)),
    }
