# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Says in one line how a checkpoint's parameters differ from those that are wanted."""

from collections.abc import Collection, Mapping

from class_jax.errors import nearest

_MAX_SHOWN = 12


def differences(
    found: Mapping[str, str],
    wanted: Mapping[str, str],
    *,
    found_in: str = "the checkpoint",
    wanted_by: str = "the configuration",
    allow_extra: bool = False,
    optional: Collection[str] = (),
) -> str:
    """Compares two lists of named arrays.

    Args:
      found: name -> description (shape, and type where it matters) of each array that is there.
      wanted: the same of each array that ought to be there.
      found_in: what holds the arrays, for the message.
      wanted_by: what asks for them, for the message.
      allow_extra: arrays that nothing asks for are no difference.
      optional: wanted names that may be absent.

    Returns:
      An empty string where nothing differs; else each difference, separated by "; ", with the nearest names for those
      missing or unexpected.
    """
    missing = [name for name in wanted if name not in found and name not in optional]
    extra = [] if allow_extra else [name for name in found if name not in wanted]
    lines = [
        f"{name} has {found[name]} in {found_in} but {wanted[name]} in {wanted_by}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    # A misnamed array is at once missing and unexpected: each is compared with the other list, not with all names.
    lines += [f"{name} ({wanted[name]}) is missing from {found_in}{_hint(name, extra)}" for name in missing]
    lines += [f"{name} ({found[name]}) is unknown to {wanted_by}{_hint(name, missing or wanted)}" for name in extra]
    more = len(lines) - _MAX_SHOWN
    return "; ".join(lines[:_MAX_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _hint(name: str, choices: Collection[str]) -> str:
    hint = nearest(name, choices)
    return f" ({hint})" if hint.startswith("did you mean") else ""
