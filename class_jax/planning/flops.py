# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Matrix FLOPs of any JAX function, counted on its jaxpr: exact, on any machine, without allocating an array.

Loops count as often as they run (XLA's own cost analysis counts a loop's body once), and what rematerialisation
computes a second time is counted apart, so one trace gives both the model's FLOPs (MFU) and the hardware's (HFU).
Only products count (dot_general, convolutions), two FLOPs for a multiply-add; element-wise work does not.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

from class_jax.errors import InputError

# jax.checkpoint's name for what its backward pass computes again.
_AGAIN = "rematted_computation"
# Kernels whose work the jaxpr does not show.
_OPAQUE = ("pallas_call", "custom_call", "ffi_call", "dot_product_attention", "ragged_dot", "triton")
_WRAPPER = re.compile(r"\b(?:jvp|transpose|vmap|jit|remat|checkpoint|custom_jvp|custom_vjp)\(|\)")


@dataclasses.dataclass
class Flops:
    """What a function's products cost.

    Attributes:
      scopes: FLOPs by `jax.named_scope` path ("" outside of any), first pass and backward pass together, without what
        rematerialisation computes again.
      recomputed: FLOPs of what rematerialisation computes again.
      opaque: how many kernels there are whose work can't be seen, by name; they count 0.
    """

    scopes: dict[str, int]
    recomputed: int = 0
    opaque: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def model(self) -> int:
        """FLOPs without rematerialisation: what MFU divides."""
        return sum(self.scopes.values())

    @property
    def hardware(self) -> int:
        """FLOPs that are carried out: what HFU divides."""
        return self.model + self.recomputed

    def by_scope(self, depth: int = 1) -> dict[str, int]:
        """FLOPs by the first `depth` names of the scope's path, largest first."""
        found: collections.Counter[str] = collections.Counter()
        for path, flops in self.scopes.items():
            found["/".join(path.split("/")[:depth])] += flops
        return dict(found.most_common())


def count_flops(function: Callable, *args: Any, **kwargs: Any) -> Flops:
    """Counts the FLOPs of one call; see the module.

    Args:
      function: traceable by JAX; jitted or not.
      *args, **kwargs: arrays, or `jax.ShapeDtypeStruct`s in their place.

    Returns:
      The count over all devices: inside `shard_map`, one device's times their number.

    Raises:
      InputError: if a loop holds products and its number of turns can't be read off.
    """
    return count_jaxpr(jax.make_jaxpr(function)(*args, **kwargs))


def count_jaxpr(closed: core.ClosedJaxpr) -> Flops:
    """Counts the FLOPs of a traced function, as `count_flops`."""
    found = Flops({})
    _walk(closed.jaxpr, 1, "", found)
    return found


def _walk(jaxpr: core.Jaxpr, times: int, prefix: str, found: Flops) -> None:
    made = {}  # variable -> the equation that makes it
    for equation in jaxpr.eqns:
        made.update(dict.fromkeys(equation.outvars, equation))
        name, params = equation.primitive.name, equation.params
        path = f"{prefix}/{equation.source_info.name_stack}"
        if name in ("dot_general", "conv_general_dilated"):
            _add(found, path, times * _PRODUCTS[name](equation))
        elif name == "scan":
            _walk(params["jaxpr"].jaxpr, times * params["length"], path, found)
        elif name == "while":
            _walk_while(equation, made, times, path, found)
        elif name == "cond":
            _merge(found, max((_counted(branch.jaxpr, times, path) for branch in params["branches"]), key=_all_of))
        elif name == "shard_map":
            _walk(params["jaxpr"], times * params["mesh"].size, path, found)
        elif any(part in name for part in _OPAQUE):
            found.opaque[name] = found.opaque.get(name, 0) + times
        else:
            for inner in core.jaxprs_in_params(params):
                _walk(inner, times, path, found)


def _walk_while(equation: core.JaxprEqn, made: dict, times: int, path: str, found: Flops) -> None:
    """A `while` whose body has products must count up to a constant: `(i < n, i + 1)`, as `fori_loop` makes it."""
    body = equation.params["body_jaxpr"].jaxpr
    once = _counted(body, 1, path)
    if not _all_of(once) and not once.opaque:
        return
    turns = _turns(equation, made)
    if turns is None:
        raise InputError("a while loop with products, whose number of turns is not constant", key=path.strip("/"))
    _walk(body, times * turns, path, found)


def _turns(equation: core.JaxprEqn, made: dict) -> int | None:
    condition, body = equation.params["cond_jaxpr"].jaxpr, equation.params["body_jaxpr"].jaxpr
    skip, body_skip = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    constants, carries = equation.invars[:skip], equation.invars[skip + body_skip :]
    if len(condition.eqns) != 1 or condition.eqns[0].primitive.name not in ("lt", "le"):
        return None
    counter, bound = condition.eqns[0].invars
    places = list(condition.invars)
    if isinstance(counter, core.Literal) or counter not in places[skip:]:
        return None
    slot = places.index(counter) - skip
    stepped = next((e for e in body.eqns if body.outvars[slot] in e.outvars), None)
    if stepped is None or stepped.primitive.name != "add" or stepped.invars[0] is not body.invars[body_skip + slot]:
        return None
    if not isinstance(bound, core.Literal):
        if bound not in places[:skip]:
            return None
        bound = constants[places.index(bound)]
    start, stop, step = (_constant(value, made) for value in (carries[slot], bound, stepped.invars[1]))
    if start is None or stop is None or not step or step < 0:
        return None
    stop += condition.eqns[0].primitive.name == "le"
    return max(0, -(-(stop - start) // step))


def _constant(value: Any, made: dict) -> int | None:
    """The number that a literal, or a literal's conversion or broadcast to a scalar, holds."""
    while not isinstance(value, core.Literal):
        equation = made.get(value)
        if equation is None or equation.primitive.name not in ("convert_element_type", "broadcast_in_dim"):
            return None
        value = equation.invars[0]
    return int(value.val)


def _dot(equation: core.JaxprEqn) -> int:
    left, right = (value.aval.shape for value in equation.invars)
    (contracted, _), (batch, _) = equation.params["dimension_numbers"]
    # Every element of the result sums over the contracted axes; the right side's free axes are what is left of it.
    shared = math.prod(left[axis] for axis in (*contracted, *batch))
    return 2 * math.prod(left) * math.prod(right) // shared if shared else 0


def _convolution(equation: core.JaxprEqn) -> int:
    kernel, result = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
    features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2 * math.prod(result) * math.prod(kernel) // features


_PRODUCTS = {"dot_general": _dot, "conv_general_dilated": _convolution}


def _add(found: Flops, path: str, flops: int) -> None:
    if _AGAIN in path:
        found.recomputed += flops
        return
    names = [name for name in _WRAPPER.sub("", path).split("/") if name and "->" not in name]  # einsum's own scopes
    scope = "/".join(names)
    found.scopes[scope] = found.scopes.get(scope, 0) + flops


def _counted(jaxpr: core.Jaxpr, times: int, path: str) -> Flops:
    found = Flops({})
    _walk(jaxpr, times, path, found)
    return found


def _all_of(found: Flops) -> int:
    return found.hardware


def _merge(found: Flops, other: Flops) -> None:
    for scope, flops in other.scopes.items():
        found.scopes[scope] = found.scopes.get(scope, 0) + flops
    found.recomputed += other.recomputed
    for name, count in other.opaque.items():
        found.opaque[name] = found.opaque.get(name, 0) + count
