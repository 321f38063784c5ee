# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Files of named tensors as Hugging Face lays them out: safetensors or PyTorch's, whole or in shards."""

import dataclasses
import functools
import hashlib
import json
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np
import safetensors

from class_jax.checkpoints import torch_state
from class_jax.checkpoints.folder_digests import FolderDigests, as_bytes, pieces
from class_jax.checkpoints.leaves import LazyArray
from class_jax.common.files import read_json, write_json
from class_jax.errors import InputError, nearest

_log = logging.getLogger(__name__)

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"
_SHARD_PATTERN = "model{suffix}.safetensors"
TORCH_PYTHON = "CLASS_JAX_TORCH_PYTHON"  # environment variable: a Python that reads `.bin` files where this one can't
_REMAP_BYTES = 128 << 20
_LENGTH_BYTES, _ALIGNMENT = 8, 8  # of a safetensors header
_SAFETENSORS_TYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


class TensorFiles(Mapping[str, np.ndarray]):
    """Tensors by name, each read from its file when asked for and not kept.

    Attributes:
      lazy: name -> the array before it is read.
    """

    def __init__(self, lazy: Mapping[str, LazyArray]):
        self.lazy = dict(lazy)

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> "TensorFiles":
        """Wraps a mapping of arrays; one that is lazy already is returned unchanged."""
        return tensors if isinstance(tensors, cls) else cls({name: LazyArray.of(x) for name, x in tensors.items()})

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, known without reading any tensor."""
        return {name: array.shape for name, array in self.lazy.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(array.nbytes for array in self.lazy.values())

    def __getitem__(self, name: str) -> np.ndarray:
        return self.lazy[name].load()

    def __iter__(self) -> Iterator[str]:
        return iter(self.lazy)

    def __len__(self) -> int:
        return len(self.lazy)


def read_tensors(folder: str | os.PathLike) -> TensorFiles:
    """Opens a Hugging Face model folder (or one file of it): the first of these that is there.

    `model.safetensors`, its shards named by `model.safetensors.index.json`, `pytorch_model.bin`, or its shards. Only
    names and shapes are read now, one tensor at a time later; `.bin` files are mapped into memory. Where the folder has
    a `digests.json`, headers are compared with it now and each tensor when it is read.

    Returns:
      name -> array of float32, bfloat16 or float16.

    Raises:
      InputError: if there is no such file; if one is cut short, damaged, of another type, or not among the shards; if a
        `.bin` holds anything but tensors by name (its code is never run), or there is no PyTorch to read it, neither
        here nor in the Python that the environment variable CLASS_JAX_TORCH_PYTHON names.
    """
    folder = Path(folder)
    if folder.is_file():
        return _merge([_open(folder)])
    digests = FolderDigests.read(folder)
    for name in (SAFETENSORS, TORCH):
        index = name + INDEX_SUFFIX
        if (folder / name).is_file():
            return _merge([_open(folder / name, digests)])
        if (folder / index).is_file():
            if digests is not None:
                digests.check_file(index)
            return _open_shards(folder / index, digests)
    raise InputError(
        "holds no weights", file=folder, remedy=f"expected {SAFETENSORS} or {TORCH}, or {INDEX_SUFFIX[1:]} of either"
    )


def write_tensors(
    folder: Path, tensors: TensorFiles, *, dtype: Any = None, max_shard_bytes: int = 5 * 10**9
) -> FolderDigests:
    """Writes `model.safetensors`, or shards and their index where the tensors exceed `max_shard_bytes`.

    Only one tensor is in memory at a time.

    Args:
      folder: exists; nothing in it is replaced with care, so write into a new one.
      tensors: written in their order, wider types first.
      dtype: of the files; None keeps the tensors'.
      max_shard_bytes: a tensor larger than that has a shard of its own.

    Returns:
      The digests of all that was written, for the caller to complete and to write.

    Raises:
      OSError: if the disk refuses a write.
    """
    from huggingface_hub import split_state_dict_into_shards_factory

    # Wider types first keeps every tensor at a multiple of its item size, as the format wants.
    kept = {name: np.dtype(dtype or array.dtype) for name, array in tensors.lazy.items()}
    types = dict(sorted(kept.items(), key=lambda item: -item[1].itemsize))
    sizes = {name: int(np.prod(tensors.lazy[name].shape)) * types[name].itemsize for name in types}
    split = split_state_dict_into_shards_factory(
        sizes, get_storage_size=int, filename_pattern=_SHARD_PATTERN, max_shard_size=max_shard_bytes
    )
    digests = FolderDigests(folder)
    for file, names in split.filename_to_tensors.items():
        head = _write_safetensors(folder / file, tensors, {name: types[name] for name in names}, digests)
        digests.add_file(file, head)
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / (SAFETENSORS + INDEX_SUFFIX), index)
        digests.add_file(SAFETENSORS + INDEX_SUFFIX)
    return digests


def _write_safetensors(file: Path, tensors: TensorFiles, types: Mapping[str, np.dtype], digests: FolderDigests) -> int:
    """Writes one safetensors file, tensor by tensor; returns the bytes of its header.

    The library's own writer, `safetensors.serialize_file`, wants the bytes of all tensors of a file in memory.
    """
    codes = {np.dtype(dtype): code for code, dtype in _SAFETENSORS_TYPES.items()}
    # transformers reads only files that name the framework.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dtype in types.items():
        shape = tensors.lazy[name].shape
        end = offset + int(np.prod(shape)) * dtype.itemsize
        header[name] = {"dtype": codes[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with open(file, "wb") as f:
        f.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
        for name, dtype in types.items():
            digests.add_array(name, tensors.lazy[name].shape, dtype, _append(f, tensors[name], dtype))
        f.flush()
        os.fsync(f.fileno())
    return _LENGTH_BYTES + len(text)


def _append(f: IO[bytes], array: np.ndarray, dtype: np.dtype) -> str:
    """Writes an array's bytes and returns their digest."""
    digest = hashlib.sha256()
    for piece in pieces(array):
        data = as_bytes(piece.astype(dtype, copy=False))
        digest.update(data)
        f.write(data)
    return digest.hexdigest()


def _open(file: Path, digests: FolderDigests | None = None) -> tuple[Path, TensorFiles]:
    if digests is not None:
        digests.check_file(file.name)
    opened = _open_safetensors(file) if file.suffix == ".safetensors" else _open_torch(file)
    return file, opened if digests is None else _checked(opened, digests)


def _checked(tensors: TensorFiles, digests: FolderDigests) -> TensorFiles:
    """The same tensors, each compared with its digest whenever it is read."""

    def checked(name: str, array: LazyArray) -> LazyArray:
        return dataclasses.replace(array, load=lambda: digests.check_array(name, array.load()))

    return TensorFiles({name: checked(name, array) for name, array in tensors.lazy.items()})


def _merge(opened: list[tuple[Path, TensorFiles]]) -> TensorFiles:
    lazy, home = {}, {}
    for file, tensors in opened:
        for name in tensors:
            if name in home:
                raise InputError(f"is also in {home[name].name}", file=file, key=name)
            home[name] = file
        lazy.update(tensors.lazy)
    return TensorFiles(lazy)


def _open_shards(index: Path, digests: FolderDigests | None) -> TensorFiles:
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
        opened.append(_open(index.parent / shard, digests))
    merged = _merge(opened)
    for name, shard in weight_map.items():
        if name not in merged:
            raise InputError(f"is not in {shard}", file=index, key=name, remedy=nearest(name, merged))
    return merged


def _open_safetensors(file: Path) -> TensorFiles:
    try:
        # The library checks the file; its tensors are read here. It would map the file, and mapped pages that were
        # read once count as this process's memory until the file is closed.
        safetensors.safe_open(file, framework="np")
        with open(file, "rb") as f:
            length = int.from_bytes(f.read(_LENGTH_BYTES), "little")
            header = json.loads(f.read(length))
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"is not a whole safetensors file ({error})", file=file, remedy="fetch it again") from error
    header.pop("__metadata__", None)
    lazy = {}
    for name, entry in header.items():
        _check_type(entry["dtype"], _SAFETENSORS_TYPES, file, name)
        shape, dtype = tuple(entry["shape"]), np.dtype(_SAFETENSORS_TYPES[entry["dtype"]])
        start = _LENGTH_BYTES + length + entry["data_offsets"][0]
        lazy[name] = LazyArray(shape, dtype, functools.partial(_read_at, file, start, shape, dtype))
    return TensorFiles(lazy)


def _read_at(file: Path, start: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    array = np.empty(shape, dtype)
    try:
        with open(file, "rb") as f:
            f.seek(start)
            whole = f.readinto(as_bytes(array)) == array.nbytes
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})", file=file, remedy="check the path") from error
    if not whole:
        raise InputError("has become shorter", file=file, remedy="fetch it again")
    return array


class _TorchFile:
    """A `.bin` file mapped into memory, and mapped again now and then.

    Pages that were read count as this process's memory until the map is closed.
    """

    def __init__(self, torch: Any, file: Path):
        self._torch, self._file = torch, file
        self._mapped = torch_state.is_mappable(file)
        if not self._mapped:
            _log.warning("%s is of PyTorch's old format: all of it is read at once", file)
        self._read = 0
        self.state = self._load()

    def _load(self) -> dict[str, Any]:
        try:
            return torch_state.load_state(self._file, self._mapped)
        except torch_state.BadStateError as error:
            raise _bad_state(self._file, *error.args) from error

    def tensor(self, name: str, dtype: np.dtype) -> np.ndarray:
        if self._mapped and self._read > _REMAP_BYTES:
            self.state, self._read = None, 0
            self.state = self._load()
        array = _as_numpy(self._torch, self.state[name], dtype)
        self._read += array.nbytes
        return array


def _bad_state(file: Path, problem: str, key: str | None, remedy: str | None) -> InputError:
    return InputError(problem, file=file, key=key, remedy=remedy)


def _open_torch(file: Path) -> TensorFiles:
    try:
        import torch
    except ImportError:
        return _open_torch_elsewhere(file)
    types = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: ml_dtypes.bfloat16}
    opened = _TorchFile(torch, file)
    lazy = {}
    for name, tensor in opened.state.items():
        dtype = np.dtype(types[tensor.dtype])
        lazy[name] = LazyArray(tuple(tensor.shape), dtype, functools.partial(opened.tensor, name, dtype))
    return TensorFiles(lazy)


def _open_torch_elsewhere(file: Path) -> TensorFiles:
    """Has the Python that `TORCH_PYTHON` names convert the file; the copy is removed with the last of its tensors."""
    python = os.environ.get(TORCH_PYTHON)
    if not python:
        raise InputError(
            "needs PyTorch to be read",
            file=file,
            remedy=f"{TORCH_PYTHON}=/path/to/python names one that has torch and safetensors, "
            "or pip install 'class-jax[torch]'",
        )
    folder = tempfile.TemporaryDirectory(prefix="class_jax_")
    converted = Path(folder.name) / SAFETENSORS
    command = [python, "-I", torch_state.__file__, str(file.resolve()), str(converted)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise InputError(f"can't be run ({error.strerror})", file=python, key=TORCH_PYTHON) from error
    if done.returncode == torch_state.BAD_FILE:
        raise _bad_state(file, *json.loads(done.stdout.splitlines()[-1]))
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise InputError(
            f"can't convert {file} ({last})", file=python, key=TORCH_PYTHON, remedy="needs torch, safetensors"
        )

    def kept(array: LazyArray) -> LazyArray:
        return dataclasses.replace(array, load=lambda _folder=folder: array.load())

    return TensorFiles({name: kept(array) for name, array in _open_safetensors(converted).lazy.items()})


def _as_numpy(torch: Any, tensor: Any, dtype: Any) -> np.ndarray:
    """The tensor's own memory, of the map: a copy would need memory beside the pages that it was read from."""
    # NumPy knows bfloat16 only through ml_dtypes, so the bits are passed as integers.
    if dtype == ml_dtypes.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy().view(dtype)
    return tensor.detach().numpy()


def _check_type(dtype: object, known: Mapping[object, object], file: Path, name: str) -> None:
    if dtype not in known:
        shown = ", ".join(str(choice) for choice in known)
        raise InputError(f"is of type {dtype}", file=file, key=name, remedy=f"supported: {shown}")
