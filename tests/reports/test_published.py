# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Published results: against the paper's text where it is available, and against themselves everywhere."""

from pathlib import Path

import pytest

from class_jax.errors import InputError
from class_jax.evaluation.mkqa import UNSEEN_LANGUAGES
from class_jax.questions.readers import XOR_LANGUAGES
from class_jax.reports.breakdown import EVIDENCE, breakdown_table
from class_jax.reports.published import published, published_breakdown, published_changes

PAPERS = Path(__file__).resolve().parents[3] / "shared" / "papers"
# Printed so: the average beside these rows is not that of the languages in them.
DISAGREE = {
    (1, "QuiCK", "R@2kt"),
    (2, "MT+Mono", "f1"),
    (3, "CLASS", "f1"),
    (5, "CORA", "R@2kt"),
    (5, "Sentri", "R@2kt"),
    (6, "MT+DPR", "f1"),
    (6, "MT+Mono", "f1"),
}

BREAKDOWNS = {
    7: "answers: cross-lingual questions",
    8: "evidence found",
    9: "answers: evidence in 10k tokens",
}


@pytest.fixture(scope="module")
def paper():
    path = PAPERS / "arxiv-2402.16508-class.txt"
    if not path.is_file():
        pytest.skip("the paper's text (../shared/papers) is not on this machine")
    return path.read_text(encoding="utf-8").replace("<u>", "").replace("</u>", "")


def test_the_headline_numbers():
    (row,) = published("xor-retrieve", [1], ["CLASS"])
    assert row.values["R@2kt"]["macro"] == pytest.approx(0.716) and row.values["R@5kt"]["te"] == pytest.approx(0.853)
    (row,) = published("xor-full", [2], ["CLASS"])
    assert [row.values[m]["macro"] for m in ("f1", "em", "bleu")] == pytest.approx([0.424, 0.327, 0.292])
    (row,) = published("mkqa", [6], ["CLASS-ZS"])
    assert row.values["f1"]["zh_cn"] == pytest.approx(0.087) and row.source == "arXiv 2402.16508, Table 6"


def test_all_tables_are_whole():
    counts = {(1, "xor-retrieve"): 17, (2, "xor-full"): 10, (3, "xor-full"): 4, (4, "xor-retrieve"): 9}
    counts |= {(4, "xor-full"): 9, (5, "mkqa"): 11, (6, "mkqa"): 7}
    for (table, task), count in counts.items():
        rows = published(task, [table])
        assert len(rows) == count and len({row.label for row in rows}) == count
    assert len(published()) == sum(counts.values())
    parts = {table: len(published("xor-full", [table])) for table in (7, 8, 9)}
    assert parts == {7: 3, 8: 3, 9: 4}
    assert {row.breakdown for row in published(tables=[7, 8, 9])} == set(BREAKDOWNS.values())


def test_rows_about_some_questions_are_only_beside_their_breakdown():
    for table, title in BREAKDOWNS.items():
        assert {row.table for row in published_breakdown(title)} == {table}
    assert published_breakdown("answers: answer types") == []
    found = {EVIDENCE[0]: {"count": 2, "share": 1.0, "mean": {"f1": 0.5}}}
    table = breakdown_table("evidence", found, published=published_breakdown(BREAKDOWNS[9]))
    assert [row[0] for row in table.rows[1:]] == [
        f"CLASS: {group}, Table 9" for group in ("English and target", "English only", "target only", "neither")
    ]
    assert [row[-1] for row in table.rows] == pytest.approx([0.5, 0.41, 0.135, 0.377, 0.101])
    assert {row.group for row in published_breakdown(BREAKDOWNS[9])} == set(EVIDENCE)
    assert "Table 9" in table.notes[-1]


def test_languages_are_those_of_the_task():
    for row in published():
        expected = set(UNSEEN_LANGUAGES if row.task == "mkqa" else XOR_LANGUAGES) | {"macro"}
        for values in row.values.values():
            assert set(values) <= expected
            assert all(0 < value < 1 for value in values.values())


def test_macro_averages_are_those_of_their_languages():
    odd = set()
    for row in published():
        for metric, values in row.values.items():
            languages = [value for code, value in values.items() if code != "macro"]
            whole = len(languages) == (20 if row.task == "mkqa" else 7)
            # Each language and the average are rounded to 0.001: together they may be off by as much.
            if whole and "macro" in values and abs(sum(languages) / len(languages) - values["macro"]) > 0.00101:
                odd.add((row.table, row.row, metric))
                assert metric in row.note
    assert odd == DISAGREE
    assert {(row.table, row.row) for row in published() if row.note} == {(t, name) for t, name, _ in DISAGREE}


def test_numbers_are_the_papers(paper):
    lines = {tuple(line.split("\t")) for line in paper.splitlines()}
    found = 0
    for row in published(tables=[1, 3, 5, 6]):
        for values in row.values.values():
            printed = tuple(f"{100 * value:.1f}" for value in values.values())
            if len(printed) > 7:
                width = len(printed)
                found += 1
                assert any(printed == line[i : i + width] for line in lines for i in range(len(line) - width + 1)), (
                    row.label
                )
    assert found == 16 * 2 + 1 + 4 + 11 + 7
    # Table 8 sets its three parts side by side, Table 9 writes the names of its metrics.
    names = {"CLASS": "CLASS", "CLASS - MLQA-PT": "CLASS w/o MLQA-PT", "CLASS - Pre-train": "CLASS w/o Pre-train"}
    for row in published(tables=[7]):
        assert (names[row.row], *(f"{100 * v['macro']:.1f}" for v in row.values.values())) in lines
    for row in published(tables=[8]):
        printed = []
        for kind in ("either", "English", "target"):
            values = [row.values[f"R@{n}kt {kind}"]["macro"] for n in (2, 5, 10)]
            printed += [names[row.row], *(f"{100 * v:.1f}" for v in values)]
        assert tuple(printed) in lines
    for row in published(tables=[9]):
        cell = "/".join(f"{m.upper()}: {100 * v['macro']:.1f}" for m, v in row.values.items())
        assert any(cell in part for line in lines for part in line)


def test_a_summary_has_the_form_of_scores():
    summary = published("xor-full", [2], ["CORA"])[0].summary()
    assert summary["languages"]["ko"] == {"f1": pytest.approx(0.304)}
    assert summary["macro"] == {"f1": pytest.approx(0.347), "em": pytest.approx(0.258), "bleu": pytest.approx(0.233)}


def test_reranking_helped_korean_and_hurt_finnish():
    changes = {change["language"]: change for change in published_changes()}
    assert changes["ko"]["percent"] == 4.0 and changes["ko"]["metrics"] == ["R@5", "R@15"]
    assert {code: change["direction"] for code, change in changes.items()} == {
        "ko": "better",
        "ja": "better",
        "bn": "worse",
        "fi": "worse",
    }


def test_unknown_rows_are_named():
    with pytest.raises(InputError, match="CLASS-ZS"):
        published("mkqa", rows=["CLASS-Z"])
    with pytest.raises(InputError, match="Table 12"):
        published(tables=[12])
    with pytest.raises(InputError, match="mkqa"):
        published("mqka")
