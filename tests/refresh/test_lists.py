# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys

import numpy as np
import pytest

from class_jax.errors import InputError
from class_jax.refresh import lists as module
from class_jax.refresh.lists import DamagedError, PassageLists, clear_unfinished, versions

IDS = ["q-a", "q-b", "q-c"]


class Store:
    fingerprint = "corpus-1"

    def row(self, id):
        if not id.startswith("p") or not 0 <= int(id[1:]) < 10:
            raise InputError("no such passage", key=id)
        return int(id[1:])

    def id(self, row):
        return f"p{row}"


def some(version=0, step=0):
    rng = np.random.default_rng(version)
    rows = np.array([rng.permutation(10)[:4] for _ in IDS])
    return PassageLists(rows, rng.normal(size=(3, 4)).astype(np.float32), version, step, "corpus-1", "table-1")


def test_saved_lists_come_back_memory_mapped(tmp_path):
    lists = some(12, 3000)
    path = lists.save(tmp_path)
    assert path.name == "lists-000012"
    loaded = PassageLists.load(path, corpus="corpus-1", questions="table-1")
    np.testing.assert_array_equal(loaded.rows, lists.rows)
    np.testing.assert_array_equal(loaded.scores, lists.scores)
    assert isinstance(loaded.rows, np.memmap) and loaded.rows.dtype == np.int64 and loaded.scores.dtype == np.float32
    assert (loaded.version, loaded.step, loaded.corpus, loaded.questions) == (12, 3000, "corpus-1", "table-1")


def test_versions(tmp_path):
    assert versions(tmp_path / "absent") == [] == versions(tmp_path)
    for version in (2, 1_000_000, 30):
        some(version, version * 5).save(tmp_path)
    (tmp_path / "lists-x").mkdir()
    assert versions(tmp_path) == [2, 30, 1_000_000]
    module.remove(tmp_path, 1_000_000)
    assert versions(tmp_path) == [2, 30] and clear_unfinished(tmp_path) == 0


def test_foreign_lists_are_refused(tmp_path):
    path = some().save(tmp_path)
    with pytest.raises(InputError, match="another corpus"):
        PassageLists.load(path, corpus="corpus-2")
    with pytest.raises(InputError, match="another questions"):
        PassageLists.load(path, questions="table-2")
    with pytest.raises(InputError, match="no such passage lists"):
        PassageLists.load(tmp_path / "lists-000009")


@pytest.mark.parametrize("name", ["rows.npy", "scores.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "absent"])
def test_damage_is_seen(tmp_path, name, damage):
    path = some().save(tmp_path) / name
    data = bytearray(path.read_bytes())
    if damage == "absent":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 0x80
        path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"lists-000000.*delete the folder"):
        PassageLists.load(tmp_path / "lists-000000")


def test_a_process_killed_while_publishing_leaves_the_old_version(tmp_path):
    some(1).save(tmp_path)
    code = """
import os, sys
import numpy as np
from class_jax.refresh import lists
def die(path, value): os._exit(9)
lists.write_json = die
lists.PassageLists(np.ones((3, 4), int), np.ones((3, 4), np.float32), 2, 9, "corpus-1").save(sys.argv[1])
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert done.returncode == 9
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".lists-000002.")]
    assert versions(tmp_path) == [1]
    assert clear_unfinished(tmp_path) == 1
    # The lock's file is empty, and locks nothing once its process is dead.
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lists-000002.lock", "lists-000001"]


def test_a_disk_that_fills_leaves_nothing(tmp_path, monkeypatch):
    some(1).save(tmp_path)

    def full(path, array):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write_array", full)
    with pytest.raises(InputError, match="No space left"):
        some(2).save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["lists-000001"]


@pytest.mark.parametrize("array", [True, False], ids=["json", "jsonl"])
def test_public_lists(tmp_path, array):
    records = [{"qid": id, "pids": ["p3", f"p{i}", "p9"][: 3 - i // 2]} for i, id in enumerate(IDS)][::-1]
    file = tmp_path / "lists.json"
    file.write_text(json.dumps(records, indent=1) if array else "\n".join(map(json.dumps, records)) + "\n\n")
    lists = PassageLists.from_public(file, IDS, Store(), questions="table-1")
    assert lists.rows.tolist() == [[3, 0], [3, 1], [3, 2]] and np.isnan(lists.scores).all()
    assert lists.corpus == "corpus-1"
    lists.to_public(tmp_path / "out.jsonl", IDS, Store())
    again = PassageLists.from_public(tmp_path / "out.jsonl", IDS, Store(), k=1)
    assert again.rows.tolist() == [[3], [3], [3]]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([("q-a", [1]), ("q-b", [2])], "q-c: the question has no list"),
        ([("q-a", [1]), ("q-x", [2])], r"2: q-x: unknown question id"),
        ([("q-a", [1]), ("q-a", [2])], r"2: q-a: the question has two lists"),
        ([("q-a", [1]), ("q-b", [55])], r"2: pids: passage 'p55' of question 'q-b' is not in the token store"),
        ([("q-a", [1, 2]), ("q-b", [1]), ("q-c", [1, 2])], r"2: q-b: 1 passages where 2 are asked for"),
        ([("q-a", [1, 2]), ("q-b", [1, 1]), ("q-c", [1, 2])], r"2: q-b: a passage occurs twice"),
    ],
)
def test_bad_public_lists(tmp_path, lines, problem):
    file = tmp_path / "lists.jsonl"
    file.write_text("".join(json.dumps({"qid": q, "pids": [f"p{p}" for p in pids]}) + "\n" for q, pids in lines))
    with pytest.raises(InputError, match=problem):
        PassageLists.from_public(file, IDS, Store(), k=2 if len(lines) == 3 else None)


@pytest.mark.parametrize("content", [b'{"qid": 1}\n', b"{'qid': 1}\n", b'{"qid": "\xff"}\n', b'[{"qid": 1}]', b"[1"])
def test_malformed_public_lists(tmp_path, content):
    file = tmp_path / "lists.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"lists\.json"):
        PassageLists.from_public(file, IDS, Store())


def test_rows_and_scores_of_unlike_shapes_are_refused():
    rows = np.array([[1, 2], [-1, -1]])
    with pytest.raises(ValueError, match="both be"):
        PassageLists(rows, np.zeros((2, 3), np.float32), 0, 0, "c")
