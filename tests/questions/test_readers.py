# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Readers of the public question files: what they accept, what they refuse and how they say so."""

import collections
import gzip
import json

import pytest

from class_jax.errors import InputError
from class_jax.questions import readers


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def xor(**changes):
    record = {"id": "1", "question": "Kuka?", "answers": ["Risto"], "lang": "fi", "split": "train"} | changes
    return json.dumps({k: v for k, v in record.items() if v is not ...}, ensure_ascii=False)


def test_xor_strips_the_blank_of_the_arabic_language(tmp_path):
    path = write(
        tmp_path / "x.jsonl", xor(lang=" ar"), "", xor(id=2, answers=[" a ", "a", ""]), xor(id="3", answers=...)
    )
    first, second, third = readers.read_xor(path)
    assert (first.language, first.answers) == ("ar", ("Risto",))
    assert (second.id, second.answers) == ("2", ("a",))
    assert third.answers == ()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([xor(), xor()], "x.jsonl:2: 1: duplicate id (first on line 1)"),
        ([xor(lang="fj")], "x.jsonl:1: lang: unknown language 'fj'; known: ar, bn"),
        ([xor(question=...)], "x.jsonl:1: question: missing key"),
        ([xor(question=" ")], "x.jsonl:1: question: empty text"),
        ([xor(answers="Risto")], "x.jsonl:1: answers: str instead of list"),
        ([xor(answers=[1])], "x.jsonl:1: answers: an answer is int instead of str"),
        ([xor(answers=[" "])], "x.jsonl:1: answers: every answer is empty"),
        ([xor(id=True)], "x.jsonl:1: id: bool instead of str or int"),
        ([xor(), "{"], "x.jsonl:2: not valid JSON"),
        (["[]"], "x.jsonl:1: not a JSON object"),
    ],
)
def test_bad_xor_rows_name_file_line_and_key(tmp_path, lines, expected):
    with pytest.raises(InputError) as error:
        list(readers.read_xor(write(tmp_path / "x.jsonl", *lines)))
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_answers_can_be_required(tmp_path):
    path = write(tmp_path / "x.jsonl", xor(answers=...))
    with pytest.raises(InputError, match="answers: missing key"):
        list(readers.read_xor(path, needs_answers=True))


def test_invalid_utf8_names_the_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(xor().encode() + b"\n\xff\n")
    with pytest.raises(InputError, match=r"x\.jsonl:2: not valid UTF-8"):
        list(readers.read_xor(path))


def test_missing_file_and_broken_gzip(tmp_path):
    with pytest.raises(InputError, match="can't be read"):
        list(readers.read_xor(tmp_path / "absent.jsonl"))
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(xor().encode() * 100)[:-20])
    with pytest.raises(InputError, match="not a whole gzip file"):
        list(readers.read_xor(path))


def test_nq(tmp_path):
    path = write(
        tmp_path / "nq.csv",
        "who got it\t['Wilhelm Röntgen', \"O'Brien\"]",
        '"who wrote ""it"""\t"[""Stephen King""]"',
        "kuka\t['Risto']\tfi",
    )
    first, second, third = readers.read_nq(path)
    assert (first.id, first.language, first.answers) == ("0", "en", ("Wilhelm Röntgen", "O'Brien"))
    assert (second.text, second.answers) == ('who wrote "it"', ("Stephen King",))
    assert (third.id, third.language) == ("2", "fi")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("who", "nq.csv:2: 1 columns instead of 2 or 3"),
        ("who\t['a']\ten\tx", "nq.csv:2: 4 columns"),
        ("who\t['a'", "nq.csv:2: answers: not a list of answers"),
        ("who\t__import__('os').getcwd()", "nq.csv:2: answers: not a list of answers"),
        ("who\t'a'", "nq.csv:2: answers: str instead of a list"),
        ("who\t['a']\txx", "nq.csv:2: language: unknown language 'xx'"),
        ("\t['a']", "nq.csv:2: question: empty text"),
    ],
)
def test_bad_nq_rows(tmp_path, row, expected):
    with pytest.raises(InputError) as error:
        list(readers.read_nq(write(tmp_path / "nq.csv", "who\t['a']", row)))
    assert expected in str(error.value)


def mkqa(**changes):
    record = {
        "example_id": -17,
        "query": "who",
        "queries": {"fi": "kuka", "zh_cn": "谁"},
        "answers": {
            "fi": [{"type": "entity", "entity": "Q1", "text": "Risto", "aliases": ["Ryti", "Risto"]}],
            "zh_cn": [{"type": "unanswerable", "text": None}],
        },
    }
    return json.dumps(record | changes)


def test_mkqa_skips_or_keeps_the_unanswerable(tmp_path):
    path = tmp_path / "mkqa.jsonl.gz"
    path.write_bytes(gzip.compress(mkqa().encode()))
    (only,) = readers.read_mkqa(path, ["fi", "zh_cn"])
    assert (only.id, only.language, only.answers) == ("fi--17", "fi", ("Risto", "Ryti"))
    kept = list(readers.read_mkqa(path, ["fi", "zh_cn"], keep_unanswerable=True))
    assert [(q.id, q.answers) for q in kept] == [("fi--17", ("Risto", "Ryti")), ("zh_cn--17", ())]


@pytest.mark.parametrize(
    ("lines", "languages", "expected"),
    [
        ([mkqa()], ["fi", "bn"], "languages: unknown language 'bn'"),
        ([mkqa()], ["de"], "m.jsonl:1: queries.de: missing key"),
        ([mkqa(), mkqa()], ["fi"], "m.jsonl:2: -17: duplicate id"),
        ([mkqa(answers=None)], ["fi"], "m.jsonl:1: answers: NoneType instead of dict"),
        ([mkqa(answers={"fi": ["x"]})], ["fi"], "answers.fi: an answer is str instead of dict"),
    ],
)
def test_bad_mkqa_rows(tmp_path, lines, languages, expected):
    with pytest.raises(InputError) as error:
        list(readers.read_mkqa(write(tmp_path / "m.jsonl", *lines), languages))
    assert expected in str(error.value)


def test_parallel_masks_the_answer_in_the_other_language_only(tmp_path):
    path = write(
        tmp_path / "p.tsv",
        "fi-1\tWho led Nokia in Espoo?\tKuka johti Nokiaa (Nokia) Espoossa?\tNokia",
        "ja-2\tWho is _X_?\t首都は?\tTokyo",
    )
    first, second = readers.read_parallel(path)
    assert first.text == "Kuka johti _X_a (_X_) Espoossa?"
    assert first.english == "Who led Nokia in Espoo?"
    assert (first.language, first.answers) == ("fi", ("Nokia",))
    assert second.text == "首都は?"


@pytest.mark.parametrize(
    ("mask", "masked"),
    [("all", ["Vuosi _X_5, _X_?", "_X_年?"]), ("latin", ["Vuosi 1945, _X_?", "194年?"])],
)
def test_where_the_answer_is_masked(tmp_path, mask, masked):
    path = write(tmp_path / "p.tsv", "fi-1\t_X_?\tVuosi 1945, 194?\t194", "ja-2\t_X_?\t194年?\t194")
    assert [q.text for q in readers.read_parallel(path, mask=mask)] == masked


def test_an_unknown_rule_of_masking(tmp_path):
    with pytest.raises(InputError, match=r"read_parallel\.mask: unknown value 'latn'; did you mean 'latin'"):
        list(readers.read_parallel(tmp_path / "p.tsv", mask="latn"))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("fi-2\ta\tb", "p.tsv:2: 3 columns instead of 4; write id<TAB>english<TAB>question<TAB>answer"),
        ("fi-1\ta\tb\tc", "p.tsv:2: fi-1: duplicate id (first on line 1)"),
        ("17\ta\tb\tc", "p.tsv:2: id: unknown language '17'; start the id with its language"),
        ("en-1\ta\tb\tc", "p.tsv:2: en-1: a pair of English and English"),
        ("fi-2\ta\tb\t ", "p.tsv:2: answer: empty text"),
    ],
)
def test_bad_parallel_rows(tmp_path, row, expected):
    with pytest.raises(InputError) as error:
        list(readers.read_parallel(write(tmp_path / "p.tsv", "fi-1\ta\tb\tc", row)))
    assert expected in str(error.value)


def test_anchor_questions(tmp_path):
    path = write(tmp_path / "a.tsv", "ko-1\t누가 _X_?\tSeoul", "17-1\twho\tx", "18\twho\tx")
    assert [q.language for q in readers.read_anchor_questions(path)] == ["ko", "en", "en"]
    with pytest.raises(InputError, match=r"a\.tsv:1: id: unknown language 'qq'"):
        list(readers.read_anchor_questions(write(tmp_path / "a.tsv", "qq-1\twho\tx")))


def test_parallel_lines(tmp_path):
    english, finnish = write(tmp_path / "en", "who", "what"), write(tmp_path / "fi", "kuka", "mikä")
    assert list(readers.read_parallel_lines(english, finnish, "fi"))[1] == readers.Question(
        "fi-2", "mikä", (), "fi", "what"
    )
    write(tmp_path / "fi", "kuka")
    with pytest.raises(InputError, match="fi: ends before line 2"):
        list(readers.read_parallel_lines(english, finnish, "fi"))
    with pytest.raises(InputError, match="fi: ends before line 2"):
        list(readers.read_parallel_lines(finnish, english, "fi"))
    write(tmp_path / "fi", "kuka", "")
    with pytest.raises(InputError, match="fi:2: fi: empty text"):
        list(readers.read_parallel_lines(english, finnish, "fi"))


def test_xquad_errors(tmp_path):
    path = write(tmp_path / "xquad.ar.json", json.dumps({"data": [{"title": "A", "paragraphs": [{"context": "c"}]}]}))
    with pytest.raises(InputError, match="qas: missing key"):
        readers.read_xquad(path)
    with pytest.raises(InputError, match="unknown language 'other'"):
        readers.read_xquad(write(tmp_path / "other.json", "{}"))
    with pytest.raises(InputError, match=r"xquad\.ar\.json: data: missing key"):
        readers.read_xquad(write(path, "{}"))


def test_public_xor_file(real_data):
    read = list(readers.read_xor(real_data / "xor_retrieve/xor_train_retrieve_eng_span.jsonl", needs_answers=True))
    assert len(read) == 15_250
    assert collections.Counter(q.language for q in read).keys() == set(readers.XOR_LANGUAGES)


def test_public_parallel_lines(real_data):
    folder = real_data / "xor_parallel"
    counts = {
        language: sum(
            1
            for _ in readers.read_parallel_lines(
                folder / f"{language}-en.en", folder / f"{language}-en.{language}", language
            )
        )
        for language in readers.XOR_LANGUAGES
    }
    assert counts == {"ar": 4415, "bn": 4427, "fi": 4406, "ja": 4465, "ko": 4441, "ru": 4507, "te": 4522}


def test_public_xquad_pairs_with_english(real_data):
    english = real_data / "xquad/xquad.en.json"
    read, paragraphs = readers.read_xquad(real_data / "xquad/xquad.ru.json", english_path=english)
    assert len(read) == len(paragraphs) == 1190
    assert read[0].english == "How many points did the Panthers defense surrender?"
    passages = readers.read_xquad_paragraphs(english)
    assert len(passages) == 240 and set(paragraphs) == {p.id for p in passages}
    text = {p.id: p.text for p in passages}
    asked, places = readers.read_xquad(english)
    assert all(q.answers[0] in text[place] for q, place in zip(asked, places, strict=True))
