# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The paper's tables in miniature: rows trained on the embedded encyclopaedia over several seeds, beside the paper's.

Rows share runs (Table 1's CLASS-US is Table 4's), and each run of each seed has a folder of its own and is trained
once: interrupted, or asked for another table, the same command trains what is missing.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from class_jax.common.files import replacing
from class_jax.common.work import Piece, WorkFolder
from class_jax.demo.encyclopaedia import QUESTION_LANGUAGES
from class_jax.demo.jobs import Train, train_once
from class_jax.demo.miniatures import RUNS, STEPS, TABLES, Miniature, Row, needed_runs
from class_jax.demo.phases import Phases
from class_jax.demo.run import bindings, gin_file, make_demo_data
from class_jax.errors import InputError, nearest
from class_jax.questions.readers import MASK, read_anchor_questions
from class_jax.reports.published import Published, published
from class_jax.reports.tables import Cell, Column, Table
from class_jax.synthesis.stage2.anchors import read_anchor_examples
from class_jax.training.main import train_from_gin

SCALES = ("demo",)
CLOZE = "cloze_questions.tsv"
_METRICS = {"R@5": "R@2kt", "f1": "f1", "em": "em"}
"""What the demo measures, and the paper's metric beside it."""


def write_cloze(data: Path) -> Path:
    """Writes stage 2's questions before transformation: the anchor's sentence, the answer masked.

    Ids and answers are those of `stage2/anchor_questions.tsv`.

    Returns:
      The file, `data/cloze_questions.tsv`.
    """
    out = data / CLOZE
    if out.exists():
        return out
    clozes = {
        example.id: f"{example.sentence[: example.start]}{MASK}{example.sentence[example.end :]}"
        for language in QUESTION_LANGUAGES
        for example in read_anchor_examples(data, language)
    }
    with replacing(out) as f:
        for question in read_anchor_questions(data / "stage2" / "anchor_questions.tsv"):
            example, _, _ = question.id.rpartition("-")
            f.write(f"{question.id}\t{clozes[example]}\t{question.answers[0]}\n")
    return out


def run_bindings(folder: Path, name: str, seed: int, steps: int | None, extra: Sequence[str] = ()) -> list[str]:
    """Gin bindings of a run of a seed, under `folder`; of two bindings of one setting the later one counts."""
    run = RUNS[name]
    steps = STEPS[run.stage] if steps is None else steps
    made = [*bindings(folder, run.stage), f"MODEL_DIR = {str(cell(folder, name, seed))!r}", f"STEPS = {steps}"]
    if run.stage == "stage2":
        start = None if run.start is None else str(cell(folder, run.start, seed))
        made.append(f"INIT_FROM = {start!r}")
    if run.cloze:
        made.append(f"QUESTIONS = {str(folder / 'data' / CLOZE)!r}")
    # Measured at the end only, and nothing is written that nobody reads.
    made += [
        f"config.TrainConfig.{key}" for key in (f"seed = {seed}", f"evaluate_every = {steps}", "tensorboard = False")
    ]
    return [*made, "config.TrainConfig.evaluate_first = False", *run.settings, *extra]


def cell(folder: Path, name: str, seed: int) -> Path:
    """The folder of a run of a seed."""
    return folder / _piece_name(name, seed)


def _piece_name(name: str, seed: int) -> str:
    return f"{name}/seed{seed}"


def reproduce(
    table: str,
    folder: Path,
    *,
    scale: str = "demo",
    seeds: int = 3,
    steps: int | None = None,
    extra: Sequence[str] = (),
    console: Console | None = None,
    train: Train = train_from_gin,
) -> Table:
    """Trains the runs of a table that are not done yet, and puts their scores beside the paper's.

    Args:
      table: `1`, `4` or `figure5`.
      folder: where everything is written; tables may share it.
      scale: `demo`, the embedded encyclopaedia.
      seeds: how many runs of each row, with the seeds 0, 1, ...
      steps: of both stages; None takes 300 and 600.
      extra: further gin bindings of all runs.
      console: where it prints its progress.
      train: trains from gin files and bindings, and returns the last evaluation.

    Returns:
      The table, also written to `folder/table{table}.md`, `.json` and `.csv`.

    Raises:
      InputError: for an unknown table or scale, a folder with runs of other settings, or as training does.
    """
    if table not in TABLES:
        raise InputError(f"no table {table!r} in miniature", key="TABLE", remedy=nearest(table, TABLES))
    if scale not in SCALES:
        remedy = "at the size of the paper, each row is a run of gin/runs/paper"
        raise InputError(f"no scale {scale!r}", key="scale", remedy=f"{nearest(scale, SCALES)}; {remedy}")
    if seeds < 1 or (steps is not None and steps < 1):
        raise InputError("is below 1", key="seeds" if seeds < 1 else "steps")
    phases = Phases(folder, console or Console())
    data = make_demo_data(folder, phases)
    write_cloze(folder / "data")

    work = WorkFolder(folder)
    todo = [(name, seed) for seed in range(seeds) for name in needed_runs(TABLES[table])]
    pieces: dict[tuple[str, int], Piece] = {}
    for number, (name, seed) in enumerate(todo):
        left = [one for one in todo[number:] if work.piece(_piece_name(*one)) is None]
        shown: contextlib.AbstractContextManager = contextlib.nullcontext()
        if (name, seed) in left:
            shown = phases.phase(f"[{number + 1}/{len(todo)}] {name}, seed {seed}{_time_left(left, pieces)}")
        with shown:
            start = pieces.get((RUNS[name].start, seed))
            pieces[name, seed] = train_once(
                work,
                _piece_name(name, seed),
                gin_file(RUNS[name].stage),
                run_bindings(folder, name, seed, steps, extra),
                made_from={"data": data.fingerprint, "start": start and start.fingerprint},
                train=train,
            )
        if pieces[name, seed].made:
            jax.clear_caches()  # the next run compiles its own step
    scores = {name: [piece.result for (other, _), piece in pieces.items() if other == name] for name, _ in todo}
    made = compare_with_paper(TABLES[table], scores)
    made.write(folder / f"table{table}")
    return made


def _time_left(todo: Sequence[tuple[str, int]], pieces: Mapping[tuple[str, int], Piece]) -> str:
    """How long the runs will take, if all stages among them have been timed."""
    seconds: dict[str, list[float]] = {stage: [] for stage in STEPS}
    for (name, _), piece in pieces.items():
        seconds[RUNS[name].stage].append(piece.seconds)
    stages = [RUNS[name].stage for name, _ in todo]
    if not all(seconds[stage] for stage in stages):
        return f", {len(todo)} runs left"
    minutes = sum(float(np.mean(seconds[stage])) for stage in stages) / 60
    return f", about {minutes:.0f} minutes left"


def compare_with_paper(table: Miniature, scores: dict[str, list[dict[str, float]]]) -> Table:
    """The miniature beside the paper: scores with their spread over seeds, changes against the first row.

    Args:
      table: what is shown.
      scores: by run, an evaluation for each seed.
    """
    shown = [metric for metric in _METRICS if table.table != 1 or metric == "R@5"]
    shown = [m for m in shown if any(f"eval/{m}/macro" in s for row in table.rows for s in scores[row.run])]
    if table.table is None:
        shown = [metric for metric in shown if metric == "R@5"]
    columns: list[Column] = [Column("row")]
    for metric in shown:
        columns += [
            Column("mean", f"{metric}, here", percent=True),
            Column("±", f"{metric}, here", percent=True, best=None),
        ]
        columns.append(Column("change", f"{metric}, here", percent=True, best=None))
        columns += [Column(name, f"{_METRICS[metric]}, paper", percent=True, best=None) for name in ("score", "change")]
        columns.append(Column("direction", metric, best=None))
    rows: list[list[Cell]] = []
    for place, row in enumerate(table.rows):
        cells: list[Cell] = [row.name]
        for metric in shown:
            values, base = _values(scores, row.run, metric), _values(scores, table.rows[0].run, metric)
            there, change = _paper(table, row, _METRICS[metric])
            differences = values - base if place else np.zeros(0)
            cells += [float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None]
            cells += [float(differences.mean()) if place else None, there, change]
            cells.append(_direction(differences, -1.0 if row.lower else change) if place else None)
        rows.append(cells)
    count = len(scores[table.rows[0].run])
    notes = [
        f"here: macro averages over seven languages, {count} seed{'s' if count > 1 else ''}; ±: standard deviation "
        "over seeds; change: against the first row, seed by seed",
        "R@5 by passage is shown beside R@2kt by tokens: compare directions, not scores",
        "direction: 'same' or 'other' where all seeds agree on it, else 'seeds differ'",
    ]
    return Table(f"{table.title}, in miniature", columns, rows, [*notes, *table.notes])


def _values(scores: dict[str, list[dict[str, float]]], run: str, metric: str) -> np.ndarray:
    return np.array([one.get(f"eval/{metric}/macro", np.nan) for one in scores[run]], np.float64)


def _paper(table: Miniature, row: Row, metric: str) -> tuple[float | None, float | None]:
    """The published score, and how far it is from the row that it is compared with."""
    if table.table is None or not row.paper:
        return None, None
    numbers = [_score(published(tables=[table.table], rows=[name]), metric) for name in row.paper]
    change = numbers[0] - numbers[1] if len(numbers) == 2 and None not in numbers else None
    return numbers[0], change


def _score(rows: Sequence[Published], metric: str) -> float | None:
    return next((row.values[metric]["macro"] for row in rows if metric in row.values), None)


def _direction(differences: np.ndarray, paper: float | None) -> str | None:
    if not paper or np.isnan(differences).any():
        return None
    agreeing = differences * np.sign(paper) > 0
    return "same" if agreeing.all() else "seeds differ" if agreeing.any() else "other"
