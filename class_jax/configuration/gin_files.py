# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Reads gin files and bindings: where files are searched for, and errors in one line.

The package's own files are found by short name from anywhere: `runs/stage1.gin`, `models/large.gin`.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import TypeVar

import gin
from class_jax.configuration.gin_errors import explained
from class_jax.errors import InputError, nearest

T = TypeVar("T")

_PACKAGE = Path(__file__).resolve().parents[1]
# Installed, the files are inside the package; in a checkout they are beside it.
GIN_FOLDER = next((f for f in (_PACKAGE / "gin", _PACKAGE.parent / "gin") if f.is_dir()), _PACKAGE / "gin")


def gin_files(folder: str = "") -> list[str]:
    """The short names of the package's gin files, of all or of one folder, sorted."""
    return sorted(path.relative_to(GIN_FOLDER).as_posix() for path in (GIN_FOLDER / folder).rglob("*.gin"))


def find(file: str, search_paths: Sequence[str] = (".",)) -> Path:
    """The path of a gin file, by its path below a folder of `search_paths` or by its short name.

    Raises:
      InputError: if there is none.
    """
    for folder in (*search_paths, str(GIN_FOLDER)):
        if (path := Path(folder) / file).is_file():
            return path
    near = [*gin_files(), *(str(path) for path in Path(file).parent.glob("*.gin"))]
    raise InputError("no such gin file", file=file, remedy=nearest(file, near))


def parse(files: Sequence[str], bindings: Sequence[str], search_paths: Sequence[str] = (".",)) -> None:
    """Parses gin files and bindings into an empty configuration.

    Args:
      files: gin files, by path or by short name.
      bindings: single bindings, `NAME = VALUE`, applied after the files.
      search_paths: folders in which files and what they include are looked for, before the package's own.

    Raises:
      InputError: naming the file and line at fault.
    """
    found = [str(find(file, search_paths)) for file in files]
    gin.clear_config()
    for folder in (*search_paths, str(GIN_FOLDER)):
        gin.add_config_file_search_path(folder)
    logging.disable()  # gin logs each place in which it looks for an included file
    try:
        gin.parse_config_files_and_bindings(found, list(bindings))
    except (OSError, ValueError, SyntaxError, AttributeError, ImportError, TypeError, NameError, TokenError) as error:
        if isinstance(error, InputError):
            raise
        raise explained(error, files) from error
    finally:
        logging.disable(logging.NOTSET)


def configured(configurable: Callable[..., T], files: Sequence[str], bindings: Sequence[str]) -> T:
    """What gin files and bindings make of a configurable, such as `training.config.TrainConfig`.

    Raises:
      InputError: as `parse`; or for a setting that is missing or unknown.
    """
    parse(files, bindings)
    try:
        return gin.get_configurable(configurable)()
    except (RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise explained(error, files) from error
