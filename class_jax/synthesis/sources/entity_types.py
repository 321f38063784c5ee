# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What kind of thing an English page is about, by rules: the OntoNotes types that the paper's Table 11 names."""

import re

from class_jax.corpus.wikipedia.pages import Page

ENTITY_TYPES = (
    *("PERSON", "NORP", "ORG", "GPE", "LOC", "FAC", "PRODUCT", "EVENT", "WORK_OF_ART", "LAW", "LANGUAGE"),
    *("TIME", "DATE", "PERCENT", "MONEY", "QUANTITY", "ORDINAL", "CARDINAL"),
)
"""The types of OntoNotes, as Stanza's English tagger gives them (paper, Table 11)."""

_NOUNS = {
    "GPE": (
        "capital city town village hamlet settlement municipality commune country nation state province republic "
        "county kingdom monarchy territory district prefecture borough canton department governorate oblast "
        "colony principality sultanate emirate federation suburb township metropolis dependency neighbourhood "
        "neighborhood ward parish subdistrict taluk region"
    ),
    "LOC": (
        "river lake sea ocean mountain peak hill volcano island archipelago peninsula continent desert valley bay "
        "gulf strait forest plateau glacier waterfall tributary stream cape range basin plain subcontinent planet "
        "moon star galaxy asteroid constellation lagoon reef cave canyon wetland fjord coast delta marsh swamp "
        "steppe"
    ),
    "FAC": (
        "building airport bridge stadium castle church cathedral mosque temple palace museum tower station road "
        "highway motorway street square port harbour harbor dam tunnel monument fortress monastery hospital "
        "prison theatre theater arena cemetery library lighthouse skyscraper railway canal park zoo abbey "
        "basilica hotel house villa mausoleum shrine synagogue"
    ),
    "ORG": (
        "company corporation organisation organization university college school institute party band club team "
        "agency association federation bank brand airline broadcaster newspaper magazine publisher manufacturer "
        "union ministry army navy orchestra league foundation society parliament government committee commission "
        "group label network studio charity order academy court council conglomerate firm business retailer "
        "bureau duo trio quartet channel regiment"
    ),
    "PERSON": (
        "politician actor actress singer writer author poet novelist painter composer footballer player king "
        "queen emperor empress president minister general philosopher scientist engineer director producer "
        "musician architect lawyer soldier officer explorer inventor mathematician physician doctor teacher "
        "professor bishop pope saint priest monk prince princess duke sultan caliph rapper dancer model athlete "
        "swimmer boxer cyclist wrestler coach manager businessman businesswoman entrepreneur astronaut historian "
        "dramatist playwright sculptor filmmaker photographer songwriter guitarist bassist drummer screenwriter "
        "lawyer judge diplomat statesman monarch ruler cricketer runner driver chef comedian character deity god "
        "goddess prophet scholar theologian astronomer member leader activist revolutionary figure woman man "
        "person conductor critic editor translator nobleman aviator goalkeeper midfielder defender striker "
        "designer illustrator fighter naturalist noblewoman missionary"
    ),
    "WORK_OF_ART": (
        "film movie novel book album song single painting sculpture opera symphony ballet play musical series "
        "sitcom poem manga anime comic story trilogy soundtrack show drama statue epic tale fable episode fresco "
        "novella ep mural anthem documentary thriller comedy"
    ),
    "EVENT": (
        "war battle election tournament festival revolution competition championship conflict earthquake disaster "
        "ceremony siege campaign uprising rebellion massacre crisis conference game holiday edition event race "
        "referendum hurricane coup attack invasion genocide pandemic expedition season"
    ),
    "LANGUAGE": "language dialect creole pidgin languages",
    "LAW": "law treaty constitution act statute amendment convention directive bill agreement",
    "PRODUCT": (
        "software car automobile aircraft smartphone computer console weapon ship submarine rifle missile "
        "motorcycle locomotive spacecraft satellite application app browser airliner helicopter tank camera "
        "processor helicopter vehicle destroyer cruiser battleship fighter"
    ),
    "NORP": "people tribe ethnicity nationality religion denomination sect clan ideology caste ethnic",
    "DATE": "year month decade century day era weekday",
}
_TYPE_OF = {noun: kind for kind, nouns in _NOUNS.items() for noun in nouns.split()}
# Two words of which the last one by itself would mislead.
_PHRASES = {
    "ethnic group": "NORP",
    "religious group": "NORP",
    "indigenous people": "NORP",
    "language family": "LANGUAGE",
    "creative work": "WORK_OF_ART",
    "literary work": "WORK_OF_ART",
    "video game": "WORK_OF_ART",
    "mountain range": "LOC",
    "national park": "LOC",
    "football match": "EVENT",
    "olympic games": "EVENT",
    "fighter aircraft": "PRODUCT",
    "television channel": "ORG",
    "car manufacturer": "ORG",
    "railway station": "FAC",
    "public holiday": "EVENT",
    "political union": "ORG",
    "time zone": None,
    "writing system": None,
    "programming language": "PRODUCT",
    "given name": None,
    "family name": None,
    "football season": "EVENT",
    "disambiguation page": None,
}
_PERSON_ENDING = re.compile(
    r"(?:ologist|icist|chemist|ician|grapher|nomist|ianist|linist|journalist|novelist|artist)s?$"
)
_BORN = re.compile(r"\b(?:born|b\.) |\b\d{3,4}\b[^()]{0,40}[–—-][^()]{0,40}\b\d{3,4}\b|\bdied\b", re.IGNORECASE)
_COPULA = re.compile(r"\b(?:is|was|are|were|became)\b(?: also| currently| formerly| both| primarily)?\s+(?P<rest>.+)")
_ARTICLE = re.compile(
    r"(?:(?:an?|the|one|its|their|two|some|any|several) "
    r"|(?:name|type|kind|form|part|pair|series|set|branch) (?=of )|of )*"
)
_END_OF_NOUN = re.compile(
    r"[,;:.]|(?<![\w-])(?:of|in|on|at|that|which|who|whose|where|from|for|by|located|situated|with|between|known|and is"
    r"|and was|spoken|based"
    r"|made|released|written|near|to|founded|published|directed|born|used|held|composed|produced)\b"
)
_PARENTHESES = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")
_YEAR_TITLE = re.compile(r"(?:AD )?\d{1,4}s?(?: (?:BC|AD|BCE|CE))?|(?:\d{1,2}(?:st|nd|rd|th) (?:century|millennium)).*")
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DAY_TITLE = re.compile(rf"(?:{_MONTHS})(?: \d{{1,2}}|(?: \d{{4}})?)|\d{{1,2}} (?:{_MONTHS})")


def entity_type_of_page(page: Page) -> str | None:
    """Returns the entity type of what an English page is about, by its first paragraph; None where no rule applies.

    The paper runs a tagger over the first paragraph of the English page (section 3.2). These rules read the head of
    "X is a ...", and take years of birth and death for a person's.

    Args:
      page: an English page; pages in other languages have no type by these rules.

    Returns:
      One of `ENTITY_TYPES`, or None.
    """
    if page.language != "en" or page.title.startswith(("List of ", "Outline of ", "Timeline of ")):
        return None
    if _YEAR_TITLE.fullmatch(page.title) or _DAY_TITLE.fullmatch(page.title):
        return "DATE"
    return type_of_description(_first_sentence(page))


def type_of_description(sentence: str) -> str | None:
    """Returns the entity type that a sentence such as "Tampere is a city in Finland." states, or None."""
    asides = " ".join(_PARENTHESES.findall(sentence))
    plain, before = sentence, None
    while plain != before:  # innermost parentheses first
        before, plain = plain, _PARENTHESES.sub("", plain)
    is_ = _COPULA.search(" ".join(plain.split()))
    if is_:
        rest = is_["rest"]
        rest = rest[_ARTICLE.match(rest).end() :]
        end = _END_OF_NOUN.search(rest)
        known, kind = _type_of_phrase((rest[: end.start()] if end else rest).lower())
        if known:
            return kind
        if _BORN.search(is_["rest"]):
            return "PERSON"
    return "PERSON" if _BORN.search(asides) else None


def _first_sentence(page: Page) -> str:
    paragraph = page.text.lstrip().split("\n", 1)[0]
    first = page.sentence(0) if page.sentences else ""
    # Sentence breakers stop at some abbreviations within the aside after the title: then the paragraph says more.
    return first if _COPULA.search(first) else paragraph[:600]


def _type_of_phrase(phrase: str) -> tuple[bool, str | None]:
    """(whether a rule knows the phrase's head, its type): of known nouns the last, as heads come last in English."""
    words = re.findall(r"[a-z]+", phrase)
    for i in range(len(words) - 1, max(-1, len(words) - 4), -1):
        pair = f"{words[i - 1]} {_singular(words[i])}" if i else ""
        if pair in _PHRASES:
            return True, _PHRASES[pair]
        kind = _TYPE_OF.get(words[i]) or _TYPE_OF.get(_singular(words[i]))
        if kind:
            return True, kind
        if _PERSON_ENDING.search(words[i]):
            return True, "PERSON"
    return False, None


def _singular(word: str) -> str:
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word
