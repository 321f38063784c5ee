# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Questions by rules only: cloze translation in the manner of Lewis et al. 2019 (arXiv 1906.04980).

The answer leaves its sentence, and the question word takes its place or the sentence's front, as the language has it.
There is no parser and no morphology behind this. So verbs stay where statements have them ("Where Mozart was born?"),
question words are not inflected, cases and agreement are kept, and pronouns stay unresolved. It serves to run the
pipeline anywhere and to compare with; questions of a language model are better.
"""

import re
import unicodedata
from collections.abc import Generator, Iterable
from dataclasses import dataclass

from class_jax.synthesis.stage2.question_words import must_lead
from class_jax.synthesis.stage2.transform import Draw, Rejected, Transformed
from class_jax.synthesis.stage2.validate import tidied

RULES_VERSION = "rules-2"
"""Changes with what the rules make."""
VARIANTS = 4
"""Questions that the rules can make of an example: two orders, of the whole sentence and of the answer's clause."""

_HOLE = "\ue000"  # the answer's place; a private character, which no page's text has
_ENDS = ' .。．।॥…!！?？؟"”»」』)）'
_ASIDE = re.compile(rf"\s*(?:\([^(){_HOLE}]*\)|（[^（）{_HOLE}]*）|\[[^\[\]{_HOLE}]*\])")
_CLAUSE = re.compile(r"[;；:：،؛，、]|(?<!\d),|,(?!\d)|\s[–—-]\s")
_FRONTED = frozenset({"ar", "de", "en", "es", "fi", "fr", "it", "ru"})
_PREPOSITIONS = {
    "ar": "في من إلى الى على عن مع حتى خلال منذ بين",
    "de": "in im am an bei beim aus auf von vom nach zu zum zur seit bis um vor über durch für mit gegen unter",
    "en": "in on at from to of by with for since until during into near under over through against about",
    "es": "en de del a al desde hasta por para con hacia entre sobre durante",
    "fr": "en à au aux de du des dans depuis jusqu'à par pour avec vers sur chez entre pendant",
    "it": "in a al alla ai alle nel nella nei nelle di del della da dal dalla su sul per con tra fra durante",
    "ru": "в во на из от до с со к ко о об по при у за под над между около через для",
}
_ARTICLES = {
    "de": "der die das dem den des ein eine einem einen einer",
    "en": "the a an",
    "es": "el la los las un una",
    "fr": "le la les un une",
    "it": "il lo la i gli le un una uno",
}
_JAPANESE_PAST = ("んだ", "いだ")  # of verbs such as 住む and 泳ぐ; any other だ is the copula
_JAPANESE_PLAIN = (*"るたいうくすむぶつぐぬ", *_JAPANESE_PAST)
_KOREAN_SUBJECTS = frozenset("은는이가")


class RuleTransformer:
    """Makes up to `VARIANTS` questions of an example, without any model."""

    def transform(self, draws: Iterable[Draw]) -> Generator[Transformed | Rejected, None, None]:
        """Reasons of rejects: ``no_variant``, where the rules have no (other) question for the draw."""
        for draw in draws:
            question = rule_question(draw)
            yield Rejected(draw, "no_variant") if question is None else Transformed(draw, question)


@dataclass(frozen=True)
class _Cloze:
    before: str
    after: str


def rule_question(draw: Draw) -> str | None:
    """Returns the question of a draw, or None where there is none of this variant.

    Variants 0 and 1 have the language's usual order, 2 and 3 the other one; 1 and 3 keep only the answer's clause.
    """
    example, variant = draw.example, draw.variant
    if variant >= VARIANTS:
        return None
    text = f"{example.sentence[: example.start]}{_HOLE}{example.sentence[example.end :]}"
    text = _without_asides(unicodedata.normalize("NFC", text)).rstrip(_ENDS)
    if _HOLE not in text:
        return None
    if variant % 2:
        clause = _clause(text)
        if clause == text:
            return None
        text = clause
    before, _, after = text.partition(_HOLE)
    cloze, word, other = _Cloze(before, after), example.question_word, variant >= 2
    language = example.language
    if language == "ja":
        question = _japanese(cloze, word, other)
    elif language == "zh":
        question = None if other else f"{before}{word}{after}"
    elif language == "ko":
        question = None if other else _korean(cloze, word)
    else:
        front = (language in _FRONTED) != other
        leads = front or not must_lead(language, example.kind)
        question = _spaced(cloze, word, language, example.kind, front) if leads else None
    if question is None:
        return None
    question = tidied(question, language)
    question = question[0].upper() + question[1:]
    return f"¿{question}" if language == "es" else question


def _without_asides(text: str) -> str:
    """Takes out bracketed asides, innermost first, but not the one with the answer."""
    before = None
    while text != before:
        before, text = text, _ASIDE.sub("", text)
    return text


def _clause(text: str) -> str:
    """The part between two commas, semicolons or dashes that has the answer, if it is most of the text."""
    clause = next(part for part in _CLAUSE.split(text) if _HOLE in part).strip()
    return clause if 2 * len(clause) >= len(text) else text


def _spaced(cloze: _Cloze, word: str, language: str, kind: str, front: bool) -> str | None:
    """Languages with blanks between words; what is glued to the answer (endings, Arabic particles) goes with it."""
    before = _unglued(cloze.before, at_end=True).split()
    after = _unglued(cloze.after, at_end=False).split()
    at_front = not any(any(c.isalnum() for c in piece) for piece in before)
    if at_front and front is not (language in _FRONTED):
        return None  # both orders are one
    articles, known = _ARTICLES.get(language, "").split(), _PREPOSITIONS.get(language, "").split()
    while before and before[-1].casefold() in articles:
        before.pop()
    prepositions = [before.pop()] if front and before and before[-1].casefold() in known else []
    if front and before and before[0].casefold() in (*articles, *known):
        before[0] = before[0].casefold()  # it no longer begins the sentence
    if kind in ("where", "when"):
        prepositions = []  # the word has it in it: "in Paris", "where"
    pieces = [*prepositions, word, *before, *after] if front else [*before, word, *after]
    return re.sub(r"\s+([,.;:،؛)])", r"\1", " ".join(pieces)).rstrip(" ,;:،؛-–—")


def _unglued(text: str, *, at_end: bool) -> str:
    """Cuts the letters, marks, hyphens and apostrophes directly beside the answer."""
    places = range(len(text) - 1, -1, -1) if at_end else range(len(text))
    cut = 0
    for i in places:
        if unicodedata.category(text[i])[0] not in "LM" and text[i] not in "-'’\u200c\u200d":
            break
        cut += 1
    return text[: len(text) - cut] if at_end else text[cut:]


def _japanese(cloze: _Cloze, word: str, cleft: bool) -> str | None:
    """In place, with が for は after the word; or as a cleft sentence, ...のは誰ですか."""
    # Particles after the answer: no question word is a topic.
    after = re.sub("^は", "が", cloze.after)
    if cleft:
        stem = f"{cloze.before}{re.sub('^(?:には|では|へは|[がをはにでへ])', '', cloze.after)}"
        plain = stem.endswith(_JAPANESE_PLAIN) and not stem.endswith(("です", "ます", "でした", "ました"))
        if not plain or cloze.after.startswith("の"):
            return None  # only plain verbs and adjectives go before のは, and no part of a noun can be left
        return f"{stem}のは{word}ですか"
    sentence = f"{cloze.before}{word}{after}"
    if sentence.endswith("だ") and not sentence.endswith(_JAPANESE_PAST):
        sentence = sentence[:-1]
    return f"{sentence}か"


def _korean(cloze: _Cloze, word: str) -> str:
    """In place, the particle fitted to the question word, the verb's ending made a question's."""
    particle = re.match(r"[가-힣]*", cloze.after)[0]
    rest = cloze.after[len(particle) :]
    closed = _final(word[-1]) != 0
    if particle in _KOREAN_SUBJECTS:
        asked = "누가" if word == "누구" else word + ("이" if closed else "가")
    elif particle in ("을", "를"):
        asked = word + ("을" if closed else "를")
    elif particle in ("과", "와"):
        asked = word + ("과" if closed else "와")
    elif particle.startswith(("으로", "로")) and not particle.startswith("로서의"):
        asked = word + ("으로" if closed else "로") + particle.removeprefix("으").removeprefix("로")
    else:
        asked = word + particle
    return _korean_ending(f"{cloze.before}{asked}{rest}".rstrip(_ENDS))


def _korean_ending(sentence: str) -> str:
    """Turns a plain statement's ending into a plain question's: 했다 -> 했는가, 한다 -> 하는가, 이다 -> 인가."""
    if not sentence.endswith("다") or len(sentence) < 2:
        return sentence
    stem, last = sentence[:-2], sentence[-2]
    if sentence.endswith("니다"):
        return sentence[:-1] + "까"
    if last == "이":
        return stem + "인가"
    if last == "는":
        return stem + "는가"
    final = _final(last)
    if final == _NIEUN:
        return stem + chr(ord(last) - _NIEUN) + "는가"
    if final == 0:
        return stem + chr(ord(last) + _NIEUN) + "가" if last >= "가" else sentence
    return stem + last + "는가"


_NIEUN = 4  # number of the final consonant ㄴ


def _final(syllable: str) -> int:
    """Number of a Hangul syllable's final consonant, 0 if it has none or is no syllable."""
    return (ord(syllable) - 0xAC00) % 28 if "가" <= syllable <= "힣" else 0
