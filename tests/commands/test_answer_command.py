# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax answer`: one question readably, a file resumably, bad input in one line."""

import io
import json
import math

import pytest
import tiny_corpus
import tiny_run
import typer
from rich.console import Console
from typer.testing import CliRunner

from class_jax import api
from class_jax.commands import answer as command
from class_jax.errors import InputError
from class_jax.evaluation import answer_files
from class_jax.evaluation.predictions import read_answers

COUNT = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a token store and a question file."""
    folder = tmp_path_factory.mktemp("answer")
    tiny_corpus.build_models(folder)
    lines = [{"id": f"q{i}", "question": f"joki {i} [Asla]", "lang": ("fi", " ar")[i % 2]} for i in range(COUNT)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def run(folder, *arguments, model="model1"):
    app = typer.Typer()
    app.command()(command.answer)
    given = ["--model", folder / model, "--store", folder / "store", "--passages", "3", "--max-answer-tokens", "4"]
    return CliRunner().invoke(app, [str(x) for x in (*given, *arguments)])


def fails(folder, *arguments, **settings):
    """The line that the command line prints."""
    result = run(folder, *arguments, **settings)
    assert isinstance(result.exception, InputError), result.output
    return str(result.exception)


def of_file(folder, out, *arguments, **settings):
    return run(folder, "--questions", folder / "questions.jsonl", "--out", out, "--batch", 2, *arguments, **settings)


@pytest.fixture(scope="module")
def whole(folder):
    """Predictions and log of an undisturbed run."""
    result = of_file(folder, folder / "whole.json")
    assert result.exit_code == 0, result.exception
    assert f"{COUNT} answers" in result.output
    return read_answers(folder / "whole.json"), log_lines(folder / "whole.log.jsonl")


def log_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_one_question(folder):
    result = run(folder, "Which [river] flows through Asla?", "--language", "en")
    assert result.exit_code == 0, result.exception
    for shown in ("Which [river] flows", "log-probability", "attention", "score", "3 passages read", "retrieve", " s"):
        assert shown in result.output, result.output
    corpus = {p.title: p for p in tiny_run.passages()}
    assert any(title in result.output for title in corpus)


def test_one_question_as_json(folder):
    found = json.loads(run(folder, "joki", "--language", "fi", "--json").output)
    assert found["confidence"] == pytest.approx(math.exp(found["log_probability"])) and found["question"] == "joki"
    texts = {p["id"]: f"{p['title']} {p['text']}".lower() for p in found["passages"]}
    assert found["supported_by"] == [id for id, text in texts.items() if found["answer"] and found["answer"] in text]


def answered(text):
    passages = [
        api.ReadPassage(str(i), "", body, 1.0, 0.5) for i, body in enumerate(("in 1975", "The River Asla, 5 km"))
    ]
    return api.Answer("which?", text, math.log(0.25), passages, {"read": 0.1})


@pytest.mark.parametrize(
    ("text", "places", "shown"),
    [
        ("river asla", [2], "found in passage 2"),
        ("5", [2], "found in passage 2"),
        ("Onar", [], "in none of the passages read"),
        ("", [], "in none of the passages read"),
    ],
)
def test_only_what_a_passage_holds_is_green(text, places, shown):
    given, out = answered(text), io.StringIO()
    command.show_answer(given, Console(file=out, force_terminal=True, color_system="standard", width=100))
    assert answer_files.supported_by(text, given.passages) == places
    assert "confidence 0.25" in out.getvalue() and shown in out.getvalue()
    assert ("\x1b[1;32m" in out.getvalue()) == bool(places)


def test_a_file_in_the_official_format(whole, folder):
    predictions, log = whole
    raw = json.loads((folder / "whole.json").read_text(encoding="utf-8"))
    assert raw == predictions and list(raw) == [f"q{i}" for i in range(COUNT)]
    assert all(isinstance(text, str) for text in raw.values()) and len(set(raw.values())) > 1
    entries = {entry["id"]: entry for entry in log[1:]}
    assert {id: entry["answer"] for id, entry in entries.items()} == predictions
    for entry in entries.values():
        assert len(entry["passages"]) == 3 and entry["log_probability"] < 0
        assert abs(sum(attention for _, _, attention in entry["passages"]) - 1) < 1e-4


@pytest.mark.parametrize("torn", ["", '{"id": "q5", "ques'])
def test_resumes_where_it_was_killed(folder, whole, tmp_path, monkeypatch, torn):
    """The process dies after three answers, perhaps while it wrote a fourth."""
    write, written = answer_files.WorkLog.write, []

    def dying(self, id, entry):
        if len(written) == 3:
            self._file.write(torn)
            raise KeyboardInterrupt
        written.append(id)
        write(self, id, entry)

    monkeypatch.setattr(answer_files.WorkLog, "write", dying)
    assert of_file(folder, tmp_path / "out.json").exit_code != 0
    assert not (tmp_path / "out.json").exists()
    assert len(log_lines_whole(tmp_path / "out.log.jsonl")) == 4

    def counting(self, id, entry):
        written.append(id)
        write(self, id, entry)

    monkeypatch.setattr(answer_files.WorkLog, "write", counting)
    result = of_file(folder, tmp_path / "out.json")
    assert result.exit_code == 0, result.exception
    assert sorted(written) == [f"q{i}" for i in range(COUNT)]  # none twice
    assert read_answers(tmp_path / "out.json") == whole[0]
    assert len(log_lines(tmp_path / "out.log.jsonl")) == COUNT + 1


def log_lines_whole(path):
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def test_a_finished_file_is_not_answered_again_unless_its_questions_change(folder, whole, tmp_path):
    for name in ("whole.json", "whole.log.jsonl"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert of_file(folder, tmp_path / "whole.json").exit_code == 0
    assert (tmp_path / "whole.log.jsonl").read_bytes() == (folder / "whole.log.jsonl").read_bytes()
    changed = (folder / "questions.jsonl").read_text().replace("joki 3", "mika 3")
    (tmp_path / "changed.jsonl").write_text(changed)
    arguments = "--questions", tmp_path / "changed.jsonl", "--out", tmp_path / "whole.json", "--batch", 2
    assert run(folder, *arguments).exit_code == 0
    assert [entry["id"] for entry in log_lines(tmp_path / "whole.log.jsonl")[COUNT + 1 :]] == ["q3"]


def test_a_log_of_something_else_is_refused(folder, whole, tmp_path):
    log = tmp_path / "whole.log.jsonl"
    log.write_bytes((folder / "whole.log.jsonl").read_bytes())
    out = tmp_path / "whole.json"
    assert ": model: " in (message := str(of_file(folder, out, model="model2").exception))
    assert "another --out" in message and str(log) in message
    assert ": beams: was made with 1, not 2" in str(of_file(folder, out, "--beams", 2).exception)
    log.write_text(log.read_text() + "nonsense\n")
    assert f"whole.log.jsonl:{COUNT + 2}: not a line of a log of answers" in str(of_file(folder, out).exception)


def test_bad_input(folder, tmp_path):
    assert "one question or a file" in fails(folder)
    assert "go together" in fails(folder, "--questions", folder / "questions.jsonl")
    assert "the question is empty" in fails(folder, "  ")
    assert "unknown language 'xx'" in fails(folder, "joki", "--language", "xx")
    (tmp_path / "empty.jsonl").write_text('{"id": "a", "question": " ", "lang": "fi"}\n')
    assert "empty.jsonl:1" in fails(folder, "--questions", tmp_path / "empty.jsonl", "--out", tmp_path / "o.json")
    (tmp_path / "none.jsonl").write_text("")
    assert "no questions" in fails(folder, "--questions", tmp_path / "none.jsonl", "--out", tmp_path / "o.json")
    tiny_run.write_vocabulary(tmp_path / "other.model", 370)
    assert "made with the vocabulary" in fails(folder, "joki", "--vocabulary", tmp_path / "other.model")


def test_an_index_of_other_weights(folder, monkeypatch):
    """Refused with both fingerprints; a flag overrides."""
    found = api.CLASS.from_pretrained(folder / "model1")
    other = "0123456789ab" + "0" * 52

    class Index:
        kind, retriever, model, num_passages = "exact", "multi_vector", other, 48
        corpus = api.TokenStore.open(folder / "store").fingerprint

        def search(self, vectors, mask, k):
            import numpy as np

            return np.tile(np.arange(k), (len(vectors), 1)), np.ones((len(vectors), k), np.float32)

    monkeypatch.setattr(api, "open_index", lambda path: Index())
    message = fails(folder, "joki", "--index", folder)
    assert other[:12] in message and found.retriever_fingerprint[:12] in message
    assert run(folder, "joki", "--index", folder, "--allow-other-weights").exit_code == 0
