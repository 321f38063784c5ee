# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Logs of finished work: what is kept, what a kill leaves, what is refused."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from class_jax.common.work_log import WorkLog
from class_jax.errors import InputError

pytestmark = pytest.mark.core

MADE_WITH = {"model": "m", "sizes": (1, 2)}


def opened(path, made_with=MADE_WITH):
    return WorkLog(path, made_with, "scores", ("list", "score"))


def test_entries_are_found_again(tmp_path):
    path = tmp_path / "new" / "log.jsonl"
    with opened(path) as log:
        assert log.entries == {}
        log.write("a", {"list": "x", "score": 1.5, "more": "not kept in memory"})
        log.write("ä", {"list": "y", "score": 2.0})
        log.write("a", {"list": "z", "score": 3.0})
    assert [json.loads(line).get("id") for line in path.read_text().splitlines()] == [None, "a", "ä", "a"]
    with opened(path) as log:
        assert log.entries == {"a": {"list": "z", "score": 3.0}, "ä": {"list": "y", "score": 2.0}}
    assert len(path.read_text().splitlines()) == 4


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_line_that_a_kill_left_unfinished_is_written_anew(tmp_path, cut):
    path = tmp_path / "log.jsonl"
    with opened(path) as log:
        log.write("a", {"list": "x", "score": 1.5})
        log.write("b", {"list": "y", "score": 2.0})
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with opened(path) as log:
        assert set(log.entries) == {"a"}
        log.write("b", {"list": "y", "score": 2.0})
    assert path.read_bytes() == whole


def test_what_is_refused(tmp_path):
    path = tmp_path / "log.jsonl"
    with opened(path) as log:
        log.write("a", {"list": "x", "score": 1.5})
    with (
        pytest.raises(InputError, match=r"log\.jsonl: model: "),
        opened(path, MADE_WITH | {"model": "n"}),
    ):
        pass
    for line in ("[1]", '{"id": "b", "list": "x"}', "nonsense"):
        path.write_text(path.read_text().splitlines()[0] + f"\n{line}\n")
        with pytest.raises(InputError, match=r"log.jsonl:2: not a line of a log of scores"), opened(path):
            pass
    path.write_text('{"id": "a"}\n')
    with pytest.raises(InputError, match=r"log.jsonl:1: not a line"), opened(path):
        pass
    with pytest.raises(InputError, match="could not be written"), opened(tmp_path):
        pass


def test_one_process_writes_a_log(tmp_path):
    def open_it():
        with opened(tmp_path / "log.jsonl"):
            pass

    with ThreadPoolExecutor(1) as other:
        with opened(tmp_path / "log.jsonl"), pytest.raises(InputError, match=r"log\.jsonl: another process"):
            other.submit(open_it).result()
        other.submit(open_it).result()
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
