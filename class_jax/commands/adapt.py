# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax rerank-adapt` and `class-jax question-quality`: a scorer after a few examples, and what it generates."""

import json
from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.options import entries, positive_numbers
from class_jax.commands.printing import AsJson, note, show


def rerank_adapt(
    examples: Annotated[Path, typer.Argument(help="retrieved lists (`ctxs`) of the questions to learn from")],
    heldout: Annotated[Path, typer.Option(help="retrieved lists of other questions, to measure on")],
    model: Annotated[str, typer.Option(help="mBART, mT5 or CLASS: a folder, a training run, or a hub id")],
    out: Annotated[Path, typer.Option(help="folder of tables and scores")],
    pairs: Annotated[str, typer.Option(help="numbers of examples, such as 50,200")] = "50,200",
    objectives: Annotated[str, typer.Option(help="likelihood, contrastive, or both")] = "likelihood,contrastive",
    gold: Annotated[Path | None, typer.Option(help="right passages: JSON lines (id, passages) or TREC qrels")] = None,
    scorer: Annotated[str, typer.Option(help="auto, mbart, mt5 or class")] = "auto",
    top: Annotated[int, typer.Option(help="passages re-ranked", min=1)] = 50,
    weight: Annotated[float, typer.Option(help="of the retriever's score, 0 to 1", min=0, max=1)] = 0.0,
    steps: Annotated[int, typer.Option(help="of the optimizer", min=1)] = 100,
    batch: Annotated[int, typer.Option(help="questions of a step", min=1)] = 4,
    negatives: Annotated[int, typer.Option(help="wrong passages of a question, for the contrast", min=1)] = 3,
    learning_rate: Annotated[float, typer.Option(help="at its highest")] = 1e-4,
    temperature: Annotated[float, typer.Option(help="of the contrast's softmax")] = 0.5,
    seed: Annotated[int, typer.Option(help="of the order of the examples")] = 0,
    passage_language: Annotated[str | None, typer.Option(help="of passages that don't say theirs")] = None,
    tags: Annotated[bool, typer.Option("--tags/--no-tags", help="give mBART the languages")] = True,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
    save: Annotated[Path | None, typer.Option(help="folder for the adapted model with the best macro MRR")] = None,
    as_json: AsJson = False,
) -> None:
    """Adapts a scorer by each objective to each number of examples, and compares with zero-shot on held-out lists."""
    counts = positive_numbers(pairs, "pairs", "50,200", needed=True)
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.checkpoints.pretrained import check_replaceable
    from class_jax.reranking.adapt import AdaptConfig
    from class_jax.reranking.adaptation import compare_adaptations, read_judged
    from class_jax.reranking.scorers import load_scorer

    if save is not None:
        check_replaceable(save)
    settings = {"steps": steps, "batch": batch, "negatives": negatives, "learning_rate": learning_rate}
    settings |= {"temperature": temperature, "seed": seed}
    configs = [AdaptConfig(objective=name, **settings) for name in entries(objectives)]
    judged = read_judged(examples, heldout, gold, passage_language)
    loaded = load_scorer(model, scorer, vocabulary=vocabulary, tags=tags)
    made = compare_adaptations(loaded, *judged, configs, counts, out, top=top, weight=weight, save=save)
    value = {"out": out, "best": made.best, "macro_mrr": made.reached, "table": json.loads(made.table.json())}
    show(value, made.table.print, as_json)
    note(f"{out}: tables, scores and losses", as_json)
    if save is not None:
        reached = f"the best macro MRR ({100 * made.reached:.1f}) on these lists; to be measured on others"
        note(f"{save}: {made.best}, {reached}", as_json)


def question_quality(
    questions: Annotated[Path, typer.Argument(help="XOR-TyDi QA JSON lines")],
    model: Annotated[str, typer.Option(help="mBART, mT5 or CLASS: a folder, a training run, or a hub id")],
    passages: Annotated[Path, typer.Option(help="passage TSV")],
    passage_languages: Annotated[Path, typer.Option(help="TSV: passage id, language")],
    gold: Annotated[Path, typer.Option(help="right passages: JSON lines (id, passages) or TREC qrels")],
    out: Annotated[Path, typer.Option(help="table to write as OUT.md, .json and .csv, and OUT.generated.jsonl")],
    other: Annotated[str, typer.Option(help="language of the passages that are not in the question's")] = "en",
    scorer: Annotated[str, typer.Option(help="auto, mbart, mt5 or class")] = "auto",
    tags: Annotated[bool, typer.Option("--tags/--no-tags", help="give mBART the languages")] = True,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
    as_json: AsJson = False,
) -> None:
    """Perplexity and BLEU of questions by language, from passages in the same language and in another one."""
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.reranking.quality_files import measure_questions, read_sides
    from class_jax.reranking.scorers import load_scorer

    sides = read_sides(questions, passages, passage_languages, gold, other)
    table = measure_questions(load_scorer(model, scorer, vocabulary=vocabulary, tags=tags), sides, out)
    show(json.loads(table.json()), table.print, as_json)
