# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax rerank`: retrieved passages in the order of how likely a model finds the question, given each."""

import json
from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.printing import AsJson, note, show
from class_jax.errors import InputError, nearest

# As in the rooms that use them, whose import costs too much to refuse a wrong word.
FORMATS = ("ctxs", "trec", "xor")
METRICS = ("R@5", "R@15", "MRR")


def rerank(
    ranked: Annotated[Path, typer.Argument(help="DPR/CORA `ctxs` JSON, a TREC run or XOR-Retrieve predictions")],
    model: Annotated[str, typer.Option(help="mBART, mT5 or CLASS: a folder, a training run, or a hub id")],
    out: Annotated[Path, typer.Option(help="file to write, with a log of scores beside it")],
    scorer: Annotated[str, typer.Option(help="auto, mbart, mt5 or class")] = "auto",
    format: Annotated[str, typer.Option(help="of the input: auto, ctxs, trec or xor")] = "auto",
    out_format: Annotated[str | None, typer.Option(help="ctxs, trec or xor; the input's if left out")] = None,
    questions: Annotated[Path | None, typer.Option(help="XOR-TyDi QA JSON lines; TREC and XOR need them")] = None,
    passages: Annotated[Path | None, typer.Option(help="passage TSV with the texts; TREC needs it")] = None,
    top: Annotated[int, typer.Option(help="passages re-ranked; the others follow as they were", min=1)] = 50,
    weight: Annotated[float | None, typer.Option(help="of the retriever's score, 0 to 1", min=0, max=1)] = None,
    settings: Annotated[Path | None, typer.Option(help="weight and languages that --tune wrote")] = None,
    tune: Annotated[Path | None, typer.Option(help="choose weight and languages on this input; file to write")] = None,
    metric: Annotated[str, typer.Option(help="to tune by: R@5, R@15 or MRR")] = "MRR",
    gold: Annotated[Path | None, typer.Option(help="right passages: JSON lines (id, passages) or TREC qrels")] = None,
    table: Annotated[Path | None, typer.Option(help="write the table as TABLE.md, .json and .csv")] = None,
    language: Annotated[str | None, typer.Option(help="of questions that don't say theirs")] = None,
    passage_language: Annotated[str | None, typer.Option(help="of passages that don't say theirs")] = None,
    passage_languages: Annotated[Path | None, typer.Option(help="TSV: passage id, language")] = None,
    tags: Annotated[bool, typer.Option("--tags/--no-tags", help="give mBART the languages")] = True,
    template: Annotated[str | None, typer.Option(help="of the passage, with {title} and {text}")] = None,
    max_passage_tokens: Annotated[int, typer.Option(help="longer passages are cut", min=8)] = 512,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
    dtype: Annotated[str | None, typer.Option(help="of matrix products: float32 or bfloat16")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="warn of a bad question, leave it as it was, and continue")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Re-ranks passages by the question's likelihood, and compares the ranks before and after by language."""
    _check_options(form=format, out_form=out_format, metric=metric, settings=settings, tune=tune, weight=weight)
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.reranking import rerank_files as room
    from class_jax.reranking.ranked import detect_format
    from class_jax.reranking.scorers import load_scorer

    bad: list[InputError] = []
    form = detect_format(ranked) if format == "auto" else format
    lists = room.read_lists(
        ranked,
        form,
        questions=questions,
        passages=passages,
        language=language,
        passage_language=passage_language,
        passage_languages=passage_languages,
        bad=bad,
        skip_bad=skip_bad,
    )
    right = room.find_right(lists, gold, "tune" if tune is not None else "table" if table is not None else None)
    loaded = load_scorer(
        model,
        scorer,
        vocabulary=vocabulary,
        tags=tags,
        template=template,
        dtype=dtype,
        max_passage_tokens=max_passage_tokens,
    )
    made = room.rerank_file(
        loaded,
        lists,
        out,
        out_format or form,
        settings=room.choose_settings(settings, weight, loaded),
        top=top,
        right=right,
        tune_by=None if tune is None else metric,
        bad=bad,
        skip_bad=skip_bad,
    )
    if tune is not None:
        made.chosen.write(tune)
        note(f"{tune}: weight {made.chosen.weight:.2f}, languages {' '.join(made.chosen.languages) or 'none'}", as_json)
    note(f"{out}: {made.questions} questions, {made.scored} passages scored", as_json)
    if made.problems:
        note(f"problems: {made.problems}; questions that they concern are as they were, or left out", as_json)
    if made.compared is not None and table is not None:
        made.compared.write(table)
    value = {"out": out, "questions": made.questions, "passages_scored": made.scored, "problems": made.problems}
    value |= {"weight": made.chosen.weight, "languages": made.chosen.languages}
    value["ranks"] = None if made.compared is None else json.loads(made.compared.json())
    show(value, lambda: made.compared and made.compared.print(), as_json)


def _check_options(
    *, form: str, out_form: str | None, metric: str, settings: Path | None, tune: Path | None, weight: float | None
) -> None:
    """Refuses what would only be found out after all is scored."""
    for key, value, known in (
        ("format", form, ("auto", *FORMATS)),
        ("out-format", out_form or FORMATS[0], FORMATS),
        ("metric", metric, METRICS),
    ):
        if value not in known:
            raise InputError(f"unknown {key} {value!r}", key=key, remedy=nearest(value, known))
    if settings is not None and (weight is not None or tune is not None):
        raise InputError("goes without --weight and --tune", key="settings")
    if tune is not None and weight is not None:
        raise InputError("--tune chooses the weight", key="weight", remedy="leave out one of them")
