# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`class-jax evaluate`: every task, every format of runs, and what a user may get wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tiny_run
import typer
from mkqa_records import RECORDS
from tiny_model import CONFIG, random_params
from typer.testing import CliRunner

from class_jax.api import CLASS, Answer, ReadPassage, Retrieved
from class_jax.commands.evaluate import evaluate
from class_jax.corpus.store import build_store
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError
from class_jax.evaluation.runs import read_ranked_passages, read_relevant, with_texts
from class_jax.questions.readers import Question, read_xor
from class_jax.reports.reports import part_scores, read_report

app = typer.Typer()
app.command()(evaluate)

ROWS = [
    {"id": "1", "question": "kuka", "lang": "fi", "answers": ["Mika Waltari"]},
    {"id": "2", "question": "milloin", "lang": "fi", "answers": ["1908"]},
    {"id": "3", "question": "onko", "lang": "fi", "answers": ["yes"]},
    {"id": "4", "question": "где", "lang": "ru", "answers": ["в Москве"]},
]
PASSAGES = {"p1": "Mika Waltari wrote", "p2": "born 1908 there", "p3": "nothing at all", "p4": "он в Москве"}
LISTS = {"1": ["p3", "p1"], "2": ["p3", "p4"], "4": ["p4", "p3"]}


@pytest.fixture
def files(tmp_path):
    def write(name, value):
        path = tmp_path / name
        path.write_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), encoding="utf-8")
        return str(path)

    write("questions.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    write("answers.json", {"1": "Waltari", "2": "1908", "3": "yes", "4": "в Киеве"})
    write("corpus.tsv", "id\ttext\ttitle\n" + "".join(f"{id}\t{text}\tT\n" for id, text in PASSAGES.items()))
    lines = [(q, p, rank, 9 - rank) for q, ids in LISTS.items() for rank, p in enumerate(ids, start=1)]
    write("run.trec", "".join(f"{q} Q0 {p} {rank} {score} tag\n" for q, p, rank, score in reversed(lines)))
    ctxs = {q: [{"id": p, "title": "T", "text": PASSAGES[p], "score": "1.0"} for p in ids] for q, ids in LISTS.items()}
    write("ctxs.json", [{"q_id": q, "question": "?", "ctxs": found} for q, found in ctxs.items()])
    texts = {row["id"]: row["question"] for row in ROWS}
    write("dpr.json", [{"question": texts[q], "answers": [], "ctxs": found} for q, found in ctxs.items()])
    write("xor.json", [{"id": q, "lang": "", "ctxs": [PASSAGES[p] for p in ids]} for q, ids in LISTS.items()])
    write("qrels", "1 0 p1 1\n2 0 p2 1\n2 0 p4 0\n4 0 p4 2\n")
    write("english.jsonl", json.dumps({"id": "1", "question": "q", "lang": "fi", "answers": ["wrote"]}) + "\n")
    return tmp_path


def run(*args):
    result = CliRunner().invoke(app, [str(arg) for arg in args], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_every_format_says_the_same(files):
    questions = list(read_xor(files / "questions.jsonl"))
    expected = {q: [PASSAGES[p] for p in ids] for q, ids in LISTS.items()}
    for name, form in (("run.trec", "trec"), ("ctxs.json", "ctxs"), ("dpr.json", "ctxs"), ("xor.json", "xor")):
        found = with_texts(read_ranked_passages(files / name, questions), files / "corpus.tsv")
        assert found.format == form and found.texts == expected, name
        assert found.ids == ({} if form == "xor" else LISTS)


def test_xor_retrieve(files):
    out = files / "report.json"
    text = run(
        *("xor-retrieve", "--questions", files / "questions.jsonl", "--run", files / "run.trec"),
        *("--corpus", files / "corpus.tsv", "--tokens", "5,100", "--tokeniser", "line", "--out", out),
    )
    part = read_report(out)["parts"]["retrieval"]
    assert part["languages"]["fi"] == {"count": 2, "R@5t": 0.5, "R@100t": 0.5} and part["left_out"] == 1
    assert part["languages"]["ru"]["R@5t"] == 1.0 and part["macro"]["R@100t"] == 0.75
    assert "R@100t" in text and "75.0" in text and "'line'" in text and "left out" in text


def test_xor_full_with_breakdowns(files):
    out = files / "report.json"
    text = run(
        *("xor-full", "--questions", files / "questions.jsonl", "--predictions", files / "answers.json"),
        *("--run", files / "ctxs.json", "--english", files / "english.jsonl", "--seen", "fi,ja", "--out", out),
    )
    report = read_report(out)
    assert report["name"] == "answers" and set(report["parts"]) == {"answers", "retrieval"}
    # One word of two for the first; right for the second and third.
    assert report["parts"]["answers"]["languages"]["fi"]["f1"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert report["parts"]["answers"]["languages"]["ru"]["f1"] == pytest.approx(0.5)
    cells = report["breakdowns"]
    assert cells["answers: numerical answers"]["numerical"]["mean"]["em"] == 1.0
    assert cells["answers: languages"]["language not seen in training"]["count"] == 1
    assert list(cells["answers: evidence in 10k tokens"]) == ["English and target"]
    assert "answers: answer types" in text and "evidence found" in text
    assert list(part_scores(report["parts"]["answers"]).ids) == ["1", "2", "3", "4"]


def test_passages_by_id(files):
    text = run(
        *("passages", "--questions", files / "questions.jsonl", "--run", files / "ctxs.json", "--depths", "1,2"),
        *("--relevant", files / "qrels", "--format", "csv", "--languages", "fi"),
    )
    header, finnish = text.splitlines()[:2]
    row = dict(zip(header.split(","), finnish.split(","), strict=True))
    assert row["questions"] == "2" and float(row["R@1 score"]) == 0 and float(row["R@2 score"]) == 0.5
    assert float(row["MRR score"]) == 0.25


def test_mkqa_from_the_public_form(files):
    path = files / "mkqa.jsonl"
    languages = ("da", "en", "ja")
    records = [
        {**record, part: {**{code: record[part]["en"] for code in _codes()}, **record[part]}}
        for record in RECORDS
        for part in ("answers",)
    ]
    for record in records:
        record["queries"] = {code: record["queries"].get(code, "q") for code in _codes()}
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    (files / "mkqa.json").write_text(json.dumps([{"id": "da-7", "ctxs": ["om China"]}]), encoding="utf-8")
    run("mkqa", "--questions", path, "--run", files / "mkqa.json", "--out", files / "m.json", "--format", "json")
    report = read_report(files / "m.json")
    part = report["parts"]["retrieval"]
    assert len(part["languages"]) == 20 and part["languages"]["da"]["R@2kt"] == 0.5
    assert part["languages"]["da"]["R^L@100"] == 0 and part["languages"]["da"]["R^M@100"] == 0.5
    assert part["macro"]["R@2kt"] == pytest.approx(0.5 / 20) and "retrieval: answer types" in report["breakdowns"]
    run("mkqa", "--questions", path, "--run", files / "mkqa.json", "--out", files / "m.json", "--languages", "da,en")
    assert set(read_report(files / "m.json")["parts"]["retrieval"]["languages"]) == {"da", "en"} < set(languages)


def _codes():
    from class_jax.questions.readers import MKQA_LANGUAGES

    return MKQA_LANGUAGES


@pytest.mark.parametrize("form", ["md", "tex", "csv", "json"])
def test_output_is_text_in_each_form(files, form):
    text = run(
        *("xor-full", "--questions", files / "questions.jsonl", "--predictions", files / "answers.json"),
        *("--format", form, "--samples", "50"),
    )
    if form == "json":
        assert json.loads(text)[0]["rows"][-1]["language"] == "macro"
    else:
        assert {"md": "| macro", "tex": r"\toprule", "csv": "language,questions,"}[form] in text


MISTAKES = [
    (["xor-ful", "--run", "xor.json"], "'xor-full'"),
    (["xor-retrieve"], "--predictions, --run, or --model"),
    (["xor-retrieve", "--predictions", "answers.json"], "ranked passages"),
    (["xor-retrieve", "--run", "run.trec"], "--corpus"),
    (["xor-retrieve", "--run", "answers.json"], r"answers\.json: .*file of answers"),
    (["xor-retrieve", "--run", "xor.json", "--languages", "sw"], "sw: no question"),
    (["xor-retrieve", "--run", "xor.json", "--tokens", "2k"], "tokens"),
    (["xor-retrieve", "--run", "xor.json", "--format", "html"], "format"),
    (["passages", "--run", "ctxs.json"], "--relevant"),
    (["passages", "--run", "xor.json", "--relevant", "qrels", "--depths", "1"], "no passage ids"),
    (["xor-full", "--predictions", "answers.json", "--model", "m"], "either a model or files"),
    (["xor-retrieve", "--model", "m"], "--store"),
    (["xor-retrieve", "--run", "absent.json"], "absent.json: can't be read"),
]


@pytest.mark.parametrize(("args", "message"), MISTAKES)
def test_mistakes_are_named(files, args, message):
    args = [str(files / arg) if (files / arg).is_file() or arg.startswith("absent") else arg for arg in args]
    with pytest.raises(InputError, match=message):
        run(args[0], "--questions", files / "questions.jsonl", *args[1:])


BAD_RUNS = [
    ("", "the file is empty"),
    ("1 Q0 p1 1\n", "run:1: 4 columns"),
    ("1 Q0 p1 1 0.5 t\n1 Q0 p1 2 0.4 t\n", "run:2: 1: passage 'p1' twice"),
    ("1 Q0 p1 one 0.5 t\n", "run:1: 1: rank or score"),
    ("9 Q0 p1 1 0.5 t\n", "run:1: 9: none of the 4 questions"),
    ('[{"id": "1"}]', "run:1: ctxs"),
    ('[{"id": "1", "ctxs": [{"id": "p1"}]}]', r"1: ctxs\[0\] has no text"),
    ('[{"id": "1", "ctxs": []},\n{"id": "1", "ctxs": []}]', "run:2: 1: second list"),
    ('[{"id": "1", "lang": "ru", "ctxs": []}]', "language is 'ru'"),
    ('[{"question": "mikä", "ctxs": []}]', "no question has its text"),
    ('[{"id": "1", "ctxs": []}', "not valid JSON"),
]


@pytest.mark.parametrize(("text", "message"), BAD_RUNS)
def test_bad_runs_are_refused(files, text, message):
    path = files / "run"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_ranked_passages(path, list(read_xor(files / "questions.jsonl")))


def test_right_passages_in_both_forms(files):
    expected = {"1": {"p1"}, "2": {"p2"}, "4": {"p4"}}
    assert read_relevant(files / "qrels") == expected
    (files / "right.json").write_text(json.dumps({q: sorted(ids) for q, ids in expected.items()}), encoding="utf-8")
    assert read_relevant(files / "right.json", [Question(q, "q", (), "fi") for q in expected]) == expected
    with pytest.raises(InputError, match="1: none of the 1 questions"):
        read_relevant(files / "right.json", [Question("7", "q", (), "fi")])
    (files / "bad").write_text("1 0 p1\n", encoding="utf-8")
    with pytest.raises(InputError, match="bad:1: not a line of TREC qrels"):
        read_relevant(files / "bad")


def test_a_passage_that_the_corpus_lacks_is_named(files):
    (files / "run.trec").write_text("1 Q0 p99 1 0.5 t\n", encoding="utf-8")
    with pytest.raises(InputError, match="p99: not a passage of the corpus"):
        with_texts(read_ranked_passages(files / "run.trec"), files / "corpus.tsv")


def test_a_model_scores_as_the_files_that_it_would_write(tmp_path, monkeypatch):
    tiny_run.write_vocabulary(tmp_path / "vocabulary.model")
    tiny_run.write_passages(tmp_path / "passages.tsv", tiny_run.passages())
    vocabulary = Vocabulary.load(tmp_path / "vocabulary.model")
    store = build_store(tmp_path / "passages.tsv", vocabulary, tmp_path / "store", progress=False)
    CLASS(CONFIG, random_params(), vocabulary).save_pretrained(tmp_path / "model")
    rows = [
        {"id": f"q{i}", "question": f"joki {town}", "answers": [river], "lang": ("fi", "ru")[i % 2]}
        for i, (town, river) in enumerate(zip(tiny_run._TOWNS[:6], tiny_run._RIVERS, strict=False))
    ]
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    common = ("--questions", path, "--tokens", "8,20,40", "--tokeniser", "line", "--samples", "20")
    searching = ("--model", tmp_path / "model", "--store", tmp_path / "store", "--passages", "4")
    # What the model finds and answers has tests of its own: here, that both reach their scores.
    found = np.array([[4 * i % 48, 7 * i % 48, 11 * i % 48, -1] for i in range(len(rows))])
    monkeypatch.setattr(CLASS, "retrieve", lambda self, asked, *_: Retrieved(found[: len(asked)], found, 0.0, []))
    run("xor-retrieve", *common, *searching, "--out", tmp_path / "model.json")
    lists = [
        {"id": row["id"], "ctxs": [store.passage(int(r)).text for r in ranked if r >= 0]}
        for row, ranked in zip(rows, found, strict=True)
    ]
    (tmp_path / "run.json").write_text(json.dumps(lists), encoding="utf-8")
    run("xor-retrieve", *common, "--run", tmp_path / "run.json", "--out", tmp_path / "file.json")
    by_model, by_file = read_report(tmp_path / "model.json"), read_report(tmp_path / "file.json")
    assert by_model["parts"] == by_file["parts"] and by_model["corpus"] == store.fingerprint
    passage = ReadPassage("p", "t", f"a {rows[0]['answers'][0]} b", 1.0, 1.0)

    def answer(self, asked, searcher, passages, languages, progress=None):
        assert passages == 4 and languages[0] == "fi" and searcher.store.fingerprint == store.fingerprint
        return [Answer(text, rows[0]["answers"][0], 0.0, [passage], {}) for text in asked]

    monkeypatch.setattr(CLASS, "answer", answer)
    run("xor-full", *common, *searching, "--out", tmp_path / "full.json")
    parts = read_report(tmp_path / "full.json")["parts"]
    right = [float(row["answers"] == rows[0]["answers"]) for row in rows]
    assert parts["answers"]["by_question"]["values"]["em"] == right and 0 < sum(right) < len(right)
    assert parts["retrieval"]["by_question"]["values"]["R^L@100"] == right


def test_nothing_heavy_is_imported():
    code = (
        "import sys, class_jax.commands.evaluate, class_jax.commands.compare, class_jax.reports.reports, "
        "class_jax.evaluation.mkqa, class_jax.reports.breakdown;"
        "print(sorted({'tensorflow', 'jax', 'matplotlib', 'nltk', 'scipy.stats'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_right_passages_as_training_s_evaluation_reads_them(tmp_path):
    lines = [{"id": "a", "passages": ["1", "2"], "english": ["2"]}, {"id": "b", "passages": []}]
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert read_relevant(tmp_path / "gold.jsonl") == {"a": {"1", "2"}, "b": set()}
    with open(tmp_path / "gold.jsonl", "a", encoding="utf-8") as f:
        f.write('{"id": "c"}\n')
    with pytest.raises(InputError, match=r"gold.jsonl:3: not \{"):
        read_relevant(tmp_path / "gold.jsonl")
