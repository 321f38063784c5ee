# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Weights that a run starts from: another run's, or weights of any layout."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp

from class_jax.checkpoints import huggingface
from class_jax.checkpoints.convert import open_source
from class_jax.checkpoints.hub import local_folder
from class_jax.checkpoints.runs import CHECKPOINTS, is_run
from class_jax.checkpoints.state import TrainCheckpoints
from class_jax.errors import InputError
from class_jax.models.class_model import Params, param_shapes
from class_jax.models.config import ModelConfig

_log = logging.getLogger(__name__)


def load_params(path: str, config: ModelConfig, seed: int = 0, vocabulary: str | None = None) -> Params:
    """Loads a model's weights for `config`.

    Args:
      path: a run's folder (the newest whole checkpoint counts); a folder in the Hugging Face layout or T5X's; or the id
        of a model on the Hugging Face Hub.
      config: the model that the weights must fit.
      seed: of projections that the weights don't have (the dense retriever's, when starting from mT5).
      vocabulary: fingerprint that a run's checkpoint must have been trained with, where it names one (the other layouts
        don't); None leaves it unchecked.

    Raises:
      InputError: if there are no weights, or a parameter's shape or the vocabulary differs.
    """
    folder = local_folder(path)
    if is_run(folder):
        return _from_run(folder, config, vocabulary)
    source = open_source(folder, config=config, seed=seed)
    if source.new:
        _log.warning("newly initialised, not in %s: %s", path, ", ".join(source.new))
    return huggingface.to_params(source.tensors, config)


def _from_run(folder: Path, config: ModelConfig, vocabulary: str | None) -> Params:
    """Onto the devices; a damaged step gives way to the one before."""
    with TrainCheckpoints(folder / CHECKPOINTS, read_only=True) as checkpoints:
        named = (checkpoints.read_metadata() or ({},))[0]
        expect = {} if vocabulary is None or "vocabulary" not in named else {"vocabulary": vocabulary}
        restored = checkpoints.restore({"params": param_shapes(config)}, expect=expect, partial=True)
    if restored is None:
        raise InputError("no whole checkpoint", file=folder / CHECKPOINTS, remedy="train that run further")
    _log.info("starting from step %d of %s", restored[2], folder)
    return restored[0]["params"]


def best_params(checkpoints: TrainCheckpoints, last: int, params: Params) -> Params:
    """The weights that a run leaves: those of its best step, or `params` where that is the last one or none is best.

    Args:
      checkpoints: of the run, all written.
      last: the step of `params`.
      params: on the run's devices; the best step's are put in their places.

    Raises:
      InputError: if the best step's files are damaged.
    """
    best = checkpoints.best_step()
    if best is None or best == last:
        return params
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), params)
    (arrays, _, _) = checkpoints.restore({"params": shapes}, step=best, partial=True)
    _log.info("exporting step %d, the best", best)
    return arrays["params"]


def with_head_from_embedding(params: Params, stddev: float) -> Params:
    """The same parameters, but the output head [D, V] is the embedding [V, D], scaled to a standard deviation."""
    embedding = jnp.asarray(params["embed"]["embedding"])
    return params | {"head": {"kernel": embedding.T * (stddev / embedding.std())}}
