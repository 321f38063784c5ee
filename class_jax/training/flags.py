# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The trainer's flags, as T5X names them; imports neither JAX nor gin, so that a wrong flag is reported at once."""

from collections.abc import Sequence

from absl import flags

from class_jax.errors import InputError


def _make_flags() -> flags.FlagValues:
    """New ones for every call: parsing into the same ones again would add to the earlier values."""
    made = flags.FlagValues()
    flags.DEFINE_multi_string("gin_file", None, "Gin file; may be given several times.", flag_values=made)
    flags.DEFINE_multi_string("gin_bindings", [], "Single gin binding; may be given several times.", flag_values=made)
    flags.DEFINE_list("gin_search_paths", ["."], "Folders in which gin files are looked for.", flag_values=made)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several processes.", flag_values=made)
    flags.DEFINE_integer("processes", None, "How many processes there are.", flag_values=made)
    flags.DEFINE_integer("process", None, "Index of this process, from 0.", flag_values=made)
    flags.DEFINE_bool(
        "distributed", False, "Several processes, as SLURM, GKE or a TPU pod names them.", flag_values=made
    )
    flags.DEFINE_float("host_timeout", 300.0, "Seconds to wait for all processes.", flag_values=made)
    return made


def rewrite_gin_flags(argv: Sequence[str]) -> list[str]:
    """Turns T5X's ``--gin.NAME=VALUE`` into ``--gin_bindings=NAME = VALUE``."""
    rewritten = []
    for argument in argv:
        if argument.startswith("--gin."):
            name, _, value = argument.removeprefix("--gin.").partition("=")
            argument = f"--gin_bindings={name} = {value}"
        rewritten.append(argument)
    return rewritten


def parse_flags(argv: Sequence[str]) -> tuple[list[str], flags.FlagValues]:
    """Parses a command line.

    Args:
      argv: the program's name, then its arguments.

    Returns:
      The gin files, and the values of all flags.

    Raises:
      InputError: for an unknown flag, a value of another type, or no gin file.
    """
    found = _make_flags()
    try:
        _, *files = found(rewrite_gin_flags(argv))
    except flags.Error as error:
        raise InputError(str(error).partition("\n")[0], remedy="see class-jax train --help") from error
    files += found.gin_file or []
    if not files:
        raise InputError("no gin file is given", key="--gin_file", remedy="for example runs/demo_stage1.gin")
    return files, found
