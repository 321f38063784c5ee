# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
import unicodedata

import pytest

from class_jax.errors import InputError
from class_jax.evaluation.text import normalise_answer
from class_jax.questions.readers import TRAINING_LANGUAGES, read_xor
from class_jax.synthesis.sources.entity_types import ENTITY_TYPES
from class_jax.synthesis.stage2.anchors import AnchorExample
from class_jax.synthesis.stage2.question_words import (
    KIND_OF_TYPE,
    KINDS,
    WORD_LANGUAGES,
    has_question_word,
    question_word,
    words_of,
)
from class_jax.synthesis.stage2.validate import (
    RULES,
    ValidationConfig,
    in_script,
    names_answer,
    problem_of,
    question_key,
    tidied,
)


def example(language="fi", answer="Helsinki", kind="where", before="Suomen pääkaupunki on ", after="."):
    start = len(before)
    return AnchorExample(
        f"{language}-1-{start}",
        language,
        "1",
        "t",
        before + answer + after,
        start,
        start + len(answer),
        answer,
        kind=kind,
    )


def problem(question, language="fi", answer="Helsinki", kind="where", **settings):
    return problem_of(question, example(language, answer, kind), ValidationConfig(**settings))


GOOD = {
    "ar": ("أين تقع عاصمة مصر؟", "where"),
    "bn": ("রাশিয়ার স্থায়ী দূতাবাস কোথায় অবস্থিত?", "where"),
    "de": ("Wann wurde die Universität gegründet?", "when"),
    "en": ("How many islands are there in the lake?", "how many"),
    "es": ("¿Quién escribió la novela?", "who"),
    "fi": ("Missä maassa kaupunki sijaitsee?", "where"),
    "fr": ("Par qui le pont fut-il construit ?", "who"),
    "it": ("Che cosa si parla nella regione?", "what"),
    "ja": ("神社はどこにありますか？", "where"),
    "kn": ("ಆ ನಗರ ಎಲ್ಲಿ ಇದೆ?", "where"),
    "ko": ("누가 그 책을 썼나요?", "who"),
    "ml": ("ആ നഗരം എവിടെ ആണ്?", "where"),
    "ru": ("Когда был основан город?", "when"),
    "ta": ("அந்த நகரம் எங்கு உள்ளது?", "where"),
    "te": ("ఆ పట్టణం ఎక్కడ ఉంది?", "where"),
    "zh": ("这座城市在哪里？", "where"),
}


@pytest.mark.parametrize("language", sorted(GOOD))
def test_a_good_question_of_every_language_passes(language):
    question, kind = GOOD[language]
    assert problem(question, language, "X1Y2", kind) is None
    assert problem(unicodedata.normalize("NFD", question), language, "X1Y2", kind) is None


@pytest.mark.parametrize("language", sorted(GOOD))
def test_the_same_question_is_wrong_for_another_word_and_in_another_language(language):
    question, kind = GOOD[language]
    other = "when" if kind != "when" else "who"
    assert problem(question, language, "X1Y2", other) == "wrong_question_word"
    script = "ru" if language != "ru" else "te"
    assert problem(question, script, "X1Y2", kind) == "wrong_script"


@pytest.mark.parametrize(
    ("rule", "question"),
    [
        ("format", "  "),
        ("format", "Missä _X_ on kaupunki?"),
        ("format", "Missä kaupunki on?\nVastaus"),
        ("format", "Missä **kaupunki** on?"),
        ("format", "Question: Missä kaupunki on?"),
        ("format", "Missä [kaupunki] on?"),
        ("too_short", "Missä on?"),
        ("too_long", "Missä " + "kaupunki " * 40 + "on?"),
        ("wrong_script", "Missä Москва и Россия на карте?"),
        ("wrong_question_word", "Milloin kaupunki perustettiin?"),
        ("answer_in_question", "Missä maassa HELSINKI sijaitsee?"),
        (None, "Missä maassa kaupunki sijaitsee?"),
    ],
)
def test_each_rule_has_its_name(rule, question):
    assert problem(question) == rule
    assert rule is None or rule in RULES


def test_lengths_and_script_share_are_settings():
    assert problem("Missä on?", min_words=2) is None
    assert problem("Missä maassa kaupunki sijaitsee?", max_words=3) == "too_long"
    mixed = "Где находится Strapping Young Lad band?"
    assert problem(mixed, "ru") == "wrong_script"
    assert problem(mixed, "ru", script_share=0.2) is None


def test_unspaced_languages_count_two_characters_as_a_word():
    assert problem("どこか？", "ja") == "too_short"
    assert problem("神社はどこですか？", "ja") is None


def test_japanese_needs_kana_and_chinese_has_none():
    assert in_script("神社はどこにありますか", "ja", 0.5)
    assert not in_script("这座城市在哪里", "ja", 0.5)
    assert in_script("这座城市在哪里", "zh", 0.5)
    assert not in_script("神社はどこにありますか", "zh", 0.2)


@pytest.mark.parametrize(
    ("question", "answer", "named"),
    [
        ("Missä Helsingin yliopisto on?", "Helsinki", False),
        ("Mikä on helsinkiläinen?", "Helsinki", True),
        ("Milloin vuonna 1945 sota päättyi?", "5", False),
        ("Montako on 5 ja 6?", "5", True),
        ("昭和１９４５年に誰が", "1945", True),
        ("昭和19450年に誰が", "1945", False),
        ("Missä YK:n kokous on?", "YK", True),
        ("Missä nykyinen kokous on?", "YK", False),
        ("Ｈｅｌｓｉｎｋｉ missä?", "helsinki", True),
        ("أين تقع باريس؟", "باريس", True),
        ("أين وباريس؟", "باريس", True),
    ],
)
def test_naming_the_answer(question, answer, named):
    assert names_answer(question, answer) is named


@pytest.mark.parametrize(
    ("question", "kind", "language", "has"),
    [
        ("كتبه رجل من مصر", "who", "ar", False),  # here it means "from"
        ("من كتب الكتاب", "who", "ar", True),
        ("Le livre que qui lit", "who", "fr", False),
        ("À qui est le livre", "who", "fr", True),
        ("How much or how little", "how many", "en", True),
        ("Somewhere they live", "where", "en", False),
        ("Сколькими людьми", "how many", "ru", True),
        ("Как каждый живёт", "what", "ru", False),
        ("അത് ആരംഭിച്ചത്", "who", "ml", False),
        ("രചിച്ചത് ആരാണ്", "who", "ml", True),
    ],
)
def test_question_words_in_their_places_and_forms(question, kind, language, has):
    assert has_question_word(question, language, kind) is has


def test_every_type_has_a_word_in_every_language():
    assert set(KIND_OF_TYPE) == set(ENTITY_TYPES)
    assert set(WORD_LANGUAGES) == {*TRAINING_LANGUAGES, "en"}
    for language in WORD_LANGUAGES:
        for kind in KINDS:
            word = question_word(language, kind)
            assert word and not set(word) & set("^*,")
            # What is asked for is accepted, at a question's beginning and, where words have no fixed place, later.
            assert has_question_word(f"{word} x y?", language, kind)


def test_unknown_languages_and_kinds_are_named():
    with pytest.raises(InputError, match="language 'xx'"):
        question_word("xx", "who")
    with pytest.raises(InputError, match="'why'"):
        question_word("fi", "why")


def test_words_keep_marks_and_joiners_apart():
    assert words_of("রাশিয়ার দূতাবাস, কোথায়?") == [unicodedata.normalize("NFC", word) for word in ("রাশিয়ার", "দূতাবাস", "কোথায়")]
    assert words_of("qu'est-ce QUE") == ["qu", "est", "ce", "que"]


def test_a_tidied_question_ends_with_one_mark_of_its_language():
    assert tidied("  Missä  on\tkaupunki. ", "fi") == "Missä on kaupunki?"
    assert tidied("أين تقع", "ar") == "أين تقع؟"
    assert tidied("どこですか。", "ja") == "どこですか？"
    assert tidied("どこですか?", "ja") == "どこですか?"


def test_duplicates_differ_only_in_case_and_marks():
    assert question_key("Missä on kaupunki?") == question_key("missä  on, kaupunki")
    assert question_key("Missä on kaupunki?") != question_key("Missä on kylä?")


@pytest.mark.parametrize("settings", [{"min_words": 0}, {"min_words": 9, "max_words": 8}, {"script_share": 1.5}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(InputError):
        ValidationConfig(**settings)


def test_real_questions_pass(real_data):
    path = real_data / "xor_retrieve" / "xor_train_retrieve_eng_span.jsonl"
    least = {"ar": 0.8, "bn": 0.97, "fi": 0.8, "ja": 0.75, "ko": 0.9, "ru": 0.75, "te": 0.9}
    asked, known, scripts = {}, {}, {}
    for i, question in enumerate(read_xor(path)):
        if i % 20 or {normalise_answer(a) for a in question.answers} & {"yes", "no"}:
            continue
        lang = question.language
        asked[lang] = asked.get(lang, 0) + 1
        known[lang] = known.get(lang, 0) + any(has_question_word(question.text, lang, kind) for kind in KINDS)
        scripts[lang] = scripts.get(lang, 0) + in_script(question.text, lang, 0.5)
    # What is left are "why", "how" and "whether", words run together, and Japanese questions that end in "は？".
    assert set(asked) == set(least)
    for lang, count in asked.items():
        assert known[lang] / count > least[lang], lang
        assert scripts[lang] / count > 0.97, lang
