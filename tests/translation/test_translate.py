# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Translation: mBART's, an endpoint's, provenance and resumption, and the command over each kind of file."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_mbart
import typer
from typer.testing import CliRunner

from class_jax.commands import translate as command
from class_jax.corpus.mbart_vocabulary import MBartVocabulary
from class_jax.corpus.passages import Passage, read_passages, write_passages
from class_jax.errors import InputError
from class_jax.llm.chat import Failure, Reply
from class_jax.models import class_model, mbart
from class_jax.questions.readers import read_xor
from class_jax.reranking.translate_files import provenance_path
from class_jax.translation import translators
from class_jax.translation.dictionary import DictionaryTranslator
from class_jax.translation.translators import Item, translate_items


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    file = tmp_path_factory.mktemp("pieces") / "sentencepiece.bpe.model"
    tiny_mbart.write_pieces(file)
    return MBartVocabulary(file, tiny_mbart.CONFIG.vocab_size)


@pytest.fixture(scope="module")
def mbart_translator(vocabulary):
    return translators.MBartTranslator(tiny_mbart.CONFIG, tiny_mbart.random_params(), vocabulary, beams=2, batch=4)


def test_a_translation_by_mbart_does_not_depend_on_the_batch(mbart_translator, vocabulary, monkeypatch):
    texts = ["Asla is a town", "soup", "The river Onar flows on to the sea", "soup", "Borun"]
    found = mbart_translator.translate(texts, "en", "fi")
    assert found[1] == found[3] and len(set(found)) > 1
    # The plain way: one row, no padding.
    config, ids = tiny_mbart.CONFIG, [vocabulary.tag("en"), *vocabulary.encode(texts[2]), 2]
    model = class_model.merge(mbart.mbart_graph(config), jax.tree.map(jnp.asarray, tiny_mbart.random_params()))
    lengths = np.array([len(ids)])
    memory = model.project(model.encode(np.array([ids]), lengths), lengths)
    best = mbart.generate(model, memory, config.max_positions, 2, language_id=vocabulary.tag("fi")).ids[0, 0]
    assert int(best[0]) == vocabulary.tag("fi") and vocabulary.decode(best) == found[2]
    calls = []
    monkeypatch.setattr(mbart_translator, "_generate", lambda new, *tags: calls.append(list(new)) or ["x"] * len(new))
    assert mbart_translator.translate([texts[0], "new"], "en", "fi") == [found[0], "x"]
    assert mbart_translator.translate([texts[0]], "en", "ru") == ["x"]  # another language, another translation
    assert calls == [["new"], [texts[0]]]


def test_mbart_is_given_both_languages(mbart_translator, vocabulary, monkeypatch):
    given = []

    def generation(*_):
        return lambda params, ids, lengths, tag: given.append((ids, lengths, tag)) or ids

    monkeypatch.setattr(translators, "_generation", generation)
    assert mbart_translator.translate(["a market"], "ko", "ru") == ["a market"]
    [(ids, lengths, tag)] = given
    assert ids[0, : lengths[0]].tolist() == [vocabulary.tag("ko"), *vocabulary.encode("a market"), 2]
    assert tag == vocabulary.tag("ru")


def test_vocabulary_decodes_what_it_encodes(vocabulary):
    text = "Asla is a town"
    ids = [2, vocabulary.tag("fi"), *vocabulary.encode(text), 2, 1, 1, *vocabulary.encode("soup")]
    assert vocabulary.decode(ids) == text


def test_what_mbart_refuses_and_cuts(mbart_translator, vocabulary, tmp_path, caplog):
    with pytest.raises(InputError, match="'yo'"):
        mbart_translator.translate(["x"], "en", "yo")
    with pytest.raises(InputError, match="nothing to translate"):
        mbart_translator.translate(["x", " "], "en", "fi")
    mbart_translator.translate(["town " * 60], "en", "fi")
    assert "1 texts cut to the 38 tokens" in caplog.text and mbart_translator.cut == 1
    small = MBartVocabulary.__new__(MBartVocabulary)
    small.is_mbart50 = False
    with pytest.raises(InputError, match="mBART of 25"):
        translators.MBartTranslator(tiny_mbart.CONFIG, {}, small)


class Client:
    """Stands for `ChatClient`."""

    fingerprint = "client"

    def __init__(self, outcome=lambda text: Reply(f" [{text}] ", "stop", 1, 1)):
        self.asked, self.outcome = [], outcome

    def complete(self, tagged):
        for tag, request in tagged:
            self.asked.append(request)
            yield tag, self.outcome(tag)


def test_an_endpoint_is_asked_in_words():
    client = Client()
    found = translators.EndpointTranslator(client).translate(["moi", "hei"], "fi", "en")
    assert found == ["[moi]", "[hei]"]
    assert "Finnish text into English" in client.asked[0].messages[1][1] and "moi" in client.asked[0].messages[1][1]
    for outcome, problem in (
        (Failure("refused", "too long"), "refused, too long"),
        (Reply("half", "length", 1, 1), "was cut off"),
        (Reply(" ", "stop", 1, 1), "empty"),
    ):
        broken = translators.EndpointTranslator(Client(lambda text, outcome=outcome: outcome))
        with pytest.raises(InputError, match=problem):
            broken.translate(["moi"], "fi", "en")
    with pytest.raises(InputError, match="'xx'"):
        translators.EndpointTranslator(client).translate(["moi"], "xx", "en")


class Reverser:
    """Turns texts round; counts what it is given."""

    name, fingerprint = "reverser", "r1"

    def __init__(self):
        self.given = []

    def translate(self, texts, source, target):
        self.given += texts
        return [text[::-1] for text in texts]


def test_provenance_is_kept_and_a_killed_run_resumes(tmp_path):
    items = [Item(str(i), "question", f"text {i}", "en", ("fi", "ru")[i % 2]) for i in range(6)]
    items.append(Item("7", "question", "same", "fi", "fi"))
    path = tmp_path / "p.jsonl"
    whole = translate_items(Reverser(), [*items, items[0]], path)
    assert whole[items[2]] == "2 txet" and whole[items[6]] == "same"
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    wanted = {"id": "0", "field": "question", "source": "en", "target": "fi", "source_text": "text 0", "text": "0 txet"}
    assert json.loads(lines[0]) == wanted | {"translator": "reverser", "model": "r1"}
    path.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    again = Reverser()
    assert translate_items(again, items, path) == whole
    assert len(again.given) == 2 and len(path.read_bytes().splitlines()) == 6
    other = Reverser()
    other.fingerprint = "r2"
    with pytest.raises(InputError, match=r"p\.jsonl: model: .*r1.*r2"):
        translate_items(other, items, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translate")
    (folder / "words").mkdir()
    pairs = {"en-fi": "river joki\nsoup keitto\ntown kaupunki", "en-ru": "river река", "fi-en": "joki river"}
    for name, lines in pairs.items():
        (folder / "words" / f"{name}.txt").write_text(lines + "\n", encoding="utf-8")
    rows = [
        {"id": "1", "question": "which river ?", "answers": ["the river", "1907", "yes"], "lang": "en"},
        {"id": "2", "question": "mika joki ?", "answers": ["soup"], "lang": "fi"},
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_passages(folder / "passages.tsv", [Passage("p", "a town, a river", "river")])
    passages = [{"id": str(i), "title": "river", "text": f"river {i}", "score": "1", "lang": "en"} for i in (1, 2)]
    lists = [{"q_id": "2", "question": "mika joki ?", "lang": "fi", "answers": ["x"], "ctxs": passages}]
    (folder / "lists.json").write_text(json.dumps(lists))
    return folder


def run(folder, *arguments):
    app = typer.Typer()
    app.command()(command.translate)
    result = CliRunner().invoke(app, [str(x) for x in (*arguments, "--dictionaries", folder / "words")])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_questions_and_answers_become_training_data(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    shown = run(folder, folder / "questions.jsonl", "--out", out, "--target", "fi,ru", "--source", "en", "--keep")
    assert "4 texts translated" in shown
    found = {q.id: q for q in read_xor(out)}
    assert list(found) == ["1", "2", "fi-1", "ru-1"]
    assert found["fi-1"].text == "which joki ?" and found["fi-1"].language == "fi"
    assert found["fi-1"].answers == ("the joki", "1907", "yes")  # figures and labels stay
    assert found["ru-1"].answers[0] == "the река"
    lines = provenance_path(out).read_text(encoding="utf-8").splitlines()
    record = json.loads(lines[1])
    assert (
        record["field"] == "answer 1" and record["source_text"] == "the river" and record["model"].startswith("terms")
    )
    run(folder, folder / "questions.jsonl", "--out", out, "--target", "fi,ru", "--source", "en")
    assert [q.id for q in read_xor(out)] == ["fi-1", "ru-1"]
    assert provenance_path(out).read_text(encoding="utf-8").splitlines() == lines  # nothing was done again


def test_passages_and_both_sides_of_lists(folder, tmp_path):
    out = tmp_path / "out.tsv"
    run(folder, folder / "passages.tsv", "--out", out, "--target", "fi", "--source", "en")
    assert list(read_passages(out)) == [Passage("p", "a kaupunki, a joki", "joki")]
    run(folder, folder / "lists.json", "--out", tmp_path / "p.json", "--side", "passages")
    [made] = json.loads((tmp_path / "p.json").read_text())
    assert [(c["text"], c["lang"], c["id"]) for c in made["ctxs"]] == [("joki 1", "fi", "1"), ("joki 2", "fi", "2")]
    run(folder, folder / "lists.json", "--out", tmp_path / "q.json", "--side", "question")
    [made] = json.loads((tmp_path / "q.json").read_text())
    assert (made["question"], made["lang"], made["original_lang"]) == ("mika river ?", "en", "fi")
    assert made["ctxs"][0]["text"] == "river 1"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["questions.jsonl"], "no language to translate into"),
        (["questions.jsonl", "--target", "xx"], "'xx'"),
        (["questions.jsonl", "--target", "fi", "--source", "ko"], "ko: "),
        (["passages.tsv", "--target", "fi"], "passages don't say their language"),
        (["questions.jsonl", "--target", "ja", "--source", "en"], "en-ja.txt"),
        (["lists.json", "--side", "both"], "side: .*'both'"),
        (["lists.json", "--model", "x"], "--model, --endpoint"),
    ],
)
def test_what_the_command_refuses(folder, tmp_path, arguments, problem):
    with pytest.raises(InputError, match=problem):
        run(folder, folder / arguments[0], "--out", tmp_path / "o", *arguments[1:])


def test_terms_of_several_words_are_translated_as_one(tmp_path):
    lines = "the blue river\tJoki\nriver\tvirta\nj. k. rowling\tRowling\nriver bank\tranta\n"
    (tmp_path / "en-fi.txt").write_text(lines, encoding="utf-8")
    translate = DictionaryTranslator(tmp_path).translate
    asked = ["Where is The Blue River bank?", "a river bank", "river banks", "By J. K. Rowling."]
    wanted = ["Where is Joki bank?", "a ranta", "virta banks", "By Rowling."]
    assert translate(asked, "en", "fi") == wanted
