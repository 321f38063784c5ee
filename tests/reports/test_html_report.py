# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The HTML report: what is on the page, that it is well-formed and loads nothing, and that nothing from outside is markup."""

import html.parser
import json
import re
import sys

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from class_jax.commands.report import report
from class_jax.errors import InputError
from class_jax.evaluation.scores import Scores
from class_jax.questions.readers import Question
from class_jax.reports.html_report import Contents, collect, render, write_html_report
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
    assert page.text("h1") == [NAME] and page.text("title")[0] == f"{NAME}: class_jax"
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
    assert not any(key in ("src", "action") or key.startswith("on") for _, a in page.tags for key in a)
    assert all(a["href"].startswith("#") for _, a in page.tags if "href" in a)
    assert not re.search(r"url\([^#]|@import|https?:|//[a-z]", text)
    metas = page.all("meta")
    assert any("default-src 'none'" in m.get("content", "") for m in metas)
    assert any(m.get("name") == "viewport" and "device-width" in m["content"] for m in metas)
    style = "".join(page.text("style"))
    assert "prefers-color-scheme:dark" in style and "overflow-x:auto" in style
    for script in ("Arabic", "Bengali", "Telugu", "CJK JP", "CJK KR", "CJK SC", "Khmer", "Thai", "Hebrew"):
        assert f'"Noto Sans {script}"' in style
    used = set(re.findall(r"var\((--\w+)", text))
    assert used <= set(re.findall(r"(--\w+):", style))
    assert page.all("html") == [{"lang": "en"}]


def test_a_table_has_groups_headings_and_its_best_cells():
    columns = (
        Column("model"),
        Column("fi", "f1", percent=True),
        Column("ja", "f1", percent=True),
        Column("n", best=None),
    )
    table = Table("t <1>", columns, (("a|b", 0.5, None, 3), ("c", 0.25, 0.5, 4)), ("a note & more",))
    page = Page(render(Contents("a run", tables=[table])))
    assert [a.get("colspan") for a in page.all("th") if "colspan" in a] == ["2"]
    assert [a["scope"] for a in page.all("th")] == ["colgroup", *["col"] * 4, "row", "row"]
    assert page.text("td") == ["50.0", "–", "3", "25.0", "50.0", "4"] and page.text("caption") == ["t <1>"]
    assert [a.get("class") for a in page.all("td") if a] == ["best"] and "a note & more" in page.text("li")


HOSTILE = "<script>alert(1)</script>\"' onload=x $a$ {{ 7 * 7 }} \x01"


def test_nothing_from_outside_is_markup(run):
    contents = collect(run, name=HOSTILE)
    contents.curves = {
        HOSTILE: {
            **contents.curves["stage1"],
            f"eval/{HOSTILE.replace('/', '|')}/macro": ([1, 2], np.array([0.1, 0.2])),
        }
    }
    contents.configurations = {HOSTILE: HOSTILE}
    contents.tables = [Table(HOSTILE, (Column(HOSTILE), Column(HOSTILE, HOSTILE)), ((HOSTILE, HOSTILE),), (HOSTILE,))]
    [report] = contents.reports
    report["name"], report["inputs"] = HOSTILE, {HOSTILE: HOSTILE}
    scores = report["parts"]["answers"]
    for by_language in (scores["languages"], scores["intervals"]["languages"]):
        by_language[HOSTILE] = by_language.pop("fi")
    text = render(contents)
    page = Page(text)
    assert text.count("alert(1)") > 15 and "<script" not in text and "{{ 7 * 7 }}" in text
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)


def test_the_same_run_gives_the_same_page(run):
    assert render(collect(run)) == render(collect(run))
    ids = [attributes["id"] for _, attributes in Page(render(collect(run))).tags if "id" in attributes]
    assert ids and len(ids) == len(set(ids))


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named_with_its_extra(run, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package}.*pip install 'class-jax\[evaluate\]'") as error:
        write_html_report(tmp_path / "page.html", collect(run))
    assert "\n" not in str(error.value) and not (tmp_path / "page.html").exists()


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
