# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax search`: passages for questions, as files that others read; and why a passage was found."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from class_jax.commands.printing import AsJson, note, show
from class_jax.errors import InputError

if TYPE_CHECKING:
    from class_jax.retrieval.explanation import ScoreExplanation

_SHOWN, _SNIPPET = 10, 100


def search(
    store: Annotated[Path, typer.Option(help="token store of the passages")],
    question: Annotated[str | None, typer.Argument(help="one question; its passages are printed")] = None,
    model: Annotated[str | None, typer.Option(help="folder of a model or of a training run, or a hub id")] = None,
    index: Annotated[Path | None, typer.Option(help="of any kind, or the folder of `class-jax embed`")] = None,
    questions: Annotated[Path | None, typer.Option(help="XOR-TyDi QA JSON lines: id, question, lang")] = None,
    vectors: Annotated[Path | None, typer.Option(help="of the questions, from --save-vectors: needs no model")] = None,
    save_vectors: Annotated[Path | None, typer.Option(help=".npz of the questions' vectors to write")] = None,
    trec: Annotated[Path | None, typer.Option(help="TREC run file to write")] = None,
    ctxs: Annotated[Path | None, typer.Option(help="JSON in DPR's and CORA's `ctxs` layout to write")] = None,
    xor_retrieve: Annotated[Path | None, typer.Option(help="official XOR-Retrieve predictions to write")] = None,
    k: Annotated[int, typer.Option("-k", "--passages", help="passages for each question", min=1)] = 100,
    rescore: Annotated[
        int, typer.Option(help="embed this many of an index's hits again and rank by exact scores", min=0)
    ] = 0,
    probes: Annotated[
        int | None, typer.Option(help="residual: centroids looked at for each question token", min=1)
    ] = None,
    neighbours: Annotated[
        int | None, typer.Option(help="scann of token vectors: vectors found for each question token", min=1)
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(help="residual, scann of token vectors: passages scored in full", min=1)
    ] = None,
    explain: Annotated[str | None, typer.Option(help="a question: which tokens matched in --passage")] = None,
    passage: Annotated[str | None, typer.Option(help="id of the passage to explain")] = None,
    language: Annotated[str | None, typer.Option(help="code of the single question's language")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="SentencePiece model, if not beside the weights")] = None,
    allow_other_model: Annotated[
        bool, typer.Option("--allow-other-model", help="search although weights differ")
    ] = False,
    verify: Annotated[bool, typer.Option("--verify", help="check the index's digests first")] = False,
    as_json: AsJson = False,
) -> None:
    """Finds passages for one question or a file of them."""
    if sum(x is not None for x in (question, questions, explain)) != 1:
        raise InputError("give one question, a file of them (--questions), or --explain", key="questions")
    if (explain is None) != (passage is None):
        raise InputError("--explain and --passage go together", remedy="give both or none")
    if vectors is None and model is None:
        raise InputError("no model to embed questions with", key="model", remedy="give --model, or --vectors")
    if vectors is not None and (questions is None or rescore):
        raise InputError("goes with --questions, without --rescore", key="vectors")
    outputs = {"trec": trec, "ctxs": ctxs, "xor-retrieve": xor_retrieve, "save-vectors": save_vectors}
    if questions is not None and not any(outputs.values()):
        raise InputError("nowhere to write", key="questions", remedy=f"give one of --{', --'.join(outputs)}")
    from class_jax.common.compilation_cache import use_compilation_cache

    use_compilation_cache()
    from class_jax.api import CLASS
    from class_jax.corpus.store import TokenStore
    from class_jax.evaluation import search_files as room
    from class_jax.questions.readers import Question, read_xor

    loaded = None if model is None else CLASS.from_pretrained(model, vocabulary=vocabulary)
    corpus = TokenStore.open(store, None if loaded is None else loaded.vocabulary)
    if explain is not None:
        from class_jax.retrieval.explanation import explain_passage

        found = explain_passage(loaded, corpus, explain, passage, language)
        show(_explained(found), lambda: _print_explanation(found), as_json)
        return
    asked = [Question("question", question, (), language)] if question is not None else list(read_xor(questions))
    if not asked:
        raise InputError("no questions", file=questions)
    embedded, made_with = room.question_vectors(loaded, asked, vectors)
    if save_vectors is not None:
        room.save_vectors(save_vectors, asked, embedded, made_with)
        note(f"{save_vectors}: vectors of {len(asked)} questions", as_json)
    opened = room.open_searched(index, corpus, loaded, made_with, allow_other_model, verify)
    room.set_search_options(opened, {"probes": probes, "neighbours": neighbours, "candidates": candidates})
    rows, scores = room.search_questions(opened, loaded, corpus, asked, embedded, k, rescore)
    if question is not None:
        hits = [
            (corpus.passage(int(row)), float(score)) for row, score in zip(rows[0], scores[0], strict=True) if row >= 0
        ]
        listed = [{"rank": rank, "score": score, **_fields(p)} for rank, (p, score) in enumerate(hits, start=1)]
        show(listed, "\n".join(map(_line, listed[:_SHOWN])), as_json)
        return
    from class_jax.evaluation import run_writers

    if trec is not None:
        run_writers.write_trec(trec, asked, corpus, rows, scores)
    if ctxs is not None:
        run_writers.write_ctxs(ctxs, asked, corpus, rows, scores)
    if xor_retrieve is not None:
        run_writers.write_xor_retrieve(xor_retrieve, asked, corpus, rows)
    written, found = [*filter(None, (trec, ctxs, xor_retrieve))], int((rows >= 0).sum())
    lines = [f"{path}: {len(asked)} questions, {found} passages" for path in written]
    show({"out": written, "questions": len(asked), "passages": found}, "\n".join(lines), as_json)


def _fields(passage: Any) -> dict[str, str]:
    return {"id": passage.id, "title": passage.title, "text": passage.text}


def _line(hit: dict[str, Any]) -> str:
    text = hit["text"] if len(hit["text"]) <= _SNIPPET else hit["text"][:_SNIPPET] + "..."
    return f"{hit['rank']:3}  {hit['score']:8.3f}  {hit['id']}  {hit['title']}: {text}"


def _explained(found: "ScoreExplanation") -> dict[str, Any]:
    matches = [dataclasses.asdict(match) for match in found.matches]
    return {"passage": _fields(found.passage), "score": found.score, "matches": matches}


def _print_explanation(found: "ScoreExplanation") -> None:
    """Prints each question token, the passage token that it matched, their product and its share."""
    typer.echo(f"{found.passage.id}  {found.passage.title}\nscore {found.score:.3f}\n")
    typer.echo(f"{'question token':20} {'passage token':20} {'place':>5} {'product':>9} {'share':>7}")
    for match in found.matches:
        tokens = f"{match.question_token:20} {match.passage_token:20}"
        typer.echo(f"{tokens} {match.place:5} {match.score:9.3f} {match.share:7.1%}")
