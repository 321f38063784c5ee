# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax evaluate TASK`: scores of predictions, of ranked passages, or of a model over an index."""

import dataclasses
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from class_jax.common.files import replacing
from class_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from class_jax.evaluation.runs import Ranked
    from class_jax.evaluation.scores import Scores
    from class_jax.questions.readers import Question
    from class_jax.reports.tables import Table

TASKS = ("xor-retrieve", "xor-full", "mkqa", "passages")
_BLOCK = 64


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
) -> None:
    """Scores a run, by language and macro, with confidence intervals; breaks the scores down by kind of question."""
    _check(task, form, predictions, run, model, store, relevant)
    settings = {
        "tokens": positive_numbers(tokens, "tokens"),
        "depths": positive_numbers(depths, "depths"),
        "tokeniser": tokeniser,
    }
    settings |= {"english_spans": english_spans, "answers_in": answers_in}
    asked, everyone, parallel, types = _questions(task, questions, languages)
    if model is not None:
        given, ranked, searched = _ask(task, model, store, index, asked, passages)
    else:
        given, ranked, searched = *_read(task, predictions, run, corpus, asked, everyone), None
    from class_jax.evaluation.runs import read_relevant

    right = {} if relevant is None else read_relevant(relevant, everyone)
    parts = _score(task, asked, given, ranked, right, parallel, settings)
    breakdowns = _break_down(asked, parts, ranked, english, types, seen, tokeniser)
    inputs = {"questions": questions, "predictions": predictions, "run": run, "model": model, "relevant": relevant}
    known = name or (predictions or run or Path(model)).stem
    report = _report(task, known, asked, parts, corpus_name or searched, inputs, breakdowns, samples)
    if out is not None:
        from class_jax.reports.reports import write_report

        write_report(out, report)
    show(report_tables(report), form)


def evaluate_files(
    task: str,
    questions: Path,
    name: str,
    *,
    predictions: Path | None = None,
    run: Path | None = None,
    relevant: Path | None = None,
    samples: int = 10_000,
) -> dict[str, Any]:
    """Scores predictions and ranked passages as `class-jax evaluate` does with its defaults.

    Args:
      task: one of `TASKS`.
      questions, predictions, run, relevant: files; see the command.
      name: of the run, for tables.
      samples: of the bootstrap.

    Returns:
      The report; see `class_jax.reports.reports.make_report`.
    """
    _check(task, "table", predictions, run, None, None, relevant)
    from class_jax.evaluation.runs import read_relevant

    asked, everyone, parallel, types = _questions(task, questions, None)
    given, ranked = _read(task, predictions, run, None, asked, everyone)
    settings = {"tokens": [2000, 5000], "depths": [], "tokeniser": "auto", "english_spans": False, "answers_in": "en"}
    right = {} if relevant is None else read_relevant(relevant, everyone)
    parts = _score(task, asked, given, ranked, right, parallel, settings)
    breakdowns = _break_down(asked, parts, ranked, None, types, None, "auto")
    inputs = {"questions": questions, "predictions": predictions, "run": run, "relevant": relevant}
    return _report(task, name, asked, parts, None, inputs, breakdowns, samples)


def _report(
    task: str,
    name: str,
    questions: "list[Question]",
    parts: "dict[str, Scores]",
    corpus: str | None,
    inputs: Mapping[str, Any],
    breakdowns: dict[str, dict[str, Any]],
    samples: int,
) -> dict[str, Any]:
    from class_jax.reports.reports import make_report

    files = {key: str(value) for key, value in inputs.items() if value is not None}
    return make_report(
        task, name, questions, parts, corpus=corpus, inputs=files, breakdowns=breakdowns, samples=samples
    )


def report_tables(report: Mapping[str, Any]) -> "list[Table]":
    """All tables of a report: its parts, then its breakdowns with the published rows of Tables 7 to 9."""
    from class_jax.reports.reports import breakdown_tables, report_table

    return [*(report_table(report, part) for part in report["parts"]), *breakdown_tables(report)]


def show(tables: "Sequence[Table]", form: str, out: Path | None = None) -> None:
    """Prints tables in a form, or writes them to a file.

    Raises:
      InputError: for an unknown form, or if the disk refuses the write.
    """
    from class_jax.reports.tables import FORMS

    if form not in FORMS:
        raise InputError(f"no table can be shown as {form!r}", key="format", remedy=nearest(form, FORMS))
    if form == "table" and out is None:
        for i, table in enumerate(tables):
            if i:
                typer.echo()
            table.print()
        return
    texts = [table.text(form) for table in tables]
    text = f"[{','.join(texts)}]\n" if form == "json" and len(texts) > 1 else "\n".join(texts)
    if out is None:
        typer.echo(text, nl=False)
        return
    with replacing(out) as f:
        f.write(text)


def numbers_or_names(text: str | None) -> list[str]:
    """The entries of a list with commas, without blanks."""
    return [entry.strip() for entry in (text or "").split(",") if entry.strip()]


def positive_numbers(text: str | None, key: str, example: str = "2000,5000", *, needed: bool = False) -> list[int]:
    """The entries of a list of whole numbers above 0, such as `example`.

    Raises:
      InputError: naming the option `key`, if the text is something else, or empty where one number is `needed`.
    """
    entries = numbers_or_names(text)
    if (needed and not entries) or not all(entry.isdecimal() and int(entry) > 0 for entry in entries):
        raise InputError(f"{text!r} is no list of numbers above 0", key=key, remedy=f"write {example}")
    return [int(entry) for entry in entries]


def _check(
    task: str,
    form: str,
    predictions: Path | None,
    run: Path | None,
    model: str | None,
    store: Path | None,
    relevant: Path | None,
) -> None:
    """Raises InputError for options that don't go together, before anything long begins."""
    from class_jax.reports.tables import FORMS

    if task not in TASKS:
        raise InputError(f"no task {task!r}", key="TASK", remedy=nearest(task, TASKS))
    if form not in FORMS:
        raise InputError(f"no table can be shown as {form!r}", key="format", remedy=nearest(form, FORMS))
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


def _questions(
    task: str, path: Path, languages: str | None
) -> "tuple[list[Question], list[Question], dict | None, dict[str, str] | None]":
    """Questions to score, all of the file, and of MKQA the answers in all languages and (public file) answer types.

    Without `languages`, all are scored, but of MKQA's public file the paper's 20 unseen ones.
    """
    from class_jax.evaluation.mkqa import UNSEEN_LANGUAGES, parallel_answers, read_types
    from class_jax.evaluation.passages import parallel_id
    from class_jax.questions.readers import read_mkqa, read_xor

    wanted = None if languages is None else numbers_or_names(languages)
    types = None
    if task == "mkqa" and _is_public_mkqa(path):
        everyone, by_id = list(read_mkqa(path)), read_types(path)
        types = {q.id: by_id[parallel_id(q.id, q.language)] for q in everyone}
        wanted = list(UNSEEN_LANGUAGES) if wanted is None else wanted
    else:
        everyone = list(read_xor(path))
    if not everyone:
        raise InputError("no questions", file=path)
    parallel = parallel_answers(everyone) if task == "mkqa" else None
    if wanted is None:
        return everyone, everyone, parallel, types
    known = {question.language for question in everyone}
    for language in wanted:
        if language not in known:
            raise InputError("no question in this language", file=path, key=language, remedy=nearest(language, known))
    return [question for question in everyone if question.language in wanted], everyone, parallel, types


def _is_public_mkqa(path: Path) -> bool:
    """Whether the first record has all languages in it, as the public file's do; readers tell what else is wrong."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as f:
            return b'"queries"' in f.readline()
    except OSError:
        return False


def _read(
    task: str,
    predictions: Path | None,
    run: Path | None,
    corpus: Path | None,
    asked: "list[Question]",
    everyone: "list[Question]",
) -> "tuple[dict[str, str] | None, Ranked | None]":
    """Answers and passages from files; of a file in more languages than asked for, those asked for."""
    from class_jax.evaluation.predictions import read_answers
    from class_jax.evaluation.runs import read_run, with_texts

    kept = {question.id for question in asked}
    given = ranked = None
    if predictions is not None:
        given = {id: text for id, text in read_answers(predictions, everyone).items() if id in kept}
    if run is not None:
        ranked = _of(read_run(run, everyone), kept)
        if not ranked.texts and (corpus is not None or task != "passages"):
            if corpus is None:
                raise InputError("holds passage ids alone", file=run, remedy="give the passages with --corpus")
            ranked = with_texts(ranked, corpus)
    return given, ranked


def _of(ranked: "Ranked", ids: set[str]) -> "Ranked":
    """The lists of some questions."""
    fields = ("ids", "texts", "scores")
    return dataclasses.replace(
        ranked, **{key: {id: row for id, row in getattr(ranked, key).items() if id in ids} for key in fields}
    )


def _ask(
    task: str, model: str, store: Path, index: Path | None, questions: "list[Question]", passages: int
) -> "tuple[dict[str, str] | None, Ranked, str]":
    """Answers (of tasks that score them) and passages of a model, and the fingerprint of what it searched."""
    from tqdm import tqdm

    from class_jax.api import CLASS, Searcher
    from class_jax.evaluation.runs import Ranked

    loaded = CLASS.from_pretrained(model)
    searcher = Searcher.open(store, index, vocabulary=loaded.vocabulary)
    given: dict[str, str] = {}
    ids: dict[str, list[str]] = {}
    texts: dict[str, list[str]] = {}
    reads = task in ("xor-full", "mkqa")
    with tqdm(total=len(questions), unit="question", desc=task, disable=None) as bar:
        for start in range(0, len(questions), _BLOCK):
            block = questions[start : start + _BLOCK]
            asked, codes = [q.text for q in block], [q.language for q in block]
            if reads:
                for question, answer in zip(
                    block, loaded.answer(asked, searcher, passages, codes, progress=False), strict=True
                ):
                    given[question.id] = answer.answer
                    ids[question.id] = [passage.id for passage in answer.passages]
                    texts[question.id] = [passage.text for passage in answer.passages]
            else:
                rows = loaded.retrieve(asked, searcher, passages, codes).rows
                for question, row in zip(block, rows, strict=True):
                    found = [searcher.store.passage(int(r)) for r in row if r >= 0]
                    ids[question.id] = [passage.id for passage in found]
                    texts[question.id] = [passage.text for passage in found]
            bar.update(len(block))
    return given if reads else None, Ranked("ctxs", model, ids, texts), searcher.store.fingerprint


def _score(
    task: str,
    questions: "list[Question]",
    given: Mapping[str, str] | None,
    ranked: "Ranked | None",
    right: Mapping[str, set[str]],
    parallel: dict | None,
    settings: Mapping[str, Any],
) -> "dict[str, Scores]":
    """The scores that the task asks for, by part."""
    from class_jax.evaluation.mkqa import score_mkqa_retrieval
    from class_jax.evaluation.passages import score_containment, score_passages
    from class_jax.evaluation.xor_full import score_answers
    from class_jax.evaluation.xor_retrieve import score_retrieval

    parts: dict[str, Scores] = {}
    splitter = settings["tokeniser"]
    if given is not None:
        parts["answers"] = score_answers(questions, given, settings["english_spans"])
    if ranked is None:
        return parts
    if task == "passages":
        if not ranked.ids:
            raise InputError(
                "no passage ids, which this task needs", file=ranked.file, remedy="give a TREC run or ctxs"
            )
        lists, gold = [ranked.ids.get(q.id, ()) for q in questions], [right.get(q.id, ()) for q in questions]
        scores = score_passages(questions, lists, gold, settings["depths"] or (1, 5, 20))
        absent = [id for id in scores.ids if id not in ranked.ids]
        parts["passages"] = dataclasses.replace(scores, missing=absent)
    elif task == "mkqa":
        depths = settings["depths"] or (100,)
        parts["retrieval"] = score_mkqa_retrieval(
            questions, ranked.texts, parallel, settings["tokens"], depths, settings["answers_in"], splitter
        )
    elif task == "xor-full":
        parts["retrieval"] = score_containment(questions, ranked.texts, settings["depths"] or (100,), splitter)
    else:
        parts["retrieval"] = score_retrieval(questions, ranked.texts, settings["tokens"], splitter)
    return parts


def _break_down(
    questions: "list[Question]",
    parts: "Mapping[str, Scores]",
    ranked: "Ranked | None",
    english: Path | None,
    types: Mapping[str, str] | None,
    seen: str | None,
    tokeniser: str,
) -> dict[str, dict[str, Any]]:
    """Averages by kind of question, by title."""
    from class_jax.questions.readers import read_xor
    from class_jax.reports import breakdown

    kinds = {
        "numerical answers": (breakdown.numerical_groups(questions), (breakdown.NUMERICAL, breakdown.OTHER)),
        "answer types": (breakdown.type_groups(questions, types), None if types else breakdown.ANSWER_TYPES),
    }
    if seen is not None:
        groups = breakdown.language_groups(questions, numbers_or_names(seen))
        kinds["languages"] = (groups, (breakdown.SEEN, breakdown.UNSEEN))
    found = {}
    for part, scores in parts.items():
        for title, (groups, order) in kinds.items():
            if set(groups) & set(scores.ids):
                found[f"{part}: {title}"] = breakdown.break_down(scores, groups, order)
    if english is not None:
        answers = {question.id: question.answers for question in read_xor(english)}
        if "answers" in parts:
            needing = dict.fromkeys(answers, "need English evidence")
            found["answers: cross-lingual questions"] = breakdown.break_down(parts["answers"], needing)
        if ranked is not None:
            evidence = breakdown.score_evidence(questions, ranked.texts, answers, tokeniser=tokeniser)
            whole = dict.fromkeys(evidence.ids, "need English evidence")
            found["evidence found"] = breakdown.break_down(evidence, whole)
            if "answers" in parts:
                groups = breakdown.evidence_groups(questions, ranked.texts, answers, tokeniser=tokeniser)
                found["answers: evidence in 10k tokens"] = breakdown.break_down(
                    parts["answers"], groups, breakdown.EVIDENCE
                )
    return found
