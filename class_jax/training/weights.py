# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Weights into and out of a run: another run's folder or a Hugging Face folder in, a Hugging Face folder out."""

import logging
from pathlib import Path

import jax
import numpy as np

from class_jax.checkpoints import huggingface
from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.checkpoints.tensor_files import read_tensors
from class_jax.errors import InputError
from class_jax.models.class_model import Params, param_shapes
from class_jax.models.config import ModelConfig

_log = logging.getLogger(__name__)


def load_params(path: str, config: ModelConfig, seed: int = 0, vocabulary: str | None = None) -> Params:
    """Loads a model's weights for `config`.

    Args:
      path: a run's folder (the newest whole checkpoint counts) or a folder in the Hugging Face layout.
      config: the model that the weights must fit.
      seed: of projections that the weights don't have (the dense retriever's, when starting from mT5).
      vocabulary: fingerprint that a run's checkpoint must have been trained with (the other layout does not name it);
        None leaves it unchecked.

    Raises:
      InputError: if there are no weights, or a parameter's shape or the vocabulary differs.
    """
    folder = Path(path)
    if (folder / "checkpoints").is_dir():
        checkpoints = TrainCheckpoints(folder / "checkpoints", read_only=True)
        expect = {} if vocabulary is None else {"vocabulary": vocabulary}
        restored = checkpoints.restore({"params": param_shapes(config)}, expect=expect, partial=True)
        checkpoints.close()
        if restored is None:
            raise InputError("no whole checkpoint", file=folder / "checkpoints", remedy="train that run further")
        _log.info("starting from step %d of %s", restored[2], path)
        return restored[0]["params"]
    tensors = read_tensors(path)
    try:
        return huggingface.to_params(tensors, config, initialise_missing_dense=np.random.default_rng(seed))
    except InputError as error:
        raise InputError(str(error), file=path) from error


def export(folder: Path, params: Params, config: ModelConfig) -> None:
    """Writes weights and configuration in the Hugging Face layout, in place of what was there."""
    huggingface.write_safetensors(folder, jax.device_get(params), config)
