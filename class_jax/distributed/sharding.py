# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The device mesh, and the one table that maps logical axis names to its axes."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from class_jax.errors import InputError, nearest
from class_jax.models.class_model import Params, param_axes, param_shapes
from class_jax.models.config import ModelConfig
from class_jax.models.layers import BATCH_AXES

MESH_AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axes. Parameters are sharded over "fsdp" along the model width and over "tensor" along heads,
# hidden width and vocabulary; a batch is sharded over "data" and "fsdp".
RULES: dict[str, tuple[str, ...]] = {
    "batch": BATCH_AXES,
    "layers": (),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv": (),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "vector": ("tensor",),
    "buckets": (),
}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 (for one of them) takes what the others leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Builds the mesh.

    Raises:
      InputError: if the axes don't multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    shape = [config.data, config.fsdp, config.tensor]
    if shape.count(-1) > 1 or any(size < 1 and size != -1 for size in shape):
        raise InputError(
            f"is {dict(zip(MESH_AXES, shape, strict=True))}", key="MeshConfig", remedy="one axis may be -1, others >= 1"
        )
    known = math.prod(size for size in shape if size != -1)
    if -1 in shape and len(devices) % known == 0:
        shape[shape.index(-1)] = len(devices) // known
    if math.prod(shape) != len(devices):
        raise InputError(
            f"{dict(zip(MESH_AXES, shape, strict=True))} does not divide the {len(devices)} devices",
            key="MeshConfig",
            remedy=f"make the axes multiply to {len(devices)}",
        )
    mesh = jax.make_mesh(tuple(shape), MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
    if len({device.process_index for device in devices}) > 1 and _shares(mesh) is None:
        # The neighbourhood of devices goes across hosts: a host after the other, since each reads a slice of a batch.
        in_order = np.array(sorted(devices, key=lambda device: (device.process_index, device.id)))
        mesh = Mesh(in_order.reshape(shape), MESH_AXES, axis_types=(AxisType.Auto,) * 3)
        if _shares(mesh) is None:
            raise InputError(
                f"{dict(mesh.shape)} shards a batch so that hosts would need slices of different sizes",
                key="MeshConfig",
                remedy="make data * fsdp a multiple of the hosts, or tensor one of a host's devices",
            )
    return mesh


def _shares(mesh: Mesh) -> dict[int, tuple[int, int]] | None:
    """For each process, which of how many equal slices of a batch its devices need; None if they don't need slices."""
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    places: dict[int, set[int]] = {}
    for place, devices in enumerate(mesh.devices.reshape(ways, -1)):
        for device in devices:
            places.setdefault(device.process_index, set()).add(place)
    size = len(next(iter(places.values())))
    found = {}
    for process, mine in places.items():
        if ways % size or mine != set(range(min(mine), min(mine) + size)) or min(mine) % size:
            return None
        found[process] = (min(mine) // size, ways // size)
    return found


def host_share(mesh: Mesh) -> tuple[int, int]:
    """Which slice of a batch this process reads, and how many equal slices there are.

    As many as there are processes, or fewer where "tensor" goes across them: then some read the same one.
    """
    return _shares(mesh)[jax.process_index()]


def spec(axes: Sequence[str | None]) -> PartitionSpec:
    """Partition of an array with the given logical axes (None: not cut).

    Raises:
      InputError: for a name that is not in `RULES`, or two dimensions that would be sharded over the same mesh axis.
    """
    used: list[str] = []
    parts = []
    for name in axes:
        if name is not None and name not in RULES:
            raise InputError("unknown logical axis", key=name, remedy=nearest(name, RULES))
        mesh_axes = () if name is None else RULES[name]
        if clash := set(mesh_axes) & set(used):
            raise InputError(f"cuts mesh axis {sorted(clash)} twice", key=f"axes {tuple(axes)}")
        used.extend(mesh_axes)
        parts.append(mesh_axes if len(mesh_axes) > 1 else (mesh_axes[0] if mesh_axes else None))
    return PartitionSpec(*parts)


def param_shardings(config: ModelConfig, mesh: Mesh) -> Params:
    """Shardings of every parameter.

    Raises:
      InputError: if the mesh does not divide a parameter's dimension (named, with both numbers).
    """
    axes = param_axes(config)
    shapes = param_shapes(config)

    def sharding(path: tuple, names: tuple[str, ...], shape: jax.ShapeDtypeStruct) -> NamedSharding:
        for name, size in zip(names, shape.shape, strict=True):
            ways = math.prod(mesh.shape[axis] for axis in RULES[name])
            if size % ways:
                key = "/".join(part.key for part in path)
                raise InputError(f"{name} = {size} is not divisible by the mesh's {ways}", key=key)
        return NamedSharding(mesh, spec(names))

    return jax.tree_util.tree_map_with_path(sharding, axes, shapes, is_leaf=lambda x: isinstance(x, tuple))


def optimizer_shardings(optimizer: optax.GradientTransformation, config: ModelConfig, mesh: Mesh) -> optax.OptState:
    """Shardings of the optimizer's state: moments as their parameters, counters on every device."""
    state = jax.eval_shape(optimizer.init, param_shapes(config))
    return optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        state,
        param_shardings(config, mesh),
        transform_non_params=lambda _: NamedSharding(mesh, PartitionSpec()),
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """A batch is sharded along its first axis."""
    return NamedSharding(mesh, spec(["batch"]))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())
