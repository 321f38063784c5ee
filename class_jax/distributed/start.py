# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Start of a run on several hosts: they find each other, and compare settings and data before the first step."""

import contextlib
import dataclasses
import hashlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from class_jax.distributed import SINGLE_PROCESS, ProcessGroup
from class_jax.distributed.agreement import refuse_differences
from class_jax.distributed.config import ProcessGroupConfig
from class_jax.distributed.rendezvous import rendezvous
from class_jax.errors import InputError

# JAX ends a host that has not answered for this long; `process_group` notices most losses earlier.
HEARTBEAT_SECONDS = 25
_VERSIONS = ("class-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
_SHARED_DISK_SECONDS = 60.0

# Settings that may differ between hosts: paths (the files' content is compared, see `data_values`) and what is shown.
# Only whether they are set is compared.
_PER_HOST_SETTINGS = {
    "TrainConfig": ("lists", "init_from", "progress"),
    "DataConfig": ("vocabulary", "store", "questions", "passages", "passage_languages", "own_passages"),
    "EvaluationConfig": ("questions", "gold", "recall_questions"),
    "ModelTeacherConfig": ("weights", "vocabulary", "store"),
}


def join_process_group(config: ProcessGroupConfig) -> ProcessGroup:
    """Waits for the other hosts and sets up `jax.distributed`; to be called before JAX sees a device.

    Raises:
      InputError: if the cluster is not one that JAX knows, a host does not report in time (the message has its index),
        or the hosts have different versions of the packages that must agree.
    """
    if config.coordinator is None and not config.detect:
        return SINGLE_PROCESS
    coordinator, processes, process, devices = config.coordinator, config.processes, config.process, None
    if config.detect:
        coordinator, processes, process, devices = _detected(config)
    if processes == 1:
        return SINGLE_PROCESS
    hosts = rendezvous(process, processes, coordinator, config.timeout, {name: _version(name) for name in _VERSIONS})
    # Its handler of SIGTERM would replace ours.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        local_device_ids=devices,
        cluster_detection_method="deactivate",
        initialization_timeout=int(config.timeout) + 60,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
    return hosts


def _detected(config: ProcessGroupConfig) -> tuple[str, int, int, list[int] | None]:
    """What JAX finds out of the cluster, before it starts: address, count, index, devices."""
    # What `jax.distributed.initialize` calls; JAX has no public name for it.
    from jax._src.clusters import ClusterEnv

    asked = os.environ.get("JAX_LOCAL_DEVICE_IDS")
    devices = [int(number) for number in asked.split(",")] if asked else None
    address = config.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    found = ClusterEnv.auto_detect_unset_distributed_params(
        address, config.processes, config.process, devices, None, int(config.timeout)
    )
    if None in found[:3]:
        raise InputError(
            "finds no cluster that JAX knows",
            key="--distributed",
            remedy="give --coordinator=HOST:PORT --processes=N --process=I",
        )
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def settings_of(config: Any, name: str | None = None) -> dict[str, str]:
    """Flattens a run's configuration into what all hosts must have: "TrainConfig.batch_size" -> "64".

    All fields of all dataclasses in it; of those in `_PER_HOST_SETTINGS`, paths and readers, only whether they are set:
    hosts may keep copies of the same files in different places.
    """
    kind, found = type(config).__name__, {}
    for field in dataclasses.fields(config):
        value, key = getattr(config, field.name), f"{name or kind}.{field.name}"
        if dataclasses.is_dataclass(value):
            # As a gin file names them, except for a model inside another part.
            found |= {key: type(value).__name__} | settings_of(value, key if name else type(value).__name__)
        elif field.name in _PER_HOST_SETTINGS.get(kind, ()):
            found[key] = "nothing" if value is None else "something"
        else:
            found[key] = repr(value)
    return found


def check_agreement(hosts: ProcessGroup, name: str, values: Mapping[str, Any]) -> None:
    """Compares values by key over all hosts.

    Raises:
      InputError: on all hosts alike, naming the key that differs, the hosts and what they have.
    """
    if hosts.count > 1:
        refuse_differences(dict(enumerate(hosts.exchange(name, {key: str(value) for key, value in values.items()}))))


def check_shared_folder(hosts: ProcessGroup, folder: Path) -> None:
    """Checks that all hosts see the folder that host 0 sees.

    Raises:
      InputError: on all hosts, naming those that don't.
    """
    if hosts.count == 1:
        return
    token = folder / f".seen-by-all-{uuid.uuid4().hex}"
    if hosts.index == 0:
        token.touch()
    name = hosts.exchange("folder", token.name)[0]
    deadline = time.monotonic() + _SHARED_DISK_SECONDS  # network disks cache that a file is absent
    while not (seen := (folder / name).exists()) and time.monotonic() < deadline:
        time.sleep(0.5)
    blind = [str(host) for host, sees in enumerate(hosts.exchange("folder seen", seen)) if not sees]
    token.unlink(missing_ok=True)
    if blind:
        raise InputError(
            f"host {', '.join(blind)} does not see the folder of host 0 there",
            file=folder,
            key="MODEL_DIR",
            remedy="put it on a disk that all hosts share",
        )


def data_values(data: Any, evaluator: Any, teacher: str | None, mesh: Mesh) -> dict[str, Any]:
    """Digests, by name, of what all hosts must have read alike, wherever their files are.

    Args:
      data: `class_jax.training.data.TrainingData`. evaluator: `class_jax.training.evaluator.Evaluator`, or None.
      teacher: fingerprint of a teacher that is a model, or None.
      mesh: of all devices.
    """
    measured = None
    if evaluator is not None:
        gold = [sorted(rows) for rows in evaluator.gold or ()]
        measured = digest([evaluator.questions, evaluator.recall_questions, gold])
    return {
        "vocabulary": data.vocabulary.fingerprint[:12],
        "corpus": data.store.fingerprint[:12],
        "question table": data.table.fingerprint[:12],
        "passage languages": None if data.languages is None else digest([data.languages]),
        "evaluation questions": measured,
        "teacher": teacher and teacher[:12],
        "mesh": f"{dict(mesh.shape)} of {mesh.devices.flat[0].device_kind}",
    }


def digest(parts: Iterable[Any]) -> str:
    """A short SHA-256 of texts and arrays, in their order."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray | jax.Array):
            found.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
        else:
            found.update(repr(part).encode() + b"\0")
    return found.hexdigest()[:12]


def params_digest(params: Any) -> str:
    """The digest of a tree of arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return digest(part for path, leaf in leaves for part in (jax.tree_util.keystr(path), leaf))


@contextlib.contextmanager
def failing_together(hosts: ProcessGroup) -> Iterator[None]:
    """Ends all hosts with the message of an error that leaves the block on one; see `ProcessGroup.fail`."""
    try:
        yield
    except BaseException as error:
        hosts.fail(error)
        raise
