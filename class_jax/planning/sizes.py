# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The model sizes of `gin/models`, as configurations."""

from class_jax.errors import InputError, nearest
from class_jax.models.config import ModelConfig


def model_config(size: str) -> ModelConfig:
    """The configuration of `gin/models/SIZE.gin`; "tiny", which has no vocabulary of its own, gets 32000 pieces.

    Raises:
      InputError: for a size that has no file.
    """
    import gin
    from class_jax.configuration.gin_files import configured, gin_files

    known = [file.removeprefix("models/").removesuffix(".gin") for file in gin_files("models")]
    if size not in known:
        raise InputError(f"unknown size {size!r}", key="size", remedy=nearest(size, known))
    own = ["ModelConfig.vocab_size = 32000"] if size == "tiny" else []
    with gin.unlock_config():
        config = configured(ModelConfig, [f"models/{size}.gin"], own)
        gin.clear_config()
    return config
