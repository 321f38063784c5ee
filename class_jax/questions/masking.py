# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""How the answer is masked in the other language's question of a stage-1 pair: one rule for writer and reader."""

import re

MASK = "_X_"
"""What takes the place of the answer."""
LATIN_LANGUAGES = frozenset(
    (
        *("az", "ca", "cs", "cy", "da", "de", "en", "es", "et", "eu", "fi", "fr", "ga", "gl", "hr", "hu", "id", "is"),
        *("it", "la", "lt", "lv", "ms", "mt", "nb", "nl", "nn", "no", "pl", "pt", "ro", "sk", "sl", "sq", "sv", "sw"),
        *("tl", "tr", "uz", "vi"),
    )
)
"""Languages written in Latin script: there the answer is masked where the string matches (paper, footnote 2)."""


def mask_other(text: str, answer: str, language: str) -> str:
    """Masks the answer in the other language's sentence: by string match if that language is in Latin script.

    In other scripts the sentence stays as it is (paper, footnote 2). Where the answer begins or ends in a figure, the
    match must not go on in figures: "19" is no part of "1945". Endings are cut off as in the paper's string match:
    "Helsinki" is masked in "Helsinkiin". Masks that stand in the text already stay: masking twice changes nothing.
    """
    if language not in LATIN_LANGUAGES:
        return text
    return MASK.join(occurrences(answer).sub(MASK, part) for part in text.split(MASK))


def occurrences(answer: str) -> re.Pattern[str]:
    """Returns what finds an answer in a text: its string, unless figures go on before or after it."""
    before = r"(?<!\d)(?<!\d[.,])" if answer[:1].isdigit() else ""
    after = r"(?!\d)(?![.,]\d)" if answer[-1:].isdigit() else ""
    return re.compile(before + re.escape(answer) + after)
