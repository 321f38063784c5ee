# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Which generated questions are good enough to train on; each rule has a name that rejects are counted by."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass

from class_jax.errors import InputError
from class_jax.synthesis.stage2.anchors import AnchorExample, length_in_words
from class_jax.synthesis.stage2.question_words import UNSPACED, has_question_word, words_of

RULES = (
    "format",
    "too_short",
    "too_long",
    "wrong_script",
    "wrong_question_word",
    "answer_in_question",
    "same_sentence",
)
"""What `problem_of` may find. ``duplicate`` is the further reason, found among all questions of a language."""

_LATIN = ((0x41, 0x24F), (0x1E00, 0x1EFF))
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3134F))
_KANA = ((0x3041, 0x30FF), (0x31F0, 0x31FF))
_SCRIPTS: dict[str, tuple[tuple[int, int], ...]] = {
    **dict.fromkeys(("de", "en", "es", "fi", "fr", "it"), _LATIN),
    "ar": ((0x620, 0x6FF), (0x750, 0x77F)),
    "bn": ((0x980, 0x9FF),),
    "ja": (*_KANA, *_HAN),
    "kn": ((0xC80, 0xCFF),),
    "ko": ((0x1100, 0x11FF), (0x3131, 0x318E), (0xAC00, 0xD7AF)),
    "ml": ((0xD00, 0xD7F),),
    "ru": ((0x400, 0x52F),),
    "ta": ((0xB80, 0xBFF),),
    "te": ((0xC00, 0xC7F),),
    "zh": _HAN,
}
_REMAINS = re.compile(r"_X_|<[^<>]*>|\*\*|\[[^\]]*\]|\b(?:Statement|Question word|Answer|Question) ?:|[\t\r\n]")
_SHORT_ANSWER = 2


@dataclass(frozen=True)
class ValidationConfig:
    """What makes a question valid.

    Attributes:
      min_words, max_words: of the question; two characters count as a word in Japanese and Chinese.
      script_share: the least share of its letters that are of the language's own script; names may be of others.
      question_word: whether it must hold a form of the word that was asked for. Questions that people wrote ask in
        other ways too ("In which city", "Name the").
    """

    min_words: int = 3
    max_words: int = 40
    script_share: float = 0.5
    question_word: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.min_words <= self.max_words:
            problem = f"{self.min_words} to {self.max_words} words"
            raise InputError(problem, key="ValidationConfig.min_words", remedy="0 < min_words <= max_words")
        if not 0 <= self.script_share <= 1:
            raise InputError(f"{self.script_share} is no share", key="ValidationConfig.script_share", remedy="0 to 1")


def problem_of(question: str, example: AnchorExample, config: ValidationConfig) -> str | None:
    """Returns the first rule of `RULES` that a question breaks, or None.

    - ``format``: empty, of several lines, or with remains of a prompt or of markup.
    - ``wrong_script``: mostly letters of other scripts; Japanese needs kana, Chinese has none.
    - ``too_short``, ``too_long``: by words.
    - ``wrong_question_word``: no form of the word that was asked for (where the configuration wants one).
    - ``answer_in_question``: it gives the answer away.
    """
    language = example.language
    if not question.strip() or _REMAINS.search(question):
        return "format"
    if not in_script(question, language, config.script_share):
        return "wrong_script"
    length = length_in_words(question, language)
    if not config.min_words <= length <= config.max_words:
        return "too_short" if length < config.min_words else "too_long"
    if config.question_word and not has_question_word(question, language, example.kind):
        return "wrong_question_word"
    return "answer_in_question" if names_answer(question, example.answer) else None


def in_script(text: str, language: str, share: float) -> bool:
    """Whether at least this share of a text's letters is of a language's script."""
    letters = [ord(c) for c in text if c.isalpha()]
    own = sum(_within(c, _SCRIPTS[language]) for c in letters)
    if not letters or own < share * len(letters):
        return False
    kana = any(_within(c, _KANA) for c in letters)
    return kana if language == "ja" else not (language == "zh" and kana)


def names_answer(question: str, answer: str) -> bool:
    """Whether a question has the answer in it, whatever case and width; inflected forms that begin so count too.

    An answer of one or two characters or of digits must be a word of its own: "1945" does not name "5".
    """
    inside, asked = _folded(answer), _folded(question)
    if len(inside) > _SHORT_ANSWER and not inside.isdigit():
        return inside in asked
    if any(_within(ord(c), (*_HAN, *_KANA)) for c in asked):
        # Without blanks between words only digits show where a number ends.
        return re.search(rf"(?<!\d){re.escape(inside)}(?!\d)", asked) is not None
    return f" {' '.join(words_of(answer))} " in f" {' '.join(words_of(question))} "


def tidied(question: str, language: str) -> str:
    """Returns a question in NFC with single blanks and the language's question mark at its end, if it has none."""
    text = " ".join(unicodedata.normalize("NFC", question).split())
    if text.endswith(("?", "？", "؟")):
        return text
    mark = "؟" if language == "ar" else "？" if language in UNSPACED else "?"
    return text.rstrip(" .。।．…!") + mark


def question_key(question: str) -> bytes:
    """Returns eight bytes that are equal for duplicates: questions of the same words."""
    return hashlib.sha256(" ".join(words_of(question)).encode()).digest()[:8]


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _within(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)
