# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Pictures of results: scores against a quantity, bars by language, cross-attention by passage (PNG, SVG, PDF).

Learning curves (paper Fig. 8) are drawn by `curves.plot_curves`.
"""

import io
import itertools
import os
import re
import unicodedata
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from class_jax.common.files import replacing
from class_jax.errors import InputError
from class_jax.evaluation.text import get_tokeniser, join_passages, span_answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by the colour-blind (Okabe and Ito), and by their markers where there is no colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_HATCHES = ("", "///", "...", "xx", "\\\\\\", "++", "oo")
INK, FAINT = "#333333", "#dddddd"
FORMS = ("png", "svg", "pdf")
# After matplotlib's own font: the scripts of the paper's languages, where such a font is installed.
_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans Arabic", "Noto Naskh Arabic"),
    *("Noto Sans Bengali", "Noto Sans Telugu", "Noto Sans Tamil", "Noto Sans Malayalam", "Noto Sans Kannada"),
    *("Noto Sans Hebrew", "Noto Sans Thai", "Noto Sans Khmer", "Droid Sans Fallback", "WenQuanYi Zen Hei", "FreeSans"),
    "Unifont",
)
ANSWER_IN_TARGET, ANSWER_IN_ENGLISH, NO_ANSWER = "answer in the question's language", "answer in English", "no answer"
_ATTENTION_COLOURS = {ANSWER_IN_TARGET: "#D55E00", ANSWER_IN_ENGLISH: "#E69F00", NO_ANSWER: "#56B4E9"}

Points = Mapping[float, float | Sequence[float]]
"""Score by quantity; several scores, such as those of seeds, are drawn as their mean and range."""


def plot_against(
    series: Mapping[str, Points],
    path: str | os.PathLike,
    *,
    x: str,
    y: str,
    log: bool = False,
    title: str = "",
) -> Path:
    """Draws scores against a quantity: labelled questions (paper Fig. 9) or passages read (Fig. 10).

    Args:
      series: by run, score (a fraction, drawn times 100) by quantity.
      path: the picture; its ending says the form.
      x: what the quantity is.
      y: what the score is.
      log: a logarithmic axis; a quantity of 0 (no labelled question) has a place of its own at the left.
      title: text above the figure.

    Returns:
      The file written, whole or not at all.

    Raises:
      InputError: for no run, a run without points, a negative quantity on a logarithmic axis, a score that is not a
        number, an ending that is no picture's, or where matplotlib is not installed.
    """
    _check_series(series)
    with drawing(path, (6.4, 4.2)) as figure:
        axes = figure.add_subplot()
        tidy(axes)
        positive = [q for points in series.values() for q in points if q > 0]
        if log and any(q < 0 for points in series.values() for q in points):
            raise InputError("a quantity is negative", key=x, remedy="leave out log")
        for (run, points), colour, marker in zip(
            series.items(), itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False
        ):
            quantities = sorted(points)
            scores = [100 * np.atleast_1d(np.asarray(points[q], np.float64)) for q in quantities]
            means = [float(s.mean()) for s in scores]
            axes.plot(quantities, means, color=colour, marker=marker, markersize=5, linewidth=1.6, label=run)
            if any(len(s) > 1 for s in scores):
                low, high = [s.min() for s in scores], [s.max() for s in scores]
                axes.fill_between(quantities, low, high, color=colour, alpha=0.18, linewidth=0)
        if log and positive:
            axes.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
            axes.set_xlim(left=0 if len(positive) < sum(map(len, series.values())) else min(positive) * 0.9)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel(x)
        axes.set_ylabel(f"{y}, ×100")
        if len(series) > 1:
            axes.legend(frameon=False, fontsize=8)
        _title(figure, title)
    return Path(path)


def plot_bars(
    values: Mapping[str, Mapping[str, float]],
    path: str | os.PathLike,
    *,
    y: str,
    order: Sequence[str] | None = None,
    marked: Collection[str] = (),
    percent: bool = True,
    title: str = "",
) -> Path:
    """Draws a group of bars a language, a bar a run: ablations (paper Fig. 5), data by language (Fig. 6).

    Args:
      values: by run, value by language (or other category).
      path: the picture; its ending says the form.
      y: what the values are.
      order: the languages and their order; by default that of their first occurrence. A run may lack some.
      marked: languages to mark with a star, such as those not seen in training.
      percent: values are fractions and drawn times 100.
      title: text above the figure.

    Returns:
      The file written, whole or not at all.

    Raises:
      InputError: as `plot_against`.
    """
    _check_series(values)
    names = list(order) if order is not None else list(dict.fromkeys(n for row in values.values() for n in row))
    width = 0.8 / len(values)
    with drawing(path, (max(6.4, 0.28 * len(names) * len(values) ** 0.7 + 2), 3.8)) as figure:
        axes = figure.add_subplot()
        tidy(axes)
        for i, (run, row) in enumerate(values.items()):
            heights = np.array([row.get(name, np.nan) for name in names], np.float64) * (100 if percent else 1)
            places = np.arange(len(names)) + (i - (len(values) - 1) / 2) * width
            colour, hatch = COLOURS[i % len(COLOURS)], _HATCHES[i % len(_HATCHES)]
            axes.bar(places, heights, width, color=colour, hatch=hatch, edgecolor="white", linewidth=0, label=run)
        axes.set_xticks(np.arange(len(names)), [f"{name}*" if name in marked else name for name in names])
        axes.set_ylabel(f"{y}, ×100" if percent else y)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if len(values) > 1:
            figure.legend(loc="outside lower center", ncols=min(4, len(values)), frameon=False, fontsize=8)
        _title(figure, title)
    return Path(path)


def mark_answers(
    passages: Sequence[str], answers: Sequence[str], english: Sequence[str] = (), tokeniser: str = "auto"
) -> list[str]:
    """Says of each passage whether it holds an answer, for `plot_attention`.

    Args:
      passages: texts, [N].
      answers: answers in the question's language; these go first where a passage holds both.
      english: answers in English.
      tokeniser: see `text.get_tokeniser`.

    Returns:
      `ANSWER_IN_TARGET`, `ANSWER_IN_ENGLISH` or `NO_ANSWER`, [N].
    """
    splitter = get_tokeniser(tokeniser)
    kinds = []
    for passage in passages:
        joined = join_passages([passage], splitter)
        if joined.find(span_answers(answers)):
            kinds.append(ANSWER_IN_TARGET)
        else:
            kinds.append(ANSWER_IN_ENGLISH if joined.find(span_answers(english)) else NO_ANSWER)
    return kinds


def plot_attention(
    attention: Sequence[float], kinds: Sequence[str], path: str | os.PathLike, *, question: str = "", title: str = ""
) -> Path:
    """Draws the reader's cross-attention to each passage, those that hold an answer in colour (paper Fig. 7).

    Args:
      attention: P_ca of each passage, in the retriever's order, [N].
      kinds: of each passage, from `mark_answers`, [N].
      path: the picture; its ending says the form.
      question: text below the title, in any script.
      title: text above the figure.

    Returns:
      The file written, whole or not at all.

    Raises:
      InputError: for differing lengths, no passage, an unknown kind, attention that is negative or no number, and as
        `plot_against`.
    """
    weights = np.asarray(attention, np.float64)
    if weights.ndim != 1 or len(weights) != len(kinds) or not len(weights):
        raise InputError(f"attention to {len(weights)} passages, {len(kinds)} kinds of passage", key="attention")
    if not (weights >= 0).all() or not np.isfinite(weights).all():
        raise InputError("negative or not a number", key="attention")
    odd = sorted(set(kinds) - set(_ATTENTION_COLOURS))
    if odd:
        raise InputError(f"no kind of passage: {odd[0]!r}", key="kinds", remedy=f"known: {list(_ATTENTION_COLOURS)}")
    with drawing(path, (8.0, 3.2)) as figure:
        axes = figure.add_subplot()
        tidy(axes)
        ranks = np.arange(1, len(weights) + 1)
        for (kind, colour), hatch in zip(_ATTENTION_COLOURS.items(), ("", "///", ""), strict=True):
            mine = np.array([k == kind for k in kinds])
            if mine.any():
                share = 100 * weights[mine].sum() / (weights.sum() or 1)
                label = f"{kind} (passages: {int(mine.sum())}, attention: {share:.0f}%)"
                axes.bar(
                    ranks[mine], weights[mine], 0.85, color=colour, hatch=hatch, edgecolor="white", lw=0, label=label
                )
        axes.set_xlim(0.3, len(weights) + 0.7)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("passage, in the retriever's order")
        axes.set_ylabel("cross-attention")
        axes.legend(frameon=False, fontsize=8)
        if question:
            axes.set_title(question, fontsize=10, color=INK)
        _title(figure, title)
    return Path(path)


def load_matplotlib() -> ModuleType:
    """Returns the package; it is imported where something is drawn.

    Raises:
      InputError: if it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        remedy = "pip install 'class-jax[evaluate]'"
        raise InputError("pictures need the package 'matplotlib'", remedy=remedy) from error
    return matplotlib


def figure_settings(salt: str = "") -> dict[str, object]:
    """Settings of matplotlib under which the same figure is the same file; `salt` makes its references its own."""
    return {
        "font.family": _fonts(),
        # SVG keeps its text as text, so that it can be searched and is drawn in the reader's fonts.
        "svg.fonttype": "none",
        "svg.hashsalt": f"class_jax{salt}",
        "text.parse_math": False,  # names may hold dollar signs
    }


class drawing:  # noqa: N801 (a context manager, used like a function)
    """An empty figure, `size` inches wide and high, that is written to `path` if the block succeeds.

    Raises:
      InputError: for an ending that is no picture's, where matplotlib is not installed, or if the disk is full.
    """

    def __init__(self, path: str | os.PathLike, size: tuple[float, float]):
        self._path, self._form = path, Path(path).suffix.lower().removeprefix(".")
        if self._form not in FORMS:
            raise InputError("not a picture's name", file=path, remedy="end it with .png, .svg or .pdf")
        matplotlib = load_matplotlib()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._settings = matplotlib.rc_context(figure_settings())
        self._make, self._canvas, self._size = Figure, FigureCanvasAgg, size

    def __enter__(self) -> "Figure":
        self._settings.__enter__()
        self._figure = self._make(figsize=self._size, dpi=150, layout="constrained")
        self._canvas(self._figure)
        return self._figure

    def __exit__(self, *error):
        try:
            if error[0] is None:
                picture = io.BytesIO()
                dated = {"Date": None} if self._form == "svg" else {}
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    self._figure.savefig(picture, format=self._form, metadata=dated)
                _report_missing_fonts(caught, self._form)
                with replacing(self._path, "wb") as f:
                    f.write(picture.getvalue())
        finally:
            self._settings.__exit__(*error)


def _report_missing_fonts(caught: Sequence[warnings.WarningMessage], form: str) -> None:
    """Passes warnings on, those on characters without a font as one; an SVG's reader brings fonts of its own."""
    lacking = [str(w.message) for w in caught if "missing from font" in str(w.message)]
    if lacking and form != "svg":
        characters = [chr(int(number)) for text in lacking for number in re.findall(r"Glyph (\d+)", text)]
        names = ", ".join(dict.fromkeys(_script(character) for character in characters))
        warnings.warn(f"no installed font draws {names}: install the Noto fonts, or write an SVG", stacklevel=4)
    for warning in caught:
        if "missing from font" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _script(character: str) -> str:
    """The script of a character, by the first word of its name, such as Hangul or Telugu; else its number."""
    name = unicodedata.name(character, "").partition(" ")[0]
    return "Chinese characters" if name == "CJK" else name.capitalize() or f"U+{ord(character):04X}"


def _fonts() -> list[str]:
    """Matplotlib's own font, then those installed that have other scripts."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in _FONTS if name in installed)]


def _check_series(series: Mapping[str, Mapping]) -> None:
    if not series:
        raise InputError("no run to draw", key="runs")
    for run, points in series.items():
        if not points:
            raise InputError("a run without a value", key=run)
        for place, value in points.items():
            if not np.isfinite(np.asarray(value, np.float64)).all():
                raise InputError(f"the value at {place!r} is not a number", key=run)


def tidy(axes: "Axes") -> None:
    """Leaves two spines, pale lines across, small labels."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=8)


def _title(figure: "Figure", title: str) -> None:
    if title:
        figure.suptitle(title, fontsize=12, color=INK)
