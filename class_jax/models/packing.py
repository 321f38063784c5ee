# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Packed tokens: rows of uneven length that follow each other without padding.

Projections and feed-forward layers work token by token: they run on packed tokens, so padding costs nothing there.
Only attention needs rows. Shapes are fixed when a step is compiled, so the number of slots for tokens is chosen before
(`class_jax.training.token_slots`) and some slots are left over.

Rows are packed in G groups of equally many rows: those of one device are a group, so that no token moves to another.
Axes: G groups, R rows of a group, T tokens of a row with padding, C slots of a group.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Slots(NamedTuple):
    """Room for packed tokens: `groups` groups of `size` slots each. Every group's tokens must fit."""

    groups: int
    size: int


class Packing(NamedTuple):
    """Where each token of the rows is.

    Attributes:
      rows: row of each slot's token within its group, [G, C] int32. places: where in that row, [G, C] int32.
      filled: False for slots that are left over, [G, C].
      slots: slot of each row's token, [G, R, T] int32. mask: False for padding, [G, R, T].
      fits: False for a group that has more tokens than slots, [G].
    """

    rows: jax.Array
    places: jax.Array
    filled: jax.Array
    slots: jax.Array
    mask: jax.Array
    fits: jax.Array


def packing(lengths: jax.Array, padded: int, slots: Slots) -> Packing:
    """Lays out rows of [G * R] lengths, each padded to `padded` tokens."""
    lengths = lengths.reshape(slots.groups, -1)
    ends = jnp.cumsum(lengths, axis=1)
    starts = ends - lengths
    slot, token = jnp.arange(slots.size), jnp.arange(padded)
    rows = jax.vmap(lambda ends: jnp.searchsorted(ends, slot, side="right"))(ends)
    rows = jnp.minimum(rows, lengths.shape[1] - 1)
    places = jnp.clip(slot - jnp.take_along_axis(starts, rows, axis=1), 0, padded - 1)
    return Packing(
        rows,
        places,
        filled=slot < ends[:, -1:],
        slots=jnp.minimum(starts[..., None] + token, slots.size - 1),
        mask=token < lengths[..., None],
        fits=ends[:, -1] <= slots.size,
    )


# `pack` and `unpack` are each other's transpose. Spelt out, both directions look tokens up, which is far faster than
# the scattered sums that autodiff would make of them.


@jax.custom_vjp
def pack(x: jax.Array, where: Packing) -> jax.Array:
    """Rows [G * R, T, D] -> slots [G, C, D]; slots that are left over are 0."""
    x = x.reshape(*where.slots.shape, x.shape[-1])
    found = jax.vmap(lambda x, rows, places: x[rows, places])(x, where.rows, where.places)
    return jnp.where(where.filled[..., None], found, 0)


@jax.custom_vjp
def unpack(x: jax.Array, where: Packing) -> jax.Array:
    """Slots [G, C, D] -> rows [G * R, T, D]; padding is 0.

    A group whose tokens did not fit is NaN throughout: the loss stops the run, where lost tokens would go unnoticed.
    """
    rows = jax.vmap(lambda x, slots: x[slots])(x, where.slots)
    rows = jnp.where(where.mask[..., None], rows, 0)
    rows = jnp.where(where.fits[:, None, None, None], rows, jnp.nan)
    return rows.reshape(-1, *rows.shape[2:])


pack.defvjp(lambda x, where: (pack(x, where), where), lambda where, gradient: (unpack(gradient, where), None))
unpack.defvjp(lambda x, where: (unpack(x, where), where), lambda where, gradient: (pack(gradient, where), None))
