# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Passage lists: the K passages that each training question is read with, one version per refresh.

A version is a folder `lists-000012/` with `rows.npy`, `scores.npy` and `manifest.json`. It appears by one rename, so a
reader sees a whole version or none, and it never changes afterwards.

Axes: B questions, K passages of a question's list.
"""

import dataclasses
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from class_jax.common.files import digest_file, read_json, replacing, replacing_folder, write_json
from class_jax.errors import InputError

FORMAT = 1
NO_ROW = -1
_NAME = re.compile(r"lists-(\d{6,})")
_UNFINISHED = re.compile(r"\.lists-\d{6,}\.[0-9a-f]+\.tmp")
_ARRAYS = ("rows", "scores")


class DamagedError(InputError):
    """A saved version whose files are missing, cut short or altered."""


class PassageIds(Protocol):
    """The part of the token store that turns passage ids into rows and back."""

    fingerprint: str

    def row(self, id: str) -> int:
        """Returns the row of the passage called `id`; raises InputError or KeyError where there is none."""
        ...

    def id(self, row: int) -> str:
        """Returns the id of the passage at `row`."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class PassageLists:
    """The current passages of every question in the question table.

    Attributes:
      rows: [B, K] int64, rows of the token store in rank order; a question that has no list yet holds `NO_ROW` (-1).
      scores: [B, K] float32, retriever scores of `rows`: NaN where unknown (lists read from a public file), -inf where
        there is no list yet.
      version: number of the refresh that made them, from 0.
      step: training step of the weights that made them.
      corpus: fingerprint of the token store that `rows` points into.
      questions: fingerprint of the question table that the first axis follows, or "" where none was given.
    """

    rows: np.ndarray
    scores: np.ndarray
    version: int
    step: int
    corpus: str
    questions: str = ""

    def __post_init__(self):
        if self.rows.ndim != 2 or self.rows.shape != self.scores.shape:
            raise ValueError(f"rows {self.rows.shape} and scores {self.scores.shape} must both be [questions, K]")
        if self.version < 0 or self.step < 0:
            raise ValueError(f"version {self.version} and step {self.step} must not be negative")

    @property
    def k(self) -> int:
        """Passages per question."""
        return self.rows.shape[1]

    def save(self, folder: str | os.PathLike) -> Path:
        """Publishes the lists as `folder/lists-{version}`, whole or not at all, and returns that path.

        Raises:
          InputError: if the disk refuses the write.
        """
        path = folder_of(folder, self.version)
        with replacing_folder(path) as aside:
            digests = {}
            for name, dtype in zip(_ARRAYS, (np.int64, np.float32), strict=True):
                _write_array(aside / f"{name}.npy", np.ascontiguousarray(getattr(self, name), dtype))
                digests[f"{name}.npy"] = digest_file(aside / f"{name}.npy")
            manifest = {
                "format": FORMAT,
                "version": self.version,
                "step": self.step,
                "corpus": self.corpus,
                "questions": self.questions,
                "shape": list(self.rows.shape),
                "digests": digests,
            }
            write_json(aside / "manifest.json", manifest)
        return path

    @classmethod
    def load(
        cls, path: str | os.PathLike, *, corpus: str | None = None, questions: str | None = None
    ) -> "PassageLists":
        """Opens one version, memory-mapped, after checking its digests.

        Args:
          path: the folder `.../lists-000012`.
          corpus: fingerprint of the token store in use; None leaves it unchecked.
          questions: fingerprint of the question table in use; None leaves it unchecked.

        Raises:
          DamagedError: if a file is missing, cut short or altered.
          InputError: if the lists belong to another corpus or question table, or to a newer format.
        """
        path = Path(path)
        if not path.is_dir():
            raise InputError("no such passage lists", file=path)
        manifest = _read_manifest(path)
        for key, mine in (("corpus", corpus), ("questions", questions)):
            if mine is not None and manifest[key] != mine:
                raise InputError(
                    f"made for another {key} ({manifest[key]!r}, now {mine!r})",
                    file=path,
                    key=key,
                    remedy="delete the folder or use the one that it was made for",
                )
        for name, digest in manifest["digests"].items():
            if not (path / name).is_file() or digest_file(path / name) != digest:
                raise DamagedError("missing or altered since it was written", file=path / name, remedy=_REMEDY)
        arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
        return cls(**arrays, **{key: manifest[key] for key in ("version", "step", "corpus", "questions")})

    @classmethod
    def from_public(
        cls,
        path: str | os.PathLike,
        table_ids: Sequence[str],
        store: PassageIds,
        *,
        k: int | None = None,
        version: int = 0,
        step: int = 0,
        questions: str = "",
    ) -> "PassageLists":
        """Reads the public form: a JSON array, or one JSON object a line, of `{"qid": ..., "pids": [...]}`.

        Args:
          path: the file.
          table_ids: ids of the question table, in its order.
          store: the token store that knows the passage ids.
          k: passages to keep per question; None keeps as many as the shortest list has.
          version: version to give to the lists.
          step: step to give to the lists.
          questions: fingerprint of the question table.

        Raises:
          InputError: for a malformed record, an id that is unknown or occurs twice, a question of the table without a
            list, or a list with fewer than `k` passages.
        """
        place = {str(id): i for i, id in enumerate(table_ids)}
        found: list[tuple[list[int], int | None] | None] = [None] * len(place)
        for line, record in _public_records(path):
            qid, pids = _checked_record(path, line, record)
            if qid not in place:
                raise InputError("unknown question id", file=path, line=line, key=qid, remedy="not in the table")
            if found[place[qid]] is not None:
                raise InputError("the question has two lists", file=path, line=line, key=qid)
            found[place[qid]] = (_rows_of(path, line, qid, pids, store), line)
        missing = next((id for id, i in place.items() if found[i] is None), None)
        if missing is not None:
            raise InputError("the question has no list", file=path, key=missing)
        width = k if k is not None else min((len(rows) for rows, _ in found), default=0)
        for qid, i in place.items():
            rows, line = found[i]
            if len(rows) < max(width, 1):
                raise InputError(
                    f"{len(rows)} passages where {max(width, 1)} are asked for", file=path, line=line, key=qid
                )
        rows = np.array([rows[:width] for rows, _ in found], np.int64).reshape(len(place), width)
        scores = np.full(rows.shape, np.nan, np.float32)
        return cls(rows, scores, version=version, step=step, corpus=store.fingerprint, questions=questions)

    def to_public(self, path: str | os.PathLike, table_ids: Sequence[str], store: PassageIds) -> None:
        """Writes the public form, one `{"qid": ..., "pids": [...]}` a line; questions without a list are left out.

        Raises:
          InputError: if the disk refuses the write.
          ValueError: if `table_ids` is not as long as the lists.
        """
        if len(table_ids) != len(self.rows):
            raise ValueError(f"{len(table_ids)} question ids for {len(self.rows)} lists")
        with replacing(path) as f:
            for qid, rows in zip(table_ids, self.rows, strict=True):
                if len(rows) and rows[0] != NO_ROW:
                    pids = [store.id(int(row)) for row in rows]
                    f.write(json.dumps({"qid": str(qid), "pids": pids}, ensure_ascii=False) + "\n")


_REMEDY = "delete the folder; the lists are made again from the weights of that step"


def folder_of(folder: str | os.PathLike, version: int) -> Path:
    """Returns the path of one version inside `folder`."""
    return Path(folder) / f"lists-{version:06d}"


def versions(folder: str | os.PathLike) -> list[int]:
    """Returns the versions in `folder`, ascending; an absent folder has none."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    names = (_NAME.fullmatch(p.name) for p in folder.iterdir() if p.is_dir())
    return sorted(int(match[1]) for match in names if match)


def clear_unfinished(folder: str | os.PathLike) -> int:
    """Removes files that killed processes left unfinished in `folder`; returns how many. Nobody may write there."""
    folder = Path(folder)
    left = [p for p in folder.iterdir() if _UNFINISHED.fullmatch(p.name)] if folder.is_dir() else []
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return len(left)


def remove(folder: str | os.PathLike, version: int) -> None:
    """Deletes one version; killed half-way, it leaves something for `clear_unfinished`, never half a version."""
    path = folder_of(folder, version)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    os.replace(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _write_array(path: Path, array: np.ndarray) -> None:
    with open(path, "wb") as f:
        np.save(f, array, allow_pickle=False)
        f.flush()
        os.fsync(f.fileno())


def _read_manifest(path: Path) -> dict[str, Any]:
    file = path / "manifest.json"
    try:
        manifest = read_json(file)
    except InputError as error:
        raise DamagedError("missing or not JSON", file=file, remedy=_REMEDY) from error
    needed = {"format", "version", "step", "corpus", "questions", "digests"}
    if not isinstance(manifest, dict) or needed - manifest.keys():
        raise DamagedError("not a manifest of passage lists", file=file, remedy=_REMEDY)
    if manifest["format"] != FORMAT:
        raise InputError(f"format {manifest['format']}, but this version reads {FORMAT}", file=file)
    if set(manifest["digests"]) != {f"{name}.npy" for name in _ARRAYS}:
        raise DamagedError("not a manifest of passage lists", file=file, key="digests", remedy=_REMEDY)
    return manifest


def _public_records(path: str | os.PathLike) -> Iterator[tuple[int | None, Any]]:
    """Yields (line or None, record): a whole JSON array where the file begins with `[`, else one record a line."""
    try:
        with open(path, "rb") as f:
            first = next((line.strip() for line in f if line.strip()), b"")
    except OSError as error:
        raise InputError(f"could not be read ({error.strerror})", file=path) from error
    if first.startswith(b"["):
        for record in read_json(path):
            yield None, record
        return
    with open(path, "rb") as f:
        for line, raw in enumerate(f, 1):
            if raw.strip():
                try:
                    yield line, json.loads(raw.decode("utf-8"))
                except ValueError as error:
                    raise InputError(f"not a JSON object in UTF-8 ({error})", file=path, line=line) from error


def _checked_record(path: str | os.PathLike, line: int | None, record: Any) -> tuple[str, list[str]]:
    if not isinstance(record, dict) or "qid" not in record or not isinstance(record.get("pids"), list):
        raise InputError('each record must be {"qid": ..., "pids": [...]}', file=path, line=line)
    return str(record["qid"]), [str(pid) for pid in record["pids"]]


def _rows_of(path: str | os.PathLike, line: int | None, qid: str, pids: list[str], store: PassageIds) -> list[int]:
    rows = []
    for pid in pids:
        try:
            rows.append(int(store.row(pid)))
        except (InputError, KeyError) as error:
            raise InputError(
                f"passage {pid!r} of question {qid!r} is not in the token store",
                file=path,
                line=line,
                key="pids",
                remedy="use the passages that the lists were made from",
            ) from error
    if len(set(rows)) != len(rows):
        raise InputError("a passage occurs twice in the list", file=path, line=line, key=qid)
    return rows
