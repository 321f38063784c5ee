# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The model sizes of `gin/models`, as configurations."""

from pathlib import Path

from class_jax.errors import InputError, nearest
from class_jax.models.config import ModelConfig

MODELS = Path(__file__).resolve().parents[2] / "gin" / "models"


def model_config(size: str) -> ModelConfig:
    """The configuration of `gin/models/SIZE.gin`; "tiny", which has no vocabulary of its own, gets 32000 pieces.

    Raises:
      InputError: for a size that has no file.
    """
    import gin
    from class_jax.training.main import parse

    known = sorted(file.stem for file in MODELS.glob("*.gin"))
    if size not in known:
        raise InputError(f"unknown size {size!r}", key="size", remedy=nearest(size, known))
    with gin.unlock_config():
        gin.clear_config()
        parse([str(MODELS / f"{size}.gin")], [])
        own = {"vocab_size": 32000} if size == "tiny" else {}
        config = gin.get_configurable(ModelConfig)(**own)
        gin.clear_config()
    return config
