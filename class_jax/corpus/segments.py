# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Sentences by ICU's rules and dictionaries, and blocks of at most so many words; all as offsets in the text."""

import bisect
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise

from class_jax.errors import InputError

# A last block of fewer words shares its predecessor's words evenly: no passage is too short to say
# something, none is longer than the limit, no word is lost or doubled.
SHORTEST = 10

# Scripts without blanks between words.
_HAN_KANA = re.compile(
    "[\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
_THAI_LAO_BURMESE_KHMER = re.compile("[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff]")
# Characters counted as one word there, near the mean length of a word.
_HAN_KANA_WORD, _OTHER_WORD = 2, 4
_WHOLE = 1 << 30  # runs of other letters in such a text (Latin names, numbers) stay whole
_JOINERS = frozenset("\u200c\u200d\u0e33\u0eb3")  # zero-width joiners; Thai and Lao am, a vowel sign that is a letter
_STACKERS = frozenset("\u17d2\u1039")  # Khmer and Myanmar signs that put the next consonant below
_TOKEN = re.compile(r"\S+")

# Abbreviations that a name, a number or a title follows: none of them ends a sentence, as a rule.
_ABBREVIATIONS = {
    "en": "dr mr mrs ms prof st rev gen col lt sgt capt cmdr adm maj gov sen rep hon pres fig pp mt ft",
    "de": "dr prof st hr fr nr z d u i z.b d.h u.a s bzw ca vgl bd abs ing dipl jh",
    "es": "dr dra sr sra srta d prof st sto sta núm pág ej p.ej av gral cap",
    "fr": "dr m mm mme mlle prof st ste no vol p.ex cf env av",
    "it": "dott dr sig prof ing avv st s es p.es n vol pag cfr ca",
    "fi": "dr prof st nro n esim mm ns ks s t.s e.kr j.kr",
    "ru": "г гг в вв им ул св акад проф тов т.е т.к т.н др напр см рис стр ок н.э род ум",
    "bn": "ড মো ডা প্রফ",
}
_EVERYWHERE = frozenset(["dr", "mr", "mrs", "ms", "prof", "st", "no", "vs", "vol", "e.g", "i.e", "cf", "ca"])
_KNOWN = {language: _EVERYWHERE | frozenset(words.split()) for language, words in _ABBREVIATIONS.items()}
# Languages that write "3. Mai" for "3rd of May".
_ORDINALS = frozenset(
    ("cs", "da", "de", "et", "fi", "fo", "hr", "hu", "is", "lv", "nb", "nn", "no", "pl", "sk", "sl", "sr", "tr")
)
_NUMERALS = frozenset("IVX")  # "in World War I." ends a sentence more often than it is an initial
_LAST_WORD = re.compile(r"([^\s(\[{\"'«“„]+)\.\s*$")
_CLOSED_QUOTE = re.compile("[。．！？!?][」』）)”]\\s*$")
_HIRAGANA = re.compile("[\u3041-\u3096]")
# Thai and Lao put a blank, no stop, between sentences (and clauses): a blank ends one that is at least this long.
_BLANK_ENDS = {"th": 40, "lo": 40}


def sentences(text: str, language: str, whole: Sequence[tuple[int, int]] = ()) -> list[tuple[int, int]]:
    """Returns (start, end) of every sentence, in order, blanks at the ends left out.

    Borders are ICU's for the language, but there is none after an abbreviation (`Dr. Strange`), an initial
    (`J. R. R. Tolkien`), an ordinal number in languages that write it with a stop (`3. Mai`), or a quotation that a
    Japanese sentence continues from. Thai and Lao sentences end at blanks. A line end is always a border.

    Args:
      text: in one line or many.
      language: its code.
      whole: (start, end), in order, of what has no border in it (links).

    Raises:
      InputError: if icu4py is not installed.
    """
    try:
        from icu4py.breakers import SentenceBreaker
    except ImportError as error:
        raise InputError("sentences are found by icu4py", remedy="pip install 'class-jax[data]'") from error
    found: list[tuple[int, int]] = []
    ends = [end for _, end in whole]
    begin = 0
    for line in text.split("\n"):
        start = end = begin
        # Strings, not ICU's offsets: those count UTF-16 units.
        for piece in _openings_moved(_pieces_of(SentenceBreaker(line, language), language)):
            if end > start and not (_continues(text[start:end], piece, language) or _inside(whole, ends, end)):
                found.append((start, end))
                start = end
            end += len(piece)
        if end > start:
            found.append((start, end))
        begin += len(line) + 1
    return [pair for start, end in found if (pair := _stripped(text, start, end))]


def blocks(text: str, words: int) -> list[tuple[int, int, int]]:
    """Returns (start, end, number of words) of consecutive blocks of at most `words` words.

    Together the blocks are the text, except for blanks. Words are what is between blanks; in scripts that have none
    (Chinese, Japanese, Thai, Khmer, Lao, Burmese) two or four characters count as a word, and a block ends between
    characters, never inside one with its marks. A last block of fewer than `SHORTEST` words shares the words of the
    block before it evenly.
    """
    units = list(_units(text))
    bounds = [*range(0, len(units), words), len(units)]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] < SHORTEST:
        bounds[-2] = (bounds[-3] + bounds[-1] + 1) // 2
    return [(units[a][0], units[b - 1][1], b - a) for a, b in pairwise(bounds)]


def sentence_blocks(text: str, sentences: Sequence[tuple[int, int]], words: int) -> list[tuple[int, int, int]]:
    """Returns (start, end, number of words) of consecutive blocks that end where a sentence ends.

    A block takes as many whole sentences as fit into `words` words; a sentence of more words is cut as by `blocks`.

    Args:
      text: of the page.
      sentences: (start, end) of each, in order.
      words: most words of a block.
    """
    found: list[tuple[int, int, int]] = []
    for start, end in sentences:
        pieces = [(start + a, start + b, count) for a, b, count in blocks(text[start:end], words)]
        if found and pieces and found[-1][2] + pieces[0][2] <= words:
            (begin, _, before), (_, stop, count) = found.pop(), pieces[0]
            pieces[0] = (begin, stop, before + count)
        found += pieces
    return found


def _pieces_of(breaker: Iterator[str], language: str) -> Iterator[str]:
    shortest = _BLANK_ENDS.get(language)
    for sentence in breaker:
        if shortest is None:
            yield sentence
            continue
        held = ""
        for piece in re.findall(r"\s*\S+\s*", sentence) or [sentence]:
            held += piece
            if len(held) >= shortest:
                yield held
                held = ""
        if held:
            yield held


def _openings_moved(pieces: Iterator[str]) -> Iterator[str]:
    """Gives an opening bracket to the sentence that it opens: without a blank, ICU leaves it with the one before."""
    held = ""
    for piece in pieces:
        piece = held + piece
        bare = len(piece)
        while bare and unicodedata.category(piece[bare - 1]) == "Ps":
            bare -= 1
        if bare:
            yield piece[:bare]
        held = piece[bare:]
    if held:
        yield held


def _continues(before: str, after: str, language: str) -> bool:
    """Whether a sentence continues over a border that ICU sees between two texts."""
    if language == "ja" and _CLOSED_QUOTE.search(before) and _HIRAGANA.match(after):
        return True
    found = _LAST_WORD.search(before[-40:])
    if not found:
        return False
    word = found[1]
    if word.isdigit():
        return language in _ORDINALS and len(word) <= 2
    if len(word) == 1 or re.search(r"\.\w$", word):  # an initial; "e.g." and the like
        initial = word[-1].isupper() and word not in _NUMERALS
        return initial or word.lower() in _KNOWN.get(language, _EVERYWHERE)
    return word.lower() in _KNOWN.get(language, _EVERYWHERE)


def _inside(whole: Sequence[tuple[int, int]], ends: Sequence[int], position: int) -> bool:
    i = bisect.bisect_right(ends, position)
    return i < len(whole) and whole[i][0] < position


def _stripped(text: str, start: int, end: int) -> tuple[int, int] | None:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return (start, end) if start < end else None


def _units(text: str) -> Iterator[tuple[int, int]]:
    """Yields (start, end) of the text's words."""
    for match in _TOKEN.finditer(text):
        token, start = match.group(), match.start()
        if not (_HAN_KANA.search(token) or _THAI_LAO_BURMESE_KHMER.search(token)):
            yield start, match.end()
            continue
        for piece in _pieces(token):
            yield start, start + len(piece)
            start += len(piece)


def _pieces(token: str) -> Iterator[str]:
    """Cuts a token with letters of an unspaced script into words of a fixed number of characters."""
    piece, held, size = "", 0, 0
    for character in _characters(token):
        limit = _word_size(character)
        if limit and held and (limit != size or held >= size):
            yield piece
            piece, held = "", 0
        piece += character
        if limit:  # signs go with the letters before them
            held, size = held + 1, limit
    yield piece


def _word_size(character: str) -> int:
    if _HAN_KANA.match(character):
        return _HAN_KANA_WORD
    if _THAI_LAO_BURMESE_KHMER.match(character):
        return _OTHER_WORD
    return _WHOLE if character[0].isalnum() else 0


def _characters(text: str) -> Iterator[str]:
    """Yields characters as a reader counts them: a letter with its marks."""
    character = ""
    for c in text:
        joined = c in _JOINERS or unicodedata.category(c)[0] == "M" or (character and character[-1] in _STACKERS)
        if character and not joined:
            yield character
            character = ""
        character += c
    if character:
        yield character
