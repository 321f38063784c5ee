# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Damage to files."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path


def flipped_bits(files: Sequence[Path], count: int, seed: int) -> Iterator[Path]:
    """Yields a file in which a random bit is flipped, `count` times; each is whole again before the next."""
    draw = random.Random(seed)
    for _ in range(count):
        path = draw.choice(files)
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        yield path
        path.write_bytes(content)
