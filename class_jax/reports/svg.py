# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Charts as inline SVG for the HTML report: they take their colours from the page, so that it may be light or dark.

Shapes carry the classes `s0` to `s6` (series), `axis`, `grid` and `faint`; the page's style sheet gives them colours.
"""

import html
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SERIES = 7
"""Series that can be told apart; further ones begin again."""
_POINTS = 500  # more are thinned out: they would not be seen
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 26, 14, 46  # room for labels, which are larger on a small screen


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
      name: what it is.
      x, y: [S] numbers; a value that is not finite leaves a gap.
      pale: [S] drawn behind in a pale tone, such as the values before they were smoothed; or None.
      dots: mark each point.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    pale: Sequence[float] | None = None
    dots: bool = False


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within low..high, about `count` of them; `low` alone where both are equal."""
    if not high > low:
        return [low]
    step = (high - low) / count
    power = 10.0 ** math.floor(math.log10(step))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if power * unit >= step * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def line_chart(
    lines: Sequence[Line], label: str, *, x: str, y: str, from_zero: bool = False, width: int = 560, height: int = 280
) -> str:
    """Draws lines over one horizontal axis.

    Args:
      lines: the lines, in the order of their series.
      label: what the chart shows, for those who can't see it.
      x, y: what the axes are.
      from_zero: the vertical axis begins at 0.
      width, height: of the drawing, in its own units; the page scales it.

    Returns:
      An `<svg>` element; an empty text where there is no finite point.
    """
    kept = [line for line in lines if np.isfinite(np.asarray(line.y, np.float64)).any()]
    if not kept:
        return ""
    xs = np.concatenate([np.asarray(line.x, np.float64) for line in kept])
    ys = np.concatenate([np.asarray(line.y, np.float64) for line in kept])
    ys = ys[np.isfinite(ys)]
    low, high = (0.0 if from_zero else float(ys.min())), float(ys.max())
    margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    frame = _Frame(
        width, height, (float(xs.min()), float(xs.max())), (low if from_zero else low - margin, high + margin)
    )
    parts = [_open(width, height, label), *frame.axes(x, y)]
    for number, line in enumerate(kept):
        parts += _draw(line, number, frame)
    return "".join([*parts, "</svg>"])


def interval_chart(
    rows: Sequence[tuple[str, float, float | None, float | None]], label: str, *, x: str, width: int = 560
) -> str:
    """Draws values with their confidence intervals, one below the other.

    Args:
      rows: name, value, low and high (None where there is no interval).
      label: what the chart shows, for those who can't see it.
      x: what the values are.
      width: of the drawing, in its own units.

    Returns:
      An `<svg>` element; an empty text where no value is finite.
    """
    rows = [row for row in rows if math.isfinite(row[1])]
    if not rows:
        return ""
    height = _TOP + _BOTTOM + 22 * len(rows)
    ends = [end for row in rows for end in row[1:] if end is not None]
    frame = _Frame(width, height, (min(0.0, *ends), max(*ends, 0.0) * 1.04 or 1.0), (0.0, float(len(rows))))
    parts = [_open(width, height, label), *frame.across(x)]
    for place, (name, value, low, high) in enumerate(rows):
        at = frame.y(len(rows) - place - 0.5)
        parts.append(
            f'<text class="axis" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{html.escape(name)}</text>'
        )
        if low is not None and high is not None:
            parts.append(f'<path class="s0" d="M{frame.x(low):.1f} {at:.1f}H{frame.x(high):.1f}"/>')
        parts.append(f'<circle class="s0" cx="{frame.x(value):.1f}" cy="{at:.1f}" r="4"/>')
    return "".join([*parts, "</svg>"])


def legend(names: Sequence[str]) -> str:
    """A list of the series' names beside a piece of their line, as HTML."""
    if len(names) < 2:
        return ""
    items = []
    for number, name in enumerate(names):
        piece = f'<svg viewBox="0 0 28 10" width="28" height="10" aria-hidden="true">{_stroke("M0 5H28", number)}</svg>'
        items.append(f"<li>{piece} {html.escape(name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


class _Frame:
    """Places numbers on the drawing, and draws the axes."""

    def __init__(self, width: int, height: int, xs: tuple[float, float], ys: tuple[float, float]):
        self.width, self.height, self.xs, self.ys = width, height, xs, ys

    def x(self, value: float) -> float:
        low, high = self.xs
        share = (value - low) / (high - low) if high > low else 0.5
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.ys
        share = (value - low) / (high - low) if high > low else 0.5
        return self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM)

    def axes(self, x: str, y: str) -> list[str]:
        parts = []
        for tick in ticks(*self.ys):
            at = self.y(tick)
            parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{self.width - _RIGHT}"/>')
            parts.append(
                f'<text class="axis" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
            )
        middle = (self.height - _BOTTOM + _TOP) / 2
        turned = f'transform="rotate(-90 14 {middle:.0f})" text-anchor="middle"'
        parts.append(f'<text class="axis" x="14" y="{middle:.0f}" {turned}>{html.escape(y)}</text>')
        return parts + self._below(x)

    def across(self, x: str) -> list[str]:
        lines = [
            f'<path class="grid" d="M{self.x(tick):.1f} {_TOP}V{self.height - _BOTTOM}"/>' for tick in ticks(*self.xs)
        ]
        return lines + self._below(x)

    def _below(self, x: str) -> list[str]:
        floor = self.height - _BOTTOM
        parts = [f'<path class="rule" d="M{_LEFT} {floor}H{self.width - _RIGHT}"/>']
        for tick in ticks(*self.xs):
            at = self.x(tick)
            parts.append(
                f'<text class="axis" x="{at:.1f}" y="{floor + 18}" text-anchor="middle">{_number(tick)}</text>'
            )
        middle = (self.width - _RIGHT + _LEFT) / 2
        parts.append(
            f'<text class="axis" x="{middle:.0f}" y="{self.height - 6}" text-anchor="middle">{html.escape(x)}</text>'
        )
        return parts


def _open(width: int, height: int, label: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(label)}">'


def _draw(line: Line, number: int, frame: _Frame) -> list[str]:
    x = np.asarray(line.x, np.float64)
    kept = np.unique(np.linspace(0, len(x) - 1, min(_POINTS, len(x))).astype(int))
    parts = []
    if line.pale is not None:
        low, high = frame.ys
        pale = np.clip(np.asarray(line.pale, np.float64), low, high)
        parts.append(f'<path class="s{number % SERIES} faint" d="{_path(x[kept], pale[kept], frame)}"/>')
    y = np.asarray(line.y, np.float64)
    parts.append(_stroke(_path(x[kept], y[kept], frame), number))
    if line.dots or len(x) == 1:
        parts += [
            f'<circle class="s{number % SERIES}" cx="{frame.x(a):.1f}" cy="{frame.y(b):.1f}" r="3"/>'
            for a, b in zip(x[kept], y[kept], strict=True)
            if math.isfinite(b)
        ]
    return parts


def _stroke(path: str, number: int) -> str:
    dash = _DASHES[number % len(_DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path class="s{number % SERIES}"{dashed} d="{path}"/>'


def _path(x: np.ndarray, y: np.ndarray, frame: _Frame) -> str:
    """The path through the points that are finite, broken at the others."""
    pieces = []
    for finite, group in itertools.groupby(zip(x, y, strict=True), lambda point: math.isfinite(point[1])):
        if finite:
            places = [f"{frame.x(a):.1f} {frame.y(b):.1f}" for a, b in group]
            pieces.append("M" + "L".join(places))
    return "".join(pieces)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4g}"
