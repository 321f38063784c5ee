# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The trainer's command line: gin files and bindings, with T5X's flags.

JAX and what needs it are imported when the arguments have been checked.
"""

import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import CodeType
from typing import Any

from class_jax.common.files import replacing
from class_jax.distributed import SINGLE_PROCESS, ProcessGroup
from class_jax.distributed.config import ProcessGroupConfig
from class_jax.errors import InputError
from class_jax.training.flags import parse_flags


def train_from_gin(
    files: Sequence[str],
    bindings: Sequence[str],
    search_paths: Sequence[str] = (".",),
    hosts: ProcessGroup = SINGLE_PROCESS,
) -> dict:
    """Parses gin files and bindings, then trains; see `loop.train`.

    The whole configuration is written to `config.gin` in the run's folder once the run has been opened with it.

    Raises:
      InputError: for a missing file, a syntax error, an unknown name or a setting that must be set.
    """
    import gin
    from class_jax.configuration.gin_errors import explained
    from class_jax.configuration.gin_files import parse
    from class_jax.training import loop

    parse(files, bindings, search_paths)
    train = gin.get_configurable(loop.train)
    try:
        model_dir = gin.query_parameter("%MODEL_DIR")
    except ValueError as error:
        raise InputError("is not set", key="MODEL_DIR", remedy="--gin.MODEL_DIR=\"'runs/name'\"") from error
    folder = Path(str(model_dir))
    folder.mkdir(parents=True, exist_ok=True)
    settings = gin.config_str()

    def keep() -> None:
        with replacing(folder / "config.gin") as f:
            f.write(settings)

    try:
        return train(on_start=keep, hosts=hosts)
    except (RuntimeError, ValueError, TypeError) as error:
        # Before training begins, gin reports a missing or unknown setting in this way.
        if isinstance(error, InputError) or _passed_through(error, loop.train.__code__):
            raise
        raise explained(error, files) from error


def _passed_through(error: BaseException, function: CodeType) -> bool:
    """Whether the error comes from inside a function: from training itself, not from making its configuration."""
    return any(frame.f_code is function for frame, _ in traceback.walk_tb(error.__traceback__))


def _without_closed_loops(unraisable: Any) -> None:
    """Drops what TensorStore reports of a failed save to an event loop that is closed: the save itself raises."""
    error = unraisable.exc_value
    if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
        sys.__unraisablehook__(unraisable)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the trainer; returns the exit status."""
    # By force: absl puts a handler of its own on the root logger.
    logging.basicConfig(level=logging.INFO, format="%(levelname).1s %(name)s: %(message)s", force=True)
    logging.getLogger("absl").setLevel(logging.WARNING)
    logging.getLogger("jax").setLevel(logging.WARNING)
    sys.unraisablehook = _without_closed_loops
    try:
        files, found = parse_flags(sys.argv if argv is None else argv)
        group = ProcessGroupConfig(
            found.coordinator, found.processes, found.process, found.distributed, found.host_timeout
        )

        from class_jax.distributed.start import failing_together, join_process_group

        hosts = join_process_group(group)
        if hosts.index:
            logging.getLogger().setLevel(logging.WARNING)  # host 0 logs for all
        with failing_together(hosts):
            train_from_gin(files, found.gin_bindings, found.gin_search_paths, hosts)
            hosts.leave()
    except InputError as error:
        # Gin adds lines about the configurable that an error passed through.
        print(f"error: {str(error).partition(chr(10))[0]}", file=sys.stderr)
        return 2
    return 0
