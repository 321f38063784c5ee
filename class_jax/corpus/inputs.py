# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What the model is given of a question, a passage and an answer (paper 4.1; the reference's formats)."""

import os
from collections.abc import Sequence

from class_jax.corpus.passages import Passage
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError, nearest

# Languages of XOR-TyDi QA, of the paper's pre-training and of MKQA.
LANGUAGES = {
    "ar": "Arabic",
    "bn": "Bengali",
    "da": "Danish",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hu": "Hungarian",
    "it": "Italian",
    "ja": "Japanese",
    "km": "Khmer",
    "kn": "Kannada",
    "ko": "Korean",
    "ml": "Malayalam",
    "ms": "Malay",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "sv": "Swedish",
    "ta": "Tamil",
    "te": "Telugu",
    "th": "Thai",
    "tr": "Turkish",
    "vi": "Vietnamese",
    "zh": "Chinese",
    "zh_cn": "Chinese (mainland)",
    "zh_hk": "Chinese (Hong Kong)",
    "zh_tw": "Chinese (Taiwan)",
}

# The reference's rules, one character at a time: control characters go, variants of hyphens, quotes and
# slashes become ASCII. No Unicode normalisation form does this: full-width letters, ligatures, tildes,
# guillemets, fractions and U+0010 stay, as they do there.
_PLAIN = str.maketrans(
    dict.fromkeys([*range(0x01, 0x09), 0x0E, 0x0F, *range(0x11, 0x1C), 0xAD])
    | dict.fromkeys((0x0B, 0x0C, 0x85), " ")
    | dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u207b\u2212\uff0d"), "-")
    | dict.fromkeys(map(ord, "\u201c\u201d\u201e\u201f"), '"')
    | dict.fromkeys(map(ord, "\u2018\u2019\u201a\u201b\u055a\ua78b\ua78c\uff07`\u00b4\u2032\u2035"), "'")
    | dict.fromkeys(map(ord, "\u2033\u2036"), "''")
    | dict.fromkeys(map(ord, "\u2034\u2037"), "'''")
    | {0x2057: "''''", 0x2026: "..."}
    | dict.fromkeys(map(ord, "\u2044\u2215"), "/")
)


def normalise_question(text: str) -> str:
    """Returns the text with plain hyphens, quotes, slashes and ellipses, and without control characters."""
    return text.translate(_PLAIN).replace(" . . . ", " ... ")


def language_code(language: str, *, file: str | os.PathLike | None = None, line: int | None = None) -> str:
    """Returns a language code without the blanks that the public files have around some (`" ar"`).

    Args:
      language: the code as found.
      file: where, for the error.
      line: its line.

    Raises:
      InputError: if it is not one of `LANGUAGES`.
    """
    code = language.strip()
    if code not in LANGUAGES:
        raise InputError(f"unknown language {code!r}", file=file, line=line, remedy=nearest(code, LANGUAGES))
    return code


PREFIXES = ("question:", "title:", "context:")
"""The words before the parts of an encoder's text."""


def question_text(question: str, language: str) -> str:
    """Returns the encoder's text of a question; questions not in English are normalised first.

    Raises:
      InputError: if the language is unknown.
    """
    return f"{PREFIXES[0]} " + (question if language_code(language) == "en" else normalise_question(question))


def passage_text(passage: Passage) -> str:
    """Returns the encoder's text of a passage."""
    return f"{PREFIXES[1]} {passage.title} {PREFIXES[2]} {passage.text}"


def encode_question(vocabulary: Vocabulary, question: str, language: str, max_tokens: int = 50) -> list[int]:
    """Returns a question's token ids: at most `max_tokens`, without end of sequence.

    Raises:
      InputError: if the language is unknown.
    """
    return vocabulary.encode(question_text(question, language))[:max_tokens]


def encode_passages(vocabulary: Vocabulary, passages: Sequence[Passage], max_tokens: int = 200) -> list[list[int]]:
    """Returns the token ids of each passage: at most `max_tokens`, the last of which is the end of sequence."""
    encoded = vocabulary.encode_batch([passage_text(passage) for passage in passages])
    return [_ended(vocabulary, ids, max_tokens) for ids in encoded]


def encode_answer(vocabulary: Vocabulary, answer: str, max_tokens: int = 50) -> list[int]:
    """Returns an answer's token ids: at most `max_tokens`, the last of which is the end of sequence."""
    return _ended(vocabulary, vocabulary.encode(answer), max_tokens)


def _ended(vocabulary: Vocabulary, ids: list[int], max_tokens: int) -> list[int]:
    return [*ids[: max_tokens - 1], vocabulary.eos_id]
