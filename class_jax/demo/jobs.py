# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What the jobs share: training each run once, opening what evaluates it, and what it is compared with."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin
from class_jax.common.work import Piece, WorkFolder, as_json, refuse_other
from class_jax.configuration.gin_files import configured, parse
from class_jax.reports.curves import read_metrics
from class_jax.retrieval.bm25 import BM25
from class_jax.training.config import TrainConfig
from class_jax.training.data import open_data
from class_jax.training.evaluator import Evaluator
from class_jax.training.main import train_from_gin

Train = Callable[[Sequence[str], Sequence[str]], dict[str, float]]
"""Trains from gin files and bindings; returns the last evaluation."""


def train_once(
    work: WorkFolder,
    name: str,
    file: str,
    bindings: Sequence[str],
    *,
    made_from: Mapping[str, Any],
    run: str | None = None,
    train: Train = train_from_gin,
) -> Piece:
    """Trains a run, resumes it, or finds it finished; the piece's result is its last evaluation.

    Args:
      work: the job's folder.
      name: of the piece.
      file, bindings: the run's configuration.
      made_from: fingerprints of what the run reads.
      run: the run's folder below the job's, if it is not `name`.
      train: trains it.

    Raises:
      InputError: if the run was made or begun with other settings; or as training does.
    """
    run = name if run is None else run
    folder = work.path / run
    settings = gin_settings([file], bindings, work.path)
    inputs = {"settings": settings, **made_from}
    begun = folder / "config.gin"
    if (piece := work.piece(name)) is not None:
        refuse_other(piece.inputs, as_json(inputs), file=folder)
    elif begun.exists():
        refuse_other({"settings": _settings_begun_with(begun, run)}, {"settings": settings}, file=begun)

    def make() -> dict[str, float]:
        # A run that ended just before its record was written evaluates nothing when it is resumed.
        return train([file], bindings) or evaluation_of(folder, last=True)

    return work.run(name, make, inputs=inputs, outputs=[f"{run}/model"])


def gin_settings(files: Sequence[str], bindings: Sequence[str], folder: Path) -> dict[str, str]:
    """Every setting by name, with paths below `folder` written so that the folder can be named in another way.

    Raises:
      InputError: as `parse` does.
    """
    parse(files, bindings)
    return _without_folder(_settings_in(gin.config_str()), str(folder))


def _settings_begun_with(file: Path, run: str) -> dict[str, str]:
    """The settings in a run's `config.gin`, wherever the job's folder was when it was written."""
    found = _settings_in(file.read_text(encoding="utf-8"))
    own = found.get("MODEL_DIR", "").strip("'")
    return _without_folder(found, own if run == "." else own.removesuffix(f"/{run}"))


def _without_folder(settings: Mapping[str, str], folder: str) -> dict[str, str]:
    folder = "".join(folder.split())
    return {name: value.replace(folder, "FOLDER") if folder else value for name, value in settings.items()}


def _settings_in(text: str) -> dict[str, str]:
    """The bindings of gin's text, blanks left out: where it breaks lines depends on how long paths are."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith(("#", "import ", "from ")):
            continue
        if not line.startswith((" ", ")", "]", "}")):
            name, _, line = line.partition(" = ")
            found[name] = ""
        found[name] += "".join(line.rstrip("\\").split())
    return found


def open_evaluator(file: str, bindings: Sequence[str]) -> tuple[TrainConfig, Evaluator]:
    """The configuration of a run, and what evaluates its model.

    Raises:
      InputError: as `configured` and `open_data` do.
    """
    config = configured(TrainConfig, [file], bindings)
    data = open_data(config.data, config.model)
    return config, Evaluator(config.evaluation, config.model, data.vocabulary, data.store, data.languages)


def bm25_scores(evaluator: Evaluator) -> dict[str, float]:
    """R@k of BM25 over the passages that the retriever searches; it has no reader, so no F1."""
    index = BM25.from_store(evaluator.store, stem=True)
    texts = [question.text for question in evaluator.questions]
    rows, _ = index.search(texts, max(evaluator.config.ks), allowed=evaluator.retrieve_allowed)
    return evaluator.score_rows(rows)


def evaluation_of(run: Path, *, last: bool = False) -> dict[str, float]:
    """The evaluation before a run's first step, or its last one, from the run's metrics."""
    series = read_metrics(run / "metrics.jsonl")
    series = {name: points for name, points in series.items() if name.startswith("eval/")}
    step = max((int(steps[-1]) for steps, _ in series.values()), default=0) if last else 0
    return {
        n: float(v) for n, (steps, values) in series.items() for s, v in zip(steps, values, strict=True) if s == step
    }
