# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Scores by kind of question: where the evidence is (paper Tables 7 to 9), kind of answer, language seen or not."""

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from class_jax.errors import InputError
from class_jax.evaluation.scores import Scores, check_ids
from class_jax.evaluation.text import get_tokeniser, join_passages, span_answers
from class_jax.evaluation.xor_retrieve import metric_name
from class_jax.questions.question import Question
from class_jax.reports.published import Published
from class_jax.reports.tables import Cell, Column, Table

EVIDENCE = ("English and target", "English only", "target only", "neither")
"""Where an answer string was found: the four cells of the paper's Table 9."""
ANSWER_TYPES = ("yes/no", "year", "number", "with digits", "words", "none")
NUMERICAL, OTHER = "numerical", "other"
SEEN, UNSEEN = "language seen in training", "language not seen in training"
_BUDGETS = (2000, 5000, 10000)

# What may be beside numerals in a number: separators, signs, currencies and percent, in any script.
_BESIDE_NUMERALS = ("Zs", "Sc", "Sm", "Pd", "Po")
_YEAR = re.compile(r"(?:1\d|20)\d\d년?年?")


def answer_type(answers: Sequence[str]) -> str:
    """The kind of a question's first answer that is not blank, by its characters only.

    Returns:
      One of `ANSWER_TYPES`: `yes/no`; `year` (1000 to 2099, in any script's digits); `number` (numerals with
      separators, signs, currency or percent); `with digits` (words and digits: dates, quantities with units,
      names with numbers); `words` (no digit); `none` (no answer).
    """
    answer = next((a.strip() for a in answers if a.strip()), "")
    if not answer:
        return "none"
    if answer.lower() in ("yes", "no"):
        return "yes/no"
    digits = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in answer)
    if _YEAR.fullmatch(digits):
        return "year"
    numeric = [c.isnumeric() for c in answer]
    if any(numeric) and all(
        n or unicodedata.category(c) in _BESIDE_NUMERALS for c, n in zip(answer, numeric, strict=True)
    ):
        return "number"
    return "with digits" if any(c.isdecimal() for c in answer) else "words"


def is_numerical(answers: Sequence[str]) -> bool:
    """Whether the first answer is a number, a year, or words with digits (arXiv 2501.04153, section 6.2)."""
    return answer_type(answers) in ("year", "number", "with digits")


def numerical_groups(questions: Sequence[Question]) -> dict[str, str]:
    """`numerical` or `other` by question id, after the answer; questions without an answer are in neither."""
    return {
        q.id: NUMERICAL if is_numerical(q.answers) else OTHER
        for q in questions
        if answer_type(q.answers) not in ("yes/no", "none")
    }


def type_groups(questions: Sequence[Question], types: Mapping[str, str] | None = None) -> dict[str, str]:
    """Answer types by question id.

    Args:
      questions: the questions.
      types: types that the data comes with, by question id (as MKQA's); by default those of `answer_type`.

    Raises:
      InputError: if `types` lacks a question.
    """
    if types is None:
        return {q.id: answer_type(q.answers) for q in questions}
    lacking = next((q.id for q in questions if q.id not in types), None)
    if lacking is not None:
        raise InputError("no answer type is known for this question", key=lacking)
    return {q.id: types[q.id] for q in questions}


def language_groups(questions: Sequence[Question], seen: Collection[str]) -> dict[str, str]:
    """Whether a question's language was seen in training, by question id.

    Args:
      questions: the questions.
      seen: codes of the training languages; `zh` includes `zh_cn`, `zh_hk` and `zh_tw`.
    """
    known = {code.strip() for code in seen}
    groups = {}
    for q in questions:
        language = q.language.strip()
        groups[q.id] = SEEN if known & {language, language.partition("_")[0]} else UNSEEN
    return groups


def score_evidence(
    questions: Sequence[Question],
    passages: Mapping[str, Sequence[str]],
    english: Mapping[str, Sequence[str]],
    tokens: Sequence[int] = _BUDGETS,
    tokeniser: str = "auto",
) -> Scores:
    """R@kt by the language of the answer found, of the questions that need English evidence (paper Table 8).

    Args:
      questions: questions with answers in their own language (XOR-Full).
      passages: by question id, the texts retrieved, best first; a question without any counts as wrong.
      english: English answers by question id (XOR-Retrieve's file has those that need English evidence);
        other questions, and those answered by yes or no, are left out.
      tokens: the budgets.
      tokeniser: see `text.get_tokeniser`.

    Returns:
      For each budget `R@2kt either`, `R@2kt English` and `R@2kt target` (Table 8 a, b, c).

    Raises:
      InputError: for lists of unknown questions, two questions with one id, or English answers of none of them.
    """
    ids, languages, needed, name = _evidence(questions, passages, english, max(tokens), tokeniser)
    values = {}
    for n in tokens:
        has_english, has_target = (needed <= n).T
        found = {"either": has_english | has_target, "English": has_english, "target": has_target}
        values |= {f"{metric_name(n)} {kind}": hit.astype(np.float64) for kind, hit in found.items()}
    missing = [id for id in ids if id not in passages]
    notes = [f"questions that need English evidence; tokens counted by the tokeniser {name!r}"]
    return Scores(ids, languages, values, len(questions) - len(ids), missing, notes)


def evidence_groups(
    questions: Sequence[Question],
    passages: Mapping[str, Sequence[str]],
    english: Mapping[str, Sequence[str]],
    tokens: int = 10000,
    tokeniser: str = "auto",
) -> dict[str, str]:
    """Which of `EVIDENCE` the first `tokens` tokens retrieved hold, by question id (the cells of Table 9).

    Arguments and errors as `score_evidence`. Only questions with English answers are in a group: those that need
    cross-lingual evidence, whose scores together are the paper's Table 7.
    """
    ids, _, needed, _ = _evidence(questions, passages, english, tokens, tokeniser)
    cells = {(True, True): 0, (True, False): 1, (False, True): 2, (False, False): 3}
    return {id: EVIDENCE[cells[en, own]] for id, (en, own) in zip(ids, (needed <= tokens).tolist(), strict=True)}


def _evidence(
    questions: Sequence[Question],
    passages: Mapping[str, Sequence[str]],
    english: Mapping[str, Sequence[str]],
    tokens: int,
    tokeniser: str,
) -> tuple[list[str], list[str], np.ndarray, str]:
    """Ids, languages, tokens that contain an English and a target answer [B, 2], and the tokeniser's name."""
    check_ids(questions, passages)
    splitter = get_tokeniser(tokeniser)
    ids, languages, needed = [], [], []
    for question in questions:
        in_english, own = span_answers(english.get(question.id, ())), span_answers(question.answers)
        if not in_english or not own:
            continue
        joined = join_passages(passages.get(question.id, ()), splitter, tokens)
        places = [joined.find(answers) for answers in (in_english, own)]
        ids.append(question.id)
        languages.append(question.language.strip())
        needed.append([place[0] if place else np.inf for place in places])
    if not ids:
        raise InputError(
            f"none of the {len(questions)} questions has an English answer",
            remedy="are the English answers those of the same questions, under the same ids?",
        )
    return ids, languages, np.array(needed, np.float64), splitter.name


def select(scores: Scores, ids: Collection[str]) -> Scores:
    """The scores of some of the questions, in their order."""
    wanted = set(ids)
    rows = [i for i, id in enumerate(scores.ids) if id in wanted]
    return Scores(
        [scores.ids[i] for i in rows],
        [scores.languages[i] for i in rows],
        {name: values[rows] for name, values in scores.values.items()},
        0,
        [id for id in scores.missing if id in wanted],
    )


def break_down(
    scores: Scores, groups: Mapping[str, str], order: Sequence[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Averages by group.

    Args:
      scores: one value a question.
      groups: group by question id; questions without one are left out.
      order: the groups and their order; by default all, in alphabetical order. Empty groups are left out.

    Returns:
      By group: `count`; `share` of the questions scored; `mean`, each metric's mean over the group's questions;
      `macro`, its mean over the group's languages; `languages`, how many those are.

    Raises:
      InputError: if no question is in a group.
    """
    names = list(order) if order is not None else sorted(set(groups.values()))
    result = {}
    for name in names:
        part = select(scores, [id for id, group in groups.items() if group == name])
        if not part.ids:
            continue
        summary = part.summary()
        result[name] = {
            "count": len(part.ids),
            "share": len(part.ids) / len(scores.ids),
            "languages": len(summary["languages"]),
            "mean": {metric: float(np.mean(values)) for metric, values in part.values.items()},
            "macro": {metric: summary["macro"][metric] for metric in part.values},
        }
    if not result:
        raise InputError("no question scored is in one of the groups", key=", ".join(names) or "groups")
    return result


def breakdown_table(
    title: str,
    parts: Mapping[str, Mapping[str, Any]],
    published: Sequence[Published] = (),
) -> Table:
    """The table of `break_down`'s result.

    Args:
      title: the table's title.
      parts: the groups.
      published: rows to show below, of the same breakdown.
    """
    metrics = list(next(iter(parts.values()))["mean"])
    columns = [Column("questions"), Column("count", best=None), Column("share", percent=True, best=None)]
    columns += [Column(metric, percent=True) for metric in metrics]
    rows: list[list[Cell]] = [
        [name, part["count"], part["share"], *(part["mean"][m] for m in metrics)] for name, part in parts.items()
    ]
    for row in published:
        numbers = [row.values.get(metric, {}).get("macro") for metric in metrics]
        if any(number is not None for number in numbers):
            rows.append([f"{row.row}: {row.group}, Table {row.table}", None, None, *numbers])
    sources = dict.fromkeys(f"Table {row.table}: {row.paper}, {row.split}" for row in published)
    return Table(title, columns, rows, ("averages over questions", *sources))
