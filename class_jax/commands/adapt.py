# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax rerank-adapt` and `class-jax question-quality`: a scorer after a few examples, and what it generates."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from class_jax.errors import InputError

if TYPE_CHECKING:
    from class_jax.evaluation.scores import Scores
    from class_jax.reports.tables import Table
    from class_jax.reranking.ranked import RankedList
    from class_jax.reranking.score import Scorer

RETRIEVER, ZERO_SHOT = "retriever", "zero-shot"


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
    tags: Annotated[bool, typer.Option("--tags/--no-tags", help="tell mBART the languages")] = True,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
    save: Annotated[Path | None, typer.Option(help="folder for the adapted model with the best macro MRR")] = None,
) -> None:
    """Adapts a scorer by each objective to each number of examples, and compares with zero-shot on held-out lists."""
    from tqdm import tqdm

    from class_jax.checkpoints.pretrained import check_replaceable
    from class_jax.commands.evaluate import numbers_or_names, positive_numbers
    from class_jax.common.files import write_json
    from class_jax.reranking import adapt as few
    from class_jax.reranking.scorers import load_scorer

    counts = positive_numbers(pairs, "pairs", "50,200", needed=True)
    if save is not None:
        check_replaceable(save)
    settings = {"steps": steps, "batch": batch, "negatives": negatives, "learning_rate": learning_rate}
    settings |= {"temperature": temperature, "seed": seed}
    configs = [few.AdaptConfig(objective=name, **settings) for name in numbers_or_names(objectives)]
    lists, right = _judged(examples, gold, passage_language)
    tests, test_right = _judged(heldout, gold, passage_language)
    _check_apart(lists, tests, heldout)
    chosen = {count: few.choose_pairs(lists, right, count, negatives) for count in counts}
    loaded = load_scorer(model, scorer, vocabulary=vocabulary, tags=tags)
    measured = {RETRIEVER: _ranks(tests, test_right)}
    measured[ZERO_SHOT] = _rerank(loaded, tests, test_right, out, ZERO_SHOT, top, weight)
    losses, best = {}, None
    for config in configs:
        for count, some in chosen.items():
            name = f"{config.objective} {count}"
            with tqdm(total=steps, unit="step", desc=name, disable=None) as bar:
                adapted, losses[name] = few.adapt(loaded, some, config, lambda *_: bar.update())
            measured[name] = _rerank(adapted, tests, test_right, out, name.replace(" ", "_"), top, weight)
            reached = measured[name].summary()["macro"]["MRR"]
            if save is not None and (best is None or reached > best[0]):
                best = reached, name, adapted
    write_json(out / "losses.json", {"settings": settings, "losses": losses})
    table = adaptation_table(measured)
    table.print()
    table.write(out / "adaptation")
    typer.echo(f"{out}: tables, scores and losses")
    if best is not None:
        reached, name, adapted = best
        adapted.save(save)
        typer.echo(f"{save}: {name}, the best macro MRR ({100 * reached:.1f}) on these lists; to be measured on others")


def _check_apart(examples: "list[RankedList]", tests: "list[RankedList]", file: Path) -> None:
    both = {one.question.id for one in examples} & {one.question.id for one in tests}
    if both:
        raise InputError("is among the examples too", file=file, key=f"question {min(both)!r}")


def _judged(
    path: Path, gold: Path | None, passage_language: str | None
) -> "tuple[list[RankedList], list[frozenset[str] | None]]":
    from class_jax.corpus.inputs import language_code
    from class_jax.evaluation.runs import read_relevant
    from class_jax.reranking.ranked import read_ranked
    from class_jax.reranking.rerank import relevant

    code = None if passage_language is None else language_code(passage_language)
    lists = read_ranked(path, "ctxs", passage_language=code)
    right = relevant(lists, None if gold is None else read_relevant(gold))
    if not any(ids is not None for ids in right):
        raise InputError("nothing tells which passages are right", file=path, remedy="give --gold, or answers")
    return lists, right


def _ranks(lists: "list[RankedList]", right: "list[frozenset[str] | None]") -> "Scores":
    from class_jax.reranking.rerank import score_ranks

    return score_ranks(lists, right)


def _rerank(
    scorer: "Scorer",
    lists: "list[RankedList]",
    right: "list[frozenset[str] | None]",
    out: Path,
    name: str,
    top: int,
    weight: float,
) -> "Scores":
    from class_jax.reranking import rerank as ranks

    # Two runs' adapted models differ: each has a log of its own.
    log = out / "scores" / f"{name}.{scorer.fingerprint[:12]}-{top}.jsonl"
    scores = ranks.score_lists(scorer, lists, log, top=top)
    settings = ranks.Settings(weight)
    return _ranks([ranks.rerank(one, scores.get(one.question.id), settings) for one in lists], right)


def adaptation_table(measured: "dict[str, Scores]") -> "Table":
    """Macro averages of each way, and how each differs from zero-shot over all questions (paired tests)."""
    from class_jax.evaluation.significance import paired_bootstrap, paired_t_test
    from class_jax.reports.tables import Column, Table
    from class_jax.reranking.rerank import METRICS

    columns = [Column("scorer"), *(Column(metric, "macro", percent=True) for metric in METRICS)]
    columns += [Column("MRR", "all", percent=True)]
    shown = {"percent": True, "best": None}
    columns += [Column(name, "all MRR minus zero-shot", **shown) for name in ("change", "low", "high")]
    columns += [Column(name, "p", digits=3, best=None) for name in ("bootstrap", "t-test")]
    base, rows = measured[ZERO_SHOT].values["MRR"], []
    for name, scores in measured.items():
        macro, mine = scores.summary()["macro"], scores.values["MRR"]
        row = [name, *(macro[metric] for metric in METRICS), mine.mean()]
        if name == ZERO_SHOT:
            rows.append([*row, None, None, None, None, None])
            continue
        drawn, t = paired_bootstrap(base, mine), paired_t_test(base, mine)
        rows.append([*row, *drawn[:3], drawn.p, t.p])
    notes = (
        f"{len(base)} held-out questions; macro: mean over languages; low and high: 95% interval, by bootstrap",
        "p: two-sided, not corrected for the number of rows",
    )
    return Table("Few-shot adaptation", columns, rows, notes)


def question_quality(
    questions: Annotated[Path, typer.Argument(help="XOR-TyDi QA JSON lines")],
    model: Annotated[str, typer.Option(help="mBART, mT5 or CLASS: a folder, a training run, or a hub id")],
    passages: Annotated[Path, typer.Option(help="passage TSV")],
    passage_languages: Annotated[Path, typer.Option(help="TSV: passage id, language")],
    gold: Annotated[Path, typer.Option(help="right passages: JSON lines (id, passages) or TREC qrels")],
    out: Annotated[Path, typer.Option(help="table to write as OUT.md, .json and .csv, and OUT.generated.jsonl")],
    other: Annotated[str, typer.Option(help="language of the passages that are not in the question's")] = "en",
    scorer: Annotated[str, typer.Option(help="auto, mbart, mt5 or class")] = "auto",
    tags: Annotated[bool, typer.Option("--tags/--no-tags", help="tell mBART the languages")] = True,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
) -> None:
    """Perplexity and BLEU of questions by language, from passages in the same language and in another one."""
    from class_jax.common.files import replacing
    from class_jax.corpus.inputs import language_code
    from class_jax.corpus.passages import read_passages
    from class_jax.evaluation.runs import read_relevant
    from class_jax.questions.readers import read_xor
    from class_jax.reranking import quality
    from class_jax.reranking.ranked import read_passage_languages
    from class_jax.reranking.scorers import load_scorer

    asked, right = list(read_xor(questions)), read_relevant(gold)
    if not asked:
        raise InputError("no questions", file=questions)
    named = {id for q in asked for id in right.get(q.id, ())}
    texts = {p.id: p for p in read_passages(passages) if p.id in named}
    sides = quality.passages_by_side(
        asked, right, texts, read_passage_languages(passage_languages), language_code(other)
    )
    table, generated = quality.question_quality(load_scorer(model, scorer, vocabulary=vocabulary, tags=tags), sides)
    table.print()
    table.write(out)
    with replacing(out.with_name(f"{out.name}.generated.jsonl")) as f:
        for side, rows in generated.items():
            for question, passage, text in rows:
                record = {"id": question, "passage": passage, "side": side, "generated": text}
                f.write(json.dumps(record, ensure_ascii=False) + "\n")
