# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Whole models in and out of a folder: configuration, weights and vocabulary together."""

import logging
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax

from class_jax.checkpoints import huggingface
from class_jax.checkpoints.configs import PAPER, TextConfig
from class_jax.checkpoints.convert import ORBAX, Retriever, open_source, recognise
from class_jax.checkpoints.hub import local_folder
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.models.config import ModelConfig

_log = logging.getLogger(__name__)

Params = dict[str, Any]
# What a folder of weights may hold, and what may therefore be replaced.
_OWN_FILES = re.compile(
    r"config\.json|generation_config\.json|digests\.json|spiece\.model|sentencepiece\.bpe\.model|tokenizer.*\.json|special_tokens_map\.json"
    r"|model.*\.safetensors(\.index\.json)?|pytorch_model.*\.bin(\.index\.json)?|README\.md|\.gitattributes"
)


class Pretrained(NamedTuple):
    """A loaded model.

    Attributes:
      config: of the model.
      params: its parameters, in a tree like that of `class_jax.models.split`.
      vocabulary: its SentencePiece model, by path or (of old runs) hub id; None where the folder has none.
      texts: how its texts are cut.
    """

    config: ModelConfig
    params: Params
    vocabulary: str | Path | None
    texts: TextConfig


def load_pretrained(
    folder_or_hub_id: str | os.PathLike,
    *,
    dtype: Any = None,
    revision: str | None = None,
    retriever: Retriever | None = None,
    seed: int = 0,
) -> Pretrained:
    """Loads a model from a folder of any layout, or from the Hugging Face Hub; runs no gin.

    Args:
      folder_or_hub_id: a folder in the Hugging Face layout, T5X's or a run's (of which the newest whole checkpoint
        counts); or a hub id (`fanjiang98/CLASS-XOR-Full`, `neulab/reatt-large-nq`, `google/mt5-large`).
      dtype: of the parameters; None keeps the files'.
      revision: on the Hub.
      retriever: what the retriever is to be, where the weights don't say it; see `Retriever`.
      seed: of a dense retriever's projections where the weights have none (a warning names them).

    Returns:
      The model; its parameters are NumPy arrays, those of a run arrays on the device.

    Raises:
      InputError: in one line with a remedy: no such folder or model, the Hub can't be reached, unknown layout, half a
        checkpoint, damaged, or parameters missing, unknown or wrongly shaped.
    """
    folder = local_folder(folder_or_hub_id, revision)
    if recognise(folder) == ORBAX and dtype is None and retriever is None:
        # Orbax is imported for runs only: it takes as long as JAX.
        from class_jax.checkpoints import runs, weights

        run = runs.open_run(folder)
        fingerprint = None if run.vocabulary is None else Vocabulary.load(run.vocabulary).fingerprint
        params = weights.load_params(str(folder), run.config, vocabulary=fingerprint)
        return Pretrained(run.config, params, run.vocabulary, run.texts)
    source = open_source(folder, retriever=retriever, seed=seed)
    if source.new:
        _log.warning("newly initialised, not in %s: %s", folder_or_hub_id, ", ".join(source.new))
    params = huggingface.to_params(source.tensors, source.config, dtype=dtype)
    return Pretrained(source.config, params, source.vocabulary, source.texts)


def save_pretrained(
    folder: str | os.PathLike,
    params: Params,
    config: ModelConfig,
    vocabulary: str | os.PathLike | Vocabulary | None = None,
    *,
    texts: TextConfig = PAPER,
    dtype: Any = None,
    max_shard_bytes: int = huggingface.MAX_SHARD_BYTES,
) -> None:
    """Writes a folder that `load_pretrained`, transformers' mT5 and the PyTorch reference read, whole or not at all.

    Args:
      folder: to be written. A folder of weights that is there already is replaced.
      params: as `load_pretrained` returns them; arrays of NumPy or JAX.
      config: of the model.
      vocabulary: its vocabulary, written as `spiece.model`.
      texts: how its texts are cut, for `config.json`.
      dtype: of the files; None keeps the arrays'.
      max_shard_bytes: files grow no larger than that, except a single larger tensor.

    Raises:
      InputError: if the folder holds anything but weights, arrays don't fit the configuration, or the disk refuses a
        write.
    """
    check_replaceable(folder)
    if vocabulary is not None and not isinstance(vocabulary, Vocabulary):
        vocabulary = Vocabulary.load(vocabulary)
    huggingface.write_safetensors(
        folder,
        jax.device_get(params),
        config,
        dtype=dtype,
        max_shard_bytes=max_shard_bytes,
        vocabulary=vocabulary,
        texts=texts,
    )


def check_replaceable(folder: str | os.PathLike) -> None:
    """Refuses to replace what is not a folder of weights.

    Raises:
      InputError: if something else is at the path, or the folder holds anything but weights.
    """
    path = Path(folder)
    if not path.exists():
        return
    foreign = [path] if not path.is_dir() else [c for c in sorted(path.iterdir()) if not _is_own(c)]
    if foreign:
        raise InputError(
            f"holds other things than a model's ({foreign[0].name}) and would be replaced",
            file=path,
            remedy="choose a folder of its own",
        )


def _is_own(path: Path) -> bool:
    return path.is_file() and _OWN_FILES.fullmatch(path.name) is not None
