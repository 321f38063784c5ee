# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax embed`: a corpus into vectors. `class-jax index`: vectors into an index."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from class_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from class_jax.distributed import Hosts
    from class_jax.retrieval.embed import EmbedSettings

_BUILT = ("residual", "scann")


def embed(
    model: Annotated[str, typer.Option(help="folder of a model or of a training run, or a hub id")],
    store: Annotated[Path, typer.Option(help="token store of the corpus")],
    out: Annotated[Path, typer.Option(help="folder of vectors to write; searched exactly as it is")],
    dtype: Annotated[str, typer.Option(help="float32, float16, bfloat16 or int8 (with a scale a vector)")] = "float16",
    batch: Annotated[int, typer.Option(help="passages at once on each device", min=1)] = 64,
    part_passages: Annotated[int, typer.Option(help="passages that a killed run may lose", min=1)] = 16384,
    compute: Annotated[str | None, typer.Option(help="type of matrix products, such as bfloat16")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
    distributed: Annotated[bool, typer.Option(help="several hosts, as SLURM, GKE or a TPU pod names them")] = False,
    coordinator: Annotated[str | None, typer.Option(help="of several hosts: HOST:PORT of host 0")] = None,
    processes: Annotated[int | None, typer.Option(help="how many hosts there are")] = None,
    process: Annotated[int | None, typer.Option(help="index of this host, from 0")] = None,
    host_timeout: Annotated[float, typer.Option(help="seconds to wait for all hosts")] = 300.0,
) -> None:
    """Embeds a corpus into files; started again after it was stopped, it goes on where it was."""
    from class_jax.distributed.start import HostConfig, failing_together, join_hosts
    from class_jax.retrieval.embed import EmbedSettings

    hosts = join_hosts(HostConfig(coordinator, processes, process, distributed, host_timeout))
    settings = EmbedSettings(dtype=dtype, batch=batch, part_passages=part_passages)
    with failing_together(hosts):
        _embed(model, store, out, settings, compute, vocabulary, hosts)
        hosts.leave()


def _embed(
    model: str,
    store: Path,
    out: Path,
    settings: "EmbedSettings",
    compute: str | None,
    vocabulary: str | None,
    hosts: "Hosts",
) -> None:
    from class_jax.api import CLASS
    from class_jax.corpus.store import TokenStore
    from class_jax.models import inference
    from class_jax.retrieval.embed import embed_corpus

    loaded = CLASS.from_pretrained(model, vocabulary=vocabulary, dtype=compute)
    corpus = TokenStore.open(store, loaded.vocabulary)
    made = embed_corpus(
        inference.encoder(loaded.config),
        inference.retriever_params(loaded.params),
        corpus,
        out,
        model=loaded.retriever_fingerprint,
        settings=settings,
        hosts=hosts,
    )
    if hosts.index:
        return
    size = sum(entry["bytes"] for entry in made.manifest["files"].values())
    each = size / made.num_vectors
    typer.echo(
        f"{out}: {made.num_vectors} vectors of {made.num_passages} passages, {each:.1f} bytes a vector, "
        f"weights {made.manifest['model'][:12]}"
    )


def index(
    vectors: Annotated[Path, typer.Option(help="folder that `class-jax embed` wrote")],
    out: Annotated[Path, typer.Option(help="folder of the index to write (with --add: the index that grows)")],
    kind: Annotated[str, typer.Option(help="residual or scann")] = "residual",
    bytes_per_vector: Annotated[
        float, typer.Option("--bytes", help="residual: bytes a vector, all told", min=1)
    ] = 24.0,
    centroids: Annotated[int | None, typer.Option(help="residual: chosen by size if left out")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="residual: sample questions (JSON lines) that bits are spent for; advised")
    ] = None,
    model: Annotated[str | None, typer.Option(help="embeds --questions")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
    add: Annotated[bool, typer.Option("--add", help="append the passages that the vectors have more")] = False,
) -> None:
    """Builds an index of embedded passages."""
    if kind not in _BUILT:
        raise InputError(f"unknown kind {kind!r}", key="kind", remedy=nearest(kind, _BUILT))
    if (questions is None) != (model is None):
        raise InputError("--questions and --model go together", remedy="give both or none")
    from class_jax.retrieval.vectors import VectorStore

    source = VectorStore.open(vectors)
    sample = None if questions is None else _question_tokens(questions, model, vocabulary, source)
    if add:
        _add(out, source, sample)
        return
    if kind == "scann":
        from class_jax.retrieval.scann.kind import build_scann

        made = build_scann(source, out)
        typer.echo(f"{out}: {len(made.manifest['shards'])} shards of {source.num_vectors} vectors")
        return
    from class_jax.retrieval.residual import ResidualSettings, build_residual

    settings = ResidualSettings(bytes_per_vector=bytes_per_vector, centroids=centroids)
    built = build_residual(source, out, questions=sample, settings=settings)
    sums = built.bytes_on_disk()
    shares = ", ".join(f"{name} {size / source.num_vectors:.2f}" for name, size in sums.items() if size)
    typer.echo(f"{out}: {sum(sums.values()) / source.num_vectors:.2f} bytes a vector ({shares})")


def _question_tokens(questions: Path, model: str, vocabulary: str | None, source):  # noqa: ANN001 (types cost imports)
    from class_jax.api import CLASS
    from class_jax.questions.readers import read_xor
    from class_jax.retrieval.residual.build import question_tokens

    loaded = CLASS.from_pretrained(model, vocabulary=vocabulary)
    if loaded.retriever_fingerprint != source.manifest["model"]:
        raise InputError("the vectors were made with other weights", file=source.folder, key="model")
    sample = list(read_xor(questions))[:4000]
    if not sample:
        raise InputError("no questions", file=questions)
    return question_tokens(*loaded.encode_questions([q.text for q in sample], [q.language for q in sample]))


def _add(folder: Path, source, sample) -> None:  # noqa: ANN001
    from class_jax.retrieval.index import open_index
    from class_jax.retrieval.residual import ResidualIndex
    from class_jax.retrieval.residual.build import grow

    there = open_index(folder)
    if not isinstance(there, ResidualIndex):
        raise InputError(
            f"an index of the kind {there.kind!r} can't grow", file=folder, remedy="embed or build it again"
        )
    before = there.num_passages
    grown = grow(there, source, questions=sample)
    first, last = grown.manifest["segments"][0]["error"], grown.manifest["segments"][-1]["error"]
    typer.echo(
        f"{folder}: {grown.num_passages - before} passages added; mean squared error {last:.4f}, at first {first:.4f}"
    )
