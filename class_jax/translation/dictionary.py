# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Machine translation behind one interface, and word-by-word translation with a bilingual dictionary."""

import os
import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from class_jax.common.files import digest_file, numbered_lines
from class_jax.errors import InputError

_WORD = re.compile(r"\w+(?:[-'’]\w+)*")


class Translator(Protocol):
    """Translates texts.

    Attributes:
      fingerprint: of all that decides the translations.
    """

    fingerprint: str

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """Translates texts, one by one and in order.

        Args:
          texts: in the source language.
          source, target: language codes.

        Raises:
          InputError: for a pair of languages that it does not know.
        """
        ...


def read_dictionary(path: str | os.PathLike) -> dict[str, tuple[str, ...]]:
    """Reads a bilingual dictionary as MUSE publishes them: a word, a blank or tab, its translation; one a line.

    A word may have several lines; repeated ones count once. Words are looked up in lower case.

    Raises:
      InputError: if a line is not two words, or the file holds none.
    """
    found: dict[str, dict[str, None]] = {}
    for line, text in numbered_lines(path):
        if not text.strip():
            continue
        # A translation may have several words only where a tab says so.
        cells = [c.strip() for c in text.split("\t")] if "\t" in text else text.split()
        if len(cells) != 2 or not all(cells):
            remedy = "write word<TAB>translation"
            raise InputError(f"{len(cells)} columns instead of 2", file=path, line=line, remedy=remedy)
        word, translation = (unicodedata.normalize("NFC", cell) for cell in cells)
        found.setdefault(word.lower(), {})[translation] = None
    if not found:
        raise InputError("no words", file=path, remedy="write word<TAB>translation, one a line")
    return {word: tuple(translations) for word, translations in found.items()}


def replace_words(
    text: str,
    dictionary: Mapping[str, Sequence[str]],
    ratio: float,
    chance: random.Random,
    kept: Sequence[str] = (),
    terms: re.Pattern[str] = _WORD,
) -> str:
    """Replaces words that the dictionary has by one of their translations; all else is unchanged.

    Args:
      text: any text.
      dictionary: word in lower case -> translations.
      ratio: probability that a word that is there is replaced.
      chance: draws the words and the translations.
      kept: words that are never replaced.
      terms: what is looked up; `term_pattern` a dictionary that has terms of several words, too.
    """

    def replaced(match: re.Match[str]) -> str:
        word = match[0]
        translations = dictionary.get(word.lower(), ())
        if not translations or word in kept or chance.random() >= ratio:
            return word
        return translations[chance.randrange(len(translations))]

    return terms.sub(replaced, text)


def term_pattern(dictionary: Mapping[str, Sequence[str]]) -> re.Pattern[str]:
    """What `replace_words` looks up: the dictionary's terms of several words, the longest first, and all words."""
    terms = sorted((term for term in dictionary if not _WORD.fullmatch(term)), key=len, reverse=True)
    several = [rf"(?<!\w)(?:{'|'.join(map(re.escape, terms))})(?!\w)"] if terms else []
    return re.compile("|".join([*several, _WORD.pattern]), re.IGNORECASE)


class DictionaryTranslator:
    """Term by term, with the first translation of each: a baseline, and what serves where there is no model.

    A term is a word, or several where the dictionary has a tab behind them (names, titles of pages).

    Args:
      folder: of dictionaries called `{source}-{target}.txt`, as MUSE names them.

    Raises:
      InputError: if there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self._folder = Path(folder)
        files = sorted(self._folder.glob("*-*.txt")) if self._folder.is_dir() else []
        if not files:
            raise InputError("no dictionaries ({source}-{target}.txt)", file=folder, remedy="download MUSE's")
        self._dictionaries: dict[tuple[str, str], tuple[dict[str, tuple[str, ...]], re.Pattern[str]]] = {}
        self.fingerprint = "terms " + " ".join(f"{file.name}:{digest_file(file)[:16]}" for file in files)

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """Translates term by term; see `Translator`. Words that the dictionary lacks stay.

        Raises:
          InputError: if there is no dictionary for the languages.
        """
        if (source, target) not in self._dictionaries:
            words = read_dictionary(self._folder / f"{source}-{target}.txt")
            self._dictionaries[source, target] = {word: found[:1] for word, found in words.items()}, term_pattern(words)
        dictionary, terms = self._dictionaries[source, target]
        chance = random.Random(0)
        return [replace_words(text, dictionary, 1.0, chance, terms=terms) for text in texts]
