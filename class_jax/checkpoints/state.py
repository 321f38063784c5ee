# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The whole state of a training run in Orbax: parameters, optimizer, random key, and the position in the data."""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import logging
import math
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from absl import logging as absl_logging
from etils import epath
from jax.experimental import multihost_utils

from class_jax.checkpoints.chunks import read_chunks
from class_jax.checkpoints.differences import differences
from class_jax.checkpoints.digests import digest_arrays, first_damaged, is_intact
from class_jax.checkpoints.leaves import LazyArray, Path, abstract_leaves, at, nested, plain_leaves
from class_jax.errors import InputError, nearest

_log = logging.getLogger(__name__)

PyTree = Any
T = TypeVar("T")
FORMAT = 1
# Each processor core packs or unpacks a chunk at a time: this bounds what that takes beside the array.
CHUNK_BYTES = 8 << 20
REMOVAL_SECONDS = 10.0  # how long a failed save's folder is removed again and again
SETTLING_SECONDS = 0.2  # how long it must stay away
_OLD_NAMES = {"optimiser": "optimizer"}  # parts of the state as version 0.2 and before named them
COMMITTED = "commit_success.txt"  # Orbax writes it last in COMMIT_FILE mode: a folder without it is not whole.
_COMMIT_FILE = ocp.options.AtomicityOptions(mode=ocp.options.AtomicityMode.COMMIT_FILE)


class _DamagedError(Exception):
    """A step's files are there but not what was written."""


class _Superfluous(logging.Filter):
    """Drops what Orbax logs of things that its user asked for, or that are reported in one line.

    It logs the tracebacks of some errors that it also raises. Where several writes of one save fail, it raises the
    first, and asyncio reports the others whenever the garbage collector comes to them. And it warns of every folder
    that is opened only for reading.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.exc_info:
            return not str(record.msg).startswith("Given directory is read only")
        frames = traceback.walk_tb(record.exc_info[2])
        return "orbax" not in record.pathname and all("orbax" not in f.f_code.co_filename for f, _ in frames)


_superfluous = _Superfluous()


@dataclasses.dataclass(frozen=True)
class _NewestAndBest:
    """Orbax's preservation policy. `scores` is shared with its owner: step -> score, more is better."""

    keep_last: int
    keep_best: int
    scores: Mapping[int, float]

    def should_preserve(self, checkpoints: Sequence, *, context: object) -> list[bool]:
        """For each checkpoint, oldest first, whether it stays."""
        del context
        steps = sorted(info.step for info in checkpoints)
        scored = sorted((step for step in steps if step in self.scores), key=lambda step: (self.scores[step], step))
        kept = {*steps[-self.keep_last :], *(scored[-self.keep_best :] if self.keep_best else ())}
        return [info.step in kept for info in checkpoints]


class TrainCheckpoints:
    """Steps of one run in one folder: each is whole or does not count, and none is restored with a flipped bit.

    Saving is asynchronous: `save` returns when the arrays have been copied (the caller may donate them at once), and
    the step counts once Orbax has written its commit file. Older steps are deleted only after that. All processes of a
    run call the same methods in the same order.

    Args:
      folder: where the steps are, a local path or one that `etils.epath` knows (gs://...).
      keep_last: how many of the newest steps stay, at least 1.
      keep_best: how many of the best steps by `best_metric` stay besides; ties go to the newest.
      best_metric: key of the `metrics` given to `save`; None if no step is best. Steps without it, or with NaN, are
        never best.
      best_mode: "max" or "min".
      read_only: for evaluation beside a running trainer: nothing in the folder is changed, `save` is refused.

    Raises:
      InputError: for a setting out of its range.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        keep_last: int = 3,
        keep_best: int = 1,
        best_metric: str | None = None,
        best_mode: str = "max",
        read_only: bool = False,
    ):
        if keep_last < 1:
            raise InputError(f"must be at least 1, not {keep_last}", key="keep_last")
        if keep_best < 0:
            raise InputError(f"must not be negative, but is {keep_best}", key="keep_best")
        if best_mode not in ("max", "min"):
            raise InputError(f"unknown value {best_mode!r}", key="best_mode", remedy=nearest(best_mode, ("max", "min")))
        path = os.fspath(folder)
        self._folder = epath.Path(path if "://" in path else os.path.abspath(path))
        self._best_metric, self._best_mode = best_metric, best_mode
        self._read_only = read_only
        self._saving: int | None = None
        self._damaged: set[int] = set()
        self._scores: dict[int, float] = {}  # of steps that have a usable best metric
        self._policy = _NewestAndBest(keep_last, keep_best, self._scores)
        for logger in (absl_logging.get_absl_logger(), logging.getLogger("asyncio")):
            logger.addFilter(_superfluous)  # adding it twice is harmless
        if not read_only:
            self._remove_unfinished()
        self._manager = self._open()
        for step in self.steps():
            self._note_score(step)

    def save(
        self, step: int, arrays: PyTree, metadata: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> None:
        """Begins to write a step.

        Args:
          step: newer than all saved steps.
          arrays: any pytree of arrays (parameters, optimizer state, random keys, typed or raw). With several processes
            the leaves are global arrays.
          metadata: saved beside the arrays, JSON-able: the data iterator's state, the version of the passage lists,
            fingerprints. Process 0's is the one written.
          metrics: of this step's weights; must hold `best_metric` if there is one. None where none was measured.

        Raises:
          InputError: if this or the previous save meets a disk that refuses it (the half-written step is removed, older
            ones stay); if the step is not newer than those there; if `best_metric` is not in `metrics`; if a leaf is of
            a type that JAX would narrow.
          TypeError: if `metadata` is not JSON-able.
        """
        if self._read_only:
            raise InputError("opened for reading only", file=self._folder)
        self.wait()
        self._set_aside_damaged()
        self._check_newest(step)
        leaves, key_types = plain_leaves(arrays)
        document = {
            "format": FORMAT,
            "host": metadata,
            "metrics": self._check_metrics(metrics),
            "arrays": digest_arrays({"/".join(path): leaf for path, leaf in leaves.items()}),
            "random_keys": key_types,
        }
        document = json.loads(json.dumps(document))  # as it will be read: tuples are lists, keys are text
        document["sha256"] = seal(document)
        how = nested(dict.fromkeys(leaves, ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES)))
        arrays_args = ocp.args.PyTreeSave(nested(leaves), save_args=how)
        args = ocp.args.Composite(arrays=arrays_args, host=ocp.args.JsonSave(document))
        self._saving = step
        self._note_score(step, document["metrics"])
        with self._removing_unfinished():
            self._manager.save(step, args=args, force=True)

    def restore(
        self,
        target: PyTree,
        step: int | None = None,
        *,
        expect: Mapping[str, Any] | None = None,
        partial: bool = False,
    ) -> tuple[PyTree, dict[str, Any], int] | None:
        """Reads a step, bit for bit as it was saved, onto whatever devices the target names.

        Without `step` it reads the newest whole one. A step whose files are damaged is refused, with a warning, in
        favour of the next older one; the next `save` renames it to `damaged-STEP`.

        Args:
          target: pytree of `jax.ShapeDtypeStruct` (with shardings; without one an array goes to the default device) or
            of arrays like those wanted. The result has its structure, named tuples and typed random keys included.
          step: exactly this step, or none.
          expect: entries that the saved `metadata` must hold, such as `{"vocabulary": fingerprint}`.
          partial: the target names a part of what was saved (say `{"params": ...}`), the rest is left unread.

        Returns:
          (arrays, metadata, step), or None where nothing has been saved yet.

        Raises:
          InputError: if names, shapes or types differ from the target's; if `expect` does not hold; if the step asked
            for is not there or damaged; if all steps are damaged.
        """
        found = self._newest(step, lambda candidate: self._restore_step(candidate, target, expect or {}, partial))
        return None if found is None else (*found[0], found[1])

    def read_metadata(self, step: int | None = None) -> tuple[dict[str, Any], int] | None:
        """Reads only the metadata of a step (the newest readable one), before any target is known.

        Raises:
          InputError: if the step asked for is not there or damaged, or all are.
        """
        return self._newest(step, lambda candidate: self._document(candidate)["host"])

    def open_arrays(self, step: int | None = None) -> tuple[dict[str, LazyArray], dict[str, Any], int] | None:
        """Opens a step (the newest whose metadata is whole) array by array, for one process and its memory.

        Returns:
          ("a/b/c" -> NumPy array, read and compared with its digest when it is asked for; metadata; step), or None
          where nothing has been saved yet. Loading an array raises InputError if it is damaged.

        Raises:
          InputError: if the step asked for is not there or damaged, or all are.
        """
        found = self._newest(step, self._document)
        if found is None:
            return None
        document, step = found

        def lazy(name: str, record: Mapping[str, Any]) -> LazyArray:
            load = functools.partial(self._read_array, step, name, record)
            return LazyArray(tuple(record["shape"]), jax.numpy.dtype(record["dtype"]), load)

        arrays = {name: lazy(name, record) for name, record in document["arrays"].items()}
        return arrays, document["host"], step

    def _read_array(self, step: int, name: str, record: Mapping[str, Any]) -> np.ndarray:
        # Not through Orbax, which unpacks all of an array's chunks at once, and on the CPU copies it besides.
        folder = str(self._folder / str(step) / "arrays")
        base = folder if "://" in folder else f"file://{folder}"
        kvstore = {"driver": "ocdbt", "base": f"{base}/", "path": name.replace("/", ".") + "/"}
        try:
            array = read_chunks(ts.open({"driver": "zarr", "kvstore": kvstore}, open=True, read=True).result())
            if not is_intact(array, record):
                raise _DamagedError("its bytes do not have the digest saved with them")
        except (ValueError, _DamagedError) as error:
            reason = str(error).splitlines()[0].partition(" [")[0][:200]
            raise InputError(
                f"array {name} is damaged ({reason})", file=self._folder / str(step), remedy="use another step"
            ) from error
        return array

    def steps(self) -> list[int]:
        """Whole steps in the folder, oldest first; one still being written is not among them."""
        if not self._folder.exists():
            return []
        children = (child for child in self._folder.iterdir() if child.name.isdigit())
        return sorted(int(child.name) for child in children if (child / COMMITTED).exists())

    def best_step(self) -> int | None:
        """The whole step with the best `best_metric`, the newest of equals; None where no step has one."""
        for step in self.steps():
            if step not in self._scores:
                self._note_score(step)
        scored = [step for step in self.steps() if step in self._scores]
        return max(scored, key=lambda step: (self._scores[step], step), default=None)

    def wait(self) -> None:
        """Blocks until the save under way, if any, is whole.

        Raises:
          InputError: if the disk refused it.
        """
        if self._saving is not None:
            with self._removing_unfinished():
                self._manager.wait_until_finished()
            self._saving = None

    def close(self) -> None:
        """Waits for the save under way and frees Orbax's threads.

        Raises:
          InputError: if the disk refused the last save.
        """
        try:
            self.wait()
        finally:
            self._manager.close()

    def __enter__(self) -> "TrainCheckpoints":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            atomicity_options=_COMMIT_FILE,
            preservation_policy=self._policy,
            read_only=self._read_only,
            create=not self._read_only,
            save_interval_steps=0 if self._read_only else 1,
        )
        try:
            return ocp.CheckpointManager(self._folder, options=options)
        except OSError as error:
            raise InputError(f"could not be opened ({error.strerror})", file=self._folder) from error

    def _newest(self, step: int | None, read: Callable[[int], T]) -> tuple[T, int] | None:
        """What `read` makes of the given step, or of the newest that is not damaged; None where nothing is saved."""
        self.wait()
        saved = self.steps()
        if step is not None and step not in saved:
            raise InputError(f"no whole step {step}", file=self._folder, remedy=_saved_hint(saved))
        refusal = None
        for candidate in [step] if step is not None else reversed(saved):
            try:
                return read(candidate), candidate
            except _DamagedError as error:
                refusal = InputError(str(error), file=self._folder / str(candidate), remedy="restore another step")
                self._damaged.add(candidate)
                _log.warning("%s", refusal)
        if refusal is not None:
            raise refusal
        return None

    def _restore_step(
        self, step: int, target: PyTree, expect: Mapping[str, Any], partial: bool
    ) -> tuple[PyTree, dict[str, Any]]:
        document = self._document(step)
        wanted, key_types = abstract_leaves(target)
        records, saved_path = _renamed(document["arrays"])
        problem = differences(
            {name: _kind(r["shape"], document["random_keys"].get(name, r["dtype"])) for name, r in records.items()},
            {
                "/".join(path): _kind(leaf.shape, key_types.get("/".join(path), leaf.dtype))
                for path, leaf in sorted(
                    wanted.items(), key=lambda item: len(item[0])
                )  # parameters before their moments
            },
            wanted_by="the target",
            allow_extra=partial,
        )
        if problem:
            raise InputError(problem, file=self._folder / str(step), remedy="use the configuration it was trained with")
        self._check_expected(step, document["host"], expect)  # later, since names and shapes say more than digests
        item = nested({saved_path(path): leaf for path, leaf in wanted.items()})
        args = ocp.args.PyTreeRestore(
            item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=partial
        )
        restored = self._read(step, "arrays", ocp.PyTreeCheckpointHandler(), args)
        arrays = {"/".join(path): at(restored, saved_path(path)) for path in wanted}
        damaged = first_damaged(arrays, records)
        if damaged is not None:
            raise _DamagedError(f"array {damaged} is damaged (its bytes do not have the digest saved with them)")
        leaves = [
            jax.random.wrap_key_data(array, impl=key_types[name]) if name in key_types else array
            for name, array in arrays.items()
        ]
        return jax.tree.unflatten(jax.tree.structure(target), leaves), document["host"]

    def _document(self, step: int) -> dict[str, Any]:
        """Everything of a step but its arrays, checked against its own digest."""
        document = self._read(step, "host", ocp.JsonCheckpointHandler(), ocp.args.JsonRestore())
        if not isinstance(document, dict) or document.pop("sha256", None) != seal(document):
            raise _DamagedError("its metadata is damaged (its text does not have the digest saved with it)")
        if document["format"] != FORMAT:
            raise InputError(
                f"is of format {document['format']}, this version reads {FORMAT}", file=self._folder / str(step)
            )
        return document

    def _read(self, step: int, item: str, handler: ocp.CheckpointHandler, args: ocp.args.CheckpointArgs) -> Any:
        # Not through the manager: it ends with a barrier, at which a process that can read its shards would wait
        # for ever for one that cannot. All must come to the same verdict on the step instead.
        read, failure = None, None
        try:
            read = handler.restore(self._folder / str(step) / item, args=args)
        except Exception as error:
            # Damage shows as any of a dozen exceptions; memory too small for the arrays is not damage.
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error):
                raise
            failure = error
        failed = failure is not None
        if jax.process_count() > 1:
            failed = bool(multihost_utils.process_allgather(np.bool_(failed)).any())
        if failed:
            # TensorStore's messages are long; what matters comes first.
            lines = str(failure or "another process failed").strip().splitlines() or [type(failure).__name__]
            raise _DamagedError(f"cannot be read ({lines[0].partition('. See full')[0][:200]})") from failure
        return read

    def _check_expected(self, step: int, metadata: Mapping[str, Any], expect: Mapping[str, Any]) -> None:
        for key, value in expect.items():
            if key not in metadata:
                raise InputError("was not saved", file=self._folder / str(step), key=key, remedy=nearest(key, metadata))
            if metadata[key] != value:
                raise InputError(
                    f"{metadata[key]!r} in the checkpoint but {value!r} in this run",
                    file=self._folder / str(step),
                    key=key,
                    remedy=f"use the {key} that it was trained with, or another folder",
                )

    def _check_newest(self, step: int) -> None:
        saved = self.steps()
        if saved and step <= saved[-1]:
            raise InputError(
                f"step {step} is not newer than the newest saved step, {saved[-1]}",
                file=self._folder,
                remedy="remove the newer steps, or save into another folder",
            )

    def _check_metrics(self, metrics: Mapping[str, float] | None) -> dict[str, float] | None:
        if metrics is None:
            return None
        if self._best_metric is not None and self._best_metric not in metrics:
            raise InputError(
                "is not among the metrics", key=self._best_metric, remedy=nearest(self._best_metric, metrics)
            )
        return {name: float(value) for name, value in metrics.items()}

    def _note_score(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        if self._best_metric is None:
            return
        if metrics is None:
            try:
                metrics = self._document(step)["metrics"] if step != self._saving else None
            except _DamagedError:
                metrics = None
        value = (metrics or {}).get(self._best_metric, math.nan)
        if not math.isnan(value):
            self._scores[step] = value if self._best_mode == "max" else -value

    def _set_aside_damaged(self) -> None:
        """Moves steps that `restore` refused out of the way of the steps to come, without destroying them."""
        if not self._damaged:
            return
        if jax.process_index() == 0:
            for step in self._damaged & set(self.steps()):
                aside = self._folder / f"damaged-{step}"
                if aside.exists():
                    aside.rmtree()
                (self._folder / str(step)).rename(aside)
        for step in self._damaged:
            self._scores.pop(step, None)
        self._damaged.clear()
        ocp.multihost.sync_global_processes("class_jax:set_aside_damaged")
        self._manager.reload()

    def _remove_unfinished(self) -> None:
        """Frees the space of steps whose writing was cut short."""
        if jax.process_index() != 0 or not self._folder.exists():
            return
        for child in self._folder.iterdir():
            if child.name.isdigit() and not (child / COMMITTED).exists():
                _log.info("%s: removed, it was never finished", child)
                _remove_for_good(child)

    @contextlib.contextmanager
    def _removing_unfinished(self) -> Iterator[None]:
        """Cleans up after a save that fails inside the block, and makes a refusing disk an InputError."""
        try:
            yield
        except Exception as error:
            step, self._saving = self._saving, None
            self._scores.pop(step, None)
            # The failed manager has forgotten the steps that it was about to delete and keeps raising: open another.
            with contextlib.suppress(Exception):
                self._manager.close()
            self._remove_unfinished()
            self._manager = self._open()
            refusal = disk_refusal(error)
            if refusal is None:
                raise
            raise InputError(
                f"could not be written ({refusal})",
                file=self._folder / str(step),
                remedy=f"free some space; {_saved_hint(self.steps())}",
            ) from error


def _renamed(records: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[Path], Path]]:
    """The records of a step by this version's names, and a function from those to the names that it was saved under."""
    old = next((old for old in _OLD_NAMES if any(name.split("/")[0] == old for name in records)), None)
    if old is None:
        return dict(records), lambda path: path
    new = _OLD_NAMES[old]

    def to_new(name: str) -> str:
        first, _, rest = name.partition("/")
        return f"{new}/{rest}" if first == old else name

    return {to_new(name): record for name, record in records.items()}, (
        lambda path: (old, *path[1:]) if path[0] == new else path
    )


def _remove_for_good(folder: epath.Path) -> None:
    """Removes a folder into which the other writes of a failed save, which nobody can call back, may still come."""
    end = time.monotonic() + REMOVAL_SECONDS
    problem: object = "files keep coming"
    while time.monotonic() < end:
        try:
            folder.rmtree(missing_ok=True)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # else a file came while the folder was being emptied
                problem = error
                break
        time.sleep(SETTLING_SECONDS)
        if not folder.exists():
            return
    _log.warning("%s: could not be removed (%s); it is not whole, delete it", folder, problem)


def _saved_hint(steps: Sequence[int]) -> str:
    return "saved: " + ", ".join(map(str, steps)) if steps else "nothing has been saved"


def _kind(shape: Sequence[int], dtype: object) -> str:
    return f"shape ({', '.join(map(str, shape))}) {dtype}"


def seal(document: Mapping[str, Any]) -> str:
    """The digest by which a step's document recognises itself."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def disk_refusal(error: BaseException) -> str | None:
    """Why the disk refused, or None if the error is of another kind. TensorStore reports codes inside ValueErrors."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code.group(1))) if code else None
