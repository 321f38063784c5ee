# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Learning curves as a picture, from the metrics that training writes one JSON object a line."""

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from class_jax.errors import InputError, nearest
from class_jax.reports.plots import COLOURS, INK, MARKERS, drawing, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_DASHES = ("-", "--", ":", "-.")
_MAX_DEFAULT_EVALUATIONS = 4

Series = dict[str, tuple[np.ndarray, np.ndarray]]


def read_metrics(path: str | os.PathLike) -> Series:
    """Reads a metrics file: one object a line, `{"step": 20, "loss": 3.1, ...}`.

    A run that was stopped and resumed from an earlier step wrote some steps twice: the later line counts.
    An incomplete last line, as a killed run leaves it, is skipped. So are values that are neither
    numbers nor null; null and NaN leave a gap.

    Returns:
      By name, the steps [S] in ascending order and the values [S], float64.

    Raises:
      InputError: naming file and line, for a missing file, a line that is not a JSON object, one without
        a step, or a file without any metric.
    """
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError("no such file", file=path, remedy="has the run written its metrics yet?") from error
    points: dict[str, dict[int, float]] = {}
    lines = raw.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number == len(lines):
                break
            raise InputError("not a JSON object", file=path, line=number) from error
        if not isinstance(row, dict):
            raise InputError("not a JSON object", file=path, line=number)
        step = row.pop("step", None)
        if isinstance(step, bool) or not isinstance(step, int):
            raise InputError("not a whole number", file=path, line=number, key="step")
        for name, value in row.items():
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                points.setdefault(name, {})[step] = math.nan if value is None else float(value)
    if not points:
        raise InputError("the file holds no metric", file=path)
    return {name: _sorted(values) for name, values in points.items()}


def _sorted(values: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
    steps = sorted(values)
    return np.array(steps, np.int64), np.array([values[step] for step in steps])


def smooth(values: np.ndarray, points: float) -> np.ndarray:
    """Exponential moving average with a time constant of so many points; gaps (NaN) stay gaps.

    The average starts at the first value without bias: weights are divided by their sum so far.

    Args:
      values: [S].
      points: time constant in points; 0 returns the values unchanged.

    Returns:
      [S] float64.
    """
    if points <= 0:
        return np.array(values, np.float64)
    keep = math.exp(-1 / points)
    out = np.full(len(values), np.nan)
    total = weight = 0.0
    for i, value in enumerate(values):
        if math.isfinite(value):
            total, weight = keep * total + value, keep * weight + 1
            out[i] = total / weight
    return out


def plot_curves(
    runs: Mapping[str, str | os.PathLike],
    path: str | os.PathLike,
    *,
    loss: str = "loss",
    evaluations: Sequence[str] | None = None,
    in_sequence: bool = False,
    title: str = "",
    smoothing: float = 0.02,
) -> Path:
    """Draws losses and evaluations of several runs, or of the stages of one run, over steps.

    On top the loss, raw in a pale and smoothed in a full line; below the evaluations, a point each.

    Args:
      runs: metrics file by name, in the order of the legend.
      path: the PNG (or, by its ending, SVG or PDF) to write.
      loss: name of the loss in the metrics.
      evaluations: names of the evaluation metrics, fractions in 0..1, drawn times 100. By default those
        that begin with `eval/` and end with `macro`, else the first four that begin with `eval/`. A run
        may lack some of them. An empty list leaves the lower panel out.
      in_sequence: the runs are stages that follow each other: each has a column of panels of its own,
        since losses of different stages can't be compared; the evaluations share one vertical axis.
      title: text above the figure.
      smoothing: time constant of the smoothing as a fraction of the points of a run.

    Returns:
      The file written, whole or not at all.

    Raises:
      InputError: for no run, a bad metrics file, a loss or an evaluation that no run has, an ending that
        is no picture's, or where matplotlib is not installed.
    """
    if not runs:
        raise InputError("no run to draw", key="runs")
    series = {name: read_metrics(file) for name, file in runs.items()}
    _check_names(series, [loss], runs)
    if evaluations is None:
        evaluations = _default_evaluations(series)
    _check_names(series, evaluations, runs)

    # A column a stage, or one column that all runs share; losses above, evaluations below.
    columns = [{name: series[name]} for name in series] if in_sequence else [series]
    rows = 2 if evaluations else 1
    with drawing(path, (max(8.0, 4.0 * len(columns)), 0.6 + 2.9 * rows)) as figure:
        axes = figure.subplots(rows, len(columns), squeeze=False, sharex="col")
        for shown, column in zip(columns, axes.T, strict=True):
            _draw_loss(column[0], shown, loss, smoothing)
            if in_sequence:
                column[0].set_title(next(iter(shown)), fontsize=10, color=INK, loc="left")
            if evaluations:
                _draw_evaluations(column[1], shown, evaluations, by_metric=in_sequence)
            column[-1].set_xlabel("step")
        axes[0, 0].set_ylabel(f"{loss}: raw (pale), smoothed")
        if evaluations:
            axes[1, 0].set_ylabel("evaluation, ×100")
            _share_height(axes[1])
        handles = _legend(list(series), evaluations, in_sequence)
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
        if title:
            figure.suptitle(title, fontsize=12, color=INK)
    return Path(path)


def _check_names(series: Mapping[str, Series], names: Sequence[str], files: Mapping[str, str | os.PathLike]) -> None:
    """Raises InputError for a metric that no run has."""
    known = {name for run in series.values() for name in run}
    for name in names:
        if name not in known:
            run = next(iter(files))
            raise InputError("no run has this metric", file=files[run], key=name, remedy=nearest(name, known))


def _default_evaluations(series: Mapping[str, Series]) -> list[str]:
    names = dict.fromkeys(name for run in series.values() for name in run if name.startswith("eval/"))
    return [name for name in names if name.endswith("macro")] or list(names)[:_MAX_DEFAULT_EVALUATIONS]


def _tidy(axes: "Axes") -> None:
    tidy(axes)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=7)


def _draw_loss(axes: "Axes", runs: Mapping[str, Series], loss: str, smoothing: float) -> None:
    _tidy(axes)
    lows, highs = [], []
    for colour, run in zip(itertools.cycle(COLOURS), runs.values(), strict=False):
        if loss not in run:
            continue
        steps, values = run[loss]
        values = np.where(np.isfinite(values), values, np.nan)
        if np.isnan(values).all():
            continue
        smoothed = smooth(values, smoothing * len(values))
        marker = "o" if len(values) == 1 else ""
        axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8, marker=marker)
        axes.plot(steps, smoothed, color=colour, linewidth=1.8)
        # A few wild steps must not flatten everything else.
        lows += [np.nanpercentile(values, 0.5), np.nanmin(smoothed)]
        highs += [np.nanpercentile(values, 99.5), np.nanmax(smoothed)]
    if lows:
        margin = 0.05 * (max(highs) - min(lows)) or 0.5
        axes.set_ylim(min(lows) - margin, max(highs) + margin)


def _draw_evaluations(axes: "Axes", runs: Mapping[str, Series], names: Sequence[str], by_metric: bool) -> None:
    _tidy(axes)
    for i, run in enumerate(runs.values()):
        for j, name in enumerate(names):
            if name in run:
                steps, values = run[name]
                colour = COLOURS[(j if by_metric else i) % len(COLOURS)]
                marker, dash = MARKERS[j % len(MARKERS)], _DASHES[0 if by_metric else j % len(_DASHES)]
                axes.plot(steps, 100 * values, dash, color=colour, marker=marker, markersize=5, linewidth=1.4)


def _share_height(panels: np.ndarray) -> None:
    """Gives evaluation panels one vertical axis from 0, so that stages can be read against each other."""
    drawn = [np.asarray(line.get_ydata()) for panel in panels for line in panel.lines]
    top = max((values[np.isfinite(values)].max(initial=0) for values in drawn), default=0)
    for panel in panels:
        panel.set_ylim(0, min(103, 1.08 * top) if top > 0 else 1)


def _legend(runs: Sequence[str], evaluations: Sequence[str], in_sequence: bool) -> "list[Line2D]":
    """Runs by colour and metrics by marker; with stages in columns of their own, metrics by both."""
    from matplotlib.lines import Line2D

    handles = []
    if not in_sequence and len(runs) > 1:
        handles += [
            Line2D([], [], color=c, linewidth=2, label=run)
            for run, c in zip(runs, itertools.cycle(COLOURS), strict=False)
        ]
    for j, name in enumerate(evaluations):
        colour = COLOURS[j % len(COLOURS)] if in_sequence else INK
        dash = _DASHES[0 if in_sequence else j % len(_DASHES)]
        marker = MARKERS[j % len(MARKERS)]
        label = name.removeprefix("eval/")
        handles.append(Line2D([], [], color=colour, linestyle=dash, marker=marker, markersize=5, label=label))
    return handles
