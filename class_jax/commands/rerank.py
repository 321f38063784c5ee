# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax rerank`: retrieved passages in the order of how likely a model finds the question, given each."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from class_jax.errors import InputError

if TYPE_CHECKING:
    from class_jax.questions.readers import Question
    from class_jax.reranking.ranked import OnBad, RankedList
    from class_jax.reranking.rerank import Settings
    from class_jax.reranking.score import Scorer

_log = logging.getLogger(__name__)


def rerank(
    ranked: Annotated[Path, typer.Argument(help="DPR/CORA `ctxs` JSON, a TREC run or XOR-Retrieve predictions")],
    model: Annotated[str, typer.Option(help="mBART, mT5 or CLASS: a folder, a training run, or a hub id")],
    out: Annotated[Path, typer.Option(help="file to write; its log of scores lies beside it")],
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
    tags: Annotated[bool, typer.Option("--tags/--no-tags", help="tell mBART the languages")] = True,
    template: Annotated[str | None, typer.Option(help="of the passage, with {title} and {text}")] = None,
    max_passage_tokens: Annotated[int, typer.Option(help="longer passages are cut", min=8)] = 512,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
    dtype: Annotated[str | None, typer.Option(help="of matrix products: float32 or bfloat16")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="warn of a bad question, leave it as it was, and go on")
    ] = False,
) -> None:
    """Re-ranks passages by the question's likelihood, and compares the ranks before and after by language."""
    _check_options(form=format, out_form=out_format, metric=metric, settings=settings, tune=tune, weight=weight)
    from class_jax.reranking import ranked as files
    from class_jax.reranking import rerank as ranks
    from class_jax.reranking.scorers import load_scorer

    bad: list[InputError] = []
    form = files.detect_format(ranked) if format == "auto" else format
    lists = read_lists(
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
    right = _right(lists, gold, {"tune": tune, "table": table})
    loaded = load_scorer(
        model,
        scorer,
        vocabulary=vocabulary,
        tags=tags,
        template=template,
        dtype=dtype,
        max_passage_tokens=max_passage_tokens,
    )
    chosen = chosen_settings(settings, weight, loaded)
    scores = ranks.score_lists(loaded, lists, log_path(out), top=top, on_bad=on_bad(bad, skip_bad))
    if tune is not None:
        chosen = ranks.tune(lists, scores, right, metric, loaded.fingerprint)
        chosen.write(tune)
        typer.echo(f"{tune}: weight {chosen.weight:.2f}, languages {' '.join(chosen.languages) or 'none'}")
    changed = [ranks.rerank(one, scores.get(one.question.id), chosen) for one in lists]
    files.write_ranked(out, changed, out_format or form)
    typer.echo(f"{out}: {len(changed)} questions, {sum(map(len, scores.values()))} passages scored")
    if bad:
        typer.echo(f"problems: {len(bad)}; questions that they concern are as they were, or left out")
    _compare(lists, changed, right, table)


def _check_options(
    *, form: str, out_form: str | None, metric: str, settings: Path | None, tune: Path | None, weight: float | None
) -> None:
    """Refuses what would only be found out after all is scored."""
    from class_jax.errors import nearest
    from class_jax.reranking.ranked import FORMATS
    from class_jax.reranking.rerank import METRICS

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


def _right(
    lists: "list[RankedList]", gold: Path | None, wanted: dict[str, Path | None]
) -> "list[frozenset[str] | None]":
    """Ids of each list's right passages; refuses options that want them where nothing tells which they are."""
    from class_jax.evaluation.runs import read_relevant
    from class_jax.reranking.rerank import relevant

    right = relevant(lists, None if gold is None else read_relevant(gold))
    for key, file in wanted.items():
        if file is not None and all(ids is None for ids in right):
            raise InputError("nothing tells which passages are right", key=key, remedy="give --gold, or answers")
    return right


def _compare(
    before: "list[RankedList]", after: "list[RankedList]", right: "list[frozenset[str] | None]", table: Path | None
) -> None:
    """Prints both ranks by language where it is known what is right; and writes the table."""
    from class_jax.reranking.rerank import comparison, score_ranks

    if all(ids is None for ids in right):
        return
    compared = comparison(score_ranks(before, right), score_ranks(after, right))
    compared.print()
    if table is not None:
        compared.write(table)


def log_path(out: Path) -> Path:
    """Where scores are kept question by question, while passages are being re-ranked and after."""
    return out.with_name(f"{out.name}.scores.jsonl")


def on_bad(bad: list[InputError], skip: bool) -> "OnBad":
    """What to do with a bad question: end, or warn, note it in `bad` and go on."""

    def met(error: InputError) -> None:
        if not skip:
            raise error
        _log.warning("%s", error)
        bad.append(error)

    return met


def read_lists(
    ranked: Path,
    form: str,
    *,
    bad: list[InputError],
    skip_bad: bool,
    questions: Path | None = None,
    passages: Path | None = None,
    language: str | None = None,
    passage_language: str | None = None,
    passage_languages: Path | None = None,
) -> "list[RankedList]":
    """Reads ranked lists with the files that their format needs; arguments as the command's options.

    Raises:
      InputError: see `class_jax.reranking.ranked.read_ranked`.
    """
    from class_jax.corpus.inputs import language_code
    from class_jax.questions.readers import read_xor
    from class_jax.reranking import ranked as files

    asked: list[Question] | None = None if questions is None else list(read_xor(questions))
    texts = files.passages_of_run(passages, ranked) if form == "trec" and passages is not None else None
    return files.read_ranked(
        ranked,
        form,
        questions=asked,
        passages=texts,
        language=None if language is None else language_code(language),
        passage_language=None if passage_language is None else language_code(passage_language),
        passage_languages=None if passage_languages is None else files.read_passage_languages(passage_languages),
        on_bad=on_bad(bad, skip_bad),
    )


def chosen_settings(file: Path | None, weight: float | None, scorer: "Scorer") -> "Settings":
    """The settings of a file that `--tune` wrote, or a weight for all languages.

    Raises:
      InputError: if the file was chosen for another scorer.
    """
    from class_jax.reranking.rerank import Settings

    if file is None:
        return Settings(weight or 0.0)
    read = Settings.read(file)
    if read.scorer not in (None, scorer.fingerprint):
        raise InputError(
            f"chosen for the scorer {read.scorer[:12]}, but this one is {scorer.fingerprint[:12]}",
            file=file,
            remedy="tune anew, or with the same model, tags, template and --max-passage-tokens",
        )
    return read
