# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Pieces of work: made once, whole or absent, found by what they were made from, and made by one process at a time."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from class_jax.common.files import digest_file, locked, remove_leftovers, replacing_folder
from class_jax.common.work import Piece, WorkFolder, input_digest, refuse_other
from class_jax.errors import InputError

pytestmark = pytest.mark.core


class Maker:
    """Writes `out` and counts how often."""

    def __init__(self, folder, text="x"):
        self.folder, self.text, self.calls = folder, text, 0

    def __call__(self, aside=None):
        self.calls += 1
        (self.folder if aside is None else aside).joinpath("out").write_text(self.text)
        return {"calls": self.calls}


def test_a_piece_is_made_once(tmp_path):
    folder, make = WorkFolder(tmp_path / "new"), Maker(tmp_path / "new")
    first = folder.run("a/b", make, inputs={"n": (1, 2)}, outputs=["out"])
    assert first.made and first.result == {"calls": 1} and first.inputs == {"n": [1, 2]}
    assert first.files == {"out": [1, digest_file(tmp_path / "new" / "out")]}
    second = WorkFolder(tmp_path / "new").run("a/b", make, inputs={"n": [1, 2]}, outputs=["out"])
    assert not second.made and second.result == {"calls": 1} and make.calls == 1
    assert second.fingerprint == first.fingerprint
    names = {path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*")}
    assert names == {"out", "work", "work/a", "work/a/b.json"}


def test_pieces_of_one_folder_do_not_disturb_each_other(tmp_path):
    folder = WorkFolder(tmp_path)
    nested = Maker(tmp_path)
    outer = folder.run(
        "outer", lambda: folder.run("inner", nested, inputs={}, outputs=["out"]).result, inputs={}, outputs=[]
    )
    assert outer.result == {"calls": 1} and folder.piece("inner") is not None
    assert folder.piece("missing") is None
    folder.forget()
    assert folder.piece("inner") is None and (tmp_path / "out").exists()


def test_other_inputs_are_refused_or_replaced(tmp_path):
    folder, make = WorkFolder(tmp_path, "REMEDY"), Maker(tmp_path)
    folder.run("a", make, inputs={"model": {"layers": 2, "heads": 1}, "n": 1}, outputs=["out"])
    other = {"model": {"layers": 3, "heads": 1}, "n": 1}
    with pytest.raises(InputError, match=r"model\.layers: was made with 2, not 3; REMEDY"):
        folder.run("a", make, inputs=other, outputs=["out"])
    assert folder.piece("a", other) is None and make.calls == 1
    assert folder.run("a", make, inputs=other, outputs=["out"], replace_other=True).made
    assert folder.piece("a", other).result == {"calls": 2}


@pytest.mark.parametrize("damage", ["altered", "longer", "missing"])
def test_damaged_outputs_are_made_again_or_refused(tmp_path, damage):
    folder, make = WorkFolder(tmp_path), Maker(tmp_path)
    folder.run("a", make, inputs={}, outputs=["out"])
    out = tmp_path / "out"
    out.unlink() if damage == "missing" else out.write_text("y" if damage == "altered" else "xx")
    assert folder.piece("a") is not None and folder.piece("a", {}) is None
    with pytest.raises(InputError, match=r"out: changed"):
        folder.run("a", make, inputs={}, outputs=["out"], replace_damaged=False)
    assert make.calls == 1
    assert folder.run("a", make, inputs={}, outputs=["out"]).made and out.read_text() == "x"


def test_an_interrupted_piece_has_no_record(tmp_path):
    folder, make = WorkFolder(tmp_path), Maker(tmp_path)
    folder.run("a", make, inputs={"n": 1}, outputs=["out"])

    def fail():
        make()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.run("a", fail, inputs={"n": 2}, outputs=["out"], replace_other=True)
    # The outputs are those of the interrupted call: the old record must not vouch for them.
    assert folder.piece("a") is None
    assert folder.run("a", make, inputs={"n": 1}, outputs=["out"]).made
    with pytest.raises(RuntimeError, match="nothing"):
        folder.run("b", lambda: None, inputs={}, outputs=["nothing"])


def test_outputs_that_are_folders(tmp_path):
    folder = WorkFolder(tmp_path)

    def make():
        (tmp_path / "deep" / "er").mkdir(parents=True, exist_ok=True)
        (tmp_path / "deep" / "er" / "x").write_text("1")

    assert set(folder.run("a", make, inputs={}, outputs=["deep"]).files) == {"deep/er/x"}
    (tmp_path / "deep" / "er" / "x").write_text("2")
    assert folder.run("a", make, inputs={}, outputs=["deep"]).made


def test_a_folder_is_published_whole(tmp_path):
    folder, make = WorkFolder(tmp_path), Maker(None)
    first = folder.run_folder("deep/a", make, inputs={"n": 1})
    assert first.made and (tmp_path / "deep" / "a" / "out").read_text() == "x"
    assert Piece.read(tmp_path / "deep" / "a" / "stage.json").fingerprint == first.fingerprint
    assert not folder.run_folder("deep/a", make, inputs={"n": 1}).made

    def fail(aside):
        make(aside)
        raise KeyError

    for again in ({"inputs": {"n": 2}, "replace_other": True}, {"inputs": {"n": 1}, "replace_damaged": True}):
        (tmp_path / "deep" / "a" / "out").write_text("xx")
        with pytest.raises(KeyError):
            folder.run_folder("deep/a", fail, **again)
        assert (tmp_path / "deep" / "a" / "out").read_text() == "xx"
    with pytest.raises(InputError, match=r"deep/a/out: changed"):
        folder.run_folder("deep/a", make, inputs={"n": 1})
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["a"]


def test_a_folder_of_other_origin_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis").write_text("mine")
    with pytest.raises(InputError, match="a: is there, but was not made"):
        WorkFolder(tmp_path).run_folder("a", Maker(None), inputs={})
    assert (tmp_path / "a" / "thesis").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file: is there and is no folder"), replacing_folder(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_records_of_the_first_kind_are_read(tmp_path):
    old = {"name": "s", "inputs": {"n": 6}, "counts": {"squares": 6}, "files": {"out": [1, "digest"]}, "seconds": 1.0}
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "out").write_text("x")
    (tmp_path / "s" / "stage.json").write_text(json.dumps(old))
    assert WorkFolder(tmp_path).run_folder("s", Maker(None), inputs={"n": 6}).result == {"squares": 6}
    (tmp_path / "s" / "stage.json").write_text(json.dumps({"name": "s", "files": []}))
    with pytest.raises(InputError, match=r"stage\.json"):
        WorkFolder(tmp_path).run_folder("s", Maker(None), inputs={"n": 6})


def test_the_first_difference_is_named():
    refuse_other({"a": [1]}, {"a": [1]}, file="f")
    for old, new, words in (
        ({"a": 1, "b": {"c": 1}}, {"a": 1, "b": {"c": 2}}, "f: b.c: was made with 1, not 2"),
        ({"a": None}, {}, "f: a: was made with null, not nothing"),
        ([1], [2], "f: inputs: was made with [1], not [2]"),
    ):
        with pytest.raises(InputError) as caught:
            refuse_other(old, new, file="f")
        assert str(caught.value).startswith(words)


_WORKER = """
import sys, time
from pathlib import Path
from class_jax.common.files import replacing
from class_jax.common.work import WorkFolder
folder = Path(sys.argv[1])
def make(aside=None):
    with replacing((aside or folder) / "out") as f:
        f.write("half")
        f.flush()
        (folder / "started").touch()
        time.sleep(60)
work = WorkFolder(folder)
if sys.argv[2] == "files":
    work.run("a", make, inputs={}, outputs=["out"])
else:
    work.run_folder("a", make, inputs={})
"""


@pytest.mark.parametrize("kind", ["files", "folder"])
def test_killed_in_the_middle(tmp_path, kind):
    child = subprocess.Popen([sys.executable, "-c", _WORKER, str(tmp_path), kind])
    folder = WorkFolder(tmp_path)

    def again():
        if kind == "files":
            return folder.run("a", Maker(tmp_path), inputs={}, outputs=["out"])
        return folder.run_folder("a", Maker(None), inputs={})

    try:
        while not (tmp_path / "started").exists():
            assert child.poll() is None
            time.sleep(0.05)
        with pytest.raises(InputError, match="another process is making it"):
            again()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    others = [".out.0123.tmp", ".other.0123abcd.tmp", "out.0123abcd.tmp", ".a.0123abcd.tmp.mine"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / "started").unlink()
    assert len(list(tmp_path.glob(".*.tmp"))) == 3
    assert again().made
    place = tmp_path if kind == "files" else tmp_path / "a"
    assert (place / "out").read_text() == "x"
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {*others, *(["out", "work"] if kind == "files" else ["a"])}
    assert not list(tmp_path.rglob("*.lock"))


def test_a_lock_is_one_threads_and_may_be_nested(tmp_path):
    found = []

    def other():
        try:
            with locked(tmp_path / "a"):
                found.append("locked")
        except InputError:
            found.append("refused")

    def from_a_thread():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return found.pop()

    with locked(tmp_path / "a"):
        with locked(tmp_path / "a"):
            assert from_a_thread() == "refused"
        assert from_a_thread() == "refused"
    assert from_a_thread() == "locked" and not os.listdir(tmp_path)


def test_leftovers_of_others_stay(tmp_path):
    (tmp_path / ".a.0123abcd.tmp").mkdir()
    (tmp_path / ".a.0123abcd.tmp" / "x").touch()
    (tmp_path / ".a.89abcdef.tmp").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".a.ffffffff.tmp").symlink_to(tmp_path / "elsewhere")
    (tmp_path / ".ab.0123abcd.tmp").touch()
    assert remove_leftovers(tmp_path / "a") == 3
    assert sorted(os.listdir(tmp_path)) == [".ab.0123abcd.tmp", "elsewhere"]
    assert remove_leftovers(tmp_path / "none" / "a") == 0


def test_inputs_are_digested(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    file, empty = input_digest(tmp_path / "file"), input_digest(tmp_path / "folder")
    assert file == digest_file(tmp_path / "file") and input_digest(None) is None
    (tmp_path / "folder" / "x").write_text("x")
    full = input_digest(tmp_path / "folder")
    os.utime(tmp_path / "folder" / "x", ns=(5, 5))
    assert len({empty, full, input_digest(tmp_path / "folder")}) == 3
    with pytest.raises(InputError, match="nothing: no such file or folder"):
        input_digest(tmp_path / "nothing")
