# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""T5X's native checkpoints: `checkpoint_N/` with a msgpack index and a zarr array for each parameter.

T5X keeps a matrix as [in, out], the transpose of Hugging Face's, each layer under its own name (`layers_0`, ...: the
layout of `t5x/examples/t5`, which the public mT5 checkpoints have), and the position bias as [heads, buckets].

Read: the parameters (`target`); the optimizer's state is skipped. Written: what T5X itself saves at step 0, so that its
trainer takes the folder: the parameters, and Adafactor's first state (all zeros). The dense retriever's projections,
which T5X's model lacks, are written beside layer B's attention; T5X reads only the names that its model has.
"""

import itertools
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from flax import serialization

from class_jax.checkpoints import huggingface
from class_jax.checkpoints.chunks import read_chunks, write_chunks
from class_jax.checkpoints.configs import PAPER, TextConfig, config_document, config_from_hf, config_from_shapes
from class_jax.checkpoints.differences import differences
from class_jax.checkpoints.folder_digests import FolderDigests, sha256
from class_jax.checkpoints.huggingface import CONFIG_FILE, VOCABULARY_FILE
from class_jax.checkpoints.leaves import LazyArray, nested
from class_jax.checkpoints.tensor_files import TensorFiles
from class_jax.common.files import read_json, write_json
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.models.config import ModelConfig

_log = logging.getLogger(__name__)

INDEX = "checkpoint"
_STEP = re.compile(r"checkpoint_(\d+)")
_VERSION = 3
_CHUNK_BYTES = 64 << 20  # T5X's own
_FACTORED_FROM = 128  # Adafactor factors matrices of which both sides are at least so long
_TYPES = ("float32", "bfloat16", "float16")
_CONTEXT = ts.Context()
_TRANSPOSED = ("kernel", "rel_embedding")


def t5x_names(num_layers: int, num_decoder_layers: int, dense_layer: int | None = None) -> dict[str, str]:
    """Hugging Face's name -> T5X's, of every parameter.

    Args:
      num_layers: of the encoder.
      num_decoder_layers: of the decoder.
      dense_layer: the layer that holds the dense retriever's projections, if there are any.
    """
    names = {"shared.weight": "token_embedder/embedding", "lm_head.weight": "decoder/logits_dense/kernel"}
    for side in ("encoder", "decoder"):
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        names[bias] = f"{side}/relpos_bias/rel_embedding"
        names[f"{side}.final_layer_norm.weight"] = f"{side}/{side}_norm/scale"
    encoder = [("SelfAttention", "attention", "pre_attention_layer_norm")]
    decoder = [
        ("SelfAttention", "self_attention", "pre_self_attention_layer_norm"),
        ("EncDecAttention", "encoder_decoder_attention", "pre_cross_attention_layer_norm"),
    ]
    for side, count, attentions in (("encoder", num_layers, encoder), ("decoder", num_decoder_layers, decoder)):
        for i in range(count):
            block, layer = f"{side}.block.{i}.layer", f"{side}/layers_{i}"
            for j, (theirs, ours, norm) in enumerate(attentions):
                for short, long in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "out")):
                    names[f"{block}.{j}.{theirs}.{short}.weight"] = f"{layer}/{ours}/{long}/kernel"
                names[f"{block}.{j}.layer_norm.weight"] = f"{layer}/{norm}/scale"
            for part in ("wi_0", "wi_1", "wo"):
                names[f"{block}.{len(attentions)}.DenseReluDense.{part}.weight"] = f"{layer}/mlp/{part}/kernel"
            names[f"{block}.{len(attentions)}.layer_norm.weight"] = f"{layer}/pre_mlp_layer_norm/scale"
    if dense_layer is not None:
        owner, layer = f"encoder.block.{dense_layer}.layer.0.SelfAttention", f"encoder/layers_{dense_layer}/attention"
        for part in ("query_proj", "passage_proj"):
            names[f"{owner}.{part}.weight"] = f"{layer}/{part}/kernel"
        names[f"{owner}.layer_norm.weight"] = f"{layer}/layer_norm/scale"
    return names


def find_step(folder: str | os.PathLike) -> Path | None:
    """The folder itself if it is a step, else its newest `checkpoint_N`, else None."""
    folder = Path(folder)
    if (folder / INDEX).is_file() or _STEP.fullmatch(folder.name):
        return folder
    steps = {int(match[1]): child for child in folder.iterdir() if (match := _STEP.fullmatch(child.name))}
    return steps[max(steps)] if steps else None


def beside(folder: str | os.PathLike, name: str) -> Path | None:
    """A file that belongs to a T5X checkpoint: in its step's folder or in the one above."""
    step = find_step(folder)
    if step is None:
        return None
    return next((path for path in (step / name, step.parent / name) if path.is_file()), None)


def read_t5x(folder: str | os.PathLike, config: ModelConfig | None = None) -> tuple[ModelConfig, TensorFiles]:
    """Opens a step (or the newest of a folder of steps).

    Args:
      folder: `checkpoint_N`, or the folder that holds it.
      config: of the model; None takes the `config.json` beside the checkpoint, or else finds it by the arrays' shapes
        (the position bias has as many rows as there are heads).

    Returns:
      The configuration, and the parameters as tensors in the Hugging Face layout, read one at a time.

    Raises:
      InputError: if there is no whole checkpoint; if it is of another kind (scanned layers, T5 1.0), or parameters are
        missing, unknown or wrongly shaped; where there is a `digests.json`, if a file is damaged.
    """
    step = find_step(folder)
    if step is None or not (step / INDEX).is_file():
        place = Path(folder) if step is None else step
        raise InputError("half a checkpoint: its index is missing", file=place / INDEX, remedy="fetch it again")
    digests = _digests(step)
    arrays = _arrays(step, digests)
    kernels = {name: array.shape for name, array in arrays.items()}
    table = _table(step, kernels)
    lazy = {theirs: arrays[ours] for theirs, ours in table.items() if ours in arrays}
    lazy = {name: _transposed(array) if _is_transposed(table[name]) else array for name, array in lazy.items()}
    if config is None:
        path = beside(step, CONFIG_FILE)
        try:
            kwargs = config_from_hf(read_json(path)) if path else config_from_shapes(TensorFiles(lazy).shapes)
        except InputError as error:
            raise InputError(str(error), file=step) from error
        config = ModelConfig(**kwargs)
    _check(step, kernels, config)
    return config, TensorFiles(lazy)


def write_t5x(
    folder: Path,
    tensors: TensorFiles,
    config: ModelConfig,
    *,
    dtype: Any = None,
    vocabulary: Vocabulary | None = None,
    texts: TextConfig = PAPER,
) -> None:
    """Writes `checkpoint_0`, `config.json`, vocabulary and `digests.json`.

    Args:
      folder: exists and is empty.
      tensors: in the Hugging Face layout; one is in memory at a time.
      config: of the model.
      dtype: of the arrays; None keeps the tensors'.
      vocabulary: the model's, if it is known.
      texts: how the model's texts are cut, for `config.json`.
    """
    step = folder / f"{INDEX}_0"
    step.mkdir()
    digests = FolderDigests(folder)
    dense = config.retriever_layer if config.retriever == "dense" else None
    target: dict[tuple[str, ...], Any] = {}
    state: dict[tuple[str, ...], Any] = {}
    for theirs, ours in t5x_names(config.num_layers, config.num_decoder_layers, dense).items():
        path, lazy = tuple(ours.split("/")), tensors.lazy[theirs]
        lazy = _transposed(lazy) if _is_transposed(ours) else lazy
        # Loaded in the call, so that nothing keeps it while the next one is loaded.
        target[path] = _write_array(step, ("target", *path), lazy.load(), np.dtype(dtype or lazy.dtype), digests)
        for part, start in _adafactor(lazy.shape).items():
            state[*path, part] = start
            # T5X shards `v` as it does the parameter, and so gives it an array; the others are in the index.
            if part == "v" and start.shape == lazy.shape:
                name = ("state", "param_states", *path, part)
                state[*path, part] = _write_array(step, name, start, start.dtype, digests)
    index = {
        "version": _VERSION,
        "optimizer": {
            "state": {"param_states": _sorted(nested(state)), "step": np.array(0, np.int32)},
            "target": _sorted(nested(target)),
        },
    }
    (step / INDEX).write_bytes(serialization.msgpack_serialize(index, in_place=True))
    digests.add_file(f"{step.name}/{INDEX}")
    write_json(folder / CONFIG_FILE, config_document(config, texts))
    digests.add_file(CONFIG_FILE)
    if vocabulary is not None:
        (folder / VOCABULARY_FILE).write_bytes(vocabulary.model)
        digests.add_file(VOCABULARY_FILE)
    digests.write()


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> list[int]:
    """T5X's rule: the longest side goes to its next smaller divisor until a chunk has at most 64 MiB."""
    chunk = list(shape)
    while math.prod(chunk) * itemsize > _CHUNK_BYTES:
        axis = max(range(len(chunk)), key=lambda i: chunk[i])
        chunk[axis] = next(size for size in range(chunk[axis] - 1, 0, -1) if shape[axis] % size == 0)
    return chunk


def _arrays(step: Path, digests: FolderDigests | None) -> dict[str, LazyArray]:
    """Every parameter that the index names, as T5X has it."""
    if digests is not None:
        digests.check_files()
    try:
        content = serialization.msgpack_restore((step / INDEX).read_bytes())
        target, skipped = content["optimizer"]["target"], content["optimizer"].get("state", {})
    except Exception as error:  # msgpack and numpy raise a dozen types for bytes that are not what they should be
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"is not the index of a T5X checkpoint ({reason})", file=step / INDEX, remedy="fetch it again"
        ) from error
    if "param_states" in skipped:
        _log.info("%s: the optimizer's state is skipped", step)
    return {"/".join(path): _array(step, path, leaf, digests) for path, leaf in _flat(target)}


def _flat(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and not {"driver", "kvstore", "metadata"} <= set(value):
            yield from _flat(value, (*path, key))
        else:
            yield (*path, key), value


def _array(step: Path, path: tuple[str, ...], leaf: Any, digests: FolderDigests | None) -> LazyArray:
    if isinstance(leaf, np.ndarray):
        return LazyArray.of(leaf)  # T5X keeps small ones in the index
    name = ".".join(("target", *path))
    folder = step / name
    if not isinstance(leaf, dict) or leaf["driver"] != "zarr" or not (folder / ".zarray").is_file():
        raise InputError("half a checkpoint: this array is missing", file=step, key=name, remedy="fetch it again")
    meta = read_json(folder / ".zarray")
    try:
        shape, chunks = tuple(meta["shape"]), tuple(meta["chunks"])
        grid = [range(-(-size // chunk)) for size, chunk in zip(shape, chunks, strict=True)]
        separator = meta.get("dimension_separator", ".")
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError("is not a zarr array's description", file=folder / ".zarray") from error
    # A chunk that is not there would be read as zeros.
    files = [".zarray", *(separator.join(map(str, place)) for place in itertools.product(*grid))]
    missing = next((file for file in files if not (folder / file).is_file()), None)
    if missing is not None:
        raise InputError(
            "half a checkpoint: a chunk of this array is missing", file=folder / missing, remedy="fetch it again"
        )
    dtype = str(leaf.get("dtype", meta.get("dtype", ""))).replace("<f4", "float32").replace("<f2", "float16")
    if dtype not in _TYPES:
        raise InputError(f"is of type {dtype}", file=step, key=name, remedy=f"supported: {', '.join(_TYPES)}")
    if tuple(leaf["metadata"]["shape"]) != shape:
        raise InputError(f"has shape {shape}, but {tuple(leaf['metadata']['shape'])} in the index", file=step, key=name)

    def load() -> np.ndarray:
        array = _read_array(folder)
        return array if digests is None else digests.check_array(name, array)

    return LazyArray(shape, _dtype(dtype), load)


def _dtype(name: str) -> np.dtype:
    return np.dtype(ts.dtype(name).numpy_dtype)


def _read_array(folder: Path) -> np.ndarray:
    try:
        kvstore = {"driver": "file", "path": os.path.abspath(folder) + "/"}
        store = ts.open({"driver": "zarr", "kvstore": kvstore}, open=True, read=True, context=_CONTEXT).result()
        return read_chunks(store)
    except ValueError as error:
        reason = str(error).splitlines()[0].partition(" [")[0][:200]
        raise InputError(f"can't be read ({reason})", file=folder, remedy="fetch it again") from error


def _write_array(
    step: Path, path: tuple[str, ...], array: np.ndarray, dtype: np.dtype, digests: FolderDigests
) -> dict[str, Any]:
    """Writes one array chunk by chunk; returns what the index says of it."""
    name = ".".join(path)
    chunk = chunk_shape(array.shape, dtype.itemsize)
    spec = {
        "driver": "zarr",
        "dtype": dtype.name,
        "kvstore": {"driver": "file", "path": f"{name}/"},
        "metadata": {"chunks": chunk, "compressor": {"id": "gzip", "level": 1}, "shape": list(array.shape)},
    }
    place = {"driver": "file", "path": f"{os.path.abspath(step / name)}/"}
    store = ts.open({**spec, "kvstore": place}, create=True, open=True, context=_CONTEXT).result()
    write_chunks(store, array)
    for file in sorted((step / name).iterdir()):
        digests.add_file(f"{step.name}/{name}/{file.name}")
    if path[0] == "target":
        digests.add_array(name, array.shape, dtype, sha256(array, dtype))
    return spec


def _adafactor(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Adafactor's state of a parameter before the first step, as T5X makes it."""
    state = {part: np.zeros(1, np.float32) for part in ("m", "v", "v_col", "v_row")}
    if len(shape) == 2 and min(shape) >= _FACTORED_FROM:
        shorter, longer = np.argsort(shape, kind="stable")
        state["v_row"] = np.zeros(np.delete(shape, longer), np.float32)
        state["v_col"] = np.zeros(np.delete(shape, shorter), np.float32)
    else:
        state["v"] = np.zeros(shape, np.float32)
    return state


def _sorted(tree: Any) -> Any:
    """T5X's order of keys, so that the same weights give the same index."""
    return {key: _sorted(tree[key]) for key in sorted(tree)} if isinstance(tree, dict) else tree


def _is_transposed(name: str) -> bool:
    return name.endswith(_TRANSPOSED)


def _transposed(array: LazyArray) -> LazyArray:
    return LazyArray(array.shape[::-1], array.dtype, lambda: array.load().T)


def _digests(step: Path) -> FolderDigests | None:
    found = FolderDigests.read(step.parent)
    return found if found is not None and f"{step.name}/{INDEX}" in found.files else None


def _table(step: Path, names: Mapping[str, Any]) -> dict[str, str]:
    """The table of names for as many layers as there are; refuses models of another kind."""
    if any(name.startswith(("encoder/encoder/", "decoder/decoder/", "encoder/layers/")) for name in names):
        raise InputError(
            "has scanned layers (T5X's scalable_t5)", file=step, remedy="save it with scan_layers=False in T5X"
        )
    if any(name.endswith("/mlp/wi/kernel") for name in names):
        raise InputError("is a T5 1.0 model (no gated GELU)", file=step, remedy="use mT5 or T5 1.1")
    counts = []
    for side in ("encoder", "decoder"):
        layers = [int(match[1]) for name in names if (match := re.match(rf"{side}/layers_(\d+)/", name))]
        if not layers:
            raise InputError(f"has no {side} layers", file=step, remedy="is it an mT5 or T5 1.1 checkpoint?")
        counts.append(max(layers) + 1)
    dense = [int(match[1]) for name in names if (match := re.match(r"encoder/layers_(\d+)/attention/query_proj", name))]
    return t5x_names(*counts, dense[0] if dense else None)


def _check(step: Path, found: Mapping[str, tuple[int, ...]], config: ModelConfig) -> None:
    dense = config.retriever_layer if config.retriever == "dense" else None
    table = t5x_names(config.num_layers, config.num_decoder_layers, dense)
    shapes = huggingface.shapes(config)
    wanted = {ours: shapes[theirs][:: -1 if _is_transposed(ours) else 1] for theirs, ours in table.items()}
    new = {name for name in wanted if re.search(r"_proj/kernel|attention/layer_norm/scale", name)}
    optional = new if not new & set(found) else ()  # a plain mT5's may be drawn again by the caller
    problem = differences(
        {name: _shown(shape) for name, shape in found.items()},
        {name: _shown(shape) for name, shape in wanted.items()},
        optional=optional,
    )
    if problem:
        raise InputError(problem, file=step, remedy="use the checkpoint's own configuration")


def _shown(shape: tuple[int, ...]) -> str:
    return f"shape ({', '.join(map(str, shape))})"
