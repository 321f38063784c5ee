# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Global arrays built from each host's local shards, and local copies of global arrays.

What takes global arrays is a collective: every host calls it with the same trees, from its main thread.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from class_jax.distributed import ProcessGroup, sharding
from class_jax.models import inference
from class_jax.models.class_model import Params, param_axes
from class_jax.models.config import ModelConfig

T = TypeVar("T")


@functools.cache
def _gatherer(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    # A copy, since the next step reuses the buffers of its state.
    return jax.jit(jnp.copy, out_shardings=sharding.replicated(mesh))


def _copies(array: jax.Array | np.ndarray, mesh: Mesh) -> list[jax.Array]:
    """One whole copy of an array on each device of this host, by device id."""
    if not isinstance(array, jax.Array):  # a scalar in place of a parameter that retrieval does not need
        return [jax.device_put(array, device) for device in _own_devices()]
    shards = _gatherer(mesh)(array).addressable_shards
    return [shard.data for shard in sorted(shards, key=lambda shard: shard.device.id)]


def _own_devices() -> list[jax.Device]:
    return sorted(jax.local_devices(), key=lambda device: device.id)


def local_mesh(mesh: Mesh) -> Mesh:
    """A mesh of this host's devices, with the axes of the global one; weights are sharded over it about as much."""
    devices = _own_devices()
    cut = math.gcd(len(devices), mesh.shape["fsdp"] * mesh.shape["tensor"])
    shape = (len(devices) // cut, cut, 1)
    return Mesh(np.array(devices).reshape(shape), sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3)


class Placement:
    """Places a run's arrays. On one host, all methods but `retrievers` return their argument.

    Args:
      mesh: the run's.
      hosts: the run's.

    Attributes:
      local: on several hosts, a mesh of this one's devices; else None.
    """

    def __init__(self, mesh: Mesh, hosts: ProcessGroup):
        self.mesh, self.hosts = mesh, hosts
        self.local = None if hosts.count == 1 else local_mesh(mesh)

    def batch(self, batch: T) -> T:
        """Joins the hosts' slices of a batch, a tree of [B / hosts, ...], into arrays [B, ...] on the mesh."""
        if self.hosts.count == 1:
            return batch
        where = sharding.batch_sharding(self.mesh)
        _, shares = sharding.host_share(self.mesh)

        def put(array: np.ndarray) -> jax.Array:
            return jax.make_array_from_process_local_data(where, array, (array.shape[0] * shares, *array.shape[1:]))

        return jax.tree.map(put, batch)

    def retrievers(self, params: Params) -> Params | list[Params]:
        """Copies what retrieval needs of a model for `Refresher.start`: a whole copy on each device of this host."""
        found = inference.retriever_params(params)
        if self.mesh.size == 1:
            return jax.tree.map(jnp.copy, found)
        leaves, tree = jax.tree.flatten(found)
        copies = [_copies(leaf, self.mesh) for leaf in leaves]
        return [jax.tree.unflatten(tree, mine) for mine in zip(*copies, strict=True)]

    def own(self, params: Params, config: ModelConfig) -> Params:
        """Copies a model onto this host's devices, for computations without the other hosts."""
        if self.local is None:
            return params

        def copy(names: tuple[str, ...], array: jax.Array) -> jax.Array:
            copies, everywhere = _copies(array, self.mesh), sharding.replicated(self.local)
            whole = jax.make_array_from_single_device_arrays(array.shape, everywhere, copies)
            return jax.device_put(whole, NamedSharding(self.local, _spec(names, array.shape, self.local)))

        return jax.tree.map(copy, param_axes(config), params, is_leaf=lambda x: isinstance(x, tuple))

    def to_host_0(self, params: Params) -> Params | None:
        """Gathers a model, one array after the other: NumPy arrays on host 0, None on the others."""
        if self.hosts.count == 1:
            return params
        first = self.hosts.index == 0

        def gather(array: jax.Array) -> np.ndarray | None:
            whole = _copies(array, self.mesh)[0]
            return np.asarray(whole) if first else None

        arrays = jax.tree.map(gather, params)
        return arrays if first else None


def _spec(names: tuple[str, ...], shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """The partition of a parameter: replicated where the mesh does not divide it."""
    for name, size in zip(names, shape, strict=True):
        if size % math.prod(mesh.shape[axis] for axis in sharding.RULES[name]):
            return PartitionSpec()
    return sharding.spec(names)


def place(arrays: Any, shardings: Any) -> Any:
    """Puts host arrays [global shapes], the same on all hosts, onto the mesh; each device gets only its part."""

    def put(array: Any, where: NamedSharding) -> jax.Array:
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, where, lambda index: array[index])

    return jax.tree.map(put, arrays, shardings)


def gather_from_hosts(hosts: ProcessGroup, name: str, arrays: tuple[np.ndarray, ...]) -> list[tuple[np.ndarray, ...]]:
    """Returns the arrays (of at most 32 bits) of every host; called from the main thread only."""
    hosts.meet(name)  # a collective waits less patiently
    found = multihost_utils.process_allgather(tuple(array.astype(_narrow(array)) for array in arrays))
    return [tuple(array[host] for array in found) for host in range(hosts.count)]


def _narrow(array: np.ndarray) -> np.dtype:
    return np.dtype(np.int32) if array.dtype == np.int64 else array.dtype
