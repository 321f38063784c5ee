# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax embed`, `index` and `search`, as a user calls them."""

import json

import numpy as np
import pytest
import tiny_corpus
import tiny_run
import typer
from typer.testing import CliRunner

from class_jax import api
from class_jax.commands import embed as embed_commands
from class_jax.commands import search as search_command
from class_jax.corpus.store import TokenStore, build_store
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.evaluation.run_writers import write_trec
from class_jax.evaluation.runs import read_ranked_passages
from class_jax.evaluation.search_files import set_search_options
from class_jax.evaluation.xor_retrieve import evaluate_retrieval
from class_jax.questions.readers import read_xor
from class_jax.retrieval.explain import explain
from class_jax.retrieval.index import open_index

K = 5


def invoke(*arguments):
    app = typer.Typer()
    for name, function in (("embed", embed_commands.embed), ("index", embed_commands.index)):
        app.command(name)(function)
    app.command("search")(search_command.search)
    return CliRunner().invoke(app, [str(x) for x in arguments])


def succeeds(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.exception
    return result.output


def fails(*arguments):
    result = invoke(*arguments)
    assert isinstance(result.exception, InputError), (result.output, result.exception)
    return str(result.exception)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a token store, questions, vectors and an index of them, all made by the commands."""
    folder = tmp_path_factory.mktemp("search")
    tiny_corpus.build_models(folder)
    lines = [
        {"id": f"q{i}", "question": f"joki {t}", "answers": [r], "lang": ("fi", " ar")[i % 2]}
        for i, (t, r) in enumerate(zip(tiny_run._TOWNS[:6], tiny_run._RIVERS, strict=False))
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = ("--model", folder / "model1")
    output = succeeds("embed", *model, "--store", folder / "store", "--out", folder / "v", "--dtype", "float32")
    assert "vectors of 48 passages, 32.0 bytes a vector" in output
    output = succeeds(
        "index", "--vectors", folder / "v", "--out", folder / "r", "--bytes", 60, "--centroids", 32, *model,
        "--questions", folder / "questions.jsonl",
    )  # fmt: skip
    assert "bytes a vector (codec" in output
    return folder


def arguments(folder, *more, index="v", model="model1"):
    given = ["search", "--store", folder / "store", "-k", K, *more]
    given += ["--index", folder / index] if index else []
    return given + (["--model", folder / model] if model else [])


def of_file(folder, *more, **settings):
    return arguments(folder, "--questions", folder / "questions.jsonl", *more, **settings)


@pytest.fixture(scope="module")
def exact(folder):
    """Rows and scores without an index, by the model itself."""
    questions = list(read_xor(folder / "questions.jsonl"))
    model, store = api.CLASS.from_pretrained(folder / "model1"), TokenStore.open(folder / "store")
    found = model.retrieve([q.text for q in questions], store, K, [q.language for q in questions])
    return questions, store, found


def test_formats(folder, exact, tmp_path):
    questions, store, found = exact
    names = {"trec": tmp_path / "run.trec", "ctxs": tmp_path / "ctxs.json", "xor-retrieve": tmp_path / "xor.json"}
    output = succeeds(*of_file(folder, *(x for name, path in names.items() for x in (f"--{name}", path))))
    assert output.count("6 questions, 30 passages") == 3
    trec = [line.split(" ") for line in names["trec"].read_text().splitlines()]
    assert [line[:4] for line in trec[:2]] == [
        ["q0", "Q0", store.id(found.rows[0, 0]), "1"],
        ["q0", "Q0", store.id(found.rows[0, 1]), "2"],
    ]
    assert [line[2] for line in trec] == [store.id(row) for row in found.rows.ravel()]
    np.testing.assert_allclose([float(line[4]) for line in trec], found.scores.ravel(), rtol=1e-4, atol=1e-5)
    ctxs = json.loads(names["ctxs"].read_text())
    assert list(ctxs[1]) == ["q_id", "question", "lang", "answers", "ctxs"] and ctxs[1]["lang"] == "ar"
    first = store.passage(found.rows[1, 0])
    assert ctxs[1]["ctxs"][0] | {"score": ""} == {
        "id": first.id, "title": first.title, "text": first.text, "score": "", "has_answer": "Pesk" in first.text,
    }  # fmt: skip
    lists = read_ranked_passages(names["xor-retrieve"], questions).texts
    assert lists == {q.id: [store.passage(r).text for r in rows] for q, rows in zip(questions, found.rows, strict=True)}
    has_answer = [any(p["has_answer"] for p in entry["ctxs"]) for entry in ctxs]
    assert evaluate_retrieval(questions, lists)["macro"]["R@2kt"] == pytest.approx(
        np.mean([np.mean(has_answer[::2]), np.mean(has_answer[1::2])])
    )


def test_without_an_index_and_by_the_residual_index(folder, exact, tmp_path):
    runs = {}
    for name, settings in (("none", {"index": None}), ("exact", {}), ("residual", {"index": "r"})):
        succeeds(*of_file(folder, "--trec", tmp_path / name, **settings))
        runs[name] = [line.split()[2] for line in (tmp_path / name).read_text().splitlines()]
    assert runs["none"] == runs["exact"]
    assert np.mean([a in runs["exact"][i // K * K :][:K] for i, a in enumerate(runs["residual"])]) > 0.9
    succeeds(*of_file(folder, "--rescore", 20, "--trec", tmp_path / "rescored", index="r"))
    pairs = ([line.split() for line in (tmp_path / name).read_text().splitlines()] for name in ("rescored", "exact"))
    for rescored, exact_line in zip(*pairs, strict=True):
        assert rescored[:4] == exact_line[:4] and float(rescored[4]) == pytest.approx(float(exact_line[4]), rel=1e-5)


def test_precomputed_vectors(folder, tmp_path):
    succeeds(*of_file(folder, "--trec", tmp_path / "a", "--save-vectors", tmp_path / "q.npz"))
    succeeds(*of_file(folder, "--trec", tmp_path / "b", "--vectors", tmp_path / "q.npz", model=None))
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
    lines = (folder / "questions.jsonl").read_text().splitlines()
    (tmp_path / "other.jsonl").write_text("\n".join(lines[1:]))
    message = fails(
        *arguments(folder, "--vectors", tmp_path / "q.npz", "--questions", tmp_path / "other.jsonl", model=None),
        "--trec", tmp_path / "c",
    )  # fmt: skip
    assert "the vectors are of other questions" in message
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    more = ("--trec", tmp_path / "c", "--vectors", tmp_path / "bad.npz")
    assert "not a file of question vectors" in fails(*of_file(folder, *more, model=None))


def test_one_question(folder, exact):
    questions, store, found = exact
    lines = succeeds(*arguments(folder, questions[0].text, "--language", "fi")).splitlines()
    assert [line.split()[2] for line in lines] == [store.id(row) for row in found.rows[0]]
    assert lines[0].split()[0] == "1" and float(lines[0].split()[1]) == pytest.approx(found.scores[0, 0], abs=2e-3)


def test_json_is_one_document(folder, exact, tmp_path):
    questions, store, found = exact
    hits = json.loads(succeeds(*arguments(folder, questions[0].text, "--language", "fi", "--json")))
    assert [hit["id"] for hit in hits] == [store.id(row) for row in found.rows[0]]
    assert [hit["rank"] for hit in hits] == list(range(1, K + 1))
    given = ("--explain", questions[0].text, "--passage", hits[0]["id"], "--language", "fi", "--json")
    why = json.loads(succeeds(*arguments(folder, *given, index=None)))
    assert why["passage"]["id"] == hits[0]["id"] and why["score"] == pytest.approx(hits[0]["score"], abs=2e-3)
    assert sum(match["score"] for match in why["matches"]) == pytest.approx(why["score"])
    written = json.loads(succeeds(*of_file(folder, "--trec", tmp_path / "run", "--json")))
    assert written == {"out": [str(tmp_path / "run")], "questions": 6, "passages": 30}


def test_explain_adds_up(folder, exact):
    questions, store, found = exact
    passage = store.id(found.rows[0, 0])
    output = succeeds(
        *arguments(folder, "--explain", questions[0].text, "--passage", passage, "--language", "fi", index=None)
    )
    lines = output.splitlines()
    assert lines[0].split()[0] == passage
    assert float(lines[1].split()[1]) == pytest.approx(found.scores[0, 0], abs=2e-3)
    table = [line.split() for line in lines[4:]]
    assert len(table) == len(found.tokens[0])
    assert sum(float(line[-2]) for line in table) == pytest.approx(found.scores[0, 0], abs=0.05)
    assert sum(float(line[-1].rstrip("%")) for line in table) == pytest.approx(100, abs=1)
    ids = store.tokens(found.rows[0, 0])
    pieces = Vocabulary.load(folder / "vocabulary.model").piece_texts()
    for line in table:
        assert line[-4] in (pieces[ids[int(line[-3])]], "</s>", "<unk>", f"<{ids[int(line[-3])]}>")


def test_explain_takes_the_best_match():
    question = np.array([[1, 0], [0, -2]], np.float32)
    passage = np.array([[3, 1], [4, 5], [-1, -1]], np.float32)
    first, second = explain(question, passage)
    assert (first.passage_token, first.score) == (1, 4) and (second.passage_token, second.score) == (2, 2)
    assert first.share == pytest.approx(4 / 6)
    with pytest.raises(InputError, match="dense retriever"):
        explain(question[0], passage[0])


def test_settings_of_an_index(folder, tmp_path):
    """Fewer candidates than there are passages leave some out of a long list; without the option none is missing."""
    counts = []
    for chosen in ([], ["--candidates", 20, "--probes", 1]):
        succeeds(*of_file(folder, "--trec", tmp_path / "run", "-k", 15, index="r"), *chosen)
        counts.append((tmp_path / "run").read_text())
    opened = open_index(folder / "r")
    set_search_options(opened, {"probes": 3, "candidates": 21, "neighbours": None})
    assert (opened.probes, opened.candidates) == (3, 21) and counts[0] != counts[1]
    assert "--neighbours: an index of the kind 'residual' has none" in fails(
        *of_file(folder, "--trec", tmp_path / "a", index="r"), "--neighbours", 9
    )
    assert "--probes: an index of the kind 'exact' has none" in fails(
        *of_file(folder, "--trec", tmp_path / "a", index="v"), "--probes", 9
    )


def test_bad_input(folder, tmp_path):
    assert "not with" in fails(*of_file(folder, "--trec", tmp_path / "a", model="model2"))
    succeeds(*of_file(folder, "--trec", tmp_path / "a", "--allow-other-model", model="model2"))
    build_store(
        folder / "passages.tsv", Vocabulary.load(folder / "vocabulary.model"), tmp_path / "s", 9, progress=False
    )
    message = fails(*of_file(folder, "--trec", tmp_path / "a"), "--store", tmp_path / "s")
    assert message.startswith("corpus: the index was made of the corpus")
    assert "give one question" in fails(*arguments(folder))
    assert "nowhere to write" in fails(*of_file(folder))
    assert "--explain and --passage go together" in fails(*arguments(folder, "--explain", "joki"))
    assert "no model" in fails(*of_file(folder, "--trec", tmp_path / "a", model=None))
    assert "unknown passage id" in fails(*arguments(folder, "--explain", "joki", "--passage", "nowhere"))
    assert "no index here" in fails(*of_file(folder, "--trec", tmp_path / "a", index="nowhere"))
    assert "did you mean 'residual'" in fails(
        "index", "--vectors", folder / "v", "--out", tmp_path, "--kind", "residuals"
    )
    assert "an index of the kind 'exact' can't grow" in fails(
        "index", "--vectors", folder / "v", "--out", folder / "v", "--add"
    )
    questions = list(read_xor(folder / "questions.jsonl"))[:1]
    store = TokenStore.open(folder / "store")
    with pytest.raises(InputError, match="can't be in a TREC run"):
        write_trec(tmp_path / "t", questions, store, np.zeros((1, 1), int), np.zeros((1, 1)), tag="my run")
    assert not (tmp_path / "t").exists()
