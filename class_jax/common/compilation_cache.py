# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""JAX's persistent compilation cache in the user's cache folder: a program is compiled once per machine."""

import os
from pathlib import Path

from class_jax.errors import InputError

SWITCH = "CLASS_JAX_COMPILATION_CACHE"
"""Environment variable: a folder, or "off"."""


def use_compilation_cache(folder: str | os.PathLike | None = None) -> Path | None:
    """Keeps compiled programs of this process, and of those that it starts, for later ones.

    Call it before anything is compiled; JAX itself need not be imported yet. Programs are kept by what they compute,
    the version of JAX and the device, however short their compiling was.

    Args:
      folder: where they are kept. None takes the environment variable `CLASS_JAX_COMPILATION_CACHE` ("off" keeps
        nothing), JAX's own `JAX_COMPILATION_CACHE_DIR`, or else the user's cache folder.

    Returns:
      The folder, or None if switched off.

    Raises:
      InputError: if the folder can't be written.

    Example:
      >>> use_compilation_cache("/tmp/programs")
      PosixPath('/tmp/programs')
    """
    chosen = folder or os.environ.get(SWITCH) or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen is None:
        import platformdirs

        chosen = Path(platformdirs.user_cache_dir("class_jax")) / "programs"
    elif str(chosen).lower() == "off":
        import jax

        jax.config.update("jax_enable_compilation_cache", False)
        return None
    path = Path(chosen).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remedy = f"set {SWITCH} to another folder, or to off"
        raise InputError(f"can't be made ({error.strerror})", file=path, key=SWITCH, remedy=remedy) from error
    import jax

    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return path
