# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The token store: a corpus tokenised once, in memory-mapped files that are read in any order.

Its files are described in `class_jax.corpus.memmap_columns`.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from class_jax.common.files import read_json, replacing_folder, write_json
from class_jax.corpus.inputs import encode_passages
from class_jax.corpus.memmap_columns import (
    REBUILD,
    UNSORTED,
    MemmapColumn,
    check_column,
    hash_ids,
    map_column,
    write_id_table,
)
from class_jax.corpus.passages import Passage, read_numbered
from class_jax.corpus.vocabulary import Vocabulary
from class_jax.errors import InputError

FORMAT, VERSION = "class_jax token store", 1
_STRINGS = ("id", "title", "text")  # columns NAMEs.bin and NAME_offsets.bin
_CHUNK_ROWS, _CHUNK_CHARACTERS = 2048, 2_000_000
# Below this many bytes on the disk, starting processes costs more than they save.
_SMALL = 8 << 20


def build_store(
    passages_path: str | os.PathLike,
    vocabulary: Vocabulary,
    folder: str | os.PathLike,
    max_tokens: int = 200,
    *,
    processes: int | None = None,
    progress: bool | None = None,
) -> "TokenStore":
    """Tokenises a passage TSV into a store, reading it once; memory does not grow with the texts.

    The store is written beside `folder` and renamed, so that it is whole or absent; an older store there
    is replaced. Its bytes do not depend on `processes`. Memory: a few chunks of passages per process,
    and at the end 16 bytes per passage to sort the id table.

    Args:
      passages_path: public TSV, `.tsv` or `.tsv.gz`.
      vocabulary: of the model that will read the store.
      folder: where the store goes.
      max_tokens: tokens kept of a passage, with the end of sequence.
      processes: tokenising processes; None takes all cores, or none but this one for a small file. More
        than one are spawned: a script that calls this needs the usual `if __name__ == "__main__"`.
      progress: show a bar; None shows it on a terminal only.

    Raises:
      InputError: for bad rows (see `read_passages`), a duplicate id (with both lines), no passage at
        all, a `folder` that holds something else, a disk that refuses a write.
    """
    folder = Path(folder)
    _check_replaceable(folder)
    if max_tokens < 2:
        raise InputError(f"max_tokens is {max_tokens}, too few for a token and the end", remedy="set 2 or more")
    source = _PassageFile(Path(passages_path))
    with replacing_folder(folder) as aside:
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(source.progress_bar(progress))
            writer = stack.enter_context(_Writer(aside, vocabulary))
            chunks = _encoded(source.chunks(), source.size, vocabulary, max_tokens, processes)
            for chunk in stack.enter_context(contextlib.closing(chunks)):
                writer.append(chunk)
                source.update(bar, writer.passages)
        if not writer.passages:
            raise InputError("no passages", file=passages_path, remedy="give a TSV of id, text and title")
        files = writer.files | write_id_table(aside, writer.passages, source.path)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "passages": writer.passages,
            "tokens": writer.tokens,
            "max_tokens": max_tokens,
            "pad_id": vocabulary.pad_id,
            "eos_id": vocabulary.eos_id,
            "vocabulary": {"fingerprint": vocabulary.fingerprint, "size": vocabulary.size},
            "files": files,
        }
        manifest["fingerprint"] = _fingerprint(manifest)
        manifest["source"] = {"name": source.path.name, "sha256": source.digest.hexdigest()}
        write_json(aside / "manifest.json", manifest)
    return TokenStore.open(folder, vocabulary)


class TokenStore:
    """A corpus of tokenised passages on the disk, read at random by row. Open one with `TokenStore.open`.

    Rows count from 0 in the order of the TSV; ids are those of the TSV.

    Attributes:
      folder: where it is.
      num_passages: M.
      lengths: tokens of each passage, memory-mapped int32 [M].
      manifest: counts, settings, vocabulary, digests.
      fingerprint: SHA-256 of the manifest's content, in hex. It covers the format version, the counts,
        `max_tokens`, the special ids, the vocabulary's fingerprint and size, and every file's type, length
        and digest: that is, all passages' ids, titles, texts and tokens, and their order. It does not
        cover the name or the packing of the TSV.
    """

    def __init__(self, folder: Path, manifest: dict) -> None:
        """Maps the files of a store whose manifest was checked; see `open`."""
        self.folder, self.manifest = folder, manifest
        self.fingerprint: str = manifest["fingerprint"]
        self.num_passages: int = manifest["passages"]
        columns = {name: map_column(folder / name, entry) for name, entry in manifest["files"].items()}
        self._tokens, self._token_offsets = columns["tokens.bin"], columns["token_offsets.bin"]
        self._strings = {name: (columns[f"{name}s.bin"], columns[f"{name}_offsets.bin"]) for name in _STRINGS}
        self._id_hashes, self._id_rows = columns["id_hashes.bin"], columns["id_rows.bin"]
        self.lengths = columns["lengths.bin"]

    @classmethod
    def open(
        cls, folder: str | os.PathLike, vocabulary: Vocabulary | None = None, verify: bool = False
    ) -> "TokenStore":
        """Opens a store; nothing of it is read into memory.

        Args:
          folder: as given to `build_store`.
          vocabulary: if given, must be the one that the store was made with.
          verify: compare every file with its digest too (reads the whole store once).

        Raises:
          InputError: if there is no store, it is damaged (a file is missing, has another length or, under
            `verify`, other bytes; an edited manifest), or it was made with another vocabulary.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        for name, entry in manifest["files"].items():
            check_column(folder / name, entry, verify)
        made_with = manifest["vocabulary"]["fingerprint"]
        if vocabulary is not None and vocabulary.fingerprint != made_with:
            raise InputError(
                f"made with the vocabulary {made_with}, not {vocabulary.fingerprint} ({vocabulary.path})",
                file=folder,
                remedy=f"give that vocabulary, or {REBUILD}",
            )
        return cls(folder, manifest)

    def __len__(self) -> int:
        return self.num_passages

    def __repr__(self) -> str:
        return f"TokenStore({str(self.folder)!r}, {self.num_passages} passages, {self.fingerprint[:12]})"

    def row(self, id: str) -> int:
        """Returns the row of a passage id.

        Raises:
          InputError: if no passage has it.
        """
        return int(self.rows([id])[0])

    def rows(self, ids: Iterable[str]) -> np.ndarray:
        """Returns the rows of passage ids, int64 in the order given.

        Raises:
          InputError: naming the first id that no passage has.
        """
        names = [str(name).encode() for name in ids]
        if not names:
            return np.zeros(0, np.int64)
        hashes = hash_ids(names)
        slots = np.searchsorted(self._id_hashes, hashes)
        rows = self._id_rows[np.minimum(slots, self.num_passages - 1)].astype(np.int64)
        for i in np.flatnonzero(~self._have_ids(rows, names)):
            rows[i] = self._walk(names[i], hashes[i], int(slots[i]))
        return rows

    def id(self, row: int) -> str:
        """Returns the passage id of a row.

        Raises:
          InputError: if there is no such row.
        """
        return self._string("id", self._checked(row))

    def passage(self, row: int) -> Passage:
        """Returns the passage of a row: id, text and title as in the TSV.

        Raises:
          InputError: if there is no such row.
        """
        row = self._checked(row)
        return Passage(self._string("id", row), self._string("text", row), self._string("title", row))

    def tokens(self, row: int) -> np.ndarray:
        """Returns the token ids of a row, int32 [P] with the end of sequence last.

        Raises:
          InputError: if there is no such row.
        """
        start, stop = self._token_offsets[self._checked(row) :][:2]
        return self._tokens[start:stop].astype(np.int32)

    def batch(self, rows: np.ndarray | Sequence, length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the token ids of many rows, padded to one length.

        Args:
          rows: int [...], for example [B, N]; a row may come more than once.
          length: P; None takes the longest passage of `rows`. Longer passages are cut and keep an end of
            sequence in the last place, as if they had been encoded with `max_tokens=length`.

        Returns:
          ids int32 [..., P], padded with 0, and lengths int32 [...].

        Raises:
          InputError: naming the first row that does not exist.
        """
        rows = np.asarray(rows, np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= self.num_passages):
            self._checked(int(rows[(rows < 0) | (rows >= self.num_passages)][0]))
        full = self.lengths[rows]
        width = int(full.max(initial=0)) if length is None else length
        lengths = np.minimum(full, width).astype(np.int32)
        place = np.arange(width)
        held = place < lengths[..., None]
        where = self._token_offsets[rows][..., None] + place
        # Places after a passage are read too, at its first token, and then blanked: one gather for all.
        where -= np.where(held, 0, place)
        ids = np.where(held, self._tokens[where], self.manifest["pad_id"]).astype(np.int32)
        if width:
            ids[full > width, -1] = self.manifest["eos_id"]
        return ids, lengths

    def _checked(self, row: int) -> int:
        if not 0 <= row < self.num_passages:
            raise InputError(f"no row {row}", file=self.folder, remedy=f"its rows are 0 to {self.num_passages - 1}")
        return int(row)

    def _string(self, name: str, row: int) -> str:
        blob, offsets = self._strings[name]
        start, stop = offsets[row : row + 2]
        return blob[start:stop].tobytes().decode()

    def _have_ids(self, rows: np.ndarray, names: list[bytes]) -> np.ndarray:
        """Returns whether each row has the id given, bool [m]: one gather for all ids."""
        blob, offsets = self._strings["id"]
        sizes = np.fromiter(map(len, names), np.int64, len(names))
        starts = offsets[rows]
        same = offsets[rows + 1] - starts == sizes
        ends = np.cumsum(sizes)
        owner = np.repeat(np.arange(len(names)), sizes)
        place = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)
        # Of an id with another length nothing needs comparing, and its bytes may be past the end.
        stored = blob[np.where(same[owner], starts[owner] + place, 0)]
        differ = stored != np.frombuffer(b"".join(names), np.uint8)
        return same & (np.bincount(owner, weights=differ, minlength=len(names)) == 0)

    def _walk(self, name: bytes, hashed: np.uint64, slot: int) -> int:
        """Looks for an id among those that share its hash."""
        while slot < self.num_passages and self._id_hashes[slot] == hashed:
            row = int(self._id_rows[slot])
            if self._string("id", row).encode() == name:
                return row
            slot += 1
        raise InputError(
            "unknown passage id",
            file=self.folder,
            key=repr(name.decode()),
            remedy="is the list for another corpus? build the token store from the list's own TSV",
        )


class _Encoded(NamedTuple):
    """A chunk of passages, ready to be appended to the columns."""

    tokens: np.ndarray
    lengths: np.ndarray
    hashes: np.ndarray
    strings: dict[str, tuple[bytes, np.ndarray]]  # name -> UTF-8 of all, bytes of each


def _encode(vocabulary: Vocabulary, passages: list[Passage], max_tokens: int) -> _Encoded:
    encoded = encode_passages(vocabulary, passages, max_tokens)
    lengths = np.fromiter(map(len, encoded), "<i4", len(encoded))
    tokens = np.fromiter(chain.from_iterable(encoded), _token_type(vocabulary), int(lengths.sum()))
    columns = {name: [getattr(passage, name).encode() for passage in passages] for name in _STRINGS}
    strings = {name: (b"".join(c), np.fromiter(map(len, c), np.int64, len(c))) for name, c in columns.items()}
    return _Encoded(tokens, lengths, hash_ids(columns["id"]), strings)


def _token_type(vocabulary: Vocabulary) -> str:
    return "<u2" if vocabulary.size <= 1 << 16 else "<i4"


# What a tokenising process works with, set once at its start.
_worker: tuple[Vocabulary, int] | None = None


def _start_worker(model: bytes, size: int, max_tokens: int) -> None:
    global _worker
    _worker = (Vocabulary(model, size=size), max_tokens)


def _work(passages: list[Passage]) -> _Encoded:
    vocabulary, max_tokens = _worker
    return _encode(vocabulary, passages, max_tokens)


def _encoded(
    chunks: Iterator[list[Passage]], size: int, vocabulary: Vocabulary, max_tokens: int, processes: int | None
) -> Iterator[_Encoded]:
    """Encodes chunks in order, here or in processes; only a few chunks are in flight at a time."""
    if processes is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = cores if size >= _SMALL else 1
    if processes <= 1:
        for chunk in chunks:
            yield _encode(vocabulary, chunk, max_tokens)
        return
    # Spawned, not forked: the caller may hold threads (JAX does).
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, _start_worker, (vocabulary.model, vocabulary.size, max_tokens))
    try:
        waiting: deque = deque()
        for chunk in chunks:
            waiting.append(pool.submit(_work, chunk))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise InputError("a tokenising process was killed", remedy="free some memory or set fewer processes") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _PassageFile:
    """The TSV while it is read: its digest and the bytes read so far."""

    def __init__(self, path: Path) -> None:
        self.path, self.read, self.digest = path, 0, hashlib.sha256()
        self.size = path.stat().st_size if path.is_file() else 0

    def _on_bytes(self, block: bytes | memoryview) -> None:
        self.read += len(block)
        self.digest.update(block)

    def chunks(self) -> Iterator[list[Passage]]:
        chunk: list[Passage] = []
        characters = 0
        for _, passage in read_numbered(self.path, self._on_bytes):
            chunk.append(passage)
            characters += len(passage.text)
            if len(chunk) == _CHUNK_ROWS or characters > _CHUNK_CHARACTERS:
                yield chunk
                chunk, characters = [], 0
        if chunk:
            yield chunk

    def progress_bar(self, progress: bool | None) -> tqdm:
        return tqdm(
            total=self.size,
            desc=f"tokenising {self.path.name}",
            unit="B",
            unit_scale=True,
            disable=None if progress is None else not progress,
        )

    def update(self, bar: tqdm, passages: int) -> None:
        seconds = bar.format_dict["elapsed"] if not bar.disable else 0
        bar.set_postfix_str(f"{passages:,} passages, {passages / max(seconds, 1e-3):,.0f}/s", refresh=False)
        bar.update(self.read - bar.n)


class _Writer:
    """The columns of a store under construction; `files` is complete when the block has ended."""

    def __init__(self, folder: Path, vocabulary: Vocabulary) -> None:
        self.passages = self.tokens = 0
        self.files: dict[str, dict] = {}
        types = {"tokens.bin": _token_type(vocabulary), "token_offsets.bin": "<i8", "lengths.bin": "<i4"}
        for name in _STRINGS:
            types |= {f"{name}s.bin": "|u1", f"{name}_offsets.bin": "<i8"}
        self._columns = {name: MemmapColumn(folder / name, dtype) for name, dtype in types.items()}
        self._hashes = MemmapColumn(folder / UNSORTED, "<u8")

    def __enter__(self) -> "_Writer":
        for name in ("token", *_STRINGS):
            self._columns[f"{name}_offsets.bin"].append(np.zeros(1, "<i8"))
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.files = {name: column.close() for name, column in self._columns.items()}
            self._hashes.close()
        for column in (*self._columns.values(), self._hashes):
            column.abandon()

    def append(self, chunk: _Encoded) -> None:
        columns = self._columns
        self._append_offsets("token", chunk.lengths, self.tokens)
        columns["tokens.bin"].append(chunk.tokens)
        columns["lengths.bin"].append(chunk.lengths)
        for name, (blob, sizes) in chunk.strings.items():
            self._append_offsets(name, sizes, columns[f"{name}s.bin"].count)
            columns[f"{name}s.bin"].append(blob)
        self._hashes.append(chunk.hashes)
        self.passages += len(chunk.lengths)
        self.tokens += len(chunk.tokens)

    def _append_offsets(self, name: str, sizes: np.ndarray, start: int) -> None:
        self._columns[f"{name}_offsets.bin"].append(start + np.cumsum(sizes, dtype=np.int64))


def _fingerprint(manifest: dict) -> str:
    covered = {key: value for key, value in manifest.items() if key not in ("fingerprint", "source")}
    return hashlib.sha256(json.dumps(covered, sort_keys=True).encode()).hexdigest()


def _check_replaceable(folder: Path) -> None:
    """Refuses to replace anything but an older store: a slip in a path must not cost a home folder."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() and not (
        (folder / "manifest.json").is_file() and read_json(folder / "manifest.json").get("format") == FORMAT
    ):
        raise InputError("exists and is not a token store", file=folder, remedy="give another folder")


def _read_manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError("no token store here", file=folder, remedy="build it from a passage TSV first")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError("not a token store's manifest", file=path, remedy=REBUILD)
    if manifest.get("version") != VERSION:
        raise InputError(f"format version {manifest.get('version')}, not {VERSION}", file=path, remedy=REBUILD)
    if manifest.get("fingerprint") != _fingerprint(manifest):
        raise InputError("the manifest was changed after the store was built", file=path, remedy=REBUILD)
    return manifest
