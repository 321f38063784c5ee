# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax pipeline`: retrieve, re-rank, read and evaluate in one command; each step is done once."""

from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.printing import AsJson, note, show
from class_jax.errors import InputError


def pipeline(
    out: Annotated[Path, typer.Option(help="folder of the run; the same command resumes it")],
    model: Annotated[str, typer.Option(help="CLASS that reads, and retrieves where no --ranked is given")],
    scorer: Annotated[str, typer.Option(help="model that re-ranks: mBART, mT5 or CLASS")],
    questions: Annotated[Path | None, typer.Option(help="XOR-TyDi QA JSON lines")] = None,
    store: Annotated[Path | None, typer.Option(help="token store to retrieve from")] = None,
    index: Annotated[Path | None, typer.Option(help="of the store; without it the store is embedded")] = None,
    ranked: Annotated[Path | None, typer.Option(help="instead: retrieved passages of mDPR or CORA (`ctxs`)")] = None,
    passages: Annotated[int, typer.Option(help="passages retrieved for a question", min=1)] = 100,
    top: Annotated[int, typer.Option(help="passages re-ranked; the others follow as they were", min=1)] = 50,
    read: Annotated[int, typer.Option(help="passages read for an answer", min=1)] = 100,
    input_tokens: Annotated[
        int | None, typer.Option(help="passage tokens read for an answer at most, such as 600, 1000, 2000", min=1)
    ] = None,
    weight: Annotated[float | None, typer.Option(help="of the retriever's score, 0 to 1", min=0, max=1)] = None,
    settings: Annotated[Path | None, typer.Option(help="weight and languages of `rerank --tune`")] = None,
    gold: Annotated[Path | None, typer.Option(help="right passages: JSON lines (id, passages) or TREC qrels")] = None,
    both: Annotated[bool, typer.Option("--both", help="read the lists before re-ranking too, and compare")] = False,
    language: Annotated[str | None, typer.Option(help="of questions that don't say theirs")] = None,
    passage_language: Annotated[str | None, typer.Option(help="of passages that don't say theirs")] = None,
    passage_languages: Annotated[Path | None, typer.Option(help="TSV: passage id, language")] = None,
    tags: Annotated[bool, typer.Option("--tags/--no-tags", help="give mBART the languages")] = True,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model of --scorer")] = None,
    beams: Annotated[int, typer.Option(help="1: greedy", min=1)] = 1,
    max_answer_tokens: Annotated[int, typer.Option(help="longer answers are cut", min=1)] = 50,
    dtype: Annotated[str | None, typer.Option(help="of matrix products: float32 or bfloat16")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="warn of a bad question, leave it unanswered, and continue")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Retrieves, re-ranks, reads and evaluates; a step whose inputs are unchanged is not run again."""
    if (ranked is None) == (store is None):
        raise InputError("give --store to retrieve from, or --ranked with what was retrieved", key="store")
    if ranked is None and questions is None:
        raise InputError("nothing to ask", key="questions", remedy="give --questions")
    if ranked is not None and index is not None:
        raise InputError("goes with --store", key="index")
    if settings is not None and weight is not None:
        raise InputError("goes without --weight", key="settings")
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.reranking import run_pipeline as room

    inputs = room.Inputs(
        questions=questions,
        store=store,
        index=index,
        ranked=ranked,
        passages=passages,
        gold=gold,
        language=language,
        passage_language=passage_language,
        passage_languages=passage_languages,
        skip_bad=skip_bad,
    )
    reranking = room.RerankingSettings(scorer, top, weight, settings, tags, vocabulary, dtype)
    reading = room.ReadingSettings(read, input_tokens, beams, max_answer_tokens)
    reports = room.run_pipeline(
        out, model, inputs, reranking, reading, both=both, on_done=lambda line: note(line, as_json)
    )
    tables = [path for path in (out / f"{room.RANKS}.md", out / room.EVALUATION) if path.is_file()]
    show(reports, "\n".join(path.read_text(encoding="utf-8") for path in tables), as_json)
