# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Models of the Hugging Face Hub as local folders: from its cache, or downloaded once."""

import logging
import os
import re
from pathlib import Path

from class_jax.checkpoints.tensor_files import INDEX_SUFFIX, SAFETENSORS, TORCH
from class_jax.errors import InputError

_log = logging.getLogger(__name__)

# What a model's folder needs, weights apart.
_SIDE_FILES = ("config.json", "spiece.model", "sentencepiece.bpe.model")
# The first of these that a repository has; the others are the same weights in another format.
_WEIGHTS = (
    (SAFETENSORS,),
    (SAFETENSORS + INDEX_SUFFIX, "model-*-of-*.safetensors"),
    (TORCH,),
    (TORCH + INDEX_SUFFIX, "pytorch_model-*-of-*.bin"),
)


def local_folder(folder_or_hub_id: str | os.PathLike, revision: str | None = None) -> Path:
    """A local folder (or file) unchanged; a hub id (`google/mt5-large`) as the folder of its files in the Hub's cache.

    What the cache has whole is taken from there without asking the Hub.

    Args:
      folder_or_hub_id: a path, or the id of a model on the Hub.
      revision: branch, tag or commit on the Hub; the default branch if None.

    Raises:
      InputError: if it is neither, the Hub can't be reached, or the repository has no weights.
    """
    path = Path(folder_or_hub_id)
    if path.exists():
        return path
    name = str(folder_or_hub_id)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise InputError("no such folder", file=name, remedy="give a folder, or a Hugging Face id such as owner/name")
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise InputError(
            "no such folder, and the Hugging Face Hub can't be asked without huggingface_hub",
            file=name,
            remedy="pip install huggingface_hub, or give a folder",
        ) from error
    cached = _cached(huggingface_hub, name, revision)
    if cached is not None:
        return cached
    _log.info("asking the Hugging Face Hub for %s", name)
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)  # it warns of every retry
    try:
        files = huggingface_hub.list_repo_files(name, revision=revision)
        weights = next((group for group in _WEIGHTS if group[0] in files), None)
        if weights is None:
            raise InputError("has no safetensors or PyTorch weights on the Hugging Face Hub", file=name)
        patterns = [*_SIDE_FILES, *weights]
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    except InputError:
        raise
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.GatedRepoError) as error:
        raise InputError(
            "no such folder, and no such model (or revision) on the Hugging Face Hub",
            file=name,
            remedy="check the name; a private or gated model needs `hf auth login`",
        ) from error
    except Exception as error:  # the Hub's client lets its transport's many errors through
        raise InputError(
            "neither a local folder nor whole in the Hub's cache, and the Hugging Face Hub can't be reached",
            file=name,
            remedy=f"run `hf download {name} --local-dir FOLDER` where there is a network, and give FOLDER",
        ) from error
    finally:
        client.setLevel(level)


def _cached(hub: object, name: str, revision: str | None) -> Path | None:
    """The snapshot in the Hub's cache, if configuration and weights are whole there."""
    try:
        folder = Path(hub.snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # not there: the client's exceptions differ by version
        return None
    has_config = (folder / "config.json").is_file()
    return folder if has_config and any((folder / group[0]).is_file() for group in _WEIGHTS) else None
