# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Charts for the HTML report: drawn by matplotlib, returned as `<svg>` elements that are part of the page.

Their colours are the page's (CSS variables `--s0` to `--s6`, `--soft`, `--rule`), so that it may be light or dark. Each
has a name and a description for screen readers. The same input gives the same bytes.
"""

import dataclasses
import io
import math
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from class_jax.reports.plots import COLOURS, FAINT, INK, figure_settings, load_matplotlib, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 500  # more are thinned out: they would not be seen
_DASHES = ("-", (0, (5, 2)), (0, (1, 2)), (0, (6, 2, 1, 2)))
_WIDTH, _HEIGHT = 4.8, 2.6  # inches: small, so that the text is legible on a phone
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
# Without the page's variables, as when a chart is copied out of it, the colours are matplotlib's.
_VARIABLES = {colour.lower(): f"var(--s{number}, {colour})" for number, colour in enumerate(COLOURS)}
_VARIABLES |= {INK.lower(): f"var(--soft, {INK})", FAINT.lower(): f"var(--rule, {FAINT})"}


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


def line_chart(lines: Sequence[Line], label: str, *, x: str, y: str, from_zero: bool = False) -> str:
    """Draws lines over one horizontal axis.

    Args:
      lines: the lines, in the order of their series.
      label: what the chart shows, for those who can't see it.
      x, y: what the axes are.
      from_zero: the vertical axis begins at 0.

    Returns:
      An `<svg>` element; an empty text where there is no finite point.

    Raises:
      InputError: if matplotlib is not installed.
    """
    kept = [
        dataclasses.replace(line, name=_printable(line.name))
        for line in lines
        if np.isfinite(np.asarray(line.y, np.float64)).any()
    ]
    if not kept:
        return ""

    def draw(axes: "Axes") -> None:
        for number, line in enumerate(kept):
            shown = np.unique(np.linspace(0, len(line.x) - 1, min(_POINTS, len(line.x))).astype(int))
            steps, values = np.asarray(line.x, np.float64)[shown], np.asarray(line.y, np.float64)[shown]
            style = {"color": COLOURS[number % len(COLOURS)], "linestyle": _DASHES[number % len(_DASHES)]}
            if line.pale is not None:
                pale = np.asarray(line.pale, np.float64)[shown]
                axes.plot(steps, pale, color=style["color"], linewidth=0.8, alpha=0.3)
            marker = "o" if line.dots or len(shown) == 1 else ""
            axes.plot(steps, values, linewidth=1.6, marker=marker, markersize=4, label=line.name, **style)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        # Pale values may leave the frame: a few wild ones must not flatten everything else.
        values = np.concatenate([np.asarray(line.y, np.float64) for line in kept])
        values = values[np.isfinite(values)]
        low, high = values.min(), values.max()
        margin = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        axes.set_ylim(0 if from_zero else low - margin, high + margin)
        if len(kept) > 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=INK)

    return _svg(draw, _HEIGHT, label, "; ".join(_course(line, x) for line in kept))


def interval_chart(rows: Sequence[tuple[str, float, float | None, float | None]], label: str, *, x: str) -> str:
    """Draws values with their confidence intervals, one below the other.

    Args:
      rows: name, value, low and high (None where there is no interval).
      label: what the chart shows, for those who can't see it.
      x: what the values are.

    Returns:
      An `<svg>` element; an empty text where no value is finite.

    Raises:
      InputError: if matplotlib is not installed.
    """
    rows = [(_printable(name), *numbers) for name, *numbers in rows if math.isfinite(numbers[0])]
    if not rows:
        return ""

    def draw(axes: "Axes") -> None:
        for place, (_, value, low, high) in enumerate(rows):
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=1.6)
            axes.plot([value], [place], "o", color=COLOURS[0], markersize=5)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(left=min(0.0, *(end for row in rows for end in row[1:] if end is not None)))
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color=FAINT, linewidth=0.6)
        axes.set_xlabel(x)

    said = [
        f"{name} {value:.1f}" + (f" ({low:.1f} to {high:.1f})" if low is not None and high is not None else "")
        for name, value, low, high in rows
    ]
    return _svg(draw, 0.7 + 0.22 * len(rows), label, "; ".join(said))


def _printable(text: str) -> str:
    """Text that XML can hold."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _course(line: Line, x: str) -> str:
    """A line in words: its first and last finite point."""
    points = [(step, value) for step, value in zip(line.x, line.y, strict=True) if math.isfinite(value)]
    (first, low), (last, high) = points[0], points[-1]
    return f"{line.name}: {low:.4g} at {x} {first:,g}, {high:.4g} at {x} {last:,g}"


def _svg(draw: Callable[["Axes"], None], height: float, label: str, description: str) -> str:
    """The element of a chart that `draw` fills."""
    label, matplotlib = _printable(label), load_matplotlib()
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # References within the page must not meet those of another chart.
    with matplotlib.rc_context(figure_settings(salt=label)), warnings.catch_warnings():
        # The page's fonts draw the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(_WIDTH, height), layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot(facecolor="none")
        tidy(axes)
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set(color=INK, fontsize=9)
        draw(axes)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        text = io.BytesIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(ET.fromstring(text.getvalue()), label, description)


def _inline(root: ET.Element, label: str, description: str) -> str:
    """A drawing as a part of a page: in the page's colours, as wide as its place, with texts for screen readers."""
    style = {"role": "img", "viewBox": root.attrib["viewBox"], "aria-label": label}
    root.attrib.clear()
    root.attrib.update(style)
    for parent in list(root.iter()):
        for child in list(parent):
            # The style sheet would be the whole page's.
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for element in root.iter():
        element.text, element.tail = (element.text or "").strip(), None
        if f"{_XLINK}href" in element.attrib:
            element.set("href", element.attrib.pop(f"{_XLINK}href"))
        if "style" in element.attrib:
            # Text is in the page's font.
            inherited = re.sub(r"font-family:[^;]*; ", "", element.get("style"))
            element.set("style", re.sub(r"#[0-9a-f]{6}\b", lambda m: _VARIABLES.get(m[0], m[0]), inherited))
    referred = set(re.findall(r"#([\w-]+)", " ".join(v for e in root.iter() for v in e.attrib.values())))
    for element in root.iter():
        if element.get("id") not in referred:
            element.attrib.pop("id", None)
    for number, (tag, said) in enumerate((("title", label), ("desc", description))):
        element = ET.Element(f"{_SVG}{tag}")
        element.text = said
        root.insert(number, element)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
    return ET.tostring(root, encoding="unicode")
