# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Masks the answer in the other language's question of a stage-1 pair: one rule for writer and reader."""

import re

MASK = "_X_"
"""The token that replaces the answer."""
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

    In other scripts the sentence is unchanged (paper, footnote 2). An answer that begins or ends with a digit must not
    be part of a longer number: "19" does not match in "1945". Word endings are not considered, as in the paper's string
    match: "Helsinki" is masked in "Helsinkiin". Masks already in the text are kept, so masking twice changes nothing.
    """
    if language not in LATIN_LANGUAGES:
        return text
    return MASK.join(occurrences(answer).sub(MASK, part) for part in text.split(MASK))


def occurrences(answer: str) -> re.Pattern[str]:
    """Returns a pattern that finds an answer in a text, unless it is part of a longer number there."""
    before = r"(?<!\d)(?<!\d[.,])" if answer[:1].isdigit() else ""
    after = r"(?!\d)(?![.,]\d)" if answer[-1:].isdigit() else ""
    return re.compile(before + re.escape(answer) + after)
