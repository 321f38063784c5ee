# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax pipeline`: the four steps, each once; what is read; bad input."""

import json

import numpy as np
import pytest
import tiny_run
import typer
from tiny_model import CONFIG, random_params
from typer.testing import CliRunner

from class_jax import api
from class_jax.commands import pipeline as command
from class_jax.commands import reader_length
from class_jax.corpus.store import build_store
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.questions.readers import Question
from class_jax.reranking import run_pipeline
from class_jax.reranking.pipeline import ListReader
from class_jax.reranking.ranked import Candidate, RankedList


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a store, questions with answers, and the right passages."""
    folder = tmp_path_factory.mktemp("pipeline")
    tiny_run.write_data(folder)
    vocabulary = Vocabulary.load(folder / "vocabulary.model")
    build_store(folder / "passages.tsv", vocabulary, folder / "store", progress=False)
    api.CLASS(CONFIG, random_params(), vocabulary).save_pretrained(folder / "model")
    rows = (folder / "heldout.jsonl").read_text().splitlines()[:3]
    (folder / "questions.jsonl").write_text("\n".join(rows) + "\n")
    gold = (folder / "gold.jsonl").read_text().splitlines()[:3]
    (folder / "three.jsonl").write_text("\n".join(gold) + "\n")
    return folder


def run(folder, out, *arguments):
    app = typer.Typer()
    app.command()(command.pipeline)
    model = folder / "model"
    given = ["--out", out, "--model", model, "--scorer", model, "--max-answer-tokens", 3, "--read", 2, *arguments]
    return CliRunner().invoke(app, [str(x) for x in given])


def steps(result):
    """Names of the steps that were run."""
    assert result.exit_code == 0, result.exception
    named = ("retrieve:", "rerank:", "read_before:", "read_after:", "evaluate:")
    lines = [line for line in result.output.splitlines() if line.startswith(named)]
    return [line.split(":")[0] for line in lines if not line.endswith("(unchanged)")]


def test_four_steps_each_done_once(folder, tmp_path):
    out = tmp_path / "run"
    own = ("--store", folder / "store", "--questions", folder / "questions.jsonl", "--gold", folder / "three.jsonl")
    given = (*own, "--passages", 6, "--top", 4, "--both")
    first = run(folder, out, *given)
    assert steps(first) == ["retrieve", "rerank", "read_before", "read_after", "evaluate"]
    for shown in ("Before and after re-ranking", "xor-full, answers: after", "numerical answers", "after minus before"):
        assert shown in first.output
    before, after = (json.loads((out / name).read_text()) for name in (run_pipeline.RETRIEVED, run_pipeline.RERANKED))
    assert [len(one["ctxs"]) for one in before] == [6, 6, 6]
    assert [c["id"] for c in before[0]["ctxs"][4:]] == [c["id"] for c in after[0]["ctxs"][4:]]
    assert any([c["id"] for c in a["ctxs"]] != [c["id"] for c in b["ctxs"]] for a, b in zip(before, after, strict=True))
    assert json.loads((out / "predictions_after.json").read_text()).keys() == {"h0", "h1", "h2"}
    assert json.loads((out / "report_after.json").read_text())["parts"].keys() == {"answers", "retrieval"}
    assert steps(run(folder, out, *given)) == []
    # What was changed is done again, and what rests on it: with all weight on the retriever the order is its own.
    assert steps(run(folder, out, *given, "--weight", 1)) == ["rerank", "read_after", "evaluate"]
    assert [[c["id"] for c in one["ctxs"]] for one in json.loads((out / run_pipeline.RERANKED).read_text())] == [
        [c["id"] for c in one["ctxs"]] for one in before
    ]
    (out / "predictions_after.json").unlink()
    assert steps(run(folder, out, *given, "--weight", 1)) == ["read_after"]


def test_lists_of_others_are_read(folder, tmp_path):
    corpus = tiny_run.passages()
    lists = []
    for i in range(2):
        ctxs = [
            {"id": str(j), "title": p.title, "text": p.text, "score": str(9 - j)}
            for j, p in enumerate(corpus[i : i + 3])
        ]
        lists.append({"id": f"q{i}", "question": f"joki {i}", "lang": "fi", "answers": ["Onar"], "ctxs": ctxs})
    lists.append({"id": "q2", "question": "tori", "lang": "fi", "answers": ["x"]})
    bad = [ctxs[0], ctxs[1] | {"text": " "}]
    lists.append({"id": "q3", "question": "tori", "lang": "fi", "answers": ["x"], "ctxs": bad})
    lists.append({"id": "q4", "question": "tori", "lang": "xx", "answers": ["x"], "ctxs": ctxs})
    (tmp_path / "mdpr.json").write_text(json.dumps(lists))
    given = ("--ranked", tmp_path / "mdpr.json")
    refused = run(folder, tmp_path / "run", *given)
    assert isinstance(refused.exception, InputError) and "question 3 (q2): ctxs: no list" in str(refused.exception)
    found = run(folder, tmp_path / "run", *given, "--skip-bad")
    assert found.exit_code == 0, found.exception
    assert json.loads((tmp_path / "run" / "predictions_after.json").read_text()).keys() == {"q0", "q1"}
    reranked = {one["id"]: one["ctxs"] for one in json.loads((tmp_path / "run" / "reranked.json").read_text())}
    assert reranked.keys() == {"q0", "q1", "q2", "q3"} and reranked["q3"] == bad
    report = json.loads((tmp_path / "run" / "report_after.json").read_text())
    assert report["parts"]["answers"]["languages"]["fi"]["count"] == 4  # what was not answered counts as wrong


def test_a_budget_of_input_tokens(folder, tmp_path):
    model = api.CLASS.from_pretrained(folder / "model")
    candidates = [Candidate(str(i), p.title, p.text, -i) for i, p in enumerate(tiny_run.passages()[:4])]
    lists = [RankedList(Question("q", "joki", (), "fi"), tuple(candidates))]
    whole = ListReader(model, lists, tmp_path / "a", 4)
    lengths = whole.store.lengths[whole.rows["q"]]
    assert len(lengths) == 4 and whole.read_tokens == lengths.sum()
    room = int(lengths[:2].sum())
    cut = ListReader(model, lists, tmp_path / "b", 4, room)
    assert cut.read_tokens == room and len(cut.rows["q"]) == 2
    assert len(ListReader(model, lists, tmp_path / "c", 4, room - 1).rows["q"]) == 1
    assert len(ListReader(model, lists, tmp_path / "d", 4, 1).rows["q"]) == 1  # one is always read
    [(question, answer)] = cut.answers([lists[0].question], max_answer_tokens=2)
    assert question.id == "q" and [p.id for p in answer.passages] == ["0", "1"]
    np.testing.assert_allclose([p.score for p in answer.passages], [0, -1])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "give --store to retrieve from, or --ranked"),
        (("--store", "s"), "nothing to ask; give --questions"),
        (("--ranked", "r", "--index", "i"), "index: goes with --store"),
        (("--ranked", "r", "--settings", "s", "--weight", "1"), "settings: goes without --weight"),
        (("--ranked", "nothing.json"), "nothing.json: no such file or folder"),
    ],
)
def test_what_the_command_refuses(folder, tmp_path, arguments, problem):
    result = run(folder, tmp_path / "o", *arguments)
    assert isinstance(result.exception, InputError) and problem in str(result.exception), result.output


def test_reading_by_length(folder, tmp_path):
    corpus = tiny_run.passages()
    lists = []
    for i in range(2):
        ctxs = [{"id": str(j), "title": p.title, "text": p.text, "score": str(9 - j)} for j, p in enumerate(corpus[:4])]
        asked = {"id": f"q{i}", "question": f"joki {i}", "lang": "fi", "answers": [("Onar", "1907")[i]]}
        lists.append(asked | {"ctxs": ctxs})
    (tmp_path / "lists.json").write_text(json.dumps(lists))
    app, out = typer.Typer(), tmp_path / "out"
    app.command()(reader_length.reader_length)
    given = [tmp_path / "lists.json", "--model", folder / "model", "--out", out, "--max-answer-tokens", 2]
    found = CliRunner().invoke(app, [str(x) for x in (*given, "--input-tokens", "1,1000", "--samples", 50)])
    assert found.exit_code == 0, found.exception
    rows = [list(row.values()) for row in json.loads((out / "lengths.json").read_text())["rows"]]
    assert [row[1] for row in rows] == [1, 1000] and [row[3] for row in rows] == [1, 4] and rows[0][2] < rows[1][2]
    assert rows[0][-2:] == [0.0, 0.0]  # both kinds of answers were there to be found, and random weights find none
    refused = CliRunner().invoke(app, [str(x) for x in (*given, "--input-tokens", "long")])
    assert isinstance(refused.exception, InputError) and "'long' is no list of numbers" in str(refused.exception)
