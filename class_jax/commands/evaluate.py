# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax evaluate TASK`: scores of predictions, of ranked passages, or of a model over an index."""

from pathlib import Path
from typing import Annotated

import typer

from class_jax.commands.options import entries, positive_numbers
from class_jax.commands.printing import AsJson, check_form, show_tables
from class_jax.errors import InputError, nearest

TASKS = ("xor-retrieve", "xor-full", "mkqa", "passages")


def evaluate(
    task: Annotated[str, typer.Argument(help=f"one of {', '.join(TASKS)}")],
    questions: Annotated[Path, typer.Option(help="XOR-TyDi QA JSON lines; for mkqa the public file too")],
    predictions: Annotated[Path | None, typer.Option(help="answers: a JSON object, question id -> answer")] = None,
    run: Annotated[Path | None, typer.Option(help="passages: a TREC run, DPR's or CORA's ctxs, XOR-Retrieve's")] = None,
    model: Annotated[str | None, typer.Option(help="instead of files: a model's folder or hub id")] = None,
    store: Annotated[Path | None, typer.Option(help="token store that the model searches")] = None,
    index: Annotated[Path | None, typer.Option(help="index of the store; without it the store is embedded")] = None,
    passages: Annotated[int, typer.Option(help="passages that the model finds for a question", min=1)] = 100,
    corpus: Annotated[Path | None, typer.Option(help="TSV or token store with the texts of a TREC run")] = None,
    relevant: Annotated[Path | None, typer.Option(help="right passages: TREC qrels, or JSON, id -> ids")] = None,
    english: Annotated[Path | None, typer.Option(help="XOR-TyDi QA JSON lines with English answers")] = None,
    languages: Annotated[str | None, typer.Option(help="only these, such as fi,ja")] = None,
    tokens: Annotated[str, typer.Option(help="budgets n of R@n tokens")] = "2000,5000",
    depths: Annotated[str | None, typer.Option(help="depths N of R@N, R^L@N and R^M@N")] = None,
    answers_in: Annotated[str, typer.Option(help="mkqa's R@kt: a language, 'question' or 'any'")] = "en",
    tokeniser: Annotated[str, typer.Option(help="auto, punkt or line")] = "auto",
    english_spans: Annotated[bool, typer.Option("--english-spans", help="xor-full: as XOR-EnglishSpan")] = False,
    seen: Annotated[str | None, typer.Option(help="training languages, to break scores down by")] = None,
    name: Annotated[str | None, typer.Option(help="of the run, for tables; by default the file's")] = None,
    corpus_name: Annotated[str | None, typer.Option(help="of the passages searched, checked by `compare`")] = None,
    samples: Annotated[int, typer.Option(help="of the bootstrap behind the intervals", min=1)] = 10_000,
    form: Annotated[str, typer.Option("--format", help="table, md, tex, csv or json")] = "table",
    out: Annotated[Path | None, typer.Option(help="report to write (JSON), for `compare`")] = None,
    as_json: AsJson = False,
) -> None:
    """Scores a run, by language and macro, with confidence intervals; breaks the scores down by kind of question.

    --json is short for --format json.
    """
    form = "json" if as_json else form
    _check(task, predictions, run, model, store, relevant)
    budgets, depth_list = positive_numbers(tokens, "tokens"), positive_numbers(depths, "depths")
    check_form(form)
    from class_jax.reports.evaluate import Scoring, evaluate_files, evaluate_model, report_tables
    from class_jax.reports.reports import write_report

    seen_languages = None if seen is None else entries(seen)
    scoring = Scoring(budgets, depth_list, tokeniser, english_spans, answers_in, english, seen_languages, samples)
    known = name or (predictions or run or Path(model)).stem
    wanted = None if languages is None else entries(languages)
    options = {"relevant": relevant, "languages": wanted, "corpus_name": corpus_name, "scoring": scoring}
    if model is None:
        files = {"predictions": predictions, "run": run, "corpus": corpus}
        report = evaluate_files(task, questions, known, **files, **options)
    else:
        from class_jax.common.compilation_cache import use_compilation_cache

        use_compilation_cache()
        from class_jax.api import CLASS, Searcher

        loaded = CLASS.from_pretrained(model)
        searcher = Searcher.open(store, index, vocabulary=loaded.vocabulary)
        report = evaluate_model(
            task, questions, known, loaded, searcher, model_name=model, passages=passages, **options
        )
    if out is not None:
        write_report(out, report)
    show_tables(report_tables(report), form)


def _check(
    task: str,
    predictions: Path | None,
    run: Path | None,
    model: str | None,
    store: Path | None,
    relevant: Path | None,
) -> None:
    """Raises InputError for options that don't go together, before anything long begins."""
    if task not in TASKS:
        raise InputError(f"no task {task!r}", key="TASK", remedy=nearest(task, TASKS))
    if model is None and predictions is None and run is None:
        raise InputError("nothing to score", remedy="give --predictions, --run, or --model and --store")
    if model is not None and (predictions is not None or run is not None):
        raise InputError("either a model or files", key="model", remedy="leave out --model, or --predictions and --run")
    if model is not None and store is None:
        raise InputError("the model has nothing to search", key="store", remedy="give --store")
    if task in ("xor-retrieve", "passages") and model is None and run is None:
        raise InputError(f"{task} scores ranked passages", key="run", remedy="give --run, or --model and --store")
    if task == "xor-full" and model is None and predictions is None:
        raise InputError("xor-full scores answers", key="predictions", remedy="give --predictions, or --model")
    if task == "passages" and relevant is None:
        raise InputError("nothing says which passages are right", key="relevant", remedy="give --relevant")
