# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What training data there is: questions by language, from question files or a stage's own counts (paper Fig. 6)."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from class_jax.common.files import numbered_lines, read_json
from class_jax.corpus.inputs import LANGUAGES
from class_jax.errors import InputError
from class_jax.questions.readers import KNOWN_LANGUAGES
from class_jax.questions.selection import sampling_probabilities
from class_jax.reports.tables import Column, Table

RECORD = "stage.json"
# Counts of a stage that are questions or pairs by language, in the order in which they are shown.
_SHOWN = ("pairs", "sampled", "queries", "questions")


def count_rows(path: str | os.PathLike) -> dict[str, int]:
    """Counts the rows of a file of questions by language: the first column is an id that starts with it (`fi-17`).

    Stage 1's `parallel.tsv` and stage 2's anchor questions are such files; an id of only digits is an English
    question, as in the public files.

    Raises:
      InputError: for a missing or empty file, or a language that is not known.
    """
    counts: Counter[str] = Counter()
    for line, text in numbered_lines(path):
        if not text.strip():
            continue
        prefix, dash, _ = text.partition("\t")[0].partition("-")
        language = prefix if dash else "en"
        if language not in KNOWN_LANGUAGES:
            remedy = "start the id with its language, as in fi-17"
            raise InputError(f"unknown language {language!r}", file=path, line=line, key="id", remedy=remedy)
        counts[language] += 1
    if not counts:
        raise InputError("no rows", file=path)
    return dict(counts)


def read_counts(path: str | os.PathLike) -> dict[str, dict[str, int]]:
    """Reads a stage's counts by language: `pairs`, `sampled`, `queries`, ... each by language.

    Args:
      path: a stage's folder or its `stage.json`; or a file of questions, whose rows are counted as `queries`.

    Raises:
      InputError: for a missing file, a record without counts by language, or as `count_rows`.
    """
    path = Path(path)
    record = path / RECORD if path.is_dir() else path
    if record.name != RECORD:
        return {"queries": count_rows(record)}
    held = read_json(record)
    # A stage's counts are its result; records of earlier versions call them counts.
    counts = held.get("result", held.get("counts")) if isinstance(held, dict) else None
    if not isinstance(counts, dict):
        raise InputError("no counts", file=record, key="result", remedy="is this a stage's record?")
    found: dict[str, dict[str, int]] = {}
    for key, value in counts.items():
        name, slash, language = key.rpartition("/")
        if slash and name and language in KNOWN_LANGUAGES and isinstance(value, int):
            found.setdefault(name, {})[language] = value
    if not found:
        raise InputError("no counts by language", file=record, key="counts")
    order = {name: place for place, name in enumerate(_SHOWN)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def statistics_table(counts: Mapping[str, Mapping[str, int]], title: str, exponent: float = 0.5) -> Table:
    """The counts by language, with the share of the last of them and how often training draws the language.

    Args:
      counts: from `read_counts`.
      title: of the table.
      exponent: of the sampling over languages (appendix A.1.1).
    """
    last = list(counts)[-1]
    for name in ("queries", "questions"):
        last = name if name in counts else last
    totals = counts[last]
    drawn = sampling_probabilities(totals, exponent)
    everything = sum(totals.values())
    languages = by_size(totals, *(row for row in counts.values()))
    columns = [Column("language"), Column("name", best=None), *(Column(name, best=None) for name in counts)]
    columns += [Column("share", percent=True, best=None), Column("drawn", percent=True, best=None)]
    rows = [
        [
            language,
            LANGUAGES[language],
            *(row.get(language) for row in counts.values()),
            totals.get(language, 0) / everything if everything else None,
            drawn.get(language, 0.0),
        ]
        for language in languages
    ]
    sums = [sum(row.values()) for row in counts.values()]
    rows.append(["all", "", *sums, 1.0 if everything else None, 1.0 if everything else None])
    notes = (f"share: of {last}; drawn: in training, by shares to the power {exponent:g}",)
    return Table(title, columns, rows, notes)


def by_size(first: Mapping[str, int], *others: Iterable[str]) -> list[str]:
    """The languages, those with the most first; those that only the others have go last."""
    known = {language for row in (first, *others) for language in row}
    return sorted(known, key=lambda language: (-first.get(language, 0), language))
