# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Replies of language models on disk, looked up by what was asked.

`diskcache` stores them. Of the caches compared (November 2026), `joblib.Memory` stores the results of functions, as
pickles alone; `sqlitedict` commits through one thread and, like `diskcache`, has had no release since 2023 while a
report about its pickles is open (CVE-2024-35515, CVE-2025-69872). `diskcache` lets one choose the encoding of keys and
values, serves threads and processes at once, and has transactions. Its own encodings, `JSONDisk` too, load a pickle
where the database says that a value is one; `_TextDisk` has no such path.
"""

import dataclasses
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from class_jax.errors import InputError
from class_jax.llm.chat import Reply

try:
    import diskcache
    from diskcache.core import MODE_RAW
except ImportError as error:
    raise InputError("the package diskcache is not installed", remedy="pip install 'class-jax[llm]'") from error

T = TypeVar("T")
_DAMAGE = (sqlite3.Error, OSError, diskcache.Timeout, ValueError, TypeError, KeyError, AttributeError)


class _TextDisk(diskcache.Disk):
    """Texts as columns of the database: no pickle is loaded, and no other file is read, written or removed."""

    def put(self, key: str) -> tuple[str, bool]:
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        if not (raw and isinstance(key, str)):
            raise ValueError("a key that is not text")
        return key

    def store(self, value: str, read: bool, key: Any = None) -> tuple[int, int, None, str]:
        return 0, MODE_RAW, None, value

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> str:
        if mode != MODE_RAW or not isinstance(value, str):
            raise ValueError("a value that is not text")
        return value

    def remove(self, file_path: Any) -> None:
        """Values have no files, whatever path the database names."""


class ReplyCache:
    """A folder of requests (the prompts among them) and replies; may be shared by threads and processes.

    Each reply is committed when it arrives, in SQLite's write-ahead log: a killed process loses none and damages
    nothing. SQLite needs a local file system with locks. Nothing is ever evicted.

    Args:
      path: the folder; created where it is missing.

    Raises:
      InputError: if it is no such folder, it is damaged, or the disk refuses.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path).absolute()
        if self.path.is_file():
            raise InputError("a file where the folder of cached replies should be", file=path, remedy="move it away")
        settings = {"eviction_policy": "none", "cull_limit": 0, "size_limit": 2**62}
        self._cache = self._guarded(lambda: diskcache.Cache(str(self.path), disk=_TextDisk, **settings))

    def get(self, key: str) -> Reply | None:
        """Returns the reply to the request with this key, if there is one."""
        return self._guarded(lambda: self._reply(self._cache.get(key)))

    def put(self, key: str, request: Mapping[str, Any], reply: Reply) -> None:
        """Stores a reply, and the request that it answers, which names its model as `model`."""
        # ASCII, since SQLite refuses half surrogates, which a model's reply may hold.
        model = str(request.get("model", ""))
        text = json.dumps({"request": request, "reply": dataclasses.asdict(reply)})

        def store() -> None:
            with self._cache.transact():
                prompt, completion = self.tokens(model)
                sums = [prompt + reply.prompt_tokens, completion + reply.completion_tokens]
                self._cache.set(key, text)
                self._cache.set(_sums_key(model), json.dumps(sums))

        self._guarded(store)

    def tokens(self, model: str) -> tuple[int, int]:
        """Returns the prompt and completion tokens of all replies of a model, in this run and earlier ones."""

        def read() -> tuple[int, int]:
            prompt, completion = json.loads(self._cache.get(_sums_key(model), "[0, 0]"))
            return int(prompt), int(completion)

        return self._guarded(read)

    def requests(self) -> Iterator[dict[str, Any]]:
        """Yields every request that was answered, in the order of the replies."""
        for key in self._guarded(lambda: list(self._cache)):
            if not key.startswith(_sums_key("")):
                yield self._guarded(lambda key=key: json.loads(self._cache[key])["request"])

    def close(self) -> None:
        """Closes this thread's connection; another thread that used the cache closes its own."""
        self._cache.close()

    @staticmethod
    def _reply(text: str | None) -> Reply | None:
        if text is None:
            return None
        reply = Reply(**json.loads(text)["reply"])
        if not (isinstance(reply.text, str) and isinstance(reply.finish_reason, str)):
            raise ValueError("a reply without text")
        return reply

    def _guarded(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except InputError:
            raise
        except _DAMAGE as error:
            problem = f"the cache of replies can't be used ({type(error).__name__}: {error})"
            remedy = "free some space, or move a damaged folder away and start again"
            raise InputError(problem, file=self.path, remedy=remedy) from error


def _sums_key(model: str) -> str:
    """The key of a model's tokens; those of replies are hexadecimal digests."""
    return f"tokens of {model}"
