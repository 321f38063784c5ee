# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""All of `class-jax make-data` on the embedded encyclopaedia's dumps, which knows what every sentence says."""

import contextlib
import dataclasses
import itertools
import json
import shutil
import socket
from types import SimpleNamespace

import pytest
import tiny_model
import tiny_run
import typer
from llm_server import LLMServer
from typer.testing import CliRunner

from class_jax.commands.make_data import make_data as command
from class_jax.common.files import numbered_lines, read_json
from class_jax.corpus.passages import read_passages
from class_jax.corpus.vocabulary import train_vocabulary
from class_jax.corpus.wikipedia.pages import read_pages
from class_jax.demo.encyclopaedia import load_tables, thinned
from class_jax.demo.encyclopaedia_dump import PHRASEBOOK, build_dumps, title_of, written_pages
from class_jax.errors import InputError
from class_jax.questions.readers import read_anchor_questions, read_parallel
from class_jax.questions.table import QuestionTable
from class_jax.synthesis.stage1.pairs import SentencePair
from class_jax.synthesis.stage2.anchors import read_anchor_examples
from class_jax.training.data import DataConfig, open_data

pytest.importorskip("seqio")

from class_jax import tasks  # before gin's configuration is locked

for module in ("apache_beam", "mwparserfromhell", "icu4py"):
    pytest.importorskip(module)

LANGUAGES = ("en", "fi", "ja")
OTHERS = LANGUAGES[1:]
THINNING = 10
GIN = "gin/data/encyclopaedia.gin"


def run(config, dumps, work, *more):
    """Runs the command from the repository's root, in this process."""
    app = typer.Typer()
    app.command()(command)
    bindings = (
        f"DUMPS='{dumps}'",
        f"PHRASEBOOK='{dumps / PHRASEBOOK}'",
        f"LANGUAGES={LANGUAGES}",
        f"OTHERS={OTHERS}",
        "questions.QuestionConfig.target = 120",
        *more,
    )
    arguments = ["--config", str(config), "--out", str(work), "--workers", "1"]
    with contextlib.chdir(tiny_run.REPOSITORY):
        return CliRunner().invoke(app, [*arguments, *itertools.chain(*(("--gin", b) for b in bindings))])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    dumps, work = tmp_path_factory.mktemp("dumps"), tmp_path_factory.mktemp("data") / "work"
    written = build_dumps(dumps, one_country_in=THINNING, languages=LANGUAGES)
    result = run(GIN, dumps, work)
    assert result.exit_code == 0, result.output
    return SimpleNamespace(
        dumps=dumps,
        work=work,
        written=written,
        counts=read_json(work / "counts.json"),
        output=result.output,
        tables=thinned(load_tables(), THINNING),
    )


@pytest.fixture(scope="module")
def pages(made):
    return {language: list(read_pages(made.work / "pages" / language)) for language in LANGUAGES}


def entities_by_title(made, language):
    return {title_of(made.tables, entity, language): entity for entity in made.tables.types}


def test_every_page_is_counted(made, pages):
    for language, written in made.written.items():
        counts = made.counts[f"pages/{language}"]
        assert counts["pages"] == written["articles"] + written["redirects"] > 40
        for name in ("articles", "redirects", "anchors"):
            assert counts[name] == written[name] > 0, (language, name)
        assert len(pages[language]) == written["articles"]
        assert counts["links"] == written["language_links"] == 2 * written["articles"]
        by_title = {page.title: page for page in pages[language]}
        for entity, sentences in written_pages(made.tables, language):
            page = by_title[title_of(made.tables, entity, language)]
            found = [page.sentence(i) for i in range(len(page.sentences))]
            own = [s.text for s in sentences if s.statement.wording != "reverse"]
            assert found == own + [s.text for s in sentences if s.statement.wording == "reverse"]
            assert len(page.sections) == (len(own) < len(sentences))
    assert made.counts["passages"]["pages"] == sum(w["articles"] for w in made.written.values())
    for name in ("stage1_lists", "rejected: answer_repeated", "MB/s per core"):
        assert name in made.output


def test_passages_are_their_spans(made, pages):
    texts = {(page.language, page.id): page.text for found in pages.values() for page in found}
    rows = [text.split("\t") for _, text in numbered_lines(made.work / "passages" / "passage_spans.tsv")][1:]
    passages = list(read_passages(made.work / "passages" / "passages.tsv"))
    assert [row[0] for row in rows] == [p.id for p in passages]
    left = dict(texts)
    for (_, language, page, start, end), passage in zip(rows, passages, strict=True):
        assert " ".join(texts[language, page][int(start) : int(end)].split()) == passage.text
        left[language, page] = left[language, page].replace(texts[language, page][int(start) : int(end)], "", 1)
    assert not "".join(left.values()).strip()


def test_mined_pairs_are_translations(made):
    facts = {}
    for language in LANGUAGES:
        for entity, sentences in written_pages(made.tables, language):
            for s in sentences:
                facts[language, title_of(made.tables, entity, "en"), s.text] = s.statement
    for language in OTHERS:
        files = (made.work / "pairs" / language).glob("*.jsonl")
        pairs = [SentencePair.from_json(line) for file in files for _, line in numbered_lines(file)]
        same = {
            (pair.page, pair.english)
            for pair in pairs
            if facts["en", pair.page, pair.english] == facts.get((language, pair.page, pair.other), "cut")
        }
        assert len(pairs) == made.counts["pairs"][f"pairs/{language}"]
        precision, recall = len(same) / len(pairs), len(same) / made.written[language]["sentences"]
        print(language, precision, recall)
        assert precision > 0.85 and recall > 0.5, (language, precision, recall)


def test_anchors_lead_where_their_words_say(made):
    for language in OTHERS:
        by_title = entities_by_title(made, language)
        examples = list(read_anchor_examples(made.work, language))
        assert len(examples) == made.counts["anchors"][f"examples/{language}"] > 30
        for example in examples:
            entity = by_title[example.target]  # over redirects too: they are no titles of entities
            assert example.answer == made.tables.name(entity, language)
            assert example.english == title_of(made.tables, entity, "en")
            kind = made.tables.types[entity]
            assert example.kind == {
                "person": "who",
                **dict.fromkeys(("work", "language", "currency", "occupation", "sea"), "what"),
            }.get(kind, "where")
        rejected = sum(
            n for k, n in made.counts["anchors"].items() if k.startswith("rejected/") and k.endswith(f"/{language}")
        )
        assert len(examples) + rejected == made.written[language]["anchors"]


def test_training_reads_what_was_written(made, tmp_path):
    parallel = list(read_parallel(made.work / "stage1" / "parallel.tsv", mask="latin"))
    rows = [text.split("\t") for _, text in numbered_lines(made.work / "stage1" / "parallel.tsv")]
    assert [q.text for q in parallel] == [row[2] for row in rows]  # the writer masks by the same rule
    assert {q.language for q in parallel} == set(OTHERS) and all("_X_" in q.english for q in parallel)
    lists = [json.loads(line) for _, line in numbered_lines(made.work / "stage1_lists" / "lists.jsonl")]
    assert [found["qid"] for found in lists] == [q.id for q in parallel]
    passages = {p.id: p for p in read_passages(made.work / "passages" / "passages.tsv")}
    found = [
        any(q.answers[0] in f"{passages[p].title} {passages[p].text}" for p in one["pids"])
        for q, one in zip(parallel, lists, strict=True)
    ]
    assert sum(found) > 0.9 * len(found)
    vocabulary = tmp_path / "vocabulary.model"
    train_vocabulary((p.text for p in passages.values()), vocabulary, 700, num_threads=1)
    data = open_data(
        DataConfig(
            vocabulary=str(vocabulary),
            store=str(tmp_path / "store"),
            passages=str(made.work / "passages" / "passages.tsv"),
            passage_languages=str(made.work / "passages" / "passage_languages.tsv"),
            search_languages=("question",),
            questions=read_anchor_questions(made.work / "stage2" / "anchor_questions.tsv"),
            own_passages=str(made.work / "stage2" / "anchor_questions.passages.tsv"),
        ),
        dataclasses.replace(tiny_model.CONFIG, vocab_size=1024),
    )
    assert len(data.table) == sum(made.counts["stage2"][f"questions/{language}"] for language in OTHERS) > 60
    questions = {q.id: q for q in read_anchor_questions(made.work / "stage2" / "anchor_questions.tsv")}
    for row in range(len(data.table)):
        question = questions[data.table.id(row)]
        own = passages[data.store.id(data.table.own_passages[row])]
        after = passages.get(str(int(own.id) + 1))
        # An answer that the passage's end cuts continues in the next.
        text = own.text + (after.text if question.language == "ja" else f" {after.text}") if after else own.text
        assert text.find(question.answers[0]) in range(len(own.text)), own
        assert question.answers[0] not in question.text
        assert data.languages[data.table.own_passages[row]] == question.language


def test_seqio_registers_what_was_written(made, tmp_path):
    texts = (p.text for p in read_passages(made.work / "passages" / "passages.tsv"))
    vocabulary = train_vocabulary(texts, tmp_path / "vocabulary.model", 700, num_threads=1)
    stage1 = tasks.mixture("class_stage1", made.work / "stage1" / "parallel.tsv").register(vocabulary.path)
    stage2 = tasks.mixture("class_stage2", made.work / "stage2" / "anchor_questions.tsv").register(vocabulary.path)
    parallel = list(read_parallel(made.work / "stage1" / "parallel.tsv"))
    asked = list(read_anchor_questions(made.work / "stage2" / "anchor_questions.tsv"))
    for name, questions in ((stage1, parallel), (stage2, asked)):
        table = QuestionTable.from_task(name)
        assert table.fingerprint == QuestionTable.from_questions(questions, vocabulary).fingerprint


def test_a_spent_budget_stops_and_resumes_from_there(made, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    work = tmp_path / "work"
    shutil.copytree(made.work, work, ignore=shutil.ignore_patterns("stage2"))
    examples = itertools.chain.from_iterable(read_anchor_examples(made.work, language) for language in OTHERS)
    asked = {example.sentence: example for example in examples}

    def answer(body):
        text = body["messages"][-1]["content"]
        found = max((s for s in asked if s in text), key=text.rfind)
        return f"{asked[found].question_word} {found.replace(asked[found].answer, '')}?"

    meta = tmp_path / "meta"
    meta.mkdir()
    for language in OTHERS:
        lines = [
            {"sentence": f"{i} {language}", "word": "w", "answer": "a", "question": f"q {i} {language}"}
            for i in range(5)
        ]
        (meta / f"{language}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with LLMServer(answer) as server:
        server.usage = {"prompt_tokens": 200, "completion_tokens": 20}
        config = tmp_path / "endpoint.gin"
        config.write_text(
            "from __gin__ import dynamic_registration\nfrom class_jax.llm import client\n"
            f"from class_jax.synthesis.stage2 import questions\ninclude '{GIN}'\n"
            "questions.QuestionConfig:\n  transformer = 'endpoint'\n  endpoint = @client.EndpointConfig()\n"
            f"  meta_examples = '{meta}'\n"
            f"client.EndpointConfig:\n  url = '{server.url}'\n  model = 'm'\n  prompt_price = 1e6\n"
            "  completion_price = 1e6\n  budget = %BUDGET\n"
        )
        spent = run(config, made.dumps, work, "BUDGET = 20000.0")
        assert isinstance(spent.exception, InputError) and "is spent" in str(spent.exception)
        assert "same command resumes from there" in spent.output and not (work / "stage2").exists()
        before = len(server.seen)
        assert 0 < before < 100
        done = run(config, made.dumps, work, "BUDGET = 1e9")
        assert done.exit_code == 0, done.output
        counts = read_json(work / "counts.json")["stage2"]
        assert counts["endpoint/cached"] >= before - 2 and counts["questions/fi"] > 20


def test_nothing_is_made_twice(made):
    before = {path: path.stat().st_mtime_ns for path in made.work.rglob("stage.json")}
    assert run(GIN, made.dumps, made.work).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in made.work.rglob("stage.json")} == before
    assert read_json(made.work / "counts.json") == made.counts


def test_an_endpoint_that_is_down_leaves_what_is_finished(made, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(made.work, work, ignore=shutil.ignore_patterns("stage2"))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    config = tmp_path / "endpoint.gin"
    config.write_text(
        f"from __gin__ import dynamic_registration\nfrom class_jax.llm import client\nfrom class_jax.synthesis.stage2 import questions\n"
        f"include '{GIN}'\nquestions.QuestionConfig:\n  transformer = 'endpoint'\n  endpoint = @client.EndpointConfig()\n"
        f"client.EndpointConfig:\n  url = 'http://localhost:{port}/v1'\n  model = 'm'\n  attempts = 1\n"
    )
    result = run(config, made.dumps, work)
    assert isinstance(result.exception, InputError) and str(port) in str(result.exception)
    assert "same command resumes from there" in result.output and "examples" in result.output
    assert not (work / "stage2").exists() and "stage2" not in read_json(work / "counts.json")
    assert (work / "anchors" / "stage.json").exists()
