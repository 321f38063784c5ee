# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The cache of replies: what it keeps, that it loads no pickle and touches no other file, and damage."""

import concurrent.futures
import json
import multiprocessing
import pickle
import sqlite3

import diskcache
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


def rewrite(cache, statement, *values):
    with sqlite3.connect(cache / "cache.db") as connection:
        connection.execute(statement, values)
    connection.close()


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


def test_nothing_is_evicted(tmp_path):
    cache = ReplyCache(tmp_path / "c")
    large = "x" * 10**7
    for number in range(3):
        cache.put(str(number), {"model": "m"}, Reply(large, "stop", 1, 1))
    rewrite(tmp_path / "c", "UPDATE Settings SET value = 1000 WHERE key = 'size_limit'")
    cache = ReplyCache(tmp_path / "c")
    for number in range(30):
        cache.put(f"{number} small", {"model": "m"}, REPLY)
    assert all(cache.get(str(number)).text == large for number in range(3))


@pytest.mark.parametrize("size", [1, 10**5], ids=["in the database", "in a file"])
def test_a_pickled_value_in_the_cache_is_not_loaded(tmp_path, size):
    with diskcache.Cache(str(tmp_path / "c")) as planted:
        planted["k"] = [Bomb(tmp_path / "loaded"), "x" * size]
    with pytest.raises(InputError, match=str(tmp_path / "c")):
        ReplyCache(tmp_path / "c").get("k")
    assert not (tmp_path / "loaded").exists()
    with diskcache.Cache(str(tmp_path / "c")) as planted, pytest.raises(TypeError):
        pickle.dumps(planted.get("k"))  # it does fire where pickles are loaded
    assert (tmp_path / "loaded").exists()


def test_a_pickled_key_in_the_cache_is_not_loaded(tmp_path):
    ReplyCache(tmp_path / "c").put("k", {"model": "m"}, REPLY)
    rewrite(
        tmp_path / "c", "UPDATE Cache SET raw = 0, key = ? WHERE key = 'k'", pickle.dumps(Bomb(tmp_path / "loaded"))
    )
    with pytest.raises(InputError, match=str(tmp_path / "c")):
        list(ReplyCache(tmp_path / "c").requests())
    assert not (tmp_path / "loaded").exists()


def test_paths_in_the_database_are_neither_read_nor_removed(tmp_path):
    foreign = tmp_path / "thesis"
    foreign.write_text(json.dumps({"request": {}, "reply": {"text": "mine"}}))
    ReplyCache(tmp_path / "c").put("k", {"model": "m"}, REPLY)
    rewrite(tmp_path / "c", "UPDATE Cache SET mode = 3, value = NULL, filename = '../thesis' WHERE key = 'k'")
    cache = ReplyCache(tmp_path / "c")
    with pytest.raises(InputError):
        cache.get("k")
    cache.put("k", {"model": "m"}, REPLY)
    assert foreign.exists() and cache.get("k") == REPLY


@pytest.mark.parametrize("text", ["{", "[]", '{"reply": {}}', '{"reply": {"text": 1}}', "1"])
def test_a_damaged_reply_is_named_in_one_line(tmp_path, text):
    ReplyCache(tmp_path / "c").put("k", {"model": "m"}, REPLY)
    rewrite(tmp_path / "c", "UPDATE Cache SET value = ? WHERE key = 'k'", text)
    with pytest.raises(InputError, match=str(tmp_path / "c")) as error:
        ReplyCache(tmp_path / "c").get("k")
    assert "\n" not in str(error.value)


def _put(path, name):
    cache = ReplyCache(path)
    for number in range(20):
        cache.put(f"{name} {number}", {"model": "m"}, REPLY)


def test_processes_share_a_cache_and_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        list(pool.map(_put, [tmp_path / "c"] * 2, "ab"))
    cache = ReplyCache(tmp_path / "c")
    assert cache.tokens("m") == (400, 200)
    assert all(cache.get(f"{name} {number}") == REPLY for name in "ab" for number in range(20))


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=str(tmp_path / "file" / "c")):
        ReplyCache(tmp_path / "file" / "c")
