# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Text as the metrics see it: normalised answers, Japanese words, tokens of passages."""

import bisect
import functools
import importlib.util
import re
import shlex
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from class_jax.errors import InputError, nearest

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_COUNTERS = str.maketrans("", "", "年歳人년")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalise_answer(text: str) -> str:
    """Normalises an answer in any language as the official XOR-Full metric does.

    Lower case; ASCII punctuation and the counters of years, ages and people ("年", "歳", "人", "년")
    removed; white space collapsed. Articles stay: they are words in some of the languages.
    """
    return " ".join(text.lower().translate(_NO_PUNCTUATION).translate(_NO_COUNTERS).split())


def normalise_english_answer(text: str) -> str:
    """Normalises an English answer as SQuAD and the official XOR-EnglishSpan metric do.

    Lower case; ASCII punctuation and the articles removed; white space collapsed.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def contains_answer(text: str, answer: str) -> bool:
    """Whether a text contains an answer, as written (except for case and blanks) or normalised as for exact match.

    Word boundaries do not count, since suffixes follow names in many languages; a number must not be part of a longer
    one.
    """
    forms = (lambda words: " ".join(words.lower().split()), normalise_answer)
    pairs = [(form(text), form(answer)) for form in forms]
    return any(words and re.search(rf"(?<!\d){re.escape(words)}(?!\d)", whole) for whole, words in pairs)


@functools.lru_cache(maxsize=1)
def _japanese_tagger() -> Callable[[str], str]:
    try:
        import MeCab
        import unidic_lite
    except ImportError as error:
        raise InputError(
            f"Japanese answers are scored by word, which needs the package {error.name!r}",
            remedy="pip install 'class-jax[evaluate]'",
        ) from error
    # The dictionary is named because MeCab would prefer another one (unidic) where that is installed too.
    folder = unidic_lite.DICDIR
    return MeCab.Tagger(f"-Owakati -r {shlex.quote(folder + '/mecabrc')} -d {shlex.quote(folder)}").parse


def segment_japanese(text: str) -> str:
    """Returns the text with blanks between words: MeCab's `-Owakati` over unidic-lite.

    The blank and the newline that MeCab puts at the end are kept: the official BLEU goes by
    character and counts them.

    Raises:
      InputError: where MeCab or its dictionary is not installed.
    """
    return _japanese_tagger()(text.replace("\0", " "))  # MeCab would stop reading at a NUL


# Penn Treebank word boundaries, in order of application. They give the same tokens as NLTK 3.10's
# word_tokenize(preserve_line=True), so that a score does not depend on whether NLTK is installed.
_TREEBANK_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, flags), replacement)
    for pattern, replacement, flags in (
        # Opening quotes; straight ones become `` at the start or after a blank or an opening bracket.
        (r"([«“‘„]|`+)", r" \1 ", 0),
        (r'^"', r" `` ", 0),
        (r"(``)", r" \1 ", 0),
        (r"([ (\[{<])(?:\"|'')", r"\1 `` ", 0),
        (r"(?<!\w)'(?!(?:re|ve|ll|[mtsdn])\b)(?=\w)", r"' ", re.IGNORECASE),
        # A full stop is a token at the end of the line only; commas and colons unless a digit follows.
        (r"([^.])\.([\])}>\"'»”’ ]*+)\s*$", r"\1 . \2 ", 0),
        (r"([:,])(\D)", r" \1 \2", 0),
        (r"([:,])$", r" \1 ", 0),
        (r"(\.{2,}|[;@#$%&\u2012-\u2015])", r" \1 ", 0),
        (r"([?!])", r" \1 ", 0),
        (r"([^'])' ", r"\1 ' ", 0),
        (r"([*\[\](){}<>])", r" \1 ", 0),
        (r"--", r" -- ", 0),
        (r"\A|\Z", r" ", 0),
        # Closing quotes, then what English writes together.
        (r"([»”’])", r" \1 ", 0),
        (r"''|\"", r" '' ", 0),
        (r"\s+", r" ", 0),
        (r"([^' ])('[sSmMdD]?) ", r"\1 \2 ", 0),
        (r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", r"\1 \2 ", 0),
        (
            r"\b(can(?=not)|gim(?=me)|gon(?=na)|got(?=ta)|lem(?=me)|wan(?=na\s)|d(?='ye)|more(?='n))"
            r"(not|me|na|ta|'ye|'n)\b",
            r" \1 \2 ",
            re.IGNORECASE,
        ),
        (r" ('t)(is)\b", r" \1 \2 ", re.IGNORECASE),
        (r" ('t)(was)\b", r" \1 \2 ", re.IGNORECASE),
    )
)


def tokenise_line(text: str) -> list[str]:
    """Splits a passage into tokens, taking the whole of it as one line (no sentence splitting)."""
    for pattern, replacement in _TREEBANK_RULES:
        text = pattern.sub(replacement, text)
    return text.split()


def _punkt() -> Callable[[str], list[str]] | None:
    """NLTK's tokeniser with sentence splitting, or None where it or its data is not installed."""
    if importlib.util.find_spec("nltk") is None:
        return None
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
    except LookupError:
        return None
    return nltk.word_tokenize


@dataclass(frozen=True)
class PassageTokeniser:
    """A way to count the tokens of a passage.

    Attributes:
      name: `line` or `punkt`; reports say it, since the two count full stops differently.
      split: the function from text to tokens.
    """

    name: str
    split: Callable[[str], list[str]]


def get_tokeniser(name: str = "auto") -> PassageTokeniser:
    """Returns the tokeniser of that name.

    Args:
      name: `line` (needs nothing and is the same everywhere), `punkt` (NLTK with its `punkt_tab`
        data, as the official script) or `auto` (`punkt` where it is installed, else `line`).

    Raises:
      InputError: if the name is unknown, or `punkt` is asked for and not installed.
    """
    if name not in ("auto", "line", "punkt"):
        raise InputError(
            f"unknown tokeniser {name!r}", key="tokeniser", remedy=nearest(name, ("auto", "line", "punkt"))
        )
    punkt = None if name == "line" else _punkt()
    if punkt is not None:
        return PassageTokeniser("punkt", punkt)
    if name == "punkt":
        raise InputError(
            "NLTK or its data punkt_tab is not installed",
            key="tokeniser",
            remedy="pip install 'class-jax[evaluate]' && python -m nltk.downloader punkt_tab, or use 'line'",
        )
    return PassageTokeniser("line", tokenise_line)


@dataclass(frozen=True)
class JoinedPassages:
    """The tokens of ranked passages as one text, a blank between tokens: where official metrics look for answers.

    Attributes:
      text: all tokens.
      token_ends: character at which each token ends in `text`, ascending.
      passage_ends: character at which each passage ends in `text`, ascending.
    """

    text: str
    token_ends: Sequence[int]
    passage_ends: Sequence[int]

    def find(self, answers: Sequence[str]) -> tuple[int, int] | None:
        """Returns how many leading tokens, and passages, it takes to contain one of the answers; None if all do not."""
        starts = ((self.text.find(answer), len(answer)) for answer in answers if answer)
        ends = [start + length for start, length in starts if start >= 0]
        if not ends:
            return None
        return bisect.bisect_left(self.token_ends, min(ends)) + 1, bisect.bisect_left(self.passage_ends, min(ends)) + 1


def join_passages(
    passages: Sequence[str], tokeniser: PassageTokeniser, max_tokens: int | None = None
) -> JoinedPassages:
    """Tokenises passages in rank order and joins the tokens, up to `max_tokens` of them."""
    tokens: list[str] = []
    counts: list[int] = []
    for passage in passages:
        tokens += tokeniser.split(passage)
        if max_tokens is not None:
            del tokens[max_tokens:]
        counts.append(len(tokens))
        if max_tokens is not None and len(tokens) == max_tokens:
            break
    ends, end = [], -1
    for token in tokens:
        end += len(token) + 1
        ends.append(end)
    return JoinedPassages(" ".join(tokens), ends, [ends[count - 1] if count else 0 for count in counts])


def span_answers(answers: Sequence[str]) -> list[str]:
    """Returns the answers that a passage can contain: all but `yes`, `no` and blank ones."""
    return [answer for answer in answers if answer.strip() and answer not in ("yes", "no")]
