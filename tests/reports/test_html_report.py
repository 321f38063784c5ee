# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The HTML report: what is on the page, that it is well-formed and loads nothing, and the charts' geometry."""

import html.parser
import json
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from class_jax.commands.report import report
from class_jax.errors import InputError
from class_jax.evaluation.scores import Scores
from class_jax.questions.readers import Question
from class_jax.reports import svg
from class_jax.reports.html_report import collect, html_table, render
from class_jax.reports.reports import make_report, write_report
from class_jax.reports.tables import Column, Table

VOID = {"meta", "link", "br", "img", "hr", "input"}
NAME = "الرياض デモ <script>alert(1)</script> & తెలుగు"


class Page(html.parser.HTMLParser):
    """Checks that tags close in order; keeps tags with attributes, and the text of each kind of element."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def text(self, tag):
        return [data for within, data in self.texts if within == tag]

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def run(tmp_path):
    """A run of two stages with an evaluation and a table of results."""
    for stage, rate in (("stage1", 1.0), ("stage2", 2.0)):
        folder = tmp_path / "run" / stage
        folder.mkdir(parents=True)
        lines = [{"step": step, "loss": rate / step} for step in range(1, 9)]
        lines[3]["loss"] = None
        lines.append({"step": 8, "eval/f1/fi": 0.25, "eval/f1/ja": 0.5, "eval/f1/macro": 0.375})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "config.gin").write_text(f"STEPS = {rate}  # <i>&</i>\n")
    table = Table("results", (Column("model"), Column("f1", percent=True)), (("BM25", 0.125), ("ours", 0.5)))
    table.write(tmp_path / "run" / "results")
    questions = [Question(f"q{i}", "q", ("a",), ("fi", "ja")[i % 2]) for i in range(8)]
    scores = Scores([q.id for q in questions], [q.language for q in questions], {"f1": np.linspace(0.1, 0.8, 8)})
    breakdown = {"neither": {"count": 8, "share": 1.0, "languages": 2, "mean": {"f1": 0.45}, "macro": {"f1": 0.45}}}
    made = make_report(
        "xor-full",
        "ours",
        questions,
        {"answers": scores},
        samples=50,
        breakdowns={"answers: evidence in 10k tokens": breakdown},
    )
    write_report(tmp_path / "run" / "ours.report.json", made)
    return tmp_path / "run"


def test_the_page_has_all_of_a_run(run):
    page = Page(render(collect(run, name=NAME)))
    assert page.text("h1") == [NAME] and page.text("title") == [f"{NAME}: class_jax"]
    assert page.text("h2") == ["Training", "Results", "xor-full: ours", "Configuration"]
    captions = page.text("caption")
    assert captions[:4] == [
        "stage1: evaluation at step 8",
        "stage2: evaluation at step 8",
        "results",
        "xor-full, answers: ours",
    ]
    assert captions[4:] == ["answers: evidence in 10k tokens", "f1 beside published results"]
    charts = [attributes["aria-label"] for attributes in page.all("svg") if "aria-label" in attributes]
    assert charts == [
        *("loss of stage1 over steps", "evaluations of stage1 over steps"),
        *("loss of stage2 over steps", "evaluations of stage2 over steps"),
        "f1 of answers by language",
    ]
    cells = page.text("td")
    assert "12.5" in cells and "50.0" in cells and "42.4" in cells  # CLASS's published F1
    assert any("CLASS: neither, Table 9" in text for text in page.text("th"))
    assert any("<i>&</i>" in text for text in page.text("pre"))
    figures = dict(zip(page.text("li"), page.text("b"), strict=False))
    assert (
        figures["stage2: steps"] == "8"
        and figures["stage2: f1, macro"] == "37.5"
        and figures["ours: f1, macro"] == "45.0"
    )


def test_the_page_loads_nothing_and_suits_phones_and_dark_rooms(run):
    text = render(collect(run, name=NAME))
    page = Page(text)
    assert not any(tag in ("script", "link", "img", "iframe", "object", "base") for tag, _ in page.tags)
    assert not any(key in ("src", "href", "action") or key.startswith("on") for _, a in page.tags for key in a)
    assert not re.search(r"url\(|@import|https?:|//[a-z]", text)
    metas = page.all("meta")
    assert any("default-src 'none'" in m.get("content", "") for m in metas)
    assert any(m.get("name") == "viewport" and "device-width" in m["content"] for m in metas)
    style = "".join(page.text("style"))
    assert "prefers-color-scheme:dark" in style and "overflow-x:auto" in style and "max-width:40rem" in style
    for script in ("Arabic", "Bengali", "Telugu", "CJK JP", "CJK KR", "CJK SC", "Khmer", "Thai", "Hebrew"):
        assert f'"Noto Sans {script}"' in style
    used = set(re.findall(r"var\((--\w+)\)", style))
    assert used <= set(re.findall(r"(--\w+):", style))
    assert page.all("html") == [{"lang": "en"}]


def test_a_table_has_groups_headings_and_its_best_cells():
    columns = (
        Column("model"),
        Column("fi", "f1", percent=True),
        Column("ja", "f1", percent=True),
        Column("n", best=None),
    )
    text = html_table(Table("t <1>", columns, (("a|b", 0.5, None, 3), ("c", 0.25, 0.5, 4)), ("a note & more",)))
    page = Page(text)
    assert [a.get("colspan") for a in page.all("th") if "colspan" in a] == ["2"]
    assert [a["scope"] for a in page.all("th")] == ["colgroup", *["col"] * 4, "row", "row"]
    assert page.text("td") == ["50.0", "–", "3", "25.0", "50.0", "4"] and page.text("caption") == ["t <1>"]
    assert [a.get("class") for a in page.all("td") if a] == ["best"] and "a note & more" in page.text("li")


def points(path):
    return [tuple(map(float, pair.split())) for piece in path.split("M") if piece for pair in piece.split("L")]


def test_lines_are_where_their_numbers_say():
    drawn = svg.line_chart([svg.Line("a", [0, 5, 10], [0.0, math.nan, 3.0])], "l<", x="step", y="loss", from_zero=True)
    root = ET.fromstring(drawn)
    assert root.get("aria-label") == "l<"
    [path] = [e.get("d") for e in root.iter("path") if e.get("class") == "s0"]
    assert path.count("M") == 2  # the gap
    (x0, y0), (x1, y1) = points(path)
    places = {e.text: e for e in root.iter("text")}
    assert x0 < x1
    # Ticks and points share one scale: 3 lies level with its label.
    assert y1 + 4 == pytest.approx(float(places["3"].get("y")), abs=0.11)
    assert x1 == pytest.approx(float(places["10"].get("x")), abs=0.11) and y0 > y1
    assert svg.line_chart([svg.Line("a", [1], [math.nan])], "l", x="x", y="y") == ""
    many = svg.line_chart([svg.Line("a", range(9000), np.sin(np.arange(9000)))], "l", x="x", y="y")
    assert len(many) < 12_000


def test_intervals_are_where_their_numbers_say():
    root = ET.fromstring(svg.interval_chart([("fi", 50.0, 25.0, 75.0), ("ja", 25.0, None, None)], "l", x="f1"))
    dots = [(float(e.get("cx")), float(e.get("cy"))) for e in root.iter("circle")]
    [whisker] = [e.get("d") for e in root.iter("path") if e.get("class") == "s0"]
    left, right = map(float, re.fullmatch(r"M([\d.]+) [\d.]+H([\d.]+)", whisker).groups())
    assert (left + right) / 2 == pytest.approx(dots[0][0], abs=0.11) and left == pytest.approx(dots[1][0], abs=0.11)
    assert dots[0][1] < dots[1][1]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 437, [0, 100, 200, 300, 400]),
        (3, 3, [3]),
        (-0.1, 0.1, [-0.1, -0.05, 0, 0.05, 0.1]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert svg.ticks(low, high) == pytest.approx(expected)


def test_the_command_writes_a_page(run, tmp_path):
    app = typer.Typer()
    app.command()(report)

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)

    assert invoke(run).exit_code == 0
    assert Page((run / "report.html").read_text(encoding="utf-8")).text("h1") == ["run"]
    assert invoke(run / "ours.report.json", "--out", tmp_path / "one.html").exit_code == 0
    assert Page((tmp_path / "one.html").read_text(encoding="utf-8")).text("h2") == ["xor-full: ours"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="nothing to report on"):
        invoke(tmp_path / "empty")
    with pytest.raises(InputError, match="no such folder"):
        invoke(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"end it with \.html"):
        invoke(run, "--out", tmp_path / "page.txt")
    (run / "results.json").write_text("[]")
    with pytest.raises(InputError, match=r"results\.json: not a table"):
        invoke(run)
