# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A few linked pages in English, Finnish, Russian, Arabic and Swedish, written as the corpus pipeline writes them.

English Falun <- Finnish (own link), Russian (only by the backward link), Arabic (only over Swedish).
"""

import re
from pathlib import Path

from class_jax.corpus.wikipedia.pages import Anchor, Page

# [[target|words]] marks an anchor; a line is a sentence.
_PAGES = {
    ("en", "Falun"): (
        {"ru": "Фалун"},
        "Falun is a city in [[Sweden]] with 37,291 people.\n"
        "Its copper mine opened in 1288 and closed in 1992.\n"
        "The river [[Faluan]] flows through the old centre.\n"
        "[[Carl Linnaeus]] married there in 1739.\n"
        "Carl Linnaeus wrote of the mine in 1734.\n"
        "It has a long winter, too.",
    ),
    ("en", "Sweden"): ({"fi": "Ruotsi", "sv": "Sverige"}, "Sweden is a Nordic country.\nIt has 10 million people."),
    ("en", "Carl Linnaeus"): (
        {"fi": "Carl von Linné", "ru": "Линней, Карл", "ar": "كارولوس لينيوس"},
        "Carl Linnaeus (23 May 1707 – 10 January 1778) was a Swedish botanist.",
    ),
    ("en", "Faluan"): ({}, "Faluan is a river in [[Atlantis]]."),
    ("fi", "Falun"): (
        {"en": "Falun"},
        "Falun on kaupunki [[Ruotsi|Ruotsissa]], asukkaita 37 291.\n"
        "Kaivos avattiin 1288 ja suljettiin 1992.\n"
        "Falun on kylmä talvella joka vuosi.\n"
        "[[Carl von Linné]] meni naimisiin 1739.\n"
        "Falun on kylmä talvella joka vuosi.",
    ),
    ("fi", "Carl von Linné"): ({"en": "Carl Linnaeus"}, "Carl von Linné oli kasvitieteilijä."),
    ("fi", "Ruotsi"): ({"en": "Sweden"}, "Ruotsi on maa."),
    ("fi", "Yksin"): ({"en": "Nowhere at all"}, "Tämä sivu ei johda mihinkään."),
    ("ru", "Фалун"): (
        {},
        "Фалун — город в Швеции, население ٣٧٢٩١ человек.\n"
        "Шахта открыта в 1288 и закрыта в 1992.\n"
        "[[Линней, Карл|Линней]] женился там в 1739.",
    ),
    ("ru", "Линней, Карл"): ({"en": "Carl Linnaeus"}, ""),
    ("sv", "Falun"): ({"en": "Falun"}, "Falun är en stad."),
    ("ar", "فالون"): (
        {"sv": "Falun"},
        "فالون مدينة في السويد عدد سكانها ٣٧٢٩١ نسمة.\n"
        "افتتح المنجم عام ١٢٨٨ وأغلق عام ١٩٩٢.\n"
        "تزوج [[كارولوس لينيوس]] هناك عام ١٧٣٩.",
    ),
}
_LINK = re.compile(r"\[\[(?P<target>[^\[\]|]+)(?:\|(?P<words>[^\[\]]+))?\]\]")


def page(language: str, title: str, marked: str, links: dict | None = None, number: int = 1) -> Page:
    """Makes a page of text with `[[target|words]]`."""
    text, anchors, end = "", [], 0
    for found in _LINK.finditer(marked):
        text += marked[end : found.start()]
        words = found["words"] or found["target"]
        anchors.append(Anchor(len(text), len(text) + len(words), found["target"]))
        text, end = text + words, found.end()
    text += marked[end:]
    sentences = tuple((m.start(), m.end()) for m in re.finditer(r"[^\n]+", text))
    return Page(
        str(number), language, title, text, sentences=sentences, anchors=tuple(anchors), links=dict(links or {})
    )


def pages() -> list[Page]:
    """All of them."""
    return [page(*key, marked, links, i) for i, (key, (links, marked)) in enumerate(_PAGES.items(), start=1)]


def write_pages(work: Path) -> None:
    """Writes `work/pages/{language}/pages-00000-of-00001.jsonl`."""
    for found in pages():
        file = work / "pages" / found.language / "pages-00000-of-00001.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="utf-8") as f:
            f.write(found.to_json() + "\n")
