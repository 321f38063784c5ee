# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Replies of language models on disk, looked up by what was asked.

Python's own `sqlite3` stores them, as text. Of what was compared (November 2026), `diskcache`, `sqlitedict` and
`joblib.Memory` load pickles, which run code; the first two have had no release since 2023 while a report about that is
open (CVE-2025-69872, CVE-2024-35515). LMDB is well kept, but maps its file into memory unchecked: a damaged one can end
the process. SQLite serves threads and processes, and raises an error for damage that it finds.
"""

import contextlib
import dataclasses
import json
import operator
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from class_jax.errors import InputError
from class_jax.llm.chat import Reply

_APPLICATION, _FORMAT = 0x434C4153, 1  # "CLAS"
_SCHEMA = f"""
  CREATE TABLE replies (id INTEGER PRIMARY KEY, key TEXT, request TEXT, reply TEXT, model TEXT, prompt, completion);
  CREATE INDEX keys ON replies (key); CREATE INDEX tokens ON replies (model, prompt, completion);
  PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_FORMAT}"""
_PUT = "INSERT INTO replies (key, request, reply, model, prompt, completion) VALUES (?, ?, ?, ?, ?, ?)"
_SUM = "SELECT coalesce(sum(prompt), 0), coalesce(sum(completion), 0) FROM replies WHERE model = ?"
_parsed = json.JSONDecoder().decode  # of text only: for anything else, it raises a TypeError


class ReplyCache:
    """A folder of requests (the prompts among them) and replies; may be shared by threads and processes.

    Each reply is committed when it arrives, in SQLite's write-ahead log: a killed process loses none and damages
    nothing. SQLite needs a local file system with locks. Nothing is ever evicted. A forked process opens its own.

    Args:
      path: the folder; created where it is missing.

    Raises:
      InputError: if it is no such folder, it is damaged, or the disk refuses.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path).absolute()
        if self.path.is_file():
            raise InputError("a file where the folder of cached replies should be", file=path, remedy="move it away")
        self._lock, self._process = threading.Lock(), os.getpid()
        self._connection: sqlite3.Connection | None = None
        self.tokens("")  # what can't be used is refused before anything is asked

    def get(self, key: str) -> Reply | None:
        """Returns the reply to the request with this key, if there is one."""
        with self._connected() as connection:
            row = connection.execute("SELECT reply FROM replies WHERE key = ? ORDER BY id DESC", (key,)).fetchone()
            reply = Reply(**_parsed(row[0])) if row else None
            if reply and not (isinstance(reply.text, str) and isinstance(reply.finish_reason, str)):
                raise ValueError("a reply without text")
            return reply

    def put(self, key: str, request: Mapping[str, Any], reply: Reply) -> None:
        """Stores a reply, and the request that it answers, which names its model as `model`."""
        # ASCII, since SQLite refuses half surrogates, which a model's reply may hold.
        texts = key, json.dumps(request), json.dumps(dataclasses.asdict(reply)), str(request.get("model", ""))
        with self._connected() as connection:
            connection.execute(_PUT, (*texts, reply.prompt_tokens, reply.completion_tokens))

    def tokens(self, model: str) -> tuple[int, int]:
        """Returns the prompt and completion tokens of all replies of a model, in this run and earlier ones."""
        with self._connected() as connection:
            [(prompt, completion)] = connection.execute(_SUM, (model,)).fetchall()
            return operator.index(prompt), operator.index(completion)

    def requests(self) -> Iterator[dict[str, Any]]:
        """Yields every request that was answered, in the order of the replies."""
        with self._connected() as connection:
            numbers = connection.execute("SELECT max(id) FROM replies GROUP BY key ORDER BY min(id)").fetchall()
        for number in numbers:
            with self._connected() as connection:
                row = connection.execute("SELECT request FROM replies WHERE id = ?", number).fetchone()
                request = dict(_parsed(row[0]))
            yield request

    def close(self) -> None:
        """Closes the database, which the next call opens again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if self._process != os.getpid():  # its locks don't survive a fork: two writers could damage the database
            raise RuntimeError("a cache of replies must be opened by the process that uses it")
        try:
            with self._lock:
                if self._connection is None:
                    self.path.mkdir(parents=True, exist_ok=True)
                    self._connection = _opened(self.path / "replies.sqlite")
                yield self._connection
        except (sqlite3.Error, OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
            problem = f"the cache of replies can't be used ({type(error).__name__}: {error})"
            raise InputError(problem, file=self.path, remedy="free space, or move a damaged folder away") from error


def _opened(path: Path) -> sqlite3.Connection:
    with contextlib.ExitStack() as on_error:
        connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
        on_error.callback(connection.close)
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            queries = "PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master"
            application, version, tables = (connection.execute(query).fetchall()[0][0] for query in queries)
            if (application, version, tables) == (0, 0, 0):  # a new file
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
            elif (application, version) != (_APPLICATION, _FORMAT):
                raise sqlite3.DatabaseError(
                    f"not of cached replies: application_id {application}, user_version {version}"
                )
        connection.execute("PRAGMA synchronous = NORMAL")  # in the log, only a power cut may lose the last replies
        with contextlib.suppress(sqlite3.OperationalError):  # refused at once while another process sets it
            connection.execute("PRAGMA journal_mode = WAL")
        on_error.pop_all()
        return connection
