# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The refresher: makes the next passage lists with newer weights in the background, while training continues.

The lists of version v are started at one step and adopted at a later one that the training loop chooses in advance
(`wait`), so that what a step sees never depends on how fast the machine is.

The work may be divided over a host's devices, and over hosts. Each device searches a part of the corpus by itself: a
collective in a background thread could deadlock with one of the training step. Hosts exchange their parts as files;
host 0 merges and publishes them.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from class_jax.common.files import digest_file
from class_jax.distributed import SINGLE_PROCESS, ProcessGroup
from class_jax.errors import InputError, nearest
from class_jax.models.encode import DualEncoder, Params, Tokens, allowed_rows, check_enough
from class_jax.refresh.lists import NO_ROW, DamagedError, PassageLists, clear_unfinished, folder_of, remove, versions
from class_jax.retrieval.exact import checked_exclude, exact_search
from class_jax.retrieval.filters import Allowed, SearchFilters
from class_jax.retrieval.scann.index import build_index, scann_search
from class_jax.retrieval.shards import merge_shards, pad_lists, shard_mask

BACKENDS = ("exact", "scann")
_POLL_SECONDS = 0.1
_LOG_SECONDS = 30.0
_log = logging.getLogger(__name__)


class _StoppedError(Exception):
    """Raised inside the search when the refresher is closed."""


@dataclasses.dataclass
class _Refresh:
    """One refresh in progress, or read from the disk."""

    version: int
    step: int
    thread: threading.Thread | None = None
    lists: PassageLists | None = None
    error: BaseException | None = None
    broken: threading.Event = dataclasses.field(default_factory=threading.Event)


class Refresher:
    """Publishes passage lists under one folder; nobody else may write there.

    `start`, `wait`, `restore` and `close` are called from one thread, the training loop's; on several hosts, which
    share the folder, `start` and `wait` by all of them at the same steps.

    Args:
      folder: of the versions.
      questions: token arrays of every row of the question table.
      store: the token store.
      encoder: the model's retriever.
      k: passages per question.
      backend: "exact" embeds and scores in a stream, "scann" builds an index and searches it.
      allowed: which passages may be retrieved: [passages] bool, or several such sets and which of them each question
        searches; None allows all.
      own: [questions] int, the passage that a question was made from, left out of its list; -1 for none.
      questions_fingerprint: of the question table, written into the lists.
      keep: newest versions kept on the disk.
      protected: returns further versions that must stay, such as those that checkpoints name.
      hosts: those of the run.
      **search: settings of `exact_search`, or for "scann" of `build_index` and `scann_search`
        (`batch_passages` and `buckets` go to both).

    Raises:
      InputError: for an unknown backend, or an `own` of the wrong length.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        questions: Sequence[np.ndarray],
        store: Tokens,
        encoder: DualEncoder,
        k: int,
        *,
        backend: str = "exact",
        allowed: Allowed = None,
        own: np.ndarray | None = None,
        questions_fingerprint: str = "",
        keep: int = 2,
        protected: Callable[[], Iterable[int]] | None = None,
        hosts: ProcessGroup = SINGLE_PROCESS,
        **search: Any,
    ):
        if backend not in BACKENDS:
            raise InputError(f"unknown backend {backend!r}", key="backend", remedy=nearest(backend, BACKENDS))
        if keep < 1:
            raise InputError(f"{keep} versions to keep", key="keep", remedy="keep at least 1")
        self.folder, self.k, self.keep = Path(folder), k, keep
        self._questions, self._store, self._encoder = questions, store, encoder
        self._backend, self._allowed, self._search_settings = backend, allowed, search
        self._own = checked_exclude(own, len(questions))
        self._table = questions_fingerprint
        self._protected, self._hosts = protected or (lambda: ()), hosts
        self._current: PassageLists | None = None
        self._refresh: _Refresh | None = None
        self._closing = threading.Event()
        self.folder.mkdir(parents=True, exist_ok=True)
        if hosts.index == 0:
            self._clear()
        hosts.meet("passage lists")

    def _clear(self) -> None:
        left = clear_unfinished(self.folder)
        for pattern in (".vectors-*", ".parts-*"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)
                left += 1
        if left:
            _log.info("removed %d unfinished files of an earlier run from %s", left, self.folder)

    @property
    def current(self) -> PassageLists | None:
        """The lists that training uses now; None before the first."""
        return self._current

    @property
    def pending(self) -> tuple[int, int] | None:
        """(version, step of its weights) of the refresh that was started and not adopted yet, or None."""
        return (self._refresh.version, self._refresh.step) if self._refresh else None

    @property
    def finished(self) -> bool:
        """Whether the pending refresh is done (or failed), so that `wait` returns at once."""
        return self._refresh is not None and not (self._refresh.thread and self._refresh.thread.is_alive())

    def restore(self, version: int) -> PassageLists:
        """Makes a version on the disk current: what a resumed run does with the version that its checkpoint names.

        Raises:
          InputError: if it is absent, damaged, or made for another corpus or question table.
        """
        self._current = self._checked(PassageLists.load(folder_of(self.folder, version), **self._fingerprints()))
        return self._current

    def adopt(self, lists: PassageLists) -> PassageLists:
        """Publishes lists made elsewhere (BM25, a public file) as a version, and makes it current.

        A version that is on the disk already is restored instead, so that a resumed run sees the same lists.

        Raises:
          InputError: if they do not fit the table, k or the corpus, or the disk refuses the write.
        """
        found = self._whole(lists.version, lists.step)
        if found is None:
            for key, mine in self._fingerprints().items():
                if getattr(lists, key) != mine:
                    raise InputError(f"made for another {key}", key="lists", remedy="make them from this run's")
            path = self._checked(lists).save(self.folder)
            found = PassageLists.load(path, **self._fingerprints())
        self._current = found
        return found

    def start(self, step: int, params: Params | list[Params], version: int, rows: np.ndarray | None = None) -> None:
        """Starts to make lists in a background thread, or reuses lists of this version that an interrupted run wrote.

        A resumed run thus sees the lists that it saw before. A damaged version is made again.

        Args:
          step: training step of `params`.
          params: weights; a private copy that the training step does not donate. Or a list of such copies, each on one
            device: they search parts of the corpus side by side. On several hosts each gives those of its own devices,
            all equally many.
          version: number of the new lists.
          rows: question rows to refresh; the others keep their current lists, if any. None refreshes all.

        Raises:
          InputError: if this version is on the disk with another step, corpus, question table or shape.
          RuntimeError: if a refresh is pending.
        """
        if self._refresh is not None:
            raise RuntimeError(f"lists version {self._refresh.version} are pending: wait for them first")
        self._closing.clear()
        lists = self._whole(version, step)
        if all(self._hosts.exchange("lists are there", lists is not None)):
            _log.info("passage lists version %d (step %d) are on the disk already", version, step)
            self._refresh = _Refresh(version, step, lists=lists)
            return
        refresh = _Refresh(version, step)
        # JAX keeps the mesh in context per thread.
        copies = params if isinstance(params, list) else [params]
        work = functools.partial(self._run, refresh, copies, rows, self._current, jax.sharding.get_mesh())
        refresh.thread = threading.Thread(target=work, name=f"refresh-{version}", daemon=True)
        self._refresh = refresh
        refresh.thread.start()

    def wait(self) -> PassageLists:
        """Returns the pending lists once they are whole and makes them current; without any, the current ones.

        Raises:
          RuntimeError: if nothing is pending and there are no current lists.
          Exception: what stopped the background thread; the current lists stay.
        """
        refresh, self._refresh = self._refresh, None
        if refresh is not None:
            if refresh.thread is not None:
                try:
                    refresh.thread.join()
                except BaseException:
                    self._refresh = refresh
                    raise
            if refresh.error is not None:
                raise refresh.error
            self._check_same(refresh.lists)
            self._current = refresh.lists
        if self._current is None:
            raise RuntimeError("no passage lists yet: start first")
        return self._current

    def close(self) -> None:
        """Stops a pending refresh at its next batch; what it made so far is dropped."""
        self._closing.set()
        refresh, self._refresh = self._refresh, None
        if refresh is not None and refresh.thread is not None:
            refresh.thread.join()

    def __enter__(self) -> "Refresher":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(
        self,
        refresh: _Refresh,
        copies: list[Params],
        rows: np.ndarray | None,
        old: PassageLists | None,
        mesh: jax.sharding.Mesh,
    ) -> None:
        try:
            begun = time.monotonic()
            with contextlib.nullcontext() if mesh.empty else jax.set_mesh(mesh):
                found = self._search_parts(refresh, copies, rows)
            if self._hosts.count > 1:
                found = self._exchanged(refresh, *found)
            if self._hosts.index == 0:
                path = self._merged(refresh, rows, old, *found).save(self.folder)
                self._prune(old)
            else:
                path = self._awaited(folder_of(self.folder, refresh.version))
            refresh.lists = PassageLists.load(path, **self._fingerprints())
            seconds = time.monotonic() - begun
            _log.info("published passage lists version %d (step %d) in %.0f s", refresh.version, refresh.step, seconds)
        except _StoppedError:
            _log.info("refresh of passage lists version %d stopped", refresh.version)
        except BaseException as error:
            refresh.error = error

    def _search_parts(
        self, refresh: _Refresh, copies: list[Params], rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Searches this host's part of the corpus, each copy of the weights a part of that."""
        rows = np.arange(len(self._questions)) if rows is None else rows
        first, parts = self._hosts.index * len(copies), self._hosts.count * len(copies)
        if parts == 1:
            return self._search(refresh, copies[0], rows, (0, 1))

        def work(number: int) -> tuple[np.ndarray, np.ndarray]:
            try:
                return self._search(refresh, copies[number], rows, (first + number, parts))
            except BaseException:
                refresh.broken.set()
                raise

        with concurrent.futures.ThreadPoolExecutor(len(copies), thread_name_prefix="refresh") as pool:
            under_way = [pool.submit(work, number) for number in range(len(copies))]
        errors = [error for one in under_way if (error := one.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, _StoppedError)):
            raise error
        return merge_shards([one.result() for one in under_way], self.k)

    def _search(
        self, refresh: _Refresh, params: Params, rows: np.ndarray, part: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        search = functools.partial(self._search_within, refresh, params, part)
        return (
            self._allowed.search(rows, search)
            if isinstance(self._allowed, SearchFilters)
            else search(rows, self._allowed)
        )

    def _search_within(
        self,
        refresh: _Refresh,
        params: Params,
        part: tuple[int, int],
        rows: np.ndarray,
        allowed: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        questions, own = [self._questions[int(row)] for row in rows], self._own[rows]
        given, k, whole = (self._encoder, params, self._store), self.k, part == (0, 1)
        if not whole:
            check_enough(allowed_rows(self._store, allowed), k, own)
            allowed = shard_mask(allowed, self._store.num_passages, *part)
        if self._backend == "exact":
            settings = {"report": self._reporter(refresh, "scored", part), "progress": False, **self._search_settings}
            return exact_search(*given, questions, k, allowed=allowed, exclude=own, fill=not whole, **settings)
        if not whole:
            # ScaNN gives every question as many as the one whose own passage is in this part can have.
            k = min(k, int(allowed.sum()) - bool(allowed[own[own >= 0]].any()))
            if k < 1:
                return pad_lists(np.empty((len(rows), 0), np.int64), np.empty((len(rows), 0), np.float32), self.k)
        building, searching = self._scann_settings()
        report = self._reporter(refresh, "embedded", part)
        index = build_index(*given, k=k, allowed=allowed, scratch=self.folder, report=report, **building)
        report = self._reporter(refresh, "scored in full", part)
        return pad_lists(*scann_search(index, *given, questions, k, exclude=own, report=report, **searching), self.k)

    def _exchanged(self, refresh: _Refresh, rows: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Writes this host's part of the lists; on host 0 merges it with those of the others, once they are there."""
        folder = self.folder / f".parts-{refresh.version:06d}"
        named = {"version": refresh.version, "step": refresh.step, **self._fingerprints()}
        PassageLists(rows, scores, **named).save(folder / f"host-{self._hosts.index}")
        if self._hosts.index:
            return rows, scores
        parts = []
        for host in range(self._hosts.count):
            path = self._awaited(folder_of(folder / f"host-{host}", refresh.version))
            part = PassageLists.load(path, **self._fingerprints())
            parts.append((part.rows, part.scores))
        found = merge_shards(parts, self.k)
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def _awaited(self, path: Path) -> Path:
        """Waits for a folder that another host renames to this name; one that can't make it ends all hosts."""
        while not path.is_dir():
            if self._closing.wait(_POLL_SECONDS):
                raise _StoppedError
        return path

    def _check_same(self, lists: PassageLists) -> None:
        """Checks, before lists are used, that all hosts have read the same."""
        if self._hosts.count > 1:
            read = digest_file(folder_of(self.folder, lists.version) / "manifest.json")
            digests = self._hosts.exchange(f"lists {lists.version}", read)
            if len(set(digests)) > 1:
                raise InputError(
                    f"hosts read different passage lists version {lists.version}",
                    file=self.folder,
                    remedy="put the run's folder on a disk that all hosts share",
                )

    def _scann_settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Splits the search settings into those of `build_index` and those of `scann_search`."""
        build_only, both = {"settings", "model"}, {"batch_passages", "buckets"}
        building = {key: value for key, value in self._search_settings.items() if key in build_only | both}
        return building, {key: value for key, value in self._search_settings.items() if key not in build_only}

    def _merged(
        self,
        refresh: _Refresh,
        rows: np.ndarray | None,
        old: PassageLists | None,
        found_rows: np.ndarray,
        found_scores: np.ndarray,
    ) -> PassageLists:
        if rows is not None:
            shape = len(self._questions), self.k
            all_rows = np.full(shape, NO_ROW, np.int64) if old is None else np.array(old.rows)
            all_scores = np.full(shape, -np.inf, np.float32) if old is None else np.array(old.scores)
            all_rows[rows], all_scores[rows] = found_rows, found_scores
            found_rows, found_scores = all_rows, all_scores
        named = {"version": refresh.version, "step": refresh.step}
        return PassageLists(found_rows, found_scores, **named, **self._fingerprints())

    def _reporter(self, refresh: _Refresh, what: str, part: tuple[int, int]) -> Callable[[int, int], None]:
        begun = last = time.monotonic()
        what += "" if part == (0, 1) else f" of part {part[0] + 1} of {part[1]}"

        def report(done: int, total: int) -> None:
            nonlocal last
            if self._closing.is_set() or refresh.broken.is_set():
                raise _StoppedError
            now = time.monotonic()
            if now - last >= _LOG_SECONDS:
                last, rate = now, done / (now - begun)
                message = "passage lists version %d: %d of %d passages %s, %.0f a second, %.0f s left"
                _log.info(message, refresh.version, done, total, what, rate, (total - done) / rate)

        return report

    def _fingerprints(self) -> dict[str, str]:
        return {"corpus": self._store.fingerprint, "questions": self._table}

    def _whole(self, version: int, step: int) -> PassageLists | None:
        """Opens a version on the disk; None where it is absent or damaged (then it is cleared)."""
        path = folder_of(self.folder, version)
        if not path.exists():
            return None
        try:
            lists = self._checked(PassageLists.load(path, **self._fingerprints()))
        except DamagedError as error:
            _log.warning("%s; making it again", error)
            if self._hosts.index == 0:
                remove(self.folder, version)
            return None
        if lists.step != step:
            raise InputError(
                f"made at step {lists.step}, not {step}", file=path, remedy="delete the lists of the earlier run"
            )
        return lists

    def _checked(self, lists: PassageLists) -> PassageLists:
        wanted = (len(self._questions), self.k)
        if lists.rows.shape != wanted:
            raise InputError(
                f"lists version {lists.version} are {lists.rows.shape} (questions, passages), not {wanted}",
                file=folder_of(self.folder, lists.version),
                remedy="delete the lists of the earlier run",
            )
        return lists

    def _prune(self, in_use: PassageLists | None) -> None:
        """Deletes old versions, but not the newest `keep`, the one in use, nor the protected."""
        found = versions(self.folder)
        stay = {*found[-self.keep :], *self._protected(), *(() if in_use is None else (in_use.version,))}
        for version in found:
            if version not in stay:
                remove(self.folder, version)
