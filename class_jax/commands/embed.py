# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax embed`: a corpus into vectors. `class-jax index`: vectors into an index."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from class_jax.commands.printing import AsJson, show
from class_jax.errors import InputError, nearest

if TYPE_CHECKING:
    import numpy as np

    from class_jax.distributed import ProcessGroup
    from class_jax.retrieval.embed import EmbedSettings
    from class_jax.retrieval.vectors import VectorStore

KINDS = ("residual", "scann")


def embed(
    model: Annotated[str, typer.Option(help="folder of a model or of a training run, or a hub id")],
    store: Annotated[Path, typer.Option(help="token store of the corpus")],
    out: Annotated[Path, typer.Option(help="folder of vectors to write; it can be searched exactly")],
    dtype: Annotated[str, typer.Option(help="float32, float16, bfloat16 or int8 (with a scale a vector)")] = "float16",
    batch: Annotated[int, typer.Option(help="passages at once on each device", min=1)] = 64,
    part_passages: Annotated[int, typer.Option(help="passages that a killed run may lose", min=1)] = 16384,
    compute: Annotated[str | None, typer.Option(help="type of matrix products, such as bfloat16")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
    distributed: Annotated[bool, typer.Option(help="several processes, as SLURM, GKE or a TPU pod names them")] = False,
    coordinator: Annotated[str | None, typer.Option(help="of several processes: HOST:PORT of process 0")] = None,
    processes: Annotated[int | None, typer.Option(help="how many processes there are")] = None,
    process: Annotated[int | None, typer.Option(help="index of this process, from 0")] = None,
    host_timeout: Annotated[float, typer.Option(help="seconds to wait for all processes")] = 300.0,
    as_json: AsJson = False,
) -> None:
    """Embeds a corpus into files; interrupted, the same command resumes."""
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.distributed.start import ProcessGroupConfig, failing_together, join_process_group
    from class_jax.retrieval.embed import EmbedSettings

    hosts = join_process_group(ProcessGroupConfig(coordinator, processes, process, distributed, host_timeout))
    settings = EmbedSettings(dtype=dtype, batch=batch, part_passages=part_passages)
    with failing_together(hosts):
        made = _embed(model, store, out, settings, compute, vocabulary, hosts)
        hosts.leave()
    if hosts.index:
        return
    each = sum(entry["bytes"] for entry in made.manifest["files"].values()) / made.num_vectors
    weights = made.manifest["model"]
    text = f"{made.num_vectors} vectors of {made.num_passages} passages, {each:.1f} bytes a vector"
    value = {"out": out, "vectors": made.num_vectors, "passages": made.num_passages}
    value |= {"bytes_per_vector": each, "weights": weights}
    show(value, f"{out}: {text}, weights {weights[:12]}", as_json)


def _embed(
    model: str,
    store: Path,
    out: Path,
    settings: "EmbedSettings",
    compute: str | None,
    vocabulary: str | None,
    hosts: "ProcessGroup",
) -> "VectorStore":
    from class_jax.api import CLASS
    from class_jax.corpus.store import TokenStore
    from class_jax.models import inference
    from class_jax.retrieval.embed import embed_corpus

    loaded = CLASS.from_pretrained(model, vocabulary=vocabulary, dtype=compute)
    corpus = TokenStore.open(store, loaded.vocabulary)
    return embed_corpus(
        inference.encoder(loaded.config),
        inference.retriever_params(loaded.params),
        corpus,
        out,
        model=loaded.retriever_fingerprint,
        settings=settings,
        hosts=hosts,
    )


def index(
    vectors: Annotated[Path, typer.Option(help="folder that `class-jax embed` wrote")],
    out: Annotated[Path, typer.Option(help="folder of the index to write (with --add: the index that grows)")],
    kind: Annotated[str, typer.Option(help="residual or scann")] = "residual",
    bytes_per_vector: Annotated[float, typer.Option("--bytes", help="residual: bytes a vector, in all", min=1)] = 24.0,
    centroids: Annotated[int | None, typer.Option(help="residual: chosen by size if left out")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="residual: sample questions (JSON lines) that bits are spent for; advised")
    ] = None,
    model: Annotated[str | None, typer.Option(help="embeds --questions")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
    add: Annotated[bool, typer.Option("--add", help="append the passages that only the vectors have")] = False,
    as_json: AsJson = False,
) -> None:
    """Builds an index of embedded passages."""
    if kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}", key="kind", remedy=nearest(kind, KINDS))
    if (questions is None) != (model is None):
        raise InputError("--questions and --model go together", remedy="give both or none")
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.retrieval.vectors import VectorStore

    source = VectorStore.open(vectors)
    sample = None if questions is None else _sample(questions, model, vocabulary, source)
    if add:
        from class_jax.retrieval.residual.additions import add_passages

        added = add_passages(out, source, sample)
        text = f"mean squared error {added.error:.4f}, at first {added.first_error:.4f}"
        show({"out": out, **added._asdict()}, f"{out}: {added.passages} passages added; {text}", as_json)
        return
    if kind == "scann":
        from class_jax.retrieval.scann.kind import build_scann

        shards = len(build_scann(source, out).manifest["shards"])
        value = {"out": out, "vectors": source.num_vectors, "shards": shards}
        show(value, f"{out}: {shards} shards of {source.num_vectors} vectors", as_json)
        return
    from class_jax.retrieval.residual import ResidualSettings, build_residual

    settings = ResidualSettings(bytes_per_vector=bytes_per_vector, centroids=centroids)
    built = build_residual(source, out, questions=sample, settings=settings)
    shares = {name: size / source.num_vectors for name, size in built.bytes_on_disk().items() if size}
    value = {"out": out, "vectors": source.num_vectors, "bytes_per_vector": shares}
    parts = ", ".join(f"{name} {size:.2f}" for name, size in shares.items())
    show(value, f"{out}: {sum(shares.values()):.2f} bytes a vector ({parts})", as_json)


def _sample(questions: Path, model: str, vocabulary: str | None, source: "VectorStore") -> "np.ndarray":
    from class_jax.api import CLASS
    from class_jax.questions.readers import read_xor
    from class_jax.retrieval.residual.additions import sample_tokens

    asked = list(read_xor(questions))
    if not asked:
        raise InputError("no questions", file=questions)
    loaded = CLASS.from_pretrained(model, vocabulary=vocabulary)
    return sample_tokens(loaded, [q.text for q in asked], [q.language for q in asked], source)
