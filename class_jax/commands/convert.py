# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax convert`: weights from one layout into another."""

from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.printing import AsJson, show
from class_jax.errors import InputError, nearest


def convert(
    source: Annotated[str, typer.Option("--from", help="folder of weights in any layout, or a Hugging Face id")],
    to: Annotated[Path, typer.Option(help="folder to write")],
    layout: Annotated[str, typer.Option(help="hf (safetensors), t5x, or orbax (a run starts from it)")] = "hf",
    retriever: Annotated[
        str | None, typer.Option(help="multi_vector or dense, where the source does not say it or is to change")
    ] = None,
    retriever_layer: Annotated[int | None, typer.Option(help="encoder layers before the retriever's")] = None,
    retriever_head: Annotated[int | None, typer.Option(help="attention head of the multi-vector retriever")] = None,
    config: Annotated[Path | None, typer.Option(help="config.json to use in place of the source's")] = None,
    vocabulary: Annotated[Path | None, typer.Option(help="SentencePiece model to put beside the weights")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16 (the source's)")] = None,
    shard_gb: Annotated[float, typer.Option(help="largest file of the hf layout, GB", min=0.001)] = 5.0,
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit on the Hugging Face Hub")] = None,
    seed: Annotated[int, typer.Option(help="of dense projections that the source lacks")] = 0,
    overwrite: Annotated[bool, typer.Option(help="replace the destination if it is there")] = False,
    as_json: AsJson = False,
) -> None:
    """Converts weights between the Hugging Face layout, T5X's and a run's."""
    types = ("float32", "bfloat16", "float16")
    if dtype is not None and dtype not in types:
        raise InputError(f"unknown type {dtype!r}", key="--dtype", remedy=nearest(dtype, types))
    if vocabulary is not None and not vocabulary.is_file():
        raise InputError("no such vocabulary", file=vocabulary, remedy="give the path of a SentencePiece model")
    import dataclasses

    from class_jax.checkpoints import convert as conversion
    from class_jax.checkpoints.hub import local_folder

    opened = conversion.open_source(
        local_folder(source, revision),
        config=None if config is None else conversion.read_config(config),
        retriever=conversion.Retriever(retriever, retriever_layer, retriever_head),
        seed=seed,
    )
    if vocabulary is not None:
        opened = dataclasses.replace(opened, vocabulary=vocabulary)
    conversion.convert(
        opened,
        to,
        layout,
        dtype=None if dtype is None else conversion.named_type(dtype),
        max_shard_bytes=int(shard_gb * 10**9),
        overwrite=overwrite,
    )
    show({"out": to, "layout": layout}, conversion.summary(source, opened, to, layout), as_json)
