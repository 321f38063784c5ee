# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Reports: all that was measured of one run, as one JSON file, and tables of it and of several.

A report holds parts (`answers`, `retrieval`, `passages`), each with averages by language, confidence intervals and
the score of every question, so that two reports can be compared question by question without the runs.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from class_jax.common.files import read_json, write_json
from class_jax.errors import InputError, nearest
from class_jax.evaluation import uncertainty
from class_jax.evaluation.scores import Scores
from class_jax.questions.question import Question
from class_jax.reports.breakdown import breakdown_table
from class_jax.reports.published import Published, published_breakdown
from class_jax.reports.tables import Cell, Column, Table

_KIND = "class_jax evaluation"
PARTS = ("retrieval", "passages", "answers")


def digest_questions(questions: Sequence[Question]) -> str:
    """SHA-256 of ids, languages and answers, whatever the order of the questions: the same digest, the same test."""
    hashed = hashlib.sha256()
    for row in sorted(json.dumps([q.id, q.language.strip(), list(q.answers)]) for q in questions):
        hashed.update(row.encode() + b"\n")
    return hashed.hexdigest()


def make_report(
    task: str,
    name: str,
    questions: Sequence[Question],
    parts: Mapping[str, Scores],
    *,
    corpus: str | None = None,
    inputs: Mapping[str, str] | None = None,
    breakdowns: Mapping[str, Mapping[str, Any]] | None = None,
    samples: int = uncertainty.SAMPLES,
) -> dict[str, Any]:
    """Puts together what was measured of one run.

    Args:
      task: `xor-retrieve`, `xor-full`, `mkqa` or `passages`.
      name: of the run, as tables show it.
      questions: all questions asked.
      parts: scores by part.
      corpus: name of the passages searched; runs over different ones are not compared.
      inputs: files read, by what they hold.
      breakdowns: by title, what `breakdown.break_down` returned.
      samples: of the bootstrap behind the confidence intervals.

    Raises:
      InputError: if no question was scored.
    """
    report: dict[str, Any] = {
        "kind": _KIND,
        "task": task,
        "name": name,
        "corpus": corpus,
        "inputs": dict(inputs or {}),
        "questions": {"count": len(questions), "digest": digest_questions(questions)},
        "parts": {},
        "breakdowns": dict(breakdowns or {}),
    }
    for part, scores in parts.items():
        report["parts"][part] = {
            **scores.summary(),
            "intervals": uncertainty.intervals(scores, samples),
            "by_question": {
                "ids": list(scores.ids),
                "languages": list(scores.languages),
                "values": {metric: np.asarray(values).tolist() for metric, values in scores.values.items()},
            },
        }
    return report


def write_report(path: str | os.PathLike, report: Mapping[str, Any]) -> None:
    """Writes a report as JSON, whole or not at all.

    Raises:
      InputError: if the disk refuses the write.
    """
    write_json(path, report)


def read_report(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a report.

    Raises:
      InputError: for a missing file, one that is no JSON, or no report.
    """
    report = read_json(path)
    remedy = "make it with `class-jax evaluate TASK ... --out FILE.json`"
    if not isinstance(report, dict) or report.get("kind") != _KIND:
        raise InputError("not a report of an evaluation", file=path, remedy=remedy)
    for key, kind in (("task", str), ("name", str), ("questions", dict), ("parts", dict)):
        if not isinstance(report.get(key), kind):
            raise InputError("missing or of the wrong kind", file=path, key=key, remedy=remedy)
    for name, part in report["parts"].items():
        for key in ("languages", "macro", "by_question"):
            if not isinstance(part, dict) or not isinstance(part.get(key), dict):
                raise InputError("missing or of the wrong kind", file=path, key=f"parts.{name}.{key}", remedy=remedy)
    return report


def part_scores(part: Mapping[str, Any]) -> Scores:
    """The scores of every question in a part of a report."""
    rows = part["by_question"]
    values = {metric: np.array(column, np.float64) for metric, column in rows["values"].items()}
    return Scores(rows["ids"], rows["languages"], values, part.get("left_out", 0), part.get("missing", ()))


def metrics_of(report: Mapping[str, Any]) -> dict[str, str]:
    """The metrics of a report and the part that each belongs to, in their order."""
    return {
        metric: part
        for part in PARTS
        if part in report["parts"]
        for metric in report["parts"][part]["by_question"]["values"]
    }


def report_table(report: Mapping[str, Any], part: str) -> Table:
    """One part of a report: languages below each other, each metric with its confidence interval."""
    found = report["parts"][part]
    metrics = list(found["by_question"]["values"])
    columns = [Column("language"), Column("questions", best=None)]
    for metric in metrics:
        columns += [Column(name, metric, percent=True, best=None) for name in ("score", "low", "high")]
    ends = found["intervals"]
    rows: list[list[Cell]] = []
    for language, row in [*found["languages"].items(), ("macro", found["macro"])]:
        between = ends["macro"] if language == "macro" else ends["languages"][language]
        rows.append([language, row["count"], *(cell for m in metrics for cell in (row[m], *between[m]))])
    notes = [f"low and high: {100 * ends['level']:.0f}% confidence interval, by bootstrap", *found["notes"]]
    return Table(f"{report['task']}, {part}: {report['name']}", columns, rows, notes)


def breakdown_tables(report: Mapping[str, Any]) -> list[Table]:
    """The breakdowns of a report, those of the paper's Tables 7 to 9 with the published rows below."""
    tables = []
    for title, found in report["breakdowns"].items():
        rows = published_breakdown(title) if report["task"] == "xor-full" else []
        tables.append(breakdown_table(title, found, published=rows))
    return tables


def comparison_table(
    reports: Sequence[Mapping[str, Any]],
    metrics: Sequence[str],
    published: Sequence[Published] = (),
    languages: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> Table:
    """Runs below each other, then published rows; metrics with their languages beside each other.

    Args:
      reports: the runs, of one task and the same questions (see `check_comparable`).
      metrics: the metrics to show, in their order.
      published: rows to show below.
      languages: the languages and their order; by default all of the runs, in alphabetical order.
      notes: sentences below the table; those of the evaluations are added.

    Raises:
      InputError: for a metric or a language that no run has.
    """
    known = {metric: None for report in reports for metric in metrics_of(report)}
    for metric in metrics:
        if metric not in known:
            raise InputError("no run was scored by this metric", key=metric, remedy=nearest(metric, known))
    scored = sorted({lang for r in reports for p in r["parts"].values() for lang in p["languages"]})
    for code in languages or ():
        if code not in scored:
            raise InputError("no run was scored in this language", key=code, remedy=nearest(code, scored))
    languages = scored if languages is None else languages
    shown = [(metric, code) for metric in metrics for code in (*languages, "macro")]
    blank = {metric: metric not in {m for row in published for m in row.values} for metric in metrics}
    rows: list[list[Cell]] = []
    for report in reports:
        part_of = metrics_of(report)
        cells: list[Cell] = []
        for metric, code in shown:
            part = report["parts"].get(part_of.get(metric, ""), {"languages": {}, "macro": {}})
            row = part["macro"] if code == "macro" else part["languages"].get(code, {})
            cells.append(row.get(metric))
        rows.append([report["name"], *cells])
    for row in published:
        values = [row.values.get(metric, {}).get(code) for metric, code in shown]
        rows.append([f"{row.label}, Table {row.table}", *values])
    below = [*notes, *(f"nothing is published for {metric}" for metric in metrics if published and blank[metric])]
    below += _published_notes(published, scored)
    below += [
        f"{report['name']}: {note}" for report in reports for part in report["parts"].values() for note in part["notes"]
    ]
    columns = [Column("run"), *(Column(code, metric, percent=True) for metric, code in shown)]
    return Table(f"{reports[0]['task']}: runs side by side", columns, rows, below)


def _published_notes(published: Sequence[Published], languages: Sequence[str]) -> list[str]:
    """Where published rows come from, and what keeps them from being compared."""
    notes = dict.fromkeys(f"Table {row.table}: {row.paper}, {row.split}" for row in published)
    for row in published:
        theirs = {code for values in row.values.values() for code in values} - {"macro"}
        if theirs and theirs != set(languages):
            notes["the published macro averages are over other languages than the runs'"] = None
        if row.note:
            notes[f"{row.label}, Table {row.table}: {row.note}"] = None
    return list(notes)


def difference_table(
    report: Mapping[str, Any],
    against: Mapping[str, Any],
    metrics: Sequence[str],
    samples: int = uncertainty.SAMPLES,
) -> Table:
    """How one run differs from another, by language and macro, with both tests.

    Raises:
      InputError: if the runs scored different questions or lack a metric.
    """
    columns: list[Column] = [Column("language"), Column("questions", best=None)]
    found = {}
    for metric in metrics:
        sides = []
        for side in (against, report):
            part = metrics_of(side).get(metric)
            if part is None:
                raise InputError(
                    f"{side['name']!r} was not scored by this metric",
                    key=metric,
                    remedy=nearest(metric, metrics_of(side)),
                )
            sides.append(part_scores(side["parts"][part]))
        found[metric] = uncertainty.compare_scores(*sides, metric, samples)
        columns += [Column(name, metric, percent=True, best=None) for name in ("difference", "low", "high")]
        columns += [Column(name, metric, digits=4, best=None) for name in ("p, bootstrap", "p, t-test")]
    first = next(iter(found.values()))
    keys = ("difference", "low", "high", "p_bootstrap", "p_t_test")
    rows = [
        [code, first[code]["count"], *(found[metric][code][key] for metric in metrics for key in keys)]
        for code in first
    ]
    notes = [
        f"low and high: 95% confidence interval of the difference; paired bootstrap of {samples:,} samples and paired "
        "t-test, both two-sided, not corrected for the number of languages"
    ]
    return Table(f"{report['name']} minus {against['name']}", columns, rows, notes)


def check_comparable(reports: Sequence[Mapping[str, Any]], files: Sequence[str | os.PathLike]) -> list[str]:
    """Checks that runs may be compared in one table.

    Returns:
      Notes on what could not be checked.

    Raises:
      InputError: for runs of different tasks, over different questions or corpora, or two of one name.
    """
    first, names = reports[0], set()
    for report, file in zip(reports, files, strict=True):
        if report["name"] in names:
            raise InputError("two runs have this name", file=file, key=report["name"], remedy="evaluate with --name")
        names.add(report["name"])
        if report["task"] != first["task"]:
            problem = f"the task is {report['task']!r}, but that of {os.fspath(files[0])} is {first['task']!r}"
            raise InputError(problem, file=file, key="task", remedy="compare runs of one task")
        if report["questions"].get("digest") != first["questions"].get("digest"):
            problem = f"other questions than those of {os.fspath(files[0])}"
            raise InputError(problem, file=file, key="questions", remedy="evaluate both on the same file")
        if None not in (report.get("corpus"), first.get("corpus")) and report["corpus"] != first["corpus"]:
            problem = f"the corpus is {report['corpus']!r}, but that of {os.fspath(files[0])} is {first['corpus']!r}"
            raise InputError(problem, file=file, key="corpus", remedy="compare runs over one corpus")
    unsaid = [report["name"] for report in reports if report.get("corpus") is None]
    return [f"the corpus was not named, so not compared: {', '.join(unsaid)}"] if unsaid and len(reports) > 1 else []
