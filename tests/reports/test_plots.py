# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Pictures of results: what is drawn is in the SVG's text, and bad input leaves no file."""

import math

import pytest

pytest.importorskip("matplotlib")
from class_jax.errors import InputError
from class_jax.reports import plots
from class_jax.reports.plots import (
    ANSWER_IN_ENGLISH,
    ANSWER_IN_TARGET,
    NO_ANSWER,
    mark_answers,
    plot_against,
    plot_attention,
    plot_bars,
)

SCALING = {"CLASS": {0: [0.4, 0.5], 100: [0.5, 0.6], 10000: 0.7}, "from scratch": {100: 0.1, 10000: 0.6}}


def test_scores_against_labelled_questions(tmp_path):
    path = plot_against(SCALING, tmp_path / "scaling.svg", x="labelled questions", y="R@2kt", log=True)
    text = path.read_text(encoding="utf-8")
    assert all(word in text for word in ("CLASS", "from scratch", "labelled questions", "R@2kt", "10,000"))
    # Drawn again, byte for byte the same: pictures can be compared and kept under version control.
    assert plot_against(SCALING, tmp_path / "b.svg", x="labelled questions", y="R@2kt", log=True).read_text() == text
    picture = plot_against(SCALING, tmp_path / "scaling.png", x="passages", y="F1", title="Passages")
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000


def test_bars_by_language(tmp_path):
    values = {"full": {"fi": 0.6, "da": 0.4}, "7 languages": {"fi": 0.6}}
    text = plot_bars(values, tmp_path / "b.svg", y="R@2kt", marked=("da",)).read_text(encoding="utf-8")
    assert ">da*<" in text and ">fi<" in text and "7 languages" in text
    counts = plot_bars({"mined": {"fi": 120_000}}, tmp_path / "n.svg", y="parallel queries", percent=False)
    assert "120,000" in counts.read_text(encoding="utf-8")


def test_attention_marks_passages_with_answers(tmp_path):
    kinds = mark_answers(["東京 is 東京", "in Tokyo", "Osaka"], ["東京"], ["Tokyo"], "line")
    assert kinds == [ANSWER_IN_TARGET, ANSWER_IN_ENGLISH, NO_ANSWER]
    path = plot_attention([0.6, 0.3, 0.1], kinds, tmp_path / "a.svg", question="日本の首都は", title="Attention")
    text = path.read_text(encoding="utf-8")
    assert "日本の首都は" in text and "(passages: 1, attention: 60%)" in text and "30%" in text


@pytest.mark.filterwarnings("error")
def test_characters_without_a_font_are_said_once(tmp_path):
    nowhere = "\U0010fffd\U0010fffc"  # private use: no font has them
    plot_attention([1.0], [NO_ANSWER], tmp_path / "a.svg", question=nowhere)
    with pytest.warns(UserWarning, match="Noto") as caught:
        plot_attention([1.0], [NO_ANSWER], tmp_path / "a.png", question=nowhere)
    assert len(caught) == 1 and (tmp_path / "a.png").is_file()
    assert "draws U+10FFFD, U+10FFFC:" in str(caught[0].message)


@pytest.mark.filterwarnings("error")
def test_scripts_without_a_font_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "_FONTS", ())  # as where none is installed beside Matplotlib's own
    with pytest.warns(UserWarning, match="draws Hangul, Telugu, Chinese characters: install the Noto fonts"):
        plot_attention([1.0], [NO_ANSWER], tmp_path / "a.png", question="한국 తె 首都")
    plot_attention([1.0], [NO_ANSWER], tmp_path / "b.png", question="Ελλάδα Россия مصر Türkiye")  # DejaVu has these


def test_bad_input_leaves_no_file(tmp_path):
    cases = (
        (lambda: plot_against({}, tmp_path / "x.png", x="x", y="y"), "no run"),
        (lambda: plot_against({"a": {}}, tmp_path / "x.png", x="x", y="y"), "a: a run without"),
        (lambda: plot_against({"a": {1: math.nan}}, tmp_path / "x.png", x="x", y="y"), "a: the value at 1"),
        (lambda: plot_against({"a": {-1: 0.5}}, tmp_path / "x.png", x="x", y="y", log=True), "negative"),
        (lambda: plot_bars(SCALING, tmp_path / "x.gif", y="y"), "not a picture's name"),
        (lambda: plot_attention([0.5], [], tmp_path / "x.png"), "1 passages, 0 kinds"),
        (lambda: plot_attention([0.5], ["gold"], tmp_path / "x.png"), "'gold'"),
        (lambda: plot_attention([-0.5], [NO_ANSWER], tmp_path / "x.png"), "negative"),
    )
    for draw, message in cases:
        with pytest.raises(InputError, match=message):
            draw()
    assert not list(tmp_path.iterdir())
