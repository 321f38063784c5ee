# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Replies of language models on disk, found again by what was asked."""

import json
import os
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from class_jax.errors import InputError

_TABLES = """
CREATE TABLE IF NOT EXISTS replies (
  key TEXT PRIMARY KEY, model TEXT NOT NULL, request TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
      text: the message.
      finish_reason: ``stop`` where the model ended by itself, ``length`` where it was cut off.
      prompt_tokens, completion_tokens: as charged.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class ReplyCache:
    """A SQLite file of requests (the prompts among them) and replies; may be shared by threads and processes.

    Every reply is committed when it arrives, in a write-ahead log: a killed process loses none and damages nothing.
    SQLite needs a local file system with locks.

    Args:
      path: the file; made with its folder where it is missing.

    Raises:
      InputError: if it is no such file, or the disk refuses.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.executescript(_TABLES)
        except (sqlite3.Error, OSError) as error:
            raise self._damaged(error) from error

    def get(self, key: str) -> Reply | None:
        """Returns the reply to the request with this key, if there is one."""
        rows = self._execute(
            "SELECT text, finish_reason, prompt_tokens, completion_tokens FROM replies WHERE key = ?", (key,)
        )
        return Reply(*rows[0]) if rows else None

    def put(self, key: str, request: Mapping[str, Any], reply: Reply) -> None:
        """Keeps a reply, and the request that it answers, which names its model as `model`."""
        asked = json.dumps(request, ensure_ascii=False, sort_keys=True)
        row = (key, str(request.get("model", "")), asked, reply.text, reply.finish_reason)
        row += (reply.prompt_tokens, reply.completion_tokens)
        self._execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def tokens(self, model: str) -> tuple[int, int]:
        """Returns the prompt and completion tokens of all replies of a model, in this run and earlier ones."""
        sums = "COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0)"
        return self._execute(f"SELECT {sums} FROM replies WHERE model = ?", (model,))[0]

    def requests(self) -> list[dict[str, Any]]:
        """Returns every request that was answered, by key."""
        return [json.loads(row[0]) for row in self._execute("SELECT request FROM replies ORDER BY key")]

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def _execute(self, statement: str, values: tuple = ()) -> list[tuple]:
        try:
            with self._lock:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        remedy = "free some space, or move a damaged file away and start again"
        return InputError(f"the cache of replies can't be used ({error})", file=self.path, remedy=remedy)
