# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Files of named tensors as Hugging Face lays them out: safetensors or PyTorch's, whole or in shards."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from class_jax.errors import InputError, nearest
from class_jax.files import read_json, write_json

_log = logging.getLogger(__name__)

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"
_ZIP = b"PK\x03\x04"  # how torch.save's files begin since PyTorch 1.6; older ones can't be mapped
_SAFETENSORS_TYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


class TensorFiles(Mapping[str, np.ndarray]):
    """Tensors by name, each read from its file when asked for and not kept.

    Attributes:
      shapes: name -> shape, known without reading any tensor.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], load: Mapping[str, Callable[[], np.ndarray]]):
        self.shapes = dict(shapes)
        self._load = dict(load)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._load[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._load)

    def __len__(self) -> int:
        return len(self._load)


def read_tensors(folder: str | os.PathLike) -> TensorFiles:
    """Opens a Hugging Face model folder (or one file of it): the first of these that is there.

    `model.safetensors`, its shards named by `model.safetensors.index.json`, `pytorch_model.bin`, or its shards. Only
    names and shapes are read now, one tensor at a time later; `.bin` files are mapped into memory.

    Returns:
      name -> array of float32, bfloat16 or float16.

    Raises:
      InputError: if there is no such file; if one is cut short, of another type, or not among the shards; if a `.bin`
        holds anything but tensors by name (its code is never run) or PyTorch is not installed to read it.
    """
    folder = Path(folder)
    if folder.is_file():
        return _merge([_open(folder)])
    for name in (SAFETENSORS, TORCH):
        if (folder / name).is_file():
            return _merge([_open(folder / name)])
        if (folder / (name + INDEX_SUFFIX)).is_file():
            return _open_shards(folder / (name + INDEX_SUFFIX))
    raise InputError(
        "holds no weights", file=folder, remedy=f"expected {SAFETENSORS} or {TORCH}, or {INDEX_SUFFIX[1:]} of either"
    )


def write_shards(
    folder: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    sizes: Mapping[str, int],
    max_shard_bytes: int,
) -> None:
    """Writes `model.safetensors`, or shards and their index where the tensors exceed `max_shard_bytes`.

    Args:
      folder: exists; nothing in it is replaced with care, so write into a new one.
      tensors: in the order of `sizes`; only one shard is in memory at a time.
      sizes: name -> bytes.
      max_shard_bytes: a tensor larger than that has a shard of its own.

    Raises:
      OSError: if the disk refuses a write.
    """
    shard_of, filled = {}, 0
    for name, size in sizes.items():
        number = max(shard_of.values(), default=0)
        if filled and filled + size > max_shard_bytes:
            number, filled = number + 1, 0
        shard_of[name] = number
        filled += size
    count = max(shard_of.values()) + 1
    files = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" if count > 1 else SAFETENSORS for i in range(count)]
    shard: dict[str, np.ndarray] = {}
    current = 0
    for name, array in tensors:
        if shard_of[name] != current:
            _save(shard, folder / files[current])
            shard, current = {}, shard_of[name]
        shard[name] = array
    _save(shard, folder / files[current])
    if count > 1:
        index = {
            "metadata": {"total_size": sum(sizes.values())},
            "weight_map": {name: files[number] for name, number in shard_of.items()},
        }
        write_json(folder / (SAFETENSORS + INDEX_SUFFIX), index)


def _save(tensors: dict[str, np.ndarray], file: Path) -> None:
    try:
        # transformers reads only files that name the framework.
        safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:
        raise OSError(None, str(error)) from error


def _open(file: Path) -> tuple[Path, TensorFiles]:
    return file, _open_safetensors(file) if file.suffix == ".safetensors" else _open_torch(file)


def _merge(opened: list[tuple[Path, TensorFiles]]) -> TensorFiles:
    shapes, load, home = {}, {}, {}
    for file, tensors in opened:
        for name in tensors:
            if name in home:
                raise InputError(f"is also in {home[name].name}", file=file, key=name)
            home[name] = file
        shapes.update(tensors.shapes)
        load.update(tensors._load)
    return TensorFiles(shapes, load)


def _open_shards(index: Path) -> TensorFiles:
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError("has no weight_map", file=index)
    opened = []
    for shard in dict.fromkeys(weight_map.values()):
        # A name with a folder in it could point anywhere on the machine.
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise InputError(f"{shard!r} is not the name of a file beside it", file=index, key="weight_map")
        if not (index.parent / shard).is_file():
            raise InputError(f"shard {shard} is missing", file=index, remedy="fetch it again")
        opened.append(_open(index.parent / shard))
    merged = _merge(opened)
    for name, shard in weight_map.items():
        if name not in merged:
            raise InputError(f"is not in {shard}", file=index, key=name, remedy=nearest(name, merged))
    return merged


def _open_safetensors(file: Path) -> TensorFiles:
    try:
        opened = safetensors.safe_open(file, framework="np")
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"is not a whole safetensors file ({error})", file=file, remedy="fetch it again") from error
    shapes, load = {}, {}
    for name in opened.keys():  # noqa: SIM118 (it is not a dict)
        part = opened.get_slice(name)
        _check_type(part.get_dtype(), _SAFETENSORS_TYPES, file, name)
        shapes[name] = tuple(part.get_shape())
        load[name] = lambda name=name: opened.get_tensor(name)
    return TensorFiles(shapes, load)


def _open_torch(file: Path) -> TensorFiles:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "needs PyTorch to be read", file=file, remedy="pip install 'class-jax[torch]', or convert it to safetensors"
        ) from error
    types = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: ml_dtypes.bfloat16}
    state = _load_torch(torch, file)
    shapes, load = {}, {}
    for name, tensor in state.items():
        _check_type(tensor.dtype, types, file, name)
        shapes[name] = tuple(tensor.shape)
        load[name] = lambda tensor=tensor: _as_numpy(torch, tensor, types[tensor.dtype])
    return TensorFiles(shapes, load)


def _load_torch(torch: Any, file: Path) -> dict[str, Any]:
    with open(file, "rb") as f:
        mapped = f.read(len(_ZIP)) == _ZIP
    if not mapped:
        _log.warning("%s is of PyTorch's old format: all of it is read at once", file)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    except Exception as error:  # a file cut short or with foreign objects: a dozen types, all of them bad input
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"is not a whole file of tensors alone ({lines[0].split('. ')[0]})",
            file=file,
            remedy="save its state_dict() and nothing else",
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"holds a {type(state).__name__}, not tensors by name", file=file)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(
                f"is a {type(value).__name__}, not a tensor",
                file=file,
                key=str(name),
                remedy="save its state_dict() and nothing else",
            )
    return state


def _as_numpy(torch: Any, tensor: Any, dtype: Any) -> np.ndarray:
    # NumPy knows bfloat16 only through ml_dtypes, so the bits are passed as integers. The copy detaches the map.
    if dtype is ml_dtypes.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().copy().view(dtype)
    return tensor.detach().numpy().copy()


def _check_type(dtype: object, known: Mapping[object, object], file: Path, name: str) -> None:
    if dtype not in known:
        shown = ", ".join(str(choice) for choice in known)
        raise InputError(f"is of type {dtype}", file=file, key=name, remedy=f"supported: {shown}")
