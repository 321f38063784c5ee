# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A run's folder: what it holds beside its checkpoints, and its weights (Orbax), one array at a time.

`config.json` and `spiece.model` with their digests are beside `checkpoints/`, so that the folder is opened without the
gin file that made it. Training saves whole states with `state.TrainCheckpoints`; the weights written here are
only the parameters, as step 0: a run starts from it (`init_from`), and none resumes it.
"""

import ast
import contextlib
import dataclasses
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from class_jax.checkpoints import huggingface
from class_jax.checkpoints.configs import PAPER, TextConfig, config_document, config_from_hf, text_config
from class_jax.checkpoints.folder_digests import FILE as DIGESTS_FILE
from class_jax.checkpoints.folder_digests import FolderDigests, sha256
from class_jax.checkpoints.huggingface import CONFIG_FILE, VOCABULARY_FILE
from class_jax.checkpoints.leaves import LazyArray, nested
from class_jax.checkpoints.state import CHUNK_BYTES, COMMITTED, FORMAT, TrainCheckpoints, seal
from class_jax.checkpoints.tensor_files import TensorFiles
from class_jax.common.files import read_json, replacing, write_json
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.models.config import ModelConfig

CHECKPOINTS = "checkpoints"
_DATA_FILE_BYTES = 64 << 20
_PARAMS = "params"
# Runs of version 0.2 and before: their settings as a gin file, which is read as text and not run, and their export.
_SETTINGS, _EXPORT = "config.gin", "model"
_VOCABULARY_LINE = re.compile(
    r"""^(?:VOCABULARY|(?:[\w.]+\.)?DataConfig\.vocabulary)[ \t]*=[ \t]*(?:\\\n[ \t]*)?((['"]).*\2)[ \t]*$""",
    re.MULTILINE,
)


class OpenedRun(NamedTuple):
    """The newest whole step of a run, no array read yet, and what the folder holds beside it.

    Attributes:
      config: of the model.
      texts: how its texts are cut.
      vocabulary: its SentencePiece model, by path or (of old runs) hub id; None where the folder names none.
      leaves: "a/b/c" -> each array of the parameters.
    """

    config: ModelConfig
    texts: TextConfig
    vocabulary: str | Path | None
    leaves: dict[str, LazyArray]


def is_run(folder: str | os.PathLike) -> bool:
    """Whether a folder is laid out as a run's."""
    return (Path(folder) / CHECKPOINTS).is_dir()


def write_description(
    folder: str | os.PathLike, config: ModelConfig, vocabulary: Vocabulary, texts: TextConfig = PAPER
) -> None:
    """Writes what a run's folder holds beside its checkpoints: `config.json`, `spiece.model` and their digests.

    Each is whole or absent, the digests come last. What is there already, of the same content, stays.

    Raises:
      InputError: if the disk refuses a write.
    """
    folder = Path(folder)
    document = config_document(config, texts)
    files = [folder / name for name in (CONFIG_FILE, VOCABULARY_FILE, DIGESTS_FILE)]
    config_file, vocabulary_file, digests_file = files
    are_there = all(file.is_file() for file in files)
    if are_there and read_json(config_file) == document and vocabulary_file.read_bytes() == vocabulary.model:
        return
    digests_file.unlink(missing_ok=True)  # the new files would not have the old digests
    with replacing(vocabulary_file, "wb") as f:
        f.write(vocabulary.model)
    write_json(config_file, document)
    digests = FolderDigests(folder)
    digests.add_file(CONFIG_FILE)
    digests.add_file(VOCABULARY_FILE)
    digests.write()


def open_run(folder: str | os.PathLike, config: ModelConfig | None = None) -> OpenedRun:
    """Opens the newest whole step of a run's folder; reads no array and runs no gin.

    Args:
      folder: holds `checkpoints/`.
      config: of the model; None takes the folder's `config.json`. A run of an earlier version has none: its exported
        model's is taken, or else the arrays' shapes and the fingerprint saved with them give the configuration, and its
        vocabulary is the one that `config.gin` names.

    Raises:
      InputError: if there is no whole step, a file beside it is damaged, or the configuration is missing or of another
        model than the step.
    """
    folder = Path(folder)
    digests = FolderDigests.read(folder)
    if digests is not None:
        # A configuration that the caller gives replaces the folder's.
        digests.check_listed(name for name in digests.files if config is None or name != CONFIG_FILE)
    with _quiet(), TrainCheckpoints(folder / CHECKPOINTS, read_only=True) as checkpoints:
        opened = checkpoints.open_arrays()
    if opened is None:
        raise InputError("no whole checkpoint", file=folder / CHECKPOINTS, remedy="train that run further")
    arrays, metadata, step = opened
    prefix = f"{_PARAMS}/"
    leaves = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    beside = next((path for path in (folder, folder / _EXPORT) if (path / CONFIG_FILE).is_file()), None)
    document = {} if beside is None else read_json(beside / CONFIG_FILE)
    if config is None and beside is not None:
        config = _with_fingerprint(_read_config(document, beside / CONFIG_FILE), metadata.get("model"))
        if config is None:
            raise InputError(
                "is of another model than the checkpoint", file=beside / CONFIG_FILE, remedy=f"compare step {step}"
            )
    if config is None:
        config = _config_of_shapes(leaves, metadata, folder / CHECKPOINTS / str(step))
    return OpenedRun(config, text_config(document), vocabulary_of(folder), leaves)


def read_run(folder: str | os.PathLike, config: ModelConfig | None = None) -> tuple[ModelConfig, TensorFiles]:
    """As `open_run`: the configuration, and the parameters as tensors in the Hugging Face layout.

    One stack of layers is in memory at a time; each array is compared with its digest.

    Raises:
      InputError: as `open_run`; if the arrays do not fit the configuration; and when a damaged array is read.
    """
    opened = open_run(folder, config)
    config, leaves = opened.config, opened.leaves
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
    huggingface.check_leaves(nested({tuple(name.split("/")): shape for name, shape in shapes.items()}), config)
    return config, huggingface.as_tensors(lambda path: leaves["/".join(path)], config, kept=True)


def write_run(
    folder: Path,
    tensors: TensorFiles,
    config: ModelConfig,
    *,
    dtype: Any = None,
    vocabulary: Vocabulary | None = None,
    texts: TextConfig = PAPER,
) -> None:
    """Writes a folder that a run starts from (`init_from`): `checkpoints/0`, `config.json`, vocabulary and digests.

    Args:
      folder: exists and is empty.
      tensors: in the Hugging Face layout; a stack of layers is assembled in memory, and no more than one.
      config: of the model.
      dtype: of the arrays; None keeps the tensors'.
      vocabulary: the model's, if it is known: a run with another one refuses the weights.
      texts: how the model's texts are cut, for `config.json`.

    Raises:
      InputError: if the layers of a stack are of different types and `dtype` is None.
    """
    folder = folder.absolute()  # as Orbax wants it
    step = folder / CHECKPOINTS / "0"
    step.mkdir(parents=True)
    leaves = huggingface.as_leaves(tensors, config, dtype=dtype)
    records = _write_arrays(step / "arrays", {(_PARAMS, *path): leaf for path, leaf in leaves.items()})
    metadata = {"model": config.fingerprint} | ({} if vocabulary is None else {"vocabulary": vocabulary.fingerprint})
    document = {"format": FORMAT, "host": metadata, "metrics": None, "arrays": records, "random_keys": {}}
    document["sha256"] = seal(document)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as checkpointer:
        checkpointer.save(step / "host", args=ocp.args.JsonSave(document))
    (step / COMMITTED).write_text("Converted.\n")
    write_json(folder / CONFIG_FILE, config_document(config, texts))
    digests = FolderDigests(folder)
    digests.add_file(CONFIG_FILE)
    if vocabulary is not None:
        (folder / VOCABULARY_FILE).write_bytes(vocabulary.model)
        digests.add_file(VOCABULARY_FILE)
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


def _read_config(document: Any, file: Path) -> ModelConfig:
    try:
        return ModelConfig(**config_from_hf(document))
    except InputError as error:
        raise InputError(str(error), file=file) from error


def _with_fingerprint(config: ModelConfig, fingerprint: str | None) -> ModelConfig | None:
    """The configuration if it has the fingerprint, or a dense one with another (unused) head; None if none has it."""
    if fingerprint is None or config.fingerprint == fingerprint:
        return config
    if config.retriever != "dense":
        return None
    heads = (dataclasses.replace(config, retriever_head=head) for head in range(config.num_heads))
    return next((other for other in heads if other.fingerprint == fingerprint), None)


def vocabulary_of(folder: Path) -> str | Path | None:
    """The vocabulary of a run: beside its checkpoints or its export, or what an old run's `config.gin` names."""
    for path in (folder / VOCABULARY_FILE, folder / _EXPORT / VOCABULARY_FILE):
        if path.is_file():
            return path
    settings = folder / _SETTINGS
    if not settings.is_file():
        return None
    named = _VOCABULARY_LINE.search(settings.read_text(encoding="utf-8"))
    return None if named is None else ast.literal_eval(named.group(1))


def _config_of_shapes(leaves: Mapping[str, LazyArray], metadata: Mapping[str, Any], step: Path) -> ModelConfig:
    """The configuration that the arrays' shapes give, with the retriever's head that fits the saved fingerprint."""
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
        if config.fingerprint == metadata.get("model"):
            return config
    raise InputError("its model's fingerprint fits no usual configuration of these shapes", file=step, remedy=remedy)
