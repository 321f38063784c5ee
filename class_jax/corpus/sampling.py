# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Samples of texts that are too many to be held."""

import random
from collections.abc import Iterable


def uniform_sample(texts: Iterable[str], count: int, seed: int) -> list[str]:
    """Draws `count` texts by reservoir: each has the same chance, in one pass over a stream of unknown length."""
    chance = random.Random(seed)
    kept: list[str] = []
    for seen, text in enumerate(texts):
        if seen < count:
            kept.append(text)
        elif (slot := chance.randrange(seen + 1)) < count:
            kept[slot] = text
    return kept
