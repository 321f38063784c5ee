# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The few-shot baseline: prompts, shots, replies; and the command against an endpoint in this process."""

import json

import llm_server
import pytest
import typer
from typer.testing import CliRunner

from class_jax.commands.few_shot import few_shot
from class_jax.errors import InputError
from class_jax.evaluation.few_shot import FewShotConfig, answer_few_shot, draw_shots, make_request, read_answer
from class_jax.llm.chat import Failure, Reply
from class_jax.questions.readers import Question

ASKED = [Question("a", "Mikä on pääkaupunki?", ("Pariisi",), "fi"), Question("b", "首都は？", ("パリ",), "ja")]
TRAINING = [
    Question(f"{code}{i}", f"{code} question {i}", (f"{code} answer {i}",), code)
    for i in range(8)
    for code in ("fi", "ja")
]
TRAINING += [Question("fi-open", "fi unanswered", (), "fi")]
PASSAGES = {"a": ["Paris is\n\nthe capital " + "x" * 50, "another", "a third"]}
CONFIG = FewShotConfig(shots=3, passages=2, passage_characters=30)


def test_a_prompt_has_shots_then_passages_then_the_question():
    shots = draw_shots(TRAINING, ["fi", "ja"], CONFIG)
    assert {q.language for q in shots["fi"]} == {"fi"} and len(shots["fi"]) == len(shots["ja"]) == 3
    ((role, text),) = make_request(ASKED[0], PASSAGES["a"], shots["fi"], CONFIG).messages
    task, *blocks = text.split("\n\n")
    assert role == "user" and "Answer that question in Finnish" in task
    assert blocks[:3] == [f"Question: {q.text}\nAnswer: {q.answers[0]}" for q in shots["fi"]]
    assert blocks[3:] == [
        "Passage 1: Paris is the capital xxxxxxxxx",
        "Passage 2: another",
        "Question: Mikä on pääkaupunki?\nAnswer:",
    ]


def test_shots_may_be_the_same_for_all_languages():
    shots = draw_shots(TRAINING, ["fi", "ja"], FewShotConfig(shots=6, per_language=False))
    assert shots["fi"] == shots["ja"] and len(shots["fi"]) == 6
    assert draw_shots([], ["fi"], FewShotConfig(shots=0)) == {"fi": []}
    with pytest.raises(InputError, match=r"^fi: .*\b9\b"):
        draw_shots(TRAINING, ["ja", "fi"], FewShotConfig(shots=9))


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Pariisi", "Pariisi"),
        ("\n\n**Answer:** Pariisi\n\nQuestion: and then?", "Pariisi"),
        ("<think>Is it\nOslo?</think>\n“Pariisi”", "Pariisi"),
        ("answer：「パリ」", "パリ"),
        ('"', '"'),
        ("Answer:\nOslo", "Oslo"),
        (" \n ", ""),
        ("", ""),
    ],
)
def test_answers_are_read_from_replies(reply, answer):
    assert read_answer(reply) == answer


class Scripted:
    """Gives outcomes in turn."""

    def __init__(self, outcomes):
        self.outcomes = outcomes

    def complete(self, tagged):
        for (tag, _), outcome in zip(tagged, self.outcomes, strict=True):
            yield tag, outcome


def test_every_prompt_is_written_down_and_failures_are_counted(tmp_path):
    asked = [*ASKED, Question("c", "Kuka?", ("Matti",), "fi"), Question("d", "Missä?", ("Oulu",), "fi")]
    outcomes = [
        Reply("Pariisi", "stop", 9, 1),
        Failure("refused", "no"),
        Reply("\n", "stop", 9, 1),
        Reply("Ou", "length", 9, 1),
    ]
    counts = answer_few_shot(asked, PASSAGES, TRAINING, Scripted(outcomes), tmp_path / "out", CONFIG)
    assert counts == {"answered": 2, "cut": 1, "empty": 1, "failed": 1, "without_passages": 3}
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == {"a": "Pariisi", "d": "Ou"}
    lines = [json.loads(line) for line in (tmp_path / "out/prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == ["a", "b", "c", "d"]
    assert lines[0]["reply"] == "Pariisi" and "Mikä on pääkaupunki?" in lines[0]["messages"][0][1]
    assert lines[1]["failure"] == "refused" and "reply" not in lines[1]
    settings = json.loads((tmp_path / "out/settings.json").read_text())
    assert settings["config"]["shots"] == 3 and len(settings["shots"]["ja"]) == 3


def test_the_command_asks_an_endpoint_and_asks_again_for_nothing(tmp_path):
    def write(name, questions):
        rows = [{"id": q.id, "question": q.text, "lang": q.language, "answers": list(q.answers)} for q in questions]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(tmp_path / name)

    run = tmp_path / "run.json"
    run.write_text(json.dumps([{"id": q.id, "lang": q.language, "ctxs": PASSAGES["a"]} for q in ASKED]))
    app = typer.Typer()
    app.command()(few_shot)
    with llm_server.LLMServer(
        lambda body: "Pariisi" if "Finnish" in body["messages"][0]["content"] else "パリ"
    ) as server:
        command = ["--questions", write("dev.jsonl", ASKED), "--training", write("train.jsonl", TRAINING[:-1])]
        command += ["--run", str(run), "--model", "tiny", "--url", server.url, "--out", str(tmp_path / "out")]
        for _ in range(2):
            result = CliRunner().invoke(app, command, catch_exceptions=False)
            assert result.exit_code == 0 and "answered 2, cut 0, empty 0, failed 0" in result.output
        assert len(server.seen) == 2 and server.seen[0][1]["max_tokens"] == 64
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == {"a": "Pariisi", "b": "パリ"}
    with pytest.raises(InputError, match=r"run\.json: .*--corpus"):
        run.write_text("a Q0 p1 1 3.0 tag\n")
        CliRunner().invoke(app, command, catch_exceptions=False)
