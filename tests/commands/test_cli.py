# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The command line: real commands on small files, and one-line refusals."""

import sys

import pytest

from class_jax.commands import cli
from class_jax.corpus.passages import Passage, write_passages
from class_jax.corpus.store import TokenStore


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["class-jax", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code or 0


def test_a_vocabulary_and_a_store_are_made(tmp_path, monkeypatch, capsys):
    write_passages(
        tmp_path / "passages.tsv",
        [Passage(str(i), f"the river number {i} is long and flows to the sea", f"River {i}") for i in range(40)],
    )
    model = tmp_path / "vocabulary.model"
    assert call(monkeypatch, "vocabulary", "--passages", tmp_path / "passages.tsv", "--out", model, "--size", 296) == 0
    store = tmp_path / "store"
    arguments = ("--passages", tmp_path / "passages.tsv", "--vocabulary", model, "--out", store)
    assert call(monkeypatch, "store", *arguments) == 0
    assert "40 passages" in capsys.readouterr().out
    assert TokenStore.open(store).num_passages == 40


def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys):
    missing = tmp_path / "none.tsv"
    assert call(monkeypatch, "vocabulary", "--passages", missing, "--out", tmp_path / "v.model", "--size", 300) == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and "none.tsv" in printed and "\n" not in printed


def test_the_trainer_is_reached(monkeypatch, capsys):
    assert call(monkeypatch, "train") == 2
    assert "--gin_file" in capsys.readouterr().err
