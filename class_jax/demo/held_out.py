# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The held-out questions of the embedded encyclopaedia, and which of the made passages answer them."""

import bisect
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from class_jax.common.files import numbered_lines, replacing
from class_jax.corpus.wikipedia.pages import read_pages
from class_jax.demo.encyclopaedia import (
    ENGLISH,
    LANGUAGES,
    QUESTION_LANGUAGES,
    Asked,
    Fact,
    Tables,
    asked_in,
    held_out,
)
from class_jax.demo.encyclopaedia_dump import page_ids, written_pages
from class_jax.errors import InputError


def write_held_out(tables: Tables, work: str | os.PathLike, folder: str | os.PathLike) -> dict[str, dict[str, int]]:
    """Writes `heldout.jsonl`, `heldout_english.jsonl` (English answers) and `heldout_gold.jsonl`.

    A question's gold passages are those in which a sentence that states its fact names the answer; `english` are
    only the English ones.

    Args:
      tables: what the dumps were made of.
      work: where `make-data` put pages and passages of those dumps.
      folder: to write into.

    Returns:
      By language, the numbers of questions: `heldout` and, of these, `unseen`.

    Raises:
      InputError: if pages or passages are missing or don't state the facts, or the disk refuses a write.
    """
    folder, work = Path(folder), Path(work)
    drawn, unseen = held_out(tables)
    places = {language: passages_with(tables, work, language, drawn) for language in LANGUAGES}
    counts = {language: Counter() for language in QUESTION_LANGUAGES}
    local, english, gold = [], [], []
    for language in QUESTION_LANGUAGES:
        for number, asked in enumerate(drawn, start=1):
            counts[language].update(heldout=1, unseen=asked in unseen)
            record = {
                "id": f"{language}-h{number}",
                "question": asked_in(tables, asked, language),
                "answers": [tables.name(asked.answer, language)],
                "lang": language,
                "split": "dev",
                "fact": "unseen" if asked in unseen else "seen",
            }
            local.append(record)
            english.append({**record, "answers": [tables.name(asked.answer, ENGLISH)]})
            everywhere = [passage for code in LANGUAGES for passage in places[code][asked]]
            gold.append({"id": record["id"], "passages": everywhere, "english": places[ENGLISH][asked]})
    _write_json_lines(folder / "heldout.jsonl", local)
    _write_json_lines(folder / "heldout_english.jsonl", english)
    _write_json_lines(folder / "heldout_gold.jsonl", gold)
    return {language: dict(count) for language, count in counts.items()}


def passages_with(tables: Tables, work: Path, language: str, asked: Iterable[Asked]) -> dict[Asked, list[str]]:
    """Finds, in one language, the passages in which a sentence that states a fact names what is asked for.

    Args:
      tables: what the dumps were made of.
      work: the work folder of `make-data`.
      language: its code.
      asked: facts and what of them is asked for.

    Returns:
      Ids of passages, in order, without repeats; at least one for each.

    Raises:
      InputError: if a sentence is not on its page, or no passage holds an answer.
    """
    by_fact: dict[Fact, list[Asked]] = defaultdict(list)
    for one in asked:
        by_fact[one.fact].append(one)
    texts = {page.id: page.text for page in read_pages(work / "pages" / language)}
    ids, spans = page_ids(tables, language), _spans(work, language)
    found: dict[Asked, list[str]] = {one: [] for wanted in by_fact.values() for one in wanted}
    for entity, sentences in written_pages(tables, language):
        page = str(ids[entity])
        for sentence in sentences:
            for one in by_fact.get(sentence.statement.fact, ()):
                begin = texts.get(page, "").find(sentence.text)
                if begin < 0:
                    problem = f"the page {page} does not state: {sentence.text}"
                    raise InputError(problem, file=work / "pages" / language, remedy="make the data again")
                answer = tables.name(one.answer, language)
                link = next(link for link in sentence.links if link.surface == answer)
                passage = _passage_at(spans[page], begin + link.start)
                if passage is not None and passage not in found[one]:
                    found[one].append(passage)
    for one, passages in found.items():
        if not passages:
            raise InputError("no passage states it", file=work / "passages", key=f"{language}: {one}")
    return found


def _spans(work: Path, language: str) -> Mapping[str, list[tuple[int, int, str]]]:
    """(start, end, id) of the passages of each page, in order."""
    spans: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for line, text in numbered_lines(work / "passages" / "passage_spans.tsv"):
        passage, code, page, start, end = text.split("\t")
        if line > 1 and code == language:
            spans[page].append((int(start), int(end), passage))
    return spans


def _passage_at(spans: list[tuple[int, int, str]], place: int) -> str | None:
    last = bisect.bisect_right(spans, (place, float("inf"), "")) - 1
    return spans[last][2] if last >= 0 and place < spans[last][1] else None


def _write_json_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    with replacing(path) as f:
        f.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
