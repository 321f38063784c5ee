# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The paper's tables in miniature: rows trained on the embedded encyclopaedia over several seeds, beside the paper's.

Rows share runs (Table 1's CLASS-US is Table 4's), and each run of each seed has a folder of its own, with the scores in
`scores.json` once it is done: interrupted, or asked for another table, the same command goes on with what is missing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from class_jax.common.files import read_json, replacing, write_json
from class_jax.demo.encyclopaedia import QUESTION_LANGUAGES
from class_jax.demo.run import bindings, gin_file, prepare
from class_jax.errors import InputError, nearest
from class_jax.questions.readers import MASK, read_anchor_questions
from class_jax.reports.published import Published, published
from class_jax.reports.tables import Cell, Column, Table
from class_jax.synthesis.stage2.anchors import read_anchor_examples
from class_jax.training.main import train_from_gin

SCALES = ("demo",)
STEPS = {"stage1": 300, "stage2": 600}  # three fifths of the demo: seeds tell more than steps
CLOZE = "cloze_questions.tsv"
_METRICS = {"R@5": "R@2kt", "f1": "f1", "em": "em"}
"""What the demo measures, and the paper's metric that it stands beside."""
_DENSE = ("model_config.ModelConfig.retriever = 'dense'",)


@dataclass(frozen=True)
class Run:
    """A training run of the miniature.

    Attributes:
      stage: `stage1` or `stage2`, whose gin file it takes.
      start: the run that its weights come from, None for random ones.
      settings: further gin bindings.
      cloze: stage 2 on cloze questions instead of natural ones.
    """

    stage: str
    start: str | None = None
    settings: Sequence[str] = ()
    cloze: bool = False


RUNS = {
    "stage1": Run("stage1"),
    "stage1_dense": Run("stage1", settings=_DENSE),
    "stage1_no_english_queries": Run("stage1", settings=("objectives.ObjectiveConfig.queries = 'parallel'",)),
    "stage1_no_target_queries": Run("stage1", settings=("objectives.ObjectiveConfig.queries = 'english'",)),
    "stage1_no_alignment": Run("stage1", settings=("objectives.ObjectiveConfig.align = False",)),
    "stage2": Run("stage2", "stage1"),
    "stage2_dense": Run("stage2", "stage1_dense", _DENSE),
    "stage2_cloze": Run("stage2", "stage1", cloze=True),
    # Nothing has been learnt that a slow retriever or a head made of embeddings could keep.
    "stage2_alone": Run(
        "stage2",
        None,
        ("config.TrainConfig.head_from_embedding = None", "optimizer.OptimizerConfig.retriever_rate = 1.0"),
    ),
}
"""Runs by name; a run comes after the one that it starts from."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
      name: as the table shows it.
      run: the run whose scores it shows.
      paper: the published row, and the one that it is compared with there; empty where no number is printed.
      lower: the paper has it below the first row, where it prints no number.
    """

    name: str
    run: str
    paper: tuple[str, ...] = ()
    lower: bool = False


@dataclass(frozen=True)
class Miniature:
    """A table of the paper: its title, its rows (the others are compared with the first), its published table."""

    title: str
    rows: Sequence[Row]
    table: int | None = None
    notes: Sequence[str] = field(default=())


_FIGURE = "the paper draws these without printing numbers; it finds each ablation below the whole"
TABLES = {
    "1": Miniature(
        "Table 1: dense against multi-vector",
        (
            Row("CLASS-US", "stage2", ("CLASS-US",)),
            Row("CLASS-US w/ Dense", "stage2_dense", ("CLASS-US w/ Dense", "CLASS-US")),
        ),
        1,
    ),
    "4": Miniature(
        "Table 4: effects of two-stage pre-training",
        (
            Row("CLASS-US", "stage2", ("CLASS-US",)),
            Row("- MLQA-PT: stage 1 alone", "stage1", ("CLASS-US - MLQA-PT", "CLASS-US")),
            Row("- Query TF: cloze questions", "stage2_cloze", ("CLASS-US - Query TF", "CLASS-US")),
            Row("- Pre-train: without stage 1", "stage2_alone", ("CLASS-ZS - Pre-train", "CLASS-ZS")),
        ),
        4,
        (
            "- Pre-train: the paper leaves out both stages before fine-tuning on Natural Questions (CLASS-ZS); here "
            "stage 2's questions stand for those",
            "the demo's stage 1 trains the retriever alone: it answers nothing",
        ),
    ),
    "figure5": Miniature(
        "Figure 5: ablations of stage 1",
        (
            Row("stage 1", "stage1"),
            Row("-q^En", "stage1_no_english_queries", lower=True),
            Row("-q^L", "stage1_no_target_queries", lower=True),
            Row("-L_align", "stage1_no_alignment", lower=True),
        ),
        None,
        (_FIGURE, "the demo's stage 1 trains the retriever alone: it answers nothing"),
    ),
}


def needed_runs(table: Miniature) -> list[str]:
    """The runs of a table and those that they start from, in the order in which they can be trained."""
    wanted = set()
    for row in table.rows:
        name: str | None = row.run
        while name is not None:
            wanted.add(name)
            name = RUNS[name].start
    return [name for name in RUNS if name in wanted]


def write_cloze(data: Path) -> Path:
    """Writes stage 2's questions as they are without transformation: the anchor's sentence, the answer masked.

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
    # Measured at the end alone, and nothing is written that nobody reads.
    made += [
        f"config.TrainConfig.{key}" for key in (f"seed = {seed}", f"evaluate_every = {steps}", "tensorboard = False")
    ]
    return [*made, "config.TrainConfig.evaluate_first = False", *run.settings, *extra]


def cell(folder: Path, name: str, seed: int) -> Path:
    """The folder of a run of a seed."""
    return folder / name / f"seed{seed}"


def reproduce(
    table: str,
    folder: Path,
    *,
    scale: str = "demo",
    seeds: int = 3,
    steps: int | None = None,
    extra: Sequence[str] = (),
    console: Console | None = None,
    train: Callable[[Sequence[str], Sequence[str]], dict[str, float]] = train_from_gin,
) -> Table:
    """Trains the runs of a table that are not done yet, and puts their scores beside the paper's.

    Args:
      table: `1`, `4` or `figure5`.
      folder: where everything is written; tables may share it.
      scale: `demo`, the embedded encyclopaedia.
      seeds: how many runs of each row, with the seeds 0, 1, ...
      steps: of both stages; None takes 300 and 600.
      extra: further gin bindings of all runs.
      console: where it says what it does.
      train: trains from gin files and bindings, and returns the last evaluation.

    Returns:
      The table, also written to `folder/table{table}.md`, `.json` and `.csv`.

    Raises:
      InputError: for an unknown table or scale, a folder of other settings, or as training does.
    """
    if table not in TABLES:
        raise InputError(f"no table {table!r} in miniature", key="TABLE", remedy=nearest(table, TABLES))
    if scale not in SCALES:
        remedy = "at the size of the paper, each row is a run of gin/runs/paper"
        raise InputError(f"no scale {scale!r}", key="scale", remedy=f"{nearest(scale, SCALES)}; {remedy}")
    if seeds < 1 or (steps is not None and steps < 1):
        raise InputError("is below 1", key="seeds" if seeds < 1 else "steps")
    console = console or Console()
    _check_settings(folder, steps, extra)
    prepare(folder)
    write_cloze(folder / "data")
    names = needed_runs(TABLES[table])
    scores = _train_all(folder, names, seeds, steps, extra, console, train)
    made = comparison(TABLES[table], scores)
    made.write(folder / f"table{table}")
    return made


def _check_settings(folder: Path, steps: int | None, extra: Sequence[str]) -> None:
    """Keeps the settings of the first call: cells of other settings must not stand in one table."""
    settings = {"steps": steps, "gin": list(extra)}
    file = folder / "settings.json"
    if not file.exists():
        write_json(file, settings)
    elif (held := read_json(file)) != settings:
        raise InputError(f"was made with {held}", file=folder, remedy="give the same settings, or another folder")


def _train_all(
    folder: Path,
    names: Sequence[str],
    seeds: int,
    steps: int | None,
    extra: Sequence[str],
    console: Console,
    train: Callable[[Sequence[str], Sequence[str]], dict[str, float]],
) -> dict[str, list[dict[str, float]]]:
    """Scores by run, one entry a seed; a seed's runs are done before the next seed's."""
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    todo = [(seed, name) for seed in range(seeds) for name in names]
    seconds: dict[str, list[float]] = {stage: [] for stage in STEPS}
    for number, (seed, name) in enumerate(todo):
        file = cell(folder, name, seed) / "scores.json"
        if not file.exists():
            left = [other for s, other in todo[number:] if not (cell(folder, other, s) / "scores.json").exists()]
            console.print(
                f"\\[{number + 1}/{len(todo)}] {name}, seed {seed}{_time_left(left, seconds)}", highlight=False
            )
            begun = time.monotonic()
            found = train([gin_file(RUNS[name].stage)], run_bindings(folder, name, seed, steps, extra))
            seconds[RUNS[name].stage].append(time.monotonic() - begun)
            jax.clear_caches()  # the next run compiles its own step
            write_json(file, {"scores": found, "seconds": round(time.monotonic() - begun, 1)})
        scores[name].append(read_json(file)["scores"])
    return scores


def _time_left(names: Sequence[str], seconds: dict[str, list[float]]) -> str:
    """How long the runs will take, if all stages among them have been timed."""
    stages = [RUNS[name].stage for name in names]
    if not all(seconds[stage] for stage in stages):
        return f", {len(names)} runs left"
    minutes = sum(float(np.mean(seconds[stage])) for stage in stages) / 60
    return f", about {minutes:.0f} minutes left"


def comparison(table: Miniature, scores: dict[str, list[dict[str, float]]]) -> Table:
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
        "R@5 by passage stands beside R@2kt by tokens: scores are not to be compared, directions are",
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
