# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax train`: the trainer, with T5X's flags."""

import typer


def train(context: typer.Context) -> None:
    """Trains from gin files: class-jax train FILE... [--gin.NAME=VALUE]..., the arguments of run_train.py.

    Flags: --gin_file FILE, --gin_bindings 'NAME = VALUE', --gin_search_paths FOLDERS; of several processes
    --distributed (as SLURM, GKE or a TPU pod names them), or --coordinator HOST:PORT, --processes, --process, and
    --host_timeout SECONDS.
    """
    from class_jax.training.flags import parse_flags

    arguments = ["class-jax train", *context.args]
    parse_flags(arguments)
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.training.main import main

    raise typer.Exit(main(arguments))
