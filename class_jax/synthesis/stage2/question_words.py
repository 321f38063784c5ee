# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Which question word asks for which kind of answer (paper, Table 11), in English and the 15 training languages."""

import functools
import unicodedata
from collections.abc import Sequence

from class_jax.errors import InputError, nearest

KIND_OF_TYPE = {
    **dict.fromkeys(("PERSON", "NORP", "ORG"), "who"),
    **dict.fromkeys(("GPE", "LOC", "FAC"), "where"),
    **dict.fromkeys(("PRODUCT", "EVENT", "WORK_OF_ART", "LAW", "LANGUAGE"), "what"),
    **dict.fromkeys(("TIME", "DATE"), "when"),
    **dict.fromkeys(("PERCENT", "MONEY", "QUANTITY"), "how much"),
    **dict.fromkeys(("ORDINAL", "CARDINAL"), "how many"),
}
"""Kind of question word by entity type. Table 11 gives "how much/how many" for all numbers: amounts and counts here."""

# The first form is the one asked for; any of them is accepted in a question. `word*` means every word that begins
# so, `^word` counts as one of a question's first two words only (elsewhere it is a conjunction, a relative pronoun or a
# preposition). Languages written without blanks: the form may be anywhere.
_FORMS = {
    "ar": {
        "who": "^من, ^لمن, ^بمن, ^ممن, ^عمن, ^ومن",
        "where": "أين, اين, فأين, وأين",
        "what": "^ما, ماذا, بماذا, أي, أية, بأي, لأي, ^فيما, ^ماهو, ^ماهي",
        "when": "متى, ومتى",
        "how much": "كم, بكم, وكم",
        "how many": "كم, بكم, وكم",
    },
    "bn": {
        "who": "কে, কারা, কার, কাকে, কাদের, কাদেরকে",
        "where": "কোথায়, কোথায়*, কোথাকার, কোথা",
        "what": "কী, কি, কোন, কোন্, কোনটি*, কোনগুলি, কীসের, কিসের",
        "when": "কখন, কবে, কত সালে, কত সাল, কোন সালে",
        "how much": "কত, কত*, কতো*",
        "how many": "কয়টি, কয়*, কত*",
    },
    "de": {
        "who": "wer, wem, wen, wessen",
        "where": "wo, woher, wohin",
        "what": "was, welch*, wodurch, womit, worin, wofür, wovon",
        "when": "wann",
        "how much": "wie viel, wieviel*",
        "how many": "wie viele, wie vielen, wie vieler, wieviele*",
    },
    "en": {
        "who": "who, whom, whose",
        "where": "where",
        "what": "what, which",
        "when": "when",
        "how much": "how much",
        "how many": "how many",
    },
    "es": {
        "who": "quién, quiénes",
        "where": "dónde, adónde",
        "what": "qué, cuál, cuáles",
        "when": "cuándo",
        "how much": "cuánto, cuánta",
        "how many": "cuántos, cuántas",
    },
    "fi": {
        "who": "kuka, ketkä, kenet, kenen, kene*, ketä, keitä, keiden, keille, keiltä, keistä, keihin, kehen",
        "where": "missä, mistä, mihin, minne",
        "what": "mikä, mitkä, mitä, minkä, missä, mistä, mihin, millä, mille, miltä, miksi, mikä*, minkälai*",
        "when": "milloin, minä vuonna, ^koska",
        "how much": "kuinka paljon, paljonko, miten paljon, kuinka suuri, kuinka suur*",
        "how many": "kuinka monta, montako, kuinka moni, kuinka mone*, miten monta, monta",
    },
    "fr": {
        "who": "^qui",
        "where": "^où",
        "what": "^que, ^qu, quoi, quel, quelle, quels, quelles, lequel, laquelle, lesquels, lesquelles",
        "when": "^quand",
        "how much": "combien",
        "how many": "combien",
    },
    "it": {
        "who": "^chi",
        "where": "^dove, ^dov",
        "what": "che cosa, ^che, cosa, ^cos, quale, quali, qual",
        "when": "^quando",
        "how much": "quanto, quanta, ^quant",
        "how many": "quanti, quante",
    },
    "ja": {
        "who": "誰, だれ, どなた",
        "where": "どこ, 何処, どちら",
        "what": "何, なに, なん, どの, どれ, どんな",
        "when": "いつ, 何年, 何月, 何日, 何世紀, 何時",
        "how much": "いくら, どのくらい, どのぐらい, どれくらい, どれほど, どの程度",
        "how many": "いくつ, 何, 幾つ",
    },
    "kn": {
        "who": "ಯಾರು, ಯಾರ*",
        "where": "ಎಲ್ಲಿ, ಎಲ್ಲಿ*",
        "what": "ಏನು, ಏನ*, ಯಾವ, ಯಾವು*",
        "when": "ಯಾವಾಗ, ಯಾವಾಗ*",
        "how much": "ಎಷ್ಟು, ಎಷ್ಟ*",
        "how many": "ಎಷ್ಟು, ಎಷ್ಟ*",
    },
    "ko": {
        "who": "누구, 누구*, 누가*, 누군*",
        "where": "어디, 어디*, 어딘*",
        "what": "무엇, 무엇*, 무슨, 뭐*, 뭘, 어떤, 어느",
        "when": "언제, 언제*",
        "how much": "얼마, 얼마*",
        "how many": "몇, 몇*",
    },
    "ml": {
        "who": "ആര്, ആര, ആരാണ്, ആരാണു*, ആരു, ആരുടെ*, ആരെ*, ആരൊക്കെ, ആരിൽ*, ആർ, ആർക്ക്*, ആരായിരുന്നു*",
        "where": "എവിടെ, എവിട*",
        "what": "എന്ത്, എന്ത*, ഏത*",
        "when": "എപ്പോൾ, എപ്പോഴ*, എന്ന്, എന്നാണ്",
        "how much": "എത്ര, എത്ര*",
        "how many": "എത്ര, എത്ര*",
    },
    "ru": {
        "who": "кто, кого, кому, кем, ком, чей, чья, чьё, чье, чьи",
        "where": "где, куда, откуда",
        "what": "что, чего, чему, чем, како*, каки*, кака*, каку*",
        "when": "когда",
        "how much": "сколько, скольк*",
        "how many": "сколько, скольк*",
    },
    "ta": {
        "who": "யார், யார*",
        "where": "எங்கு, எங்க*",
        "what": "என்ன, என்ன*, எது*, எந்த, எவை*",
        "when": "எப்போது, எப்போத*, எப்பொழுது*",
        "how much": "எவ்வளவு, எவ்வளவ*",
        "how many": "எத்தனை, எத்தனை*",
    },
    "te": {
        "who": "ఎవరు, ఎవర*, ఎవడు",
        "where": "ఎక్కడ, ఎక్కడ*",
        "what": "ఏమిటి, ఏమ*, ఏది*, ఏ, ఏవి*, ఏం*, పేరేమిటి",
        "when": "ఎప్పుడు, ఎప్పుడ*, ఎపుడు",
        "how much": "ఎంత, ఎంత*",
        "how many": "ఎన్ని, ఎన్ని*, ఎంతమంది, ఎంద*",
    },
    "zh": {
        "who": "谁, 誰, 哪位, 何人",
        "where": "哪里, 哪裡, 哪裏, 哪儿, 哪兒, 何处, 何處, 哪",
        "what": "什么, 什麼, 甚麼, 哪, 何",
        "when": "什么时候, 什麼時候, 何时, 何時, 哪年, 哪一年, 几时",
        "how much": "多少",
        "how many": "多少, 几, 幾",
    },
}
UNSPACED = frozenset({"ja", "zh"})
"""Languages written without blanks between words."""
KINDS = ("who", "where", "what", "when", "how much", "how many")
WORD_LANGUAGES = tuple(sorted(_FORMS))
_NUMBERS = ("how much", "how many")


def question_word(language: str, kind: str) -> str:
    """Returns the word that asks in a language, in lower case (``question_word("fi", "where")`` is ``missä``).

    Args:
      language: one of `WORD_LANGUAGES`.
      kind: one of `KINDS`.

    Raises:
      InputError: if the language or the kind is not known.
    """
    return _forms(language, kind)[0].strip("^*")


def has_question_word(question: str, language: str, kind: str) -> bool:
    """Whether a question has a word of this kind in any of its accepted forms; how much and how many are one.

    Raises:
      InputError: if the language or the kind is not known.
    """
    kinds = _NUMBERS if kind in _NUMBERS else (kind,)
    forms = [form for accepted in kinds for form in _forms(language, accepted)]
    if language in UNSPACED:
        plain = unicodedata.normalize("NFKC", question)
        return any(form in plain for form in forms)
    words = words_of(question)
    return any(_occurs(words, form) for form in forms)


def must_lead(language: str, kind: str) -> bool:
    """Whether the question word asks only at the beginning (Arabic `man`, "who", is "from" elsewhere)."""
    return _forms(language, kind)[0].startswith("^")


def words_of(text: str) -> list[str]:
    """Splits a text at whatever is no letter, mark or digit; NFC, case folded."""
    plain = unicodedata.normalize("NFC", text).casefold()
    # Joiners shape Indic and Persian letters and are no boundary; other format characters only get in the way.
    kept = (c if unicodedata.category(c)[0] in "LMN" else "" if unicodedata.category(c) == "Cf" else " " for c in plain)
    return "".join(kept).split()


def _occurs(words: Sequence[str], form: str) -> bool:
    leading, begins = form.startswith("^"), form.endswith("*")
    wanted = form.strip("^*").split()
    for i in range(min(len(words), 2) if leading else len(words)):
        found = words[i : i + len(wanted)]
        if found == wanted or (begins and found[:-1] == wanted[:-1] and found[-1].startswith(wanted[-1])):
            return True
    return False


@functools.lru_cache(maxsize=256)
def _forms(language: str, kind: str) -> tuple[str, ...]:
    if language not in _FORMS:
        raise InputError("no question words are known", key=f"language {language!r}", remedy=nearest(language, _FORMS))
    if kind not in KINDS:
        raise InputError("is no kind of question word", key=repr(kind), remedy=nearest(kind, KINDS))
    forms = unicodedata.normalize("NFC", _FORMS[language][kind]).casefold()
    return tuple(form.strip() for form in forms.split(","))
