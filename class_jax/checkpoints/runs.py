# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A run's weights (Orbax, under `checkpoints/`), read and written one array at a time.

Training saves whole states with `state.TrainCheckpoints`; this is for files larger than memory ought to hold. What is
written here has the parameters alone, as step 0: a run starts from it (`init_from`), and none resumes it.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from class_jax.checkpoints import huggingface
from class_jax.checkpoints.configs import config_from_hf, config_to_hf
from class_jax.checkpoints.folder_digests import FolderDigests, sha256
from class_jax.checkpoints.leaves import LazyArray, nested
from class_jax.checkpoints.state import CHUNK_BYTES, COMMITTED, FORMAT, TrainCheckpoints, seal
from class_jax.checkpoints.tensor_files import TensorFiles
from class_jax.common.files import read_json, write_json
from class_jax.errors import InputError
from class_jax.models.config import ModelConfig

CHECKPOINTS = "checkpoints"
_DATA_FILE_BYTES = 64 << 20
_PARAMS = "params"
_CONFIG = "config.json"


def is_run(folder: str | os.PathLike) -> bool:
    """Whether a folder is laid out as a run's."""
    return (Path(folder) / CHECKPOINTS).is_dir()


def read_run(folder: str | os.PathLike, config: ModelConfig | None = None) -> tuple[ModelConfig, TensorFiles]:
    """Opens the newest whole step of a run's folder.

    Args:
      folder: holds `checkpoints/`.
      config: of the model; None takes the folder's `config.json`, or else tells it by the arrays' shapes and the
        fingerprint saved with them.

    Returns:
      The configuration, and the parameters as tensors in the Hugging Face layout. One stack of layers is in memory at a
      time; each array is compared with its digest.

    Raises:
      InputError: if there is no whole step, a file of it is damaged, or the configuration can't be told.
    """
    folder = Path(folder)
    digests = FolderDigests.read(folder)
    if digests is not None:
        digests.check_files()
    with _quiet(), TrainCheckpoints(folder / CHECKPOINTS, read_only=True) as checkpoints:
        opened = checkpoints.open_arrays()
    if opened is None:
        raise InputError("no whole checkpoint", file=folder / CHECKPOINTS, remedy="train that run further")
    arrays, host, step = opened
    prefix = f"{_PARAMS}/"
    leaves = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    if config is None and (folder / _CONFIG).is_file():
        config = ModelConfig(**config_from_hf(read_json(folder / _CONFIG)))
    if config is None:
        config = _config_of(leaves, host, folder / CHECKPOINTS / str(step))
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
    huggingface.check_leaves(nested({tuple(name.split("/")): shape for name, shape in shapes.items()}), config)
    return config, huggingface.as_tensors(lambda path: leaves["/".join(path)], config, kept=True)


def write_run(
    folder: Path, tensors: TensorFiles, config: ModelConfig, *, dtype: Any = None, vocabulary: str | None = None
) -> None:
    """Writes a folder that a run starts from (`init_from`): `checkpoints/0`, `config.json` and `digests.json`.

    Args:
      folder: exists and is empty.
      tensors: in the Hugging Face layout; a stack of layers is assembled in memory, and no more than one.
      config: of the model.
      dtype: of the arrays; None keeps the tensors'.
      vocabulary: fingerprint of the vocabulary, if it is known: a run with another one refuses the weights.

    Raises:
      InputError: if the layers of a stack are of different types and `dtype` is None.
    """
    folder = folder.absolute()  # as Orbax wants it
    step = folder / CHECKPOINTS / "0"
    step.mkdir(parents=True)
    leaves = huggingface.as_leaves(tensors, config, dtype=dtype)
    records = _write_arrays(step / "arrays", {(_PARAMS, *path): leaf for path, leaf in leaves.items()})
    host = {"model": config.fingerprint} | ({} if vocabulary is None else {"vocabulary": vocabulary})
    document = {"format": FORMAT, "host": host, "metrics": None, "arrays": records, "random_keys": {}}
    document["sha256"] = seal(document)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        checkpointer.save(step / "host", args=ocp.args.JsonSave(document))
    (step / COMMITTED).write_text("Converted.\n")
    write_json(folder / _CONFIG, config_to_hf(config))
    digests = FolderDigests(folder)
    for file in sorted(step.rglob("*")):
        if file.is_file():
            digests.add_file(file.relative_to(folder).as_posix())
    digests.write()


class _OneAtATime(ocp.type_handlers.NumpyHandler):
    """Has Orbax write lazy arrays in turn: each is loaded, written, and let go before the next."""

    def __init__(self):
        super().__init__(deepcopy_host_arrays=False)
        self.records: dict[str, Any] = {}

    async def serialize(
        self, values: list[LazyArray], infos: list[Any], args: list[ocp.SaveArgs] | None = None
    ) -> list[Any]:
        for value, info, arg in zip(values, infos, args or [ocp.SaveArgs()] * len(values), strict=True):
            self.records[info.name.replace(".", "/")] = await self._write(value.load(), info, arg)
        return []

    async def _write(self, array: np.ndarray, info: Any, arg: ocp.SaveArgs) -> dict[str, Any]:
        for future in await super().serialize([array], [info], [arg]):
            future.result()
        chunk = [[0, size] for size in array.shape]
        return {"shape": list(array.shape), "dtype": str(array.dtype), "chunks": [[chunk, sha256(array)]]}


def _write_arrays(folder: Path, arrays: Mapping[tuple[str, ...], LazyArray]) -> dict[str, Any]:
    """Writes arrays as Orbax's item, in chunks; returns their records for the step's document."""
    handler = _OneAtATime()
    registry = ocp.type_handlers.create_type_handler_registry(
        (LazyArray, handler), (jax.Array, ocp.type_handlers.ArrayHandler())
    )
    tree = nested(arrays)
    how = nested(dict.fromkeys(arrays, ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES)))
    # Small data files, since each is gathered in memory before it is written.
    args = ocp.args.PyTreeSave(tree, save_args=how, ocdbt_target_data_file_size=_DATA_FILE_BYTES)
    with _quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler(type_handler_registry=registry)) as checkpointer:
        checkpointer.save(folder, args=args)
    return handler.records


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences Orbax's warnings of what is meant here: a folder opened for reading only, a step without its notes."""
    logger = absl_logging.get_absl_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _config_of(leaves: Mapping[str, LazyArray], host: Mapping[str, Any], step: Path) -> ModelConfig:
    """The configuration as the arrays' shapes tell it, with the retriever's head that fits the saved fingerprint."""
    remedy = "give its config.json"
    try:
        queries = leaves["encoder/reader_layers/attention/q/kernel"].shape
        sizes = {
            "vocab_size": leaves["embed/embedding"].shape[0],
            "d_model": queries[1],
            "d_kv": queries[3],
            "d_ff": leaves["encoder/reader_layers/mlp/wi_0/kernel"].shape[2],
            "num_layers": queries[0] + leaves["encoder/retriever_layers/attention/q/kernel"].shape[0],
            "num_decoder_layers": leaves["decoder/layers/mlp/wi_0/kernel"].shape[0],
            "num_heads": queries[2],
            "relative_attention_num_buckets": leaves["encoder/relative_bias/embedding"].shape[0],
            "retriever_layer": leaves["encoder/retriever_layers/attention/q/kernel"].shape[0],
            "retriever": "dense" if any(name.startswith("dense_head/") for name in leaves) else "multi_vector",
        }
    except (KeyError, IndexError) as error:
        raise InputError(f"are not this model's parameters ({error})", file=step, remedy=remedy) from error
    default = ModelConfig.__dataclass_fields__["retriever_head"].default
    for head in sorted({*range(sizes["num_heads"]), default}):
        if head >= sizes["num_heads"] and sizes["retriever"] == "multi_vector":
            continue
        config = ModelConfig(**sizes, retriever_head=head)
        if config.fingerprint == host.get("model"):
            return config
    raise InputError("its model's fingerprint fits no usual configuration of these shapes", file=step, remedy=remedy)
