# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""mT5, T5 v1.1 and CLASS weights between Hugging Face's layout and this project's parameter tree.

PyTorch keeps a matrix as [out, in] and each layer under its own name; here kernels are [in, out...] with the heads
apart, and the layers of a kind are stacked along a leading axis. Letters: V vocabulary, D model, H heads, K head
dimension, F hidden.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from class_jax.checkpoints.configs import PAPER, TextConfig, config_document
from class_jax.checkpoints.differences import differences
from class_jax.checkpoints.folder_digests import sha256
from class_jax.checkpoints.leaves import LazyArray, at
from class_jax.checkpoints.tensor_files import TensorFiles, write_tensors
from class_jax.common.files import replacing_folder, write_json
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError

if TYPE_CHECKING:
    from class_jax.models.config import ModelConfig


Params = dict[str, Any]
Path = tuple[str, ...]

# The embedding under the names of the two stacks that share it: files may hold it once or three times.
_TIED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Written by old versions of transformers, used by none.
_IGNORED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
MAX_SHARD_BYTES = 5 * 10**9
CONFIG_FILE, VOCABULARY_FILE = "config.json", "spiece.model"


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
        return array.reshape(self.shape[::-1]).T if self.transposed else array.reshape(self.shape)


def names(config: "ModelConfig") -> dict[str, tuple[Path, int | None]]:
    """Every Hugging Face parameter of the model: name -> (path in the parameter tree, layer in the stack or None)."""
    return {name: (weight.path, weight.layer) for name, weight in _weights(config).items()}


def shapes(config: "ModelConfig") -> dict[str, tuple[int, ...]]:
    """Every Hugging Face parameter of the model: name -> shape of the tensor."""
    return {name: weight.shape for name, weight in _weights(config).items()}


def to_params(
    tensors: Mapping[str, np.ndarray],
    config: "ModelConfig",
    *,
    dtype: Any = None,
) -> Params:
    """Arranges Hugging Face tensors as the model's parameter tree, reading one at a time.

    Args:
      tensors: from `read_tensors`, or any mapping.
      config: of the model that is wanted.
      dtype: of the result; None keeps the tensors'.

    Returns:
      Nested dictionaries of NumPy arrays: kernels [in, out...], layers stacked along a leading axis.

    Raises:
      InputError: listing all parameters that are missing, unknown or wrongly shaped; or naming a tied embedding that
        differs from `shared.weight`.
    """
    check_tensors(tensors, config)
    params: Params = {}
    for path, leaf in as_leaves(tensors, config, dtype=dtype).items():
        node = params
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = _owned(leaf.load())
    return params


def check_tensors(tensors: Mapping[str, np.ndarray], config: "ModelConfig") -> None:
    """Compares names and shapes of Hugging Face tensors with the model's.

    Raises:
      InputError: listing all parameters that are missing, unknown or wrongly shaped; or naming a tied embedding that
        differs from `shared.weight`.
    """
    weights = _weights(config)
    lazy = TensorFiles.of(tensors).lazy
    tied = {name: weights["shared.weight"] for name in _TIED}
    found = {name: _shown(array.shape) for name, array in lazy.items() if name not in _IGNORED}
    wanted = {name: _shown(weight.shape) for name, weight in {**weights, **tied}.items()}
    problem = differences(found, wanted, optional=_TIED)
    if problem:
        raise InputError(problem, remedy=_remedy(tensors, config))
    _check_tied(lazy)


def with_missing_dense(
    tensors: Mapping[str, np.ndarray], config: "ModelConfig", generator: np.random.Generator
) -> tuple[TensorFiles, tuple[str, ...]]:
    """The tensors, with new projections if `missing_dense` names any; and the names of those.

    Projections are drawn from a normal of standard deviation D^-0.5, the norm's scale is one; of the embedding's type.
    """
    lazy = dict(TensorFiles.of(tensors).lazy)
    new, weights = missing_dense(tensors, config), _weights(config)
    for name in new:
        drawn = _initial(weights[name], generator)
        lazy[name] = LazyArray.of(drawn.astype(lazy["shared.weight"].dtype) if "shared.weight" in lazy else drawn)
    return TensorFiles(lazy), new


def as_leaves(tensors: Mapping[str, np.ndarray], config: "ModelConfig", *, dtype: Any = None) -> dict[Path, LazyArray]:
    """Every array of the parameter tree by its path, assembled from Hugging Face tensors when it is asked for.

    Loading a stack reads its layers one by one. An array that is no stack may be a view of the tensor.

    Args:
      tensors: as `check_tensors` accepts them.
      config: of the model.
      dtype: of the arrays; None keeps the tensors'.

    Raises:
      InputError: if the layers of a stack are of different types and `dtype` is None.
    """
    lazy = TensorFiles.of(tensors).lazy
    parts: dict[Path, list[str]] = {}
    weights = _weights(config)
    for name, weight in weights.items():
        parts.setdefault(weight.path, []).append(name)
    leaves = {}
    for path, members in parts.items():
        first = lazy[members[0]].dtype
        for name in members:
            if dtype is None and lazy[name].dtype != first:
                raise InputError(
                    f"is {lazy[name].dtype}, other layers' are {first}", key=name, remedy="ask for one dtype"
                )
        kept, weight = np.dtype(dtype or first), weights[members[0]]
        if weight.layer is None:
            load = functools.partial(_load_one, lazy[members[0]], weight, kept)
            leaves[path] = LazyArray(weight.leaf, kept, load)
        else:
            rows = [(lazy[name], weights[name]) for name in members]
            shape = (len(rows), *weight.leaf)
            leaves[path] = LazyArray(shape, kept, functools.partial(_load_stack, rows, shape, kept))
    return leaves


def as_tensors(leaf: Callable[[Path], Any], config: "ModelConfig", *, kept: bool = False) -> TensorFiles:
    """Every Hugging Face tensor of the model, cut from the parameter tree when it is asked for.

    Args:
      leaf: path -> `LazyArray` of the parameter tree.
      config: of the model.
      kept: whether the array read last is kept for the next tensor: the tensors of one stack follow one another.
    """
    last: dict[Path, np.ndarray] = {}

    def read(weight: _Weight) -> np.ndarray:
        if weight.path not in last:
            last.clear()
            last[weight.path] = leaf(weight.path).load()
        array = last[weight.path] if kept and weight.layer is not None else last.pop(weight.path)
        return weight.outward(array if weight.layer is None else array[weight.layer])

    ordered = sorted(_weights(config).items(), key=lambda item: item[1].path)
    return TensorFiles(
        {
            name: LazyArray(weight.shape, leaf(weight.path).dtype, functools.partial(read, weight))
            for name, weight in ordered
        }
    )


def from_params(params: Params, config: "ModelConfig") -> TensorFiles:
    """Returns the parameters as tensors in the Hugging Face layout, each made when it is read; the embedding once.

    Args:
      params: as `to_params` returns them; arrays of NumPy, or of JAX and fully addressable.
      config: of the model they belong to.

    Raises:
      InputError: listing all arrays that are missing, unknown or wrongly shaped.
    """
    check_leaves(params, config)
    return as_tensors(lambda path: LazyArray.of(at(params, path)), config)


def write_safetensors(
    folder: str | os.PathLike,
    params: Params,
    config: "ModelConfig",
    *,
    dtype: Any = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    vocabulary: Vocabulary | None = None,
    texts: TextConfig = PAPER,
) -> None:
    """Writes a folder that transformers and the PyTorch reference load: weights and `config.json`, whole or not at all.

    Args:
      folder: to be written; one that is there already is replaced.
      params: as `to_params` returns them.
      config: of the model they belong to.
      dtype: of the file; None keeps the arrays'.
      max_shard_bytes: files grow no larger than that, except a single larger tensor.
      vocabulary: written beside them, as `spiece.model`.
      texts: how the model's texts are cut, for `config.json`.

    Raises:
      InputError: if arrays are missing, unknown or wrongly shaped, or the disk refuses a write.
    """
    tensors = from_params(params, config)
    write_tensor_folder(
        folder, tensors, config, dtype=dtype, max_shard_bytes=max_shard_bytes, vocabulary=vocabulary, texts=texts
    )


def write_tensor_folder(
    folder: str | os.PathLike,
    tensors: TensorFiles,
    config: "ModelConfig",
    *,
    dtype: Any = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    vocabulary: Vocabulary | None = None,
    texts: TextConfig = PAPER,
) -> None:
    """As `write_safetensors`, from tensors in the Hugging Face layout, one in memory at a time."""
    kept = np.dtype(dtype or tensors.lazy["shared.weight"].dtype)
    with replacing_folder(folder) as aside:
        write_json(aside / CONFIG_FILE, config_document(config, texts) | {"torch_dtype": str(kept)})
        digests = write_tensors(aside, tensors, dtype=dtype, max_shard_bytes=max_shard_bytes)
        digests.add_file(CONFIG_FILE)
        if vocabulary is not None:
            (aside / VOCABULARY_FILE).write_bytes(vocabulary.model)
            digests.add_file(VOCABULARY_FILE)
        digests.write()


def missing_dense(tensors: Mapping[str, np.ndarray], config: "ModelConfig") -> tuple[str, ...]:
    """Names of the dense retriever's parameters if the tensors have none of them and the model needs them, else ()."""
    dense = tuple(name for name, weight in _weights(config).items() if weight.path[0] == "dense_head")
    return () if any(name in tensors for name in dense) else dense


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


def _owned(array: np.ndarray) -> np.ndarray:
    """The array, contiguous, and in memory of its own rather than a mapped file's."""
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    return np.ascontiguousarray(array) if root.flags.owndata else np.array(array, order="C")


def _load_one(array: LazyArray, weight: _Weight, dtype: np.dtype) -> np.ndarray:
    return weight.inward(array.load()).astype(dtype, copy=False)


def _load_stack(rows: list[tuple[LazyArray, _Weight]], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    stack = np.empty(shape, dtype)
    for array, weight in rows:
        stack[weight.layer] = weight.inward(array.load())
    return stack


def _initial(weight: _Weight, generator: np.random.Generator) -> np.ndarray:
    if len(weight.shape) == 1:
        return np.ones(weight.shape, np.float32)
    deviation = np.float32(weight.shape[1] ** -0.5)  # the shape is [H*K, D]
    return generator.standard_normal(weight.shape, np.float32) * deviation


def _check_tied(lazy: Mapping[str, LazyArray]) -> None:
    present = [name for name in _TIED if name in lazy]
    if not present:
        return
    # By digest, so that no two of them are in memory together.
    shared = lazy["shared.weight"]
    digest = sha256(shared.load())
    for name in present:
        if lazy[name].dtype != shared.dtype or sha256(lazy[name].load()) != digest:
            raise InputError("differs from shared.weight", key=name, remedy="the two stacks share one embedding here")


def check_leaves(params: Params, config: "ModelConfig") -> None:
    """Compares a parameter tree (of anything that has a shape) with the model's.

    Raises:
      InputError: listing all arrays that are missing, unknown or wrongly shaped.
    """
    weights = _weights(config)
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
