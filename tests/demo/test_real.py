# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The data of the real run, made of a few made-up files in the public forms."""

import io
import json

import pytest
from rich.console import Console
from tiny_dump import page, site

from class_jax.corpus.passages import read_passages
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.demo.phases import Phases
from class_jax.demo.real import make_real_data
from class_jax.errors import InputError
from class_jax.questions.readers import read_xor
from class_jax.questions.real_pairs import PARALLEL_LANGUAGES, XQUAD_LANGUAGES, is_training

pytest.importorskip("mwparserfromhell")
IDS = [f"q{i}" for i in range(20)]


def xquad(language):
    qas = [
        {"id": id, "question": f"{language} question {id}?", "answers": [{"text": "Helsinki", "answer_start": 0}]}
        for id in IDS
    ]
    paragraph = {"context": "Helsinki is the capital of Finland.", "qas": qas}
    return {"data": [{"title": "Finland", "paragraphs": [paragraph]}]}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "public"
    for name in ("wiki", "xquad", "xor_parallel"):
        (folder / name).mkdir(parents=True)
    xml = site() + page("Turku", "Turku is a town by the sea, and a port with a castle. " * 20) + "</mediawiki>\n"
    (folder / "wiki" / "enwiki-pages-articles.xml").write_text(xml, encoding="utf-8")
    for language in ("en", *XQUAD_LANGUAGES):
        (folder / "xquad" / f"xquad.{language}.json").write_text(json.dumps(xquad(language)), encoding="utf-8")
    for language in PARALLEL_LANGUAGES:
        for side in (language, "en"):
            (folder / "xor_parallel" / f"{language}-en.{side}").write_text(f"Where is {side} town {language}?\n")
    return folder


def test_data_are_made_once_of_the_files_that_are_there(data, tmp_path):
    out, printed = tmp_path / "run", io.StringIO()
    made = make_real_data(data, out, Phases(out, Console(file=printed, width=200)), vocabulary_size=310)
    training = sum(map(is_training, IDS))
    assert 0 < training < len(IDS)
    assert made.result["training pairs"] == len(PARALLEL_LANGUAGES) + training * len(XQUAD_LANGUAGES)
    held_out = list(read_xor(out / "data" / "heldout.jsonl"))
    assert len(held_out) == (len(IDS) - training) * 4 == sum(n for k, n in made.result.items() if "held-out" in k)
    passages = [passage.id for passage in read_passages(out / "data" / "passages.tsv")]
    assert len(passages) == made.result["passages"] and passages[0] == "xquad-0-0" and "1" in passages
    gold = [json.loads(line) for line in (out / "data" / "heldout_gold.jsonl").read_text().splitlines()]
    assert [line["id"] for line in gold] == [q.id for q in held_out] and gold[0]["passages"] == ["xquad-0-0"]
    assert Vocabulary.load(out / "data" / "vocabulary.model").size == 310
    assert all(f"] {what}" in printed.getvalue() for what in ("cutting", "reading", "training"))
    phases = Phases(out, Console(quiet=True))
    again = make_real_data(data, out, phases, vocabulary_size=310)
    assert again.result == made.result and not again.made
    with pytest.raises(InputError, match=f"^{out}/data: vocabulary: "):
        make_real_data(data, out, phases, vocabulary_size=311)
    (data / "xquad" / "xquad.ar.json").write_text(json.dumps(xquad("ar ")), encoding="utf-8")
    with pytest.raises(InputError, match=rf"^{out}/data: files\.xquad\.ar\.json"):
        make_real_data(data, out, phases, vocabulary_size=310)


def test_missing_files_are_named_before_any_work(data, tmp_path):
    (data / "xor_parallel" / "fi-en.en").unlink()
    with pytest.raises(InputError, match=r"fi-en\.en: "):
        make_real_data(data, tmp_path / "run", Phases(tmp_path, Console(quiet=True)))
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="/nowhere/wiki: "):
        make_real_data(data / "nowhere", tmp_path / "run", Phases(tmp_path, Console(quiet=True)))
