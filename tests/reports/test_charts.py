# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Charts for the page: where lines and intervals are, their texts for screen readers, the same bytes again."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from class_jax.reports.charts import Line, interval_chart, line_chart
from class_jax.reports.plots import COLOURS

LINE = Line("a", [0, 5, 10], [0.0, math.nan, 3.0])


def strokes(root, number=0):
    """Paths in the colour of a series."""
    return [e for e in root.iter("path") if f"stroke: var(--s{number}," in e.get("style", "") and not e.get("id")]


def points(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path.get("d"))]


def text_places(root):
    return {e.text: (float(e.get("x")), float(e.get("y"))) for e in root.iter("text")}


def test_lines_are_where_their_numbers_say():
    line = Line("a", [0, 2, 4, 5, 8, 10], [0.0, 1.0, 2.0, math.nan, 2.5, 3.0])
    root = ET.fromstring(line_chart([line], "l", x="step", y="loss", from_zero=True))
    [path] = strokes(root)
    assert path.get("d").count("M") == 2  # the gap
    drawn, places = points(path), text_places(root)
    assert drawn[0][0] == pytest.approx(places["0"][0], abs=0.1) and drawn[-1][0] == pytest.approx(
        places["10"][0], abs=0.1
    )
    # Heights are proportional to values.
    heights = [drawn[0][1] - y for _, y in drawn]
    assert heights[-1] > 0
    assert heights == pytest.approx([v / 3 * heights[-1] for v in (0.0, 1.0, 2.0, 2.5, 3.0)], abs=0.01)


def test_wild_pale_values_do_not_flatten_the_line():
    steps = list(range(20))
    smooth = Line("a", steps, [1 + step / 20 for step in steps], pale=[1000.0 if step == 3 else 1.0 for step in steps])
    _, path = strokes(ET.fromstring(line_chart([smooth], "l", x="x", y="y")))
    heights = [y for _, y in points(path)]
    assert max(heights) - min(heights) > 100


def test_intervals_are_where_their_numbers_say():
    root = ET.fromstring(interval_chart([("fi", 50.0, 25.0, 75.0), ("ja", 25.0, None, None)], "l", x="f1"))
    dots = [(float(e.get("x")), float(e.get("y"))) for e in root.iter("use") if "var(--s0," in e.get("style", "")]
    [whisker] = strokes(root)
    (left, y), (right, _) = points(whisker)
    assert (left + right) / 2 == pytest.approx(dots[0][0], abs=0.1) and left == pytest.approx(dots[1][0], abs=0.1)
    assert y == dots[0][1] < dots[1][1]
    places = text_places(root)
    assert places["fi"][1] < places["ja"][1]


def test_screen_readers_find_a_name_and_the_numbers():
    root = ET.fromstring(line_chart([LINE, Line("b <i>", [1, 2000], [0.25, 0.5])], "l <&>", x="step", y="loss"))
    assert root.get("role") == "img" and root.get("aria-label") == "l <&>"
    assert [root[0].tag, root[0].text, root[1].tag] == ["title", "l <&>", "desc"]
    assert root[1].text == "a: 0 at step 0, 3 at step 10; b <i>: 0.25 at step 1, 0.5 at step 2,000"
    root = ET.fromstring(interval_chart([("fi", 50.0, 25.0, 75.0), ("ja", 25.0, None, None)], "l", x="f1"))
    assert root[1].text == "fi 50.0 (25.0 to 75.0); ja 25.0"


def test_the_same_input_gives_the_same_bytes_and_labels_their_own_references():
    first = line_chart([LINE], "l", x="x", y="y")
    assert line_chart([LINE], "l", x="x", y="y") == first
    other = line_chart([LINE], "another", x="x", y="y")
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (first, other)]
    assert ids[0] and not ids[0] & ids[1]


@pytest.mark.filterwarnings("error")
def test_text_is_as_written():
    name = "東京 $x_1$ ಕನ್ನಡ \x01"
    root = ET.fromstring(line_chart([Line(name, [1, 2], [1, 2]), LINE], name, x=name[:2], y="y"))
    shown = name.replace("\x01", "\ufffd")
    assert shown in text_places(root) and root.get("aria-label") == shown


def test_colours_are_the_pages():
    lines = [Line(str(i), [0, 1], [i, i + 1]) for i in range(len(COLOURS) + 1)]
    drawn = line_chart(lines, "l", x="x", y="y")
    root = ET.fromstring(drawn)
    assert all(len(strokes(root, number)) >= 1 for number in range(len(COLOURS)))
    used = re.findall(r"(var\(--\w+, )?#[0-9a-fA-F]{6}\b(?!\))", drawn)
    assert not used


def test_nothing_to_draw_is_no_chart_and_many_points_are_thinned_out():
    assert line_chart([Line("a", [1], [math.nan])], "l", x="x", y="y") == ""
    assert interval_chart([("fi", math.nan, None, None)], "l", x="x") == ""
    rough = np.random.default_rng(0).normal(size=9000)
    assert len(line_chart([Line("a", range(9000), rough)], "l", x="x", y="y")) < 30_000
