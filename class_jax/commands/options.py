# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Options whose value is a list with commas."""

from class_jax.errors import InputError


def entries(text: str | None) -> list[str]:
    """The entries of a list with commas, without blanks."""
    return [entry.strip() for entry in (text or "").split(",") if entry.strip()]


def positive_numbers(text: str | None, key: str, example: str = "2000,5000", *, needed: bool = False) -> list[int]:
    """The entries of a list of whole numbers above 0, such as `example`.

    Raises:
      InputError: naming the option `key`, if the text is something else, or empty where one number is `needed`.
    """
    found = entries(text)
    if (needed and not found) or not all(entry.isdecimal() and int(entry) > 0 for entry in found):
        raise InputError(f"{text!r} is no list of numbers above 0", key=key, remedy=f"write {example}")
    return [int(entry) for entry in found]
