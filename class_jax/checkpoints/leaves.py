# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A pytree as named plain arrays, the form in which it is saved, and back."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from class_jax.errors import InputError

PyTree = Any
Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LazyArray:
    """An array that is read or made when it is asked for, again each time, and kept by nobody.

    Attributes:
      shape: known in advance, as is `dtype`.
      load: returns the array, of any strides.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    load: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of the array once it is loaded."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @classmethod
    def of(cls, array: Any) -> "LazyArray":
        """Wraps an array that is already there."""
        return cls(tuple(np.shape(array)), np.dtype(array.dtype), lambda: np.asarray(array))


def _paths(tree: PyTree) -> list[tuple[Path, Any]]:
    """Leaves with their paths: keys, field names and positions, all as text."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    named = [(tuple(jax.tree_util.keystr((key,), simple=True) for key in path), leaf) for path, leaf in leaves]
    if len({"/".join(path) for path, _ in named}) < len(named):
        raise ValueError("two arrays of the tree have the same name: no key may contain '/'")
    return named


def plain_leaves(tree: PyTree) -> tuple[dict[Path, jax.Array], dict[str, str]]:
    """Leaves as plain arrays, and the type of each that is a typed random key (saved as its uint32 data)."""
    plain, key_types = {}, {}
    for path, leaf in _paths(tree):
        name = "/".join(path)
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            key_types[name] = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        elif isinstance(leaf, np.ndarray | np.generic):
            kept = jax.dtypes.canonicalize_dtype(leaf.dtype)
            if kept != leaf.dtype:
                raise InputError(f"is {leaf.dtype}, which JAX would narrow to {kept}", key=name, remedy="convert it")
        # NumPy arrays are copied: JAX may share their memory, and the caller may write to it before it is saved.
        plain[path] = leaf if isinstance(leaf, jax.Array) else jnp.array(leaf)
    return plain, key_types


def abstract_leaves(tree: PyTree) -> tuple[dict[Path, jax.ShapeDtypeStruct], dict[str, str]]:
    """The same of a target: shapes, types and shardings only; without a sharding, on the default device."""
    abstract, key_types = {}, {}
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    for path, leaf in _paths(tree):
        sharding = getattr(leaf, "sharding", None) or default
        shape, dtype = np.shape(leaf), leaf.dtype
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            key_types["/".join(path)], data = _key_type(jax.ShapeDtypeStruct(shape, dtype))
            shape, dtype = data.shape, data.dtype
        abstract[path] = jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    return abstract, key_types


def _key_type(keys: jax.ShapeDtypeStruct) -> tuple[str, jax.ShapeDtypeStruct]:
    """Name of the generator of abstract random keys, and what their data look like."""
    names = []

    def data(concrete: jax.Array) -> jax.Array:
        names.append(str(jax.random.key_impl(concrete)))
        return jax.random.key_data(concrete)

    shape = jax.eval_shape(data, keys)
    return names[0], shape


def nested(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """Nested dictionaries, which any tool that reads Orbax understands, in place of optax's named tuples."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = leaf
    return tree


def at(tree: Mapping[str, Any], path: Path) -> Any:
    """The leaf of nested dictionaries at a path."""
    for part in path:
        tree = tree[part]
    return tree
