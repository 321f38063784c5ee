# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Weights from one layout into another, one tensor at a time.

All go through Hugging Face's names, shapes and axes: each layout is opened as such tensors, read lazily, and written
from them. So memory holds the largest tensor (a run's stack of layers counts as one) and little
beside it, whatever the model's size.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from tqdm import tqdm

from class_jax.checkpoints import huggingface, tensor_files
from class_jax.checkpoints.configs import PAPER, TextConfig, config_from_hf, text_config
from class_jax.checkpoints.folder_digests import FolderDigests
from class_jax.checkpoints.huggingface import CONFIG_FILE, MAX_SHARD_BYTES, VOCABULARY_FILE
from class_jax.checkpoints.leaves import LazyArray
from class_jax.checkpoints.tensor_files import TensorFiles
from class_jax.common.files import read_json, replacing_folder
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError, nearest
from class_jax.models.config import ModelConfig

HF, T5X, ORBAX = "hf", "t5x", "orbax"
LAYOUTS = (HF, T5X, ORBAX)
_KNOWN = (
    f"known layouts: Hugging Face ({tensor_files.SAFETENSORS}, {tensor_files.TORCH}, or shards with their index), "
    "T5X (checkpoint_N/checkpoint), a run (checkpoints/)"
)
_FOREIGN = {
    "flax_model.msgpack": "weights of Flax's transformers",
    "tf_model.h5": "weights of TensorFlow's transformers",
    "model.ckpt.index": "a TensorFlow checkpoint",
}


@dataclasses.dataclass(frozen=True)
class Retriever:
    """What the retriever is to be where the source does not say it, or says it otherwise; None does not change it.

    Attributes:
      kind: "multi_vector" or "dense". layer: encoder layers that come before it. head: the multi-vector's.
    """

    kind: str | None = None
    layer: int | None = None
    head: int | None = None

    def applied(self, config: ModelConfig) -> ModelConfig:
        """The configuration with these settings in place of its own."""
        changes = {"retriever": self.kind, "retriever_layer": self.layer, "retriever_head": self.head}
        changes = {key: value for key, value in changes.items() if value is not None}
        return dataclasses.replace(config, **changes)


@dataclasses.dataclass(frozen=True)
class Source:
    """Opened weights.

    Attributes:
      layout: one of `LAYOUTS`. config: of the model. tensors: in the Hugging Face layout, checked against it.
      vocabulary: the SentencePiece model beside them, or None; an old run may name one elsewhere, by path or hub id.
      new: names of tensors that the source lacks: newly initialised.
      texts: how the model's texts are cut.
    """

    layout: str
    config: ModelConfig
    tensors: TensorFiles
    vocabulary: str | Path | None
    new: tuple[str, ...]
    texts: TextConfig = PAPER


def recognise(folder: str | os.PathLike) -> str:
    """The layout of a folder (or of a single file of weights), by its files.

    Raises:
      InputError: if it is none that is known, or two at once.
    """
    folder = Path(folder)
    if folder.is_file():
        if folder.suffix in (".safetensors", ".bin"):
            return HF
        raise InputError("is no file of weights", file=folder, remedy=_KNOWN)
    if not folder.is_dir():
        raise InputError("no such folder", file=folder, remedy="check the path")
    weights = [tensor_files.SAFETENSORS, tensor_files.TORCH]
    weights += [name + tensor_files.INDEX_SUFFIX for name in weights]
    found = [HF] if any((folder / name).is_file() for name in weights) else []
    if any(folder.glob("checkpoint*")):
        # Only then: Orbax and TensorStore take as long to import as JAX.
        from class_jax.checkpoints import runs, t5x

        found += [T5X] if t5x.find_step(folder) is not None else []
        found += [ORBAX] if runs.is_run(folder) else []
    if len(found) > 1:
        raise InputError(f"holds weights in {len(found)} layouts ({', '.join(found)})", file=folder, remedy="part them")
    if found:
        return found[0]
    for name, what in _FOREIGN.items():
        if (folder / name).is_file():
            raise InputError(f"holds {what}, which are not read here", file=folder / name, remedy=_KNOWN)
    if any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
        raise InputError("half a checkpoint: shards without their index", file=folder, remedy="fetch the index too")
    if any(folder.glob("target.*/.zarray")):
        raise InputError("half a checkpoint: its index is missing", file=folder / "checkpoint", remedy="fetch it too")
    if (folder / "config.json").is_file():
        raise InputError("half a checkpoint: config.json without weights", file=folder, remedy=_KNOWN)
    raise InputError("holds no weights of a known layout", file=folder, remedy=_KNOWN)


def open_source(
    path: str | os.PathLike,
    *,
    config: ModelConfig | None = None,
    retriever: Retriever | None = None,
    seed: int = 0,
) -> Source:
    """Opens weights of any layout; reads no tensor yet.

    Args:
      path: a folder, or a file of weights with its `config.json` beside it.
      config: in place of the source's own, or where it has none.
      retriever: what the retriever is to be; a plain mT5 becomes a CLASS model so.
      seed: of dense projections that are newly initialised.

    Raises:
      InputError: if the layout is unknown, a part is missing or damaged, or parameters are missing, unknown or wrongly
        shaped.
    """
    path = Path(path)
    layout = recognise(path)
    folder = path.parent if path.is_file() else path
    vocabulary: str | Path | None = folder / VOCABULARY_FILE
    config_file: Path | None = folder / CONFIG_FILE
    if layout == HF:
        if config is None and not config_file.is_file():
            raise InputError("half a checkpoint: weights without config.json", file=folder, remedy="give its config")
        digests = FolderDigests.read(folder)
        if digests is not None:
            digests.check_listed((CONFIG_FILE, VOCABULARY_FILE) if config is None else (VOCABULARY_FILE,))
        config = read_config(config_file) if config is None else config
        tensors = tensor_files.read_tensors(path)
    elif layout == T5X:
        from class_jax.checkpoints import t5x

        vocabulary, config_file = t5x.beside(folder, VOCABULARY_FILE), t5x.beside(folder, CONFIG_FILE)
        config, tensors = t5x.read_t5x(folder, config)
    else:
        from class_jax.checkpoints import runs

        vocabulary = runs.vocabulary_of(folder)
        config, tensors = runs.read_run(folder, config)
    there = config_file is not None and config_file.is_file()
    texts = text_config(read_json(config_file)) if there else PAPER
    config = (retriever or Retriever()).applied(config)
    tensors, new = huggingface.with_missing_dense(tensors, config, np.random.default_rng(seed))
    try:
        huggingface.check_tensors(tensors, config)
    except InputError as error:
        raise InputError(str(error), file=path) from error
    wanted = huggingface.shapes(config)
    tensors = TensorFiles({name: array for name, array in tensors.lazy.items() if name in wanted})
    is_there = not isinstance(vocabulary, Path) or vocabulary.is_file()
    return Source(layout, config, tensors, vocabulary if is_there else None, new, texts)


def convert(
    source: Source,
    destination: str | os.PathLike,
    layout: str = HF,
    *,
    dtype: Any = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
) -> None:
    """Writes weights in a layout, whole or not at all, with a progress bar where there is a terminal.

    Args:
      source: from `open_source`.
      destination: the folder to write. In T5X's layout it holds `checkpoint_0`, in a run's `checkpoints/0`; each has
        `config.json` and `digests.json` besides, and the vocabulary if the source has one.
      layout: one of `LAYOUTS`.
      dtype: of the arrays; None keeps the source's, so that the conversion is exact.
      max_shard_bytes: of the Hugging Face layout's files.
      overwrite: whether a folder that is there already, and is not empty, is replaced.

    Raises:
      InputError: if the layout is unknown, the destination is in the way, an array of the source is damaged, or the
        disk refuses a write.
    """
    from class_jax.checkpoints import runs, t5x

    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}", key="layout", remedy=nearest(layout, LAYOUTS))
    destination = Path(destination)
    if destination.exists() and not overwrite and (not destination.is_dir() or any(destination.iterdir())):
        raise InputError("is there already", file=destination, remedy="choose another folder, or give --overwrite")
    tensors, config, texts = source.tensors, source.config, source.texts
    vocabulary = None if source.vocabulary is None else Vocabulary.load(source.vocabulary)
    with _progress(tensors) as tensors, _writing(destination):
        if layout == HF:
            huggingface.write_tensor_folder(
                destination,
                tensors,
                config,
                dtype=dtype,
                max_shard_bytes=max_shard_bytes,
                vocabulary=vocabulary,
                texts=texts,
            )
            return
        with replacing_folder(destination) as aside:
            write = t5x.write_t5x if layout == T5X else runs.write_run
            write(aside, tensors, config, dtype=dtype, vocabulary=vocabulary, texts=texts)


def summary(name: str, source: Source, destination: str | os.PathLike, layout: str) -> str:
    """What was converted, and what of it is not the source's, as lines for a person."""
    config, size = source.config, source.tensors.nbytes
    kind = f"dense, layer {config.retriever_layer}"
    if config.retriever == "multi_vector":
        kind = f"multi-vector, layer {config.retriever_layer}, head {config.retriever_head}"
    lines = [
        f"{name} ({source.layout}) -> {destination} ({layout}): {len(source.tensors)} tensors, {size / 1e9:.2f} GB",
        f"retriever: {kind}",
    ]
    if source.new:
        lines.append(f"newly initialised, not in {name}: {', '.join(source.new)}")
    if source.vocabulary is None:
        lines.append(f"no {VOCABULARY_FILE} beside the weights: give it by --vocabulary")
    return "\n".join(lines)


def named_type(name: str) -> np.dtype:
    """A NumPy type by its name, bfloat16 among them."""
    return np.dtype(getattr(ml_dtypes, name, name))


def read_config(path: str | os.PathLike) -> ModelConfig:
    """The model that a Hugging Face `config.json` describes.

    Raises:
      InputError: naming the file, if it is missing, or describes no model of this kind.
    """
    content = read_json(path)
    try:
        return ModelConfig(**config_from_hf(content))
    except InputError as error:
        raise InputError(str(error), file=path) from error


@contextlib.contextmanager
def _progress(tensors: TensorFiles) -> Iterator[TensorFiles]:
    """The same tensors, moving a bar by each one's bytes when it is read."""
    with tqdm(total=tensors.nbytes, unit="B", unit_scale=True, desc="converting", disable=None) as bar:

        def counted(array: LazyArray) -> LazyArray:
            def load() -> np.ndarray:
                loaded = array.load()
                bar.update(array.nbytes)
                return loaded

            return dataclasses.replace(array, load=load)

        yield TensorFiles({name: counted(array) for name, array in tensors.lazy.items()})


@contextlib.contextmanager
def _writing(destination: Path) -> Iterator[None]:
    """Makes the disk's refusals, which TensorStore reports in its own way, an InputError."""
    from class_jax.checkpoints.state import disk_refusal

    try:
        yield
    except InputError:
        raise
    except Exception as error:
        refusal = disk_refusal(error)
        if refusal is None:
            raise
        raise InputError(f"could not be written ({refusal})", file=destination, remedy="free some space") from error
