# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""mT5, T5 v1.1 and CLASS weights between Hugging Face's layout and this project's parameter tree.

PyTorch keeps a matrix as [out, in] and each layer under its own name; here kernels are [in, out...] with the heads
apart, and the layers of a kind are stacked along a leading axis. Letters: V vocabulary, D model, H heads, K head
dimension, F hidden.
"""

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from class_jax.checkpoints.differences import differences
from class_jax.checkpoints.leaves import at
from class_jax.checkpoints.tensor_files import read_tensors, write_shards
from class_jax.errors import InputError
from class_jax.files import replacing_folder, write_json

if TYPE_CHECKING:
    from class_jax.models.config import ModelConfig

__all__ = [
    "config_from_hf",
    "config_to_hf",
    "from_params",
    "missing_dense",
    "names",
    "read_tensors",
    "to_params",
    "write_safetensors",
]

_log = logging.getLogger(__name__)

Params = dict[str, Any]
Path = tuple[str, ...]

# The embedding under the names of the two stacks that share it: files may hold it once or three times.
_TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Written by old versions of transformers, used by none.
_IGNORED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
_SIZES = (
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_heads",
)
_DEFAULT_HEAD = 6  # the paper's


@dataclasses.dataclass(frozen=True)
class _Weight:
    """One Hugging Face tensor: where it goes and how its axes become ours.

    Attributes:
      path: in the parameter tree.
      layer: row of the stack at `path`, or None for an array that is not stacked.
      shape: the tensor's.
      transposed: whether the array at `path` is the tensor's transpose (reshaped to `leaf`).
      leaf: shape at `path` without the axis of layers.
    """

    path: Path
    layer: int | None
    shape: tuple[int, ...]
    transposed: bool
    leaf: tuple[int, ...]

    def inward(self, tensor: np.ndarray) -> np.ndarray:
        return (tensor.T if self.transposed else tensor).reshape(self.leaf)

    def outward(self, array: np.ndarray) -> np.ndarray:
        if not self.transposed:
            return np.ascontiguousarray(array.reshape(self.shape))
        return np.ascontiguousarray(array.reshape(self.shape[::-1]).T)


def names(config: "ModelConfig") -> dict[str, tuple[Path, int | None]]:
    """Every Hugging Face parameter of the model: name -> (path in the parameter tree, layer in the stack or None)."""
    return {name: (weight.path, weight.layer) for name, weight in _weights(config).items()}


def to_params(
    tensors: Mapping[str, np.ndarray],
    config: "ModelConfig",
    *,
    dtype: Any = None,
    initialise_missing_dense: np.random.Generator | None = None,
) -> Params:
    """Arranges Hugging Face tensors as the model's parameter tree, reading one at a time.

    Args:
      tensors: from `read_tensors`, or any mapping.
      config: of the model that is wanted.
      dtype: of the result; None keeps the tensors'.
      initialise_missing_dense: where the tensors are a plain mT5's and the model's retriever is dense, its projections
        are drawn from this (normal, standard deviation D^-0.5; the norm's scale is one). A warning names them, and
        `missing_dense` tells beforehand.

    Returns:
      Nested dictionaries of NumPy arrays: kernels [in, out...], layers stacked along a leading axis.

    Raises:
      InputError: listing all parameters that are missing, unknown or wrongly shaped; or naming a tied embedding that
        differs from `shared.weight`.
    """
    weights = _weights(config)
    new = missing_dense(tensors, config) if initialise_missing_dense is not None else ()
    tied = {name: weights["shared.weight"] for name in _TIED}
    found = {name: _shown(shape) for name, shape in _shapes(tensors).items() if name not in _IGNORED}
    wanted = {name: _shown(weight.shape) for name, weight in {**weights, **tied}.items()}
    problem = differences(found, wanted, optional={*_TIED, *new})
    if problem:
        raise InputError(problem, remedy=_remedy(tensors, config))
    _check_tied(tensors)
    params: Params = {}
    stacks = _stack_sizes(weights)
    for name, weight in weights.items():
        tensor = _initial(weight, initialise_missing_dense) if name in new else np.asarray(tensors[name])
        _place(params, weight, tensor if dtype is None else tensor.astype(dtype), stacks.get(weight.path), name)
    if new:
        _log.warning("newly initialised, not in the checkpoint: %s", ", ".join(new))
    return params


def from_params(params: Params, config: "ModelConfig") -> Iterator[tuple[str, np.ndarray]]:
    """Yields (Hugging Face name, tensor) of each parameter, one at a time in memory; the embedding once.

    Args:
      params: as `to_params` returns them; arrays of NumPy, or of JAX and fully addressable.
      config: of the model they belong to.

    Raises:
      InputError: listing all arrays that are missing, unknown or wrongly shaped, before the first is yielded.
    """
    weights = _weights(config)
    _check_params(params, weights)
    return ((name, _tensor(params, weight)) for name, weight in weights.items())


def write_safetensors(
    folder: str | os.PathLike,
    params: Params,
    config: "ModelConfig",
    *,
    dtype: Any = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes a folder that transformers and the PyTorch reference load: weights and `config.json`, whole or not at all.

    Args:
      folder: to be written; one that is there already is replaced.
      params: as `to_params` returns them.
      config: of the model they belong to.
      dtype: of the file; None keeps the arrays'.
      max_shard_bytes: files grow no larger than that, save for a single larger tensor.

    Raises:
      InputError: if arrays are missing, unknown or wrongly shaped, or the disk refuses a write.
    """
    weights = _weights(config)
    _check_params(params, weights)
    types = {name: np.dtype(dtype or at(params, weight.path).dtype) for name, weight in weights.items()}
    sizes = {name: int(np.prod(weight.shape)) * types[name].itemsize for name, weight in weights.items()}
    tensors = ((name, _tensor(params, weight).astype(types[name], copy=False)) for name, weight in weights.items())
    with replacing_folder(folder) as aside:
        write_json(aside / "config.json", config_to_hf(config) | {"torch_dtype": str(types["shared.weight"])})
        write_shards(aside, tensors, sizes, max_shard_bytes)


def missing_dense(tensors: Mapping[str, np.ndarray], config: "ModelConfig") -> tuple[str, ...]:
    """Names of the dense retriever's parameters if the tensors have none of them and the model needs them, else ()."""
    dense = tuple(name for name, weight in _weights(config).items() if weight.path[0] == "dense_head")
    return () if any(name in tensors for name in dense) else dense


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
    layer, head = config.get("retriever_layer"), config.get("retriever_head")
    kwargs["retriever_layer"] = config["num_layers"] // 2 if layer is None else layer
    if layer is not None and head is None:
        return kwargs | {"retriever": "dense"}
    if head is None:
        head = min(_DEFAULT_HEAD, config["num_heads"] - 1)
    return kwargs | {"retriever": "multi_vector", "retriever_head": head}


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


def _weights(config: "ModelConfig") -> dict[str, _Weight]:
    V, D, H, K = config.vocab_size, config.d_model, config.num_heads, config.d_kv
    R, buckets = config.retriever_layer, config.relative_attention_num_buckets
    weights = {"shared.weight": _Weight(("embed", "embedding"), None, (V, D), False, (V, D))}
    for i in range(config.num_layers):
        stack, row = ("retriever_layers", i) if i < R else ("reader_layers", i - R)
        path, block = ("encoder", stack), f"encoder.block.{i}.layer"
        weights |= _attention(config, f"{block}.0.SelfAttention", f"{block}.0", (*path, "attention"), row)
        weights |= _mlp(config, f"{block}.1", (*path, "mlp"), row)
    for i in range(config.num_decoder_layers):
        path, block = ("decoder", "layers"), f"decoder.block.{i}.layer"
        weights |= _attention(config, f"{block}.0.SelfAttention", f"{block}.0", (*path, "self_attention"), i)
        weights |= _attention(config, f"{block}.1.EncDecAttention", f"{block}.1", (*path, "cross_attention"), i)
        weights |= _mlp(config, f"{block}.2", (*path, "mlp"), i)
    for side in ("encoder", "decoder"):
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        shape = (buckets, H)
        weights[bias] = _Weight((side, "relative_bias", "embedding"), None, shape, False, shape)
        weights[f"{side}.final_layer_norm.weight"] = _Weight((side, "norm", "scale"), None, (D,), False, (D,))
    weights["lm_head.weight"] = _Weight(("head", "kernel"), None, (V, D), True, (D, V))
    if config.retriever == "dense":
        owner = f"encoder.block.{R}.layer.0.SelfAttention"
        for part in ("query_proj", "passage_proj"):
            path = ("dense_head", part, "kernel")
            weights[f"{owner}.{part}.weight"] = _Weight(path, None, (H * K, D), True, (D, H * K))
        path = ("dense_head", "norm", "scale")
        weights[f"{owner}.layer_norm.weight"] = _Weight(path, None, (H * K,), False, (H * K,))
    return weights


def _attention(config: "ModelConfig", name: str, norm: str, path: Path, row: int) -> dict[str, _Weight]:
    D, H, K = config.d_model, config.num_heads, config.d_kv
    weights = {f"{norm}.layer_norm.weight": _Weight((*path, "norm", "scale"), row, (D,), False, (D,))}
    for part in "qkv":
        weights[f"{name}.{part}.weight"] = _Weight((*path, part, "kernel"), row, (H * K, D), True, (D, H, K))
    weights[f"{name}.o.weight"] = _Weight((*path, "o", "kernel"), row, (D, H * K), True, (H, K, D))
    return weights


def _mlp(config: "ModelConfig", name: str, path: Path, row: int) -> dict[str, _Weight]:
    D, F = config.d_model, config.d_ff
    weights = {f"{name}.layer_norm.weight": _Weight((*path, "norm", "scale"), row, (D,), False, (D,))}
    for part, (inputs, outputs) in {"wi_0": (D, F), "wi_1": (D, F), "wo": (F, D)}.items():
        weights[f"{name}.DenseReluDense.{part}.weight"] = _Weight(
            (*path, part, "kernel"), row, (outputs, inputs), True, (inputs, outputs)
        )
    return weights


def _stack_sizes(weights: Mapping[str, _Weight]) -> dict[Path, int]:
    """Layers stacked at each path that has any."""
    sizes: dict[Path, int] = {}
    for weight in weights.values():
        if weight.layer is not None:
            sizes[weight.path] = max(sizes.get(weight.path, 0), weight.layer + 1)
    return sizes


def _place(params: Params, weight: _Weight, tensor: np.ndarray, layers: int | None, name: str) -> None:
    *parents, last = weight.path
    node = params
    for part in parents:
        node = node.setdefault(part, {})
    array = weight.inward(tensor)
    if layers is None:
        node[last] = np.ascontiguousarray(array)
        return
    stack = node.setdefault(last, np.empty((layers, *weight.leaf), tensor.dtype))
    if stack.dtype != tensor.dtype:
        raise InputError(f"is {tensor.dtype}, other layers' are {stack.dtype}", key=name, remedy="ask for one dtype")
    stack[weight.layer] = array


def _tensor(params: Params, weight: _Weight) -> np.ndarray:
    leaf = at(params, weight.path)
    return weight.outward(np.asarray(leaf if weight.layer is None else leaf[weight.layer]))


def _initial(weight: _Weight, generator: np.random.Generator) -> np.ndarray:
    if len(weight.shape) == 1:
        return np.ones(weight.shape, np.float32)
    deviation = np.float32(weight.shape[1] ** -0.5)  # the shape is [H*K, D]
    return generator.standard_normal(weight.shape, np.float32) * deviation


def _shapes(tensors: Mapping[str, np.ndarray]) -> Mapping[str, tuple[int, ...]]:
    known = getattr(tensors, "shapes", None)
    return known if known is not None else {name: np.shape(array) for name, array in tensors.items()}


def _check_tied(tensors: Mapping[str, np.ndarray]) -> None:
    present = [name for name in _TIED if name in tensors]
    if not present:
        return
    shared = np.ascontiguousarray(tensors["shared.weight"])
    for name in present:
        copy = np.ascontiguousarray(tensors[name])
        if copy.dtype != shared.dtype or not np.array_equal(copy.view(np.uint8), shared.view(np.uint8)):
            raise InputError("differs from shared.weight", key=name, remedy="the two stacks share one embedding here")


def _check_params(params: Params, weights: Mapping[str, _Weight]) -> None:
    stacks = _stack_sizes(weights)
    wanted = {}
    for weight in weights.values():
        stacked = (stacks[weight.path],) if weight.layer is not None else ()
        wanted["/".join(weight.path)] = _shown((*stacked, *weight.leaf))
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    found = {jax.tree_util.keystr(path, simple=True, separator="/"): _shown(np.shape(leaf)) for path, leaf in leaves}
    problem = differences(found, wanted, found_in="the parameters")
    if problem:
        raise InputError(problem, remedy="use the configuration that the parameters were made with")


def _shown(shape: tuple[int, ...]) -> str:
    return f"shape ({', '.join(map(str, shape))})"


def _remedy(tensors: Mapping[str, np.ndarray], config: "ModelConfig") -> str:
    is_dense = any(name.endswith("query_proj.weight") for name in tensors)
    if is_dense and config.retriever != "dense":
        return 'the checkpoint is a dense retriever\'s: set retriever to "dense"'
    if not is_dense and config.retriever == "dense":
        return "the checkpoint has no dense retriever: ask for one newly initialised"
    return "use the checkpoint's own config.json"
