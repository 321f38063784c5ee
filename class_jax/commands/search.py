# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax search`: passages for questions, as files that others read; and why a passage was found."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from class_jax.common.files import replacing
from class_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from class_jax.api import CLASS
    from class_jax.corpus.store import TokenStore
    from class_jax.models.encode import Vectors
    from class_jax.questions.readers import Question
    from class_jax.retrieval.index import Index

_BLOCK = 64
_SHOWN = 10


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
    from class_jax.api import CLASS
    from class_jax.corpus.store import TokenStore
    from class_jax.questions.readers import Question, read_xor

    loaded = None if model is None else CLASS.from_pretrained(model, vocabulary=vocabulary)
    corpus = TokenStore.open(store, None if loaded is None else loaded.vocabulary)
    if explain is not None:
        typer.echo(explanation(loaded, corpus, explain, passage, language))
        return
    asked = [Question("question", question, (), language)] if question is not None else list(read_xor(questions))
    if not asked:
        raise InputError("no questions", file=questions)
    embedded, made_with = question_vectors(loaded, asked, vectors)
    if save_vectors is not None:
        _save_vectors(save_vectors, asked, embedded, made_with)
    opened = _open(index, corpus, loaded, made_with, allow_other_model, verify)
    set_chosen(opened, {"probes": probes, "neighbours": neighbours, "candidates": candidates})
    rows, scores = _search(opened, loaded, corpus, asked, embedded, k, rescore)
    if question is not None:
        typer.echo(_listing(corpus, rows[0], scores[0]))
        return
    _write(corpus, asked, rows, scores, trec, ctxs, xor_retrieve)


def question_vectors(model: "CLASS | None", questions: "list[Question]", file: Path | None) -> "tuple[Vectors, str]":
    """Embeds questions, or reads their vectors from a file of `--save-vectors`.

    Returns:
      Their vectors, and the fingerprint of the weights that made them.

    Raises:
      InputError: if the file is no such file, or is of other questions.
    """
    from class_jax.models.encode import Vectors

    if file is None:
        embedded = model.encode_questions([q.text for q in questions], [q.language for q in questions])
        return embedded, model.retriever_fingerprint
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as arrays:
            ids, model_print = arrays["ids"].tolist(), str(arrays["model"])
            embedded = Vectors(arrays["vectors"], arrays["mask"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError("not a file of question vectors", file=file, remedy="make it with --save-vectors") from error
    if ids != [question.id for question in questions]:
        raise InputError("the vectors are of other questions", file=file, remedy="make it with --save-vectors")
    return embedded, model_print


def _save_vectors(path: Path, questions: "list[Question]", embedded: "Vectors", made_with: str) -> None:
    import numpy as np

    with replacing(path, "wb") as f:
        ids = np.array([question.id for question in questions])
        np.savez(f, ids=ids, vectors=embedded.vectors, mask=embedded.mask, model=made_with)
    typer.echo(f"{path}: vectors of {len(questions)} questions")


def _open(
    folder: Path | None, store: "TokenStore", model: "CLASS | None", made_with: str, allow_other: bool, verify: bool
) -> "Index | None":
    from class_jax.retrieval.index import check_corpus, check_model, open_index

    if folder is None:
        if model is None:
            raise InputError("no index to search", key="index", remedy="give --index, or --model to embed the store")
        return None
    opened = open_index(folder, verify=verify)
    check_corpus(opened, store.fingerprint)
    check_model(opened, made_with, allow_other)
    return opened


def set_chosen(index: "Index | None", chosen: dict[str, int | None]) -> None:
    """Gives an index what was chosen on the command line.

    Raises:
      InputError: if the index has no such setting.
    """
    for name, value in chosen.items():
        if value is None:
            continue
        if not hasattr(index, name):
            kind = "no index" if index is None else f"an index of the kind {index.kind!r}"
            raise InputError(f"{kind} has none", key=f"--{name}", remedy="leave it out")
        setattr(index, name, value)


def _search(
    index: "Index | None",
    model: "CLASS | None",
    store: "TokenStore",
    questions: "list[Question]",
    embedded: "Vectors",
    k: int,
    rescore: int,
) -> "tuple[np.ndarray, np.ndarray]":
    """Rows [B, k] and scores [B, k]: by the index, or without one by embedding the whole store."""
    import numpy as np
    from tqdm import tqdm

    if index is None:
        found = model.retrieve([q.text for q in questions], store, k, [q.language for q in questions])
        return found.rows, found.scores
    mask = embedded.mask if index.retriever == "multi_vector" else None
    rows, scores = [], []
    with tqdm(total=len(questions), unit="question", desc="search", disable=None) as bar:
        for start in range(0, len(questions), _BLOCK):
            here = slice(start, start + _BLOCK)
            part = embedded.vectors[here], None if mask is None else mask[here]
            found, values = index.search(*part, max(k, rescore))
            if rescore:
                found, values = _rescored(model, store, *part, found, values, rescore)
            rows.append(found[:, :k])
            scores.append(values[:, :k])
            bar.update(len(found))
    return np.concatenate(rows), np.concatenate(scores)


def _rescored(
    model: "CLASS",
    store: "TokenStore",
    vectors: "np.ndarray",
    mask: "np.ndarray | None",
    rows: "np.ndarray",
    scores: "np.ndarray",
    count: int,
) -> "tuple[np.ndarray, np.ndarray]":
    """Ranks the first `count` hits of each question by the scores of passages embedded anew."""
    import numpy as np

    from class_jax.models import inference
    from class_jax.retrieval.rescore import with_model

    exact = with_model(inference.encoder(model.config), inference.retriever_params(model.params), store)
    rows, scores = rows.copy(), scores.copy()
    for b in range(len(rows)):
        held = rows[b, :count][rows[b, :count] >= 0]
        question = vectors[b][mask[b]] if mask is not None else vectors[b][None]
        values = exact(np.asarray(question, np.float32), held)
        order = np.lexsort((held, -values))
        rows[b, : len(held)], scores[b, : len(held)] = held[order], values[order]
        rows[b, len(held) :], scores[b, len(held) :] = -1, -np.inf
    return rows, scores


def explanation(model: "CLASS", store: "TokenStore", question: str, passage_id: str, language: str | None) -> str:
    """Returns a table: each question token, the passage token that it matched, their product and its share.

    Raises:
      InputError: for an unknown passage id, or a dense model.
    """
    import numpy as np

    from class_jax.models import inference
    from class_jax.models.encode import embed_passages
    from class_jax.retrieval.explain import explain

    row = store.row(passage_id)
    ids, lengths = store.batch(np.array([row]))
    encoder, params = inference.encoder(model.config), inference.retriever_params(model.params)
    vectors, mask = embed_passages(encoder, params, ids, lengths)
    asked = model.encode_questions([question], language)
    if model.config.retriever == "dense":
        matches = explain(np.asarray(asked.vectors[0]), np.asarray(vectors[0]))
    matches = explain(np.asarray(asked.vectors[0])[asked.mask[0]], np.asarray(vectors[0])[np.asarray(mask[0])])
    pieces, tokens = model.vocabulary.piece_texts(), model.tokenise([question], language)[0]
    special = {model.vocabulary.eos_id: "</s>", model.vocabulary.unk_id: "<unk>"}

    def shown(id: int) -> str:
        return (pieces[id] if id < len(pieces) else "") or special.get(id, f"<{id}>")

    passage = store.passage(row)
    lines = [f"{passage.id}  {passage.title}", f"score {sum(m.score for m in matches):.3f}", ""]
    lines.append(f"{'question token':20} {'passage token':20} {'place':>5} {'product':>9} {'share':>7}")
    for match in matches:
        left, right = shown(int(tokens[match.question_token])), shown(int(ids[0, match.passage_token]))
        lines.append(f"{left:20} {right:20} {match.passage_token:5} {match.score:9.3f} {match.share:7.1%}")
    return "\n".join(lines)


def _listing(store: "TokenStore", rows: "np.ndarray", scores: "np.ndarray") -> str:
    lines = []
    for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1):
        if row < 0 or rank > _SHOWN:
            break
        passage = store.passage(int(row))
        text = passage.text if len(passage.text) <= 100 else passage.text[:100] + "..."
        lines.append(f"{rank:3}  {score:8.3f}  {passage.id}  {passage.title}: {text}")
    return "\n".join(lines)


def _write(
    store: "TokenStore",
    questions: "list[Question]",
    rows: "np.ndarray",
    scores: "np.ndarray",
    trec: Path | None,
    ctxs: Path | None,
    xor_retrieve: Path | None,
) -> None:
    from class_jax.evaluation import run_writers as results

    if trec is not None:
        results.write_trec(trec, questions, store, rows, scores)
    if ctxs is not None:
        results.write_ctxs(ctxs, questions, store, rows, scores)
    if xor_retrieve is not None:
        results.write_xor_retrieve(xor_retrieve, questions, store, rows)
    for path in filter(None, (trec, ctxs, xor_retrieve)):
        typer.echo(f"{path}: {len(questions)} questions, {int((rows >= 0).sum())} passages")
