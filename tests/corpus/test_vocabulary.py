# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The vocabulary and what the model is given of a question, a passage and an answer."""

import hashlib
import io
import json
import random
import subprocess
import sys

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from class_jax.corpus import inputs
from class_jax.corpus.passages import Passage
from class_jax.corpus.vocabulary import Vocabulary, train_vocabulary
from class_jax.errors import InputError

pytestmark = pytest.mark.core

_chance = random.Random(0)
_WORDS = ["".join(_chance.choices("abcdefghiklmnoprstuw", k=_chance.randint(3, 8))) for _ in range(120)]
_NAMES = ["The river Donau flows", "Indus", "Nil", "Река течёт", "川は流れる"]
TEXTS = [" ".join([*_chance.choices(_WORDS, k=12), *_chance.choices(_NAMES, k=3)]) for _ in range(120)]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return train_vocabulary(TEXTS, tmp_path_factory.mktemp("vocabulary") / "spiece.model", 340)


def special(path, **ids):
    model = io.BytesIO()
    settings = dict(vocab_size=340, byte_fallback=True, minloglevel=2, model_type="unigram") | ids
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS), model_writer=model, **settings)
    path.write_bytes(model.getvalue())
    return path


def test_trained_vocabulary(vocabulary):
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    assert vocabulary.size == vocabulary.pieces == 340
    assert vocabulary.fingerprint == hashlib.sha256(vocabulary.path.read_bytes()).hexdigest()
    ids = vocabulary.encode("The Donau flows")
    assert ids and all(2 < i < 340 for i in ids)
    assert vocabulary.encode_batch(["The Donau flows", "Nil"]) == [ids, vocabulary.encode("Nil")]
    # Padding, ends, label padding and the spare rows of the embedding say nothing.
    assert vocabulary.decode([*ids, 1, 0, 0, -100, 400]) == "The Donau flows"


@settings(deadline=None, max_examples=100)
@given(st.text(st.sampled_from("abc xyzäßИяชไদ中🙂 0,.")))
def test_nothing_is_unknown(vocabulary, text):
    ids = vocabulary.encode(text)
    assert vocabulary.unk_id not in ids
    assert vocabulary.decode(ids) == " ".join(text.split())


def test_user_text_cannot_hold_special_tokens(vocabulary):
    assert not {0, 1} & set(vocabulary.encode("<pad> </s> a</s>"))


def test_loading_by_file_folder(vocabulary):
    for place in (vocabulary.path, str(vocabulary.path), vocabulary.path.parent):
        assert Vocabulary.load(place).fingerprint == vocabulary.fingerprint
    wide = Vocabulary.load(vocabulary.path, size=512)
    assert (wide.size, wide.pieces, wide.fingerprint) == (512, 340, vocabulary.fingerprint)


def test_a_size_below_the_pieces_is_refused(vocabulary):
    with pytest.raises(InputError, match=r"\b100\b.*\b340\b"):
        Vocabulary.load(vocabulary.path, size=100)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (dict(pad_id=-1), "pad is -1"),
        (dict(pad_id=0, unk_id=1, bos_id=-1, eos_id=2), "eos is 2.*unk is 1"),
    ],
)
def test_other_special_ids_are_refused(tmp_path, ids, words):
    path = special(tmp_path / "other.model", **ids)
    with pytest.raises(InputError, match=words) as caught:
        Vocabulary.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"not a model"])
def test_not_a_model(tmp_path, data):
    path = tmp_path / "x.model"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"x\.model: ") as caught:
        Vocabulary.load(path)
    assert "\n" not in str(caught.value)


def test_missing_file_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(InputError, match=r"spiece\.model"):
        Vocabulary.load(tmp_path / "absent.model")


def test_hub_id_without_a_network_says_what_to_do(tmp_path):
    code = (
        "from class_jax.corpus.vocabulary import *\n"
        "try: Vocabulary.load('google/mt5-large')\n"
        "except InputError as error: print(error)"
    )
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("google/mt5-large: neither a local file nor in the Hub's cache"), done.stderr
    assert "https://huggingface.co/google/mt5-large/resolve/main/spiece.model" in done.stdout


def test_training_is_deterministic_and_quiet(tmp_path, capfd):
    first = train_vocabulary(iter(TEXTS), tmp_path / "a.model", 320)
    assert train_vocabulary(TEXTS, tmp_path / "b.model", 320).fingerprint == first.fingerprint
    assert train_vocabulary(TEXTS[1:], tmp_path / "c.model", 320).fingerprint != first.fingerprint
    assert capfd.readouterr() == ("", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.model", "b.model", "c.model"]


def test_training_samples_a_long_stream(tmp_path):
    first = train_vocabulary((t for t in TEXTS * 50), tmp_path / "a.model", 320, max_texts=100)
    again = train_vocabulary((t for t in TEXTS * 50), tmp_path / "b.model", 320, max_texts=100)
    other = train_vocabulary((t for t in TEXTS * 50), tmp_path / "b.model", 320, max_texts=100, seed=1)
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_long_texts_are_cut_not_dropped(tmp_path):
    words = random.Random(0).choices(_WORDS, k=20_000)
    cyrillic = {ord("a") + i: 0x430 + i for i in range(26)}  # two bytes a letter
    vocabulary = train_vocabulary([" ".join(words).translate(cyrillic)], tmp_path / "a.model", 400)
    assert len(vocabulary.encode(" ".join(_WORDS).translate(cyrillic))) < 0.7 * sum(map(len, _WORDS))


def test_too_small_a_corpus_names_the_largest_size(tmp_path):
    path = tmp_path / "a.model"
    with pytest.raises(
        InputError, match=r"a\.model: the texts are too few .* largest size possible is (\d+)"
    ) as caught:
        train_vocabulary(TEXTS, path, 50_000)
    assert not path.exists()
    largest = int(str(caught.value).split("possible is ")[1].split(":")[0])
    assert train_vocabulary(TEXTS, path, largest).size == largest


@pytest.mark.parametrize(
    ("texts", "size", "words"), [([], 300, "no text"), ([" \n"], 300, "no text"), (TEXTS, 262, "can't hold")]
)
def test_other_refusals(tmp_path, texts, size, words):
    with pytest.raises(InputError, match=words):
        train_vocabulary(texts, tmp_path / "a.model", size)
    assert not list(tmp_path.iterdir())


def test_normalised_questions_equal_the_references(golden):
    pairs = json.loads((golden / "eval" / "normalize.json").read_text(encoding="utf-8"))
    assert len(pairs) > 50
    for given_text, expected in pairs:
        assert inputs.normalise_question(given_text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\u2013b\u00ad \u2018q\u2019 \u201cr\u201d\u2026", "a-b 'q' \"r\"..."),
        ("x . . . y", "x ... y"),
        ("\u2034\u2057 1\u20442", "'''''''" + " 1/2"),
        ("\x07\x10\x0b", "\x10 "),
        ("ｆｕｌｌ ～ «x»", "ｆｕｌｌ ～ «x»"),
    ],
)
def test_normalised_question(text, expected):
    assert inputs.normalise_question(text) == expected


def test_questions(vocabulary):
    assert inputs.question_text("a – b", "en") == "question: a – b"
    assert inputs.question_text("a – b", " ar") == "question: a - b"
    ids = inputs.encode_question(vocabulary, "Donau – " * 40, "ar ", max_tokens=50)
    assert ids == vocabulary.encode("question: " + "Donau - " * 40)[:50]
    assert len(ids) == 50 and vocabulary.eos_id not in ids


def test_passages_and_answers(vocabulary):
    short, long = Passage("1", "The river", "Nil"), Passage("2", "The river flows " * 100, "Nil")
    encoded, cut = inputs.encode_passages(vocabulary, [short, long], 60)
    assert encoded == [*vocabulary.encode("title: Nil context: The river"), 1]
    assert len(cut) == 60 and cut.index(1) == 59
    assert len(inputs.encode_passages(vocabulary, [long])[0]) == 200
    assert inputs.encode_answer(vocabulary, "Ulm") == [*vocabulary.encode("Ulm"), 1]
    assert len(inputs.encode_answer(vocabulary, "Ulm " * 100)) == 50


def test_language_codes():
    assert inputs.language_code(" ar") == "ar"
    assert {"ar", "bn", "fi", "ja", "ko", "ru", "te", "ta", "ml", "kn", "zh", "zh_cn", "km", "en"} <= set(
        inputs.LANGUAGES
    )
    with pytest.raises(InputError, match=r"q\.jsonl:3: .*'zh_c'.*'zh_cn'"):
        inputs.language_code("zh_c", file="q.jsonl", line=3)


def test_without_byte_fallback_a_run_of_unknown_characters_is_one_piece(tmp_path):
    texts = ["the river flows to the sea", "the city lies by the river"] * 20
    made = train_vocabulary(texts, tmp_path / "v.model", 21, byte_fallback=False)
    known = made.encode("the river")
    assert made.encode("the river \u2603\u2604\u2605")[len(known) :].count(made.unk_id) == 1
    assert made.unk_id not in known
    with_bytes = train_vocabulary(texts, tmp_path / "b.model", 277)
    assert with_bytes.unk_id not in with_bytes.encode("the river \u2603")


def test_symbols_are_one_piece_each(tmp_path):
    texts = [f"title: {name} context: the river {name}" for name in ("Rhine", "Rhone", "Main", "Maine")] * 20
    known = {}
    for symbols in ((), ("title:", "context:")):
        made = train_vocabulary(texts, tmp_path / "v.model", 277, symbols=symbols)
        known[symbols] = len(made.encode("title: Main context:"))
        assert made.decode(made.encode(texts[0])) == texts[0]
    assert known[("title:", "context:")] + 4 <= known[()]
