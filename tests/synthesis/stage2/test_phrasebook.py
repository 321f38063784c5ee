# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Phrasebooks: which form fits a sentence, what is asked, what is refused; and passages of whole sentences."""

import dataclasses
import itertools

import pytest

from class_jax.corpus.segments import blocks, sentence_blocks
from class_jax.errors import InputError
from class_jax.synthesis.stage2.anchors import AnchorConfig, AnchorExample, _complete, _typed
from class_jax.synthesis.stage2.phrasebook import PhrasebookTransformer, read_phrasebook
from class_jax.synthesis.stage2.questions import QuestionConfig, make_questions
from class_jax.synthesis.stage2.transform import Draw, Rejected
from class_jax.synthesis.stage2.validate import ValidationConfig, problem_of

ROWS = (
    "language\tstatement\tquestion",
    "fi\tMaan {given} pääkaupunki on {answer}.\tMikä on maan {given} pääkaupunki?",
    "fi\tMaan {given} pääkaupunki on {answer}.\tNimeä valtion {given} pääkaupunki.",
    "fi\tMaan {answer} pääkaupunki on {given}.\tMinkä maan pääkaupunki on {given}?",
    "fi\t{given} on {answer}.\tMikä {given} on?",
    "ja\t{given}の首都は{answer}です。\t{given}の首都はどこですか？",
)


def book(tmp_path, *rows):
    path = tmp_path / "phrasebook.tsv"
    path.write_text("\n".join(rows or ROWS) + "\n", encoding="utf-8")
    return path


def example(sentence, answer, language="fi"):
    start = sentence.index(answer)
    return AnchorExample(
        f"{language}-1-{start}", language, "1", "T", sentence, start, start + len(answer), "x", "X", "GPE", "where", "7"
    )


@pytest.mark.parametrize(
    ("sentence", "answer", "language", "questions"),
    [
        (
            "Maan Suomi pääkaupunki on Helsinki.",
            "Helsinki",
            "fi",
            ["Mikä on maan Suomi pääkaupunki?", "Nimeä valtion Suomi pääkaupunki."],
        ),
        ("Maan Suomi pääkaupunki on Helsinki.", "Suomi", "fi", ["Minkä maan pääkaupunki on Helsinki?"]),
        # Two forms fit; the one with more words of its own is the sentence's.
        ("Pori on kaupunki.", "kaupunki", "fi", ["Mikä Pori on?"]),
        ("日本の首都は東京です。", "東京", "ja", ["日本の首都はどこですか？"]),
        ("Helsinki sijaitsee maassa Suomi.", "Suomi", "fi", ["no_wording"]),
        ("Maan pääkaupunki on Helsinki.", "Helsinki", "fi", ["Mikä Maan pääkaupunki on?"]),
        ("日本の首都は東京です。", "東京", "ru", ["no_wording"]),
    ],
)
def test_the_questions_of_a_sentence(tmp_path, sentence, answer, language, questions):
    transformer = PhrasebookTransformer(read_phrasebook(book(tmp_path)))
    draws = [Draw(example(sentence, answer, language), variant) for variant in range(3)]
    found = list(transformer.transform(draws))
    assert [one.draw for one in found] == draws
    results = [one.reason if isinstance(one, Rejected) else one.question for one in found]
    rest = "no_wording" if questions == ["no_wording"] else "no_variant"
    assert results == questions + [rest] * (3 - len(questions))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("language\tquestion",), r"phrasebook\.tsv:1: "),
        ((*ROWS, "fi\tx"), r"phrasebook\.tsv:7: "),
        ((*ROWS, "qq\t{given} {answer}\t{given}"), r":7: qq: "),
        ((*ROWS, "fi\t{given} on.\tMikä {given}?"), r":7: statement: .*\{answer\}"),
        ((*ROWS, "fi\t{given} {answer}\t{given} ja {given}"), r":7: question: .*\{given\}"),
        ((*ROWS, "fi\t{given} {answer}\tOnko {given} {answer}?"), r":7: question: .*\{answer\}"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read_phrasebook(book(tmp_path, *rows))


def test_the_stage_asks_by_the_phrasebook_and_notices_another(tmp_path):
    pytest.importorskip("apache_beam")
    folder = tmp_path / "anchors" / "fi"
    folder.mkdir(parents=True)
    names = ("Helsinki", "Espoo", "Pori", "Oulu")
    made = [
        dataclasses.replace(example(f"Maan M{i} pääkaupunki on {name}.", name), id=f"fi-{i}-0")
        for i, name in enumerate(names)
    ]
    (folder / "a.jsonl").write_text("".join(one.to_json() + "\n" for one in made), encoding="utf-8")
    (tmp_path / "anchors" / "stage.json").write_text(
        '{"name": "anchors", "inputs": {}, "counts": {"examples/fi": 4}, "files": {}}', encoding="utf-8"
    )
    config = QuestionConfig(
        languages=("fi",),
        transformer="phrasebook",
        phrasebook=str(book(tmp_path)),
        target=8,
        validation=ValidationConfig(question_word=False),
    )
    counts = make_questions(tmp_path, config, progress=False)
    assert (counts["questions/fi"], counts["rejected/no_variant/fi"]) == (8, 8)
    rows = (tmp_path / "stage2" / "anchor_questions.tsv").read_text(encoding="utf-8").splitlines()
    assert sorted(row.split("\t")[1:] for row in rows)[0] == ["Mikä on maan M0 pääkaupunki?", "Helsinki"]
    book(tmp_path, *ROWS[:2])
    with pytest.raises(InputError, match="stage2: transformer: "):
        make_questions(tmp_path, config, progress=False)


def test_a_phrasebook_must_be_given():
    with pytest.raises(InputError, match=r"^QuestionConfig\.phrasebook: "):
        QuestionConfig(transformer="phrasebook")


def test_questions_of_people_need_no_question_word():
    one = example("Maan Suomi pääkaupunki on Helsinki.", "Helsinki")
    asked = "Nimeä valtion Suomi pääkaupunki."
    assert problem_of(asked, one, ValidationConfig()) == "wrong_question_word"
    assert problem_of(asked, one, ValidationConfig(question_word=False)) is None


def test_answers_without_a_type_are_asked_for_where_wanted(monkeypatch):
    pytest.importorskip("apache_beam")
    monkeypatch.setattr(
        "class_jax.synthesis.stage2.anchors.counter", lambda name: type("C", (), {"inc": lambda self: None})()
    )
    target, one = ("fi", "euro"), example("Maan Suomi valuutta on euro.", "euro")
    grouped = ("Euro", {"links": [target], "pages": [object()]})

    def examples(untyped, kind):
        ((_, entity_type),) = _typed(grouped, lambda page: kind, untyped)
        return list(_complete((target, {"examples": [one], "answers": [entity_type]}), untyped))

    assert examples(None, None) == []
    (found,) = examples("what", None)
    assert (found.kind, found.entity_type, found.english) == ("what", "", "Euro")
    (typed,) = examples("what", "PERSON")
    assert (typed.kind, typed.entity_type) == ("who", "PERSON")
    with pytest.raises(InputError):
        AnchorConfig(untyped="whither")


def test_blocks_of_whole_sentences():
    text = "One two three. Four five. Six seven eight nine. Ten. " + " ".join(f"w{i}" for i in range(12)) + "."
    ends = [0, 14, 25, 47, 52, len(text)]
    sentences = [(start + (start > 0), end) for start, end in itertools.pairwise(ends)]
    found = sentence_blocks(text, sentences, 5)
    assert [text[a:b] for a, b, _ in found][:2] == ["One two three. Four five.", "Six seven eight nine. Ten."]
    assert [count for _, _, count in found] == [len(text[a:b].split()) for a, b, _ in found]
    start = sentences[-1][0]  # too long for one: cut by words
    assert found[2:] == [(start + a, start + b, n) for a, b, n in blocks(text[start:], 5)]
    assert "".join(text[a:b] for a, b, _ in found).replace(" ", "") == text.replace(" ", "")
    # What is left of a long sentence takes the next ones in, as far as they fit.
    (*_, last) = sentence_blocks("a b c d e f. g h.", [(0, 12), (13, 17)], 4)
    assert last[2] <= 4 and sentence_blocks("", [], 4) == []
