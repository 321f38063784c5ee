# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The cache of replies: what it keeps, that it loads no pickle, and damage."""

import concurrent.futures
import multiprocessing
import os
import pickle
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from class_jax.errors import InputError
from class_jax.llm.cache import ReplyCache
from class_jax.llm.chat import Reply

REPLY = Reply("text", "stop", 10, 5)


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def written(path, *statements):
    """Executes (statement, values) in the database of a cache, which it makes where it is missing."""
    path.mkdir(exist_ok=True)
    with sqlite3.connect(path / "replies.sqlite") as connection:
        for statement, *values in statements:
            connection.execute(statement, values)
    connection.close()


@pytest.fixture
def filled(tmp_path):
    """A folder with one reply."""
    cache = ReplyCache(tmp_path / "c")
    cache.put("k", {"model": "m"}, REPLY)
    cache.close()
    return tmp_path / "c"


def refused(path, action):
    """Asserts that an action is refused in one line that names the folder."""
    with pytest.raises(InputError, match=str(path)) as error:
        action()
    assert "\n" not in str(error.value)


def test_replies_are_kept_and_their_tokens_summed(tmp_path):
    cache = ReplyCache(tmp_path / "c")
    assert cache.get("k") is None
    cache.put("k", {"model": "m", "messages": ["why?"]}, REPLY)
    cache.put("l", {"model": "m"}, Reply("half \ud800 a pair, ह", "length", 1, 2))
    cache.close()
    cache = ReplyCache(tmp_path / "c")
    assert cache.get("k") == REPLY and cache.get("l").text == "half \ud800 a pair, ह"
    assert cache.tokens("m") == (11, 7) and cache.tokens("n") == (0, 0)
    assert [request.get("messages") for request in cache.requests()] == [["why?"], None]


def test_a_request_answered_twice_has_its_last_reply_and_both_are_charged(tmp_path):
    cache = ReplyCache(tmp_path / "c")
    for key, text in [("z", "first"), ("a", "other"), ("z", "second")]:
        cache.put(key, {"model": "m", "text": text}, Reply(text, "stop", 10, 5))
    assert cache.get("z").text == "second" and cache.tokens("m") == (30, 15)
    assert [request["text"] for request in cache.requests()] == ["second", "other"]


def test_large_replies_are_not_evicted(tmp_path):
    cache = ReplyCache(tmp_path / "c")
    for number in range(3):
        cache.put(str(number), {"model": "m"}, Reply(str(number) * 10**7, "stop", 1, 1))
    assert all(cache.get(str(number)).text == str(number) * 10**7 for number in range(3))


@pytest.mark.parametrize("name", ["~", "$HOME", ":memory:", "file:c?mode=memory", "a'b;--"])
def test_a_path_is_taken_literally(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    ReplyCache(name).put("k", {"model": "m"}, REPLY)
    assert [path.name for path in tmp_path.iterdir()] == [Path(name).name]
    assert ReplyCache(tmp_path / name).get("k") == REPLY


def test_a_closed_cache_opens_again(filled):
    cache = ReplyCache(filled)
    cache.close()
    cache.close()
    assert cache.get("k") == REPLY
    assert sorted(path.name for path in filled.iterdir())[0] == "replies.sqlite"


@pytest.mark.parametrize("column", ["request", "reply", "prompt", "model"])
def test_a_planted_pickle_is_refused_or_not_found_and_never_loaded(tmp_path, filled, column):
    bomb = pickle.dumps(Bomb(tmp_path / "loaded"))
    written(filled, (f"UPDATE replies SET {column} = ?", bomb))
    cache = ReplyCache(filled)
    actions = {
        "request": lambda: list(cache.requests()),
        "reply": lambda: cache.get("k"),
        "prompt": lambda: cache.tokens("m"),
    }
    if column in actions:
        refused(filled, actions.pop(column))
    for action in actions.values():
        action()
    assert not (tmp_path / "loaded").exists()
    with pytest.raises(TypeError):
        pickle.dumps(pickle.loads(bomb))  # it does write where pickles are loaded
    assert (tmp_path / "loaded").exists()


def test_a_blob_is_refused_though_it_holds_json(filled):
    written(filled, ("UPDATE replies SET reply = CAST(reply AS BLOB), request = CAST(request AS BLOB)",))
    refused(filled, lambda: ReplyCache(filled).get("k"))
    refused(filled, lambda: list(ReplyCache(filled).requests()))


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"text": 1, "finish_reason": "", "prompt_tokens": 1, "completion_tokens": 1}', "1", None]
)
def test_a_damaged_reply_is_refused(filled, text):
    written(filled, ("UPDATE replies SET reply = ?", text))
    refused(filled, lambda: ReplyCache(filled).get("k"))


def test_damage_anywhere_in_the_file_is_an_input_error_or_harmless(tmp_path):
    cache = ReplyCache(tmp_path / "c")
    for number in range(100):
        cache.put(str(number), {"model": "m"}, Reply("x" * 200, "stop", 1, 1))
    cache.close()
    whole, generator, errors = (tmp_path / "c" / "replies.sqlite").read_bytes(), random.Random(0), 0
    for trial in range(40):
        damaged = bytearray(whole[: generator.randrange(len(whole))] if trial % 4 == 0 else whole)
        for _ in range(200):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        (tmp_path / str(trial)).mkdir()
        (tmp_path / str(trial) / "replies.sqlite").write_bytes(damaged)
        try:
            cache = ReplyCache(tmp_path / str(trial))
            list(cache.requests())
            for number in range(100):
                cache.get(str(number))
        except InputError as error:
            errors += str(tmp_path / str(trial)) in str(error)
    assert errors > 20


@pytest.mark.parametrize(
    ("statements", "word"),
    [
        ([("CREATE TABLE thesis (text)",)], "application_id 0"),
        ([("CREATE TABLE thesis (text)",), ("PRAGMA application_id = 7",)], "application_id 7"),
        ([("PRAGMA user_version = 7",)], "user_version 7"),
    ],
    ids=["no id", "another id", "another format"],
)
@pytest.mark.parametrize("cached", [False, True])
def test_another_database_or_format_is_refused_by_name_and_left_as_it_was(tmp_path, filled, statements, word, cached):
    path = filled if cached and "CREATE" not in statements[0][0] else tmp_path / "other"
    written(path, *statements)
    before = (path / "replies.sqlite").read_bytes()
    refused(path, lambda: ReplyCache(path))
    with pytest.raises(InputError, match=word):
        ReplyCache(path)
    assert (path / "replies.sqlite").read_bytes() == before


def _put(path, name):
    cache = ReplyCache(path)
    for number in range(20):
        cache.put(f"{name} {number}", {"model": "m"}, REPLY)
    cache.close()


@pytest.mark.parametrize("pool", ["processes", "threads"])
def test_processes_and_threads_share_a_cache_and_lose_nothing(tmp_path, pool):
    if pool == "processes":
        context = multiprocessing.get_context("spawn")
        executor = concurrent.futures.ProcessPoolExecutor(2, mp_context=context)
    else:
        executor = concurrent.futures.ThreadPoolExecutor(4)
    with executor:
        list(executor.map(_put, [tmp_path / "c"] * 4, "abcd"))
    cache = ReplyCache(tmp_path / "c")
    assert cache.tokens("m") == (800, 400)
    assert all(cache.get(f"{name} {number}") == REPLY for name in "abcd" for number in range(20))


def test_threads_share_one_object(tmp_path):
    cache = ReplyCache(tmp_path / "c")

    def put(number):
        cache.put(str(number), {"model": "m"}, REPLY)
        return cache.get(str(number))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(put, range(100))) == [REPLY] * 100
    assert cache.tokens("m") == (1000, 500) and len(list(cache.requests())) == 100


def test_requests_are_read_while_replies_arrive(filled):
    cache = ReplyCache(filled)
    for number, _ in enumerate(cache.requests()):
        cache.put(f"new {number}", {"model": "m"}, REPLY)
    assert cache.tokens("m") == (20, 10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_may_not_use_its_parents_connection(filled):
    cache = ReplyCache(filled)
    child = os.fork()
    if not child:
        try:
            cache.get("k")
        except RuntimeError:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert cache.get("k") == REPLY


def test_a_killed_process_loses_no_reply(tmp_path):
    program = f"""
from class_jax.llm.cache import ReplyCache
from class_jax.llm.chat import Reply
cache, number = ReplyCache({str(tmp_path / "c")!r}), 0
while True:
    cache.put(str(number), {{"model": "m"}}, Reply("x" * 5000, "stop", 10, 5))
    print(number, flush=True)
    number += 1
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == 50:
            process.kill()  # it writes on meanwhile, so the last lines come after
    process.wait()
    cache = ReplyCache(tmp_path / "c")
    kept = len(list(cache.requests()))
    assert kept > 50 and all(cache.get(str(number)) for number in range(kept))
    assert cache.tokens("m") == (10 * kept, 5 * kept)


def test_a_full_disk_is_refused_and_damages_nothing(filled):
    program = f"""
import resource, signal
from class_jax.errors import InputError
from class_jax.llm.cache import ReplyCache
from class_jax.llm.chat import Reply
cache = ReplyCache({str(filled)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    cache.put("large", {{"model": "m"}}, Reply("x" * 10**6, "stop", 10, 5))
except InputError as error:
    print(error)
assert cache.get("large") is None and cache.get("k") and cache.tokens("m") == (10, 5)
"""
    shown = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert shown.count("\n") == 1 and str(filled) in shown
    cache = ReplyCache(filled)
    cache.put("large", {"model": "m"}, Reply("x" * 10**6, "stop", 10, 5))
    assert cache.tokens("m") == (20, 10)


@pytest.mark.parametrize("name", ["file", "file/c"])
def test_a_file_where_the_folder_or_its_parent_should_be_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    refused(tmp_path / name, lambda: ReplyCache(tmp_path / name))
    assert (tmp_path / "file").read_text() == "mine"
