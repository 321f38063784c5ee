# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What accelerators can do, by their makers' data sheets, and what an hour of one costs, roughly."""

import dataclasses

from class_jax.errors import InputError, nearest

# Prices are round figures of on-demand offers as of this month, to compare plans by; real ones differ by contract.
PRICES_AS_OF = "2025-06"


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
      name: as given to the command.
      tflops: peak of dense bfloat16 products, TFLOP/s.
      hbm_gb: memory, GB (10**9 bytes). hbm_gbps: its bandwidth, GB/s.
      link_gbps: what it sends to its neighbours (ICI, NVLink), GB/s, all links together, one direction.
      dollars: of one chip for an hour; see `PRICES_AS_OF`.
      node: chips that those links join: beyond them a slower network begins.
    """

    name: str
    tflops: float
    hbm_gb: float
    hbm_gbps: float
    link_gbps: float
    dollars: float
    node: int


CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v4", 275, 32, 1228, 300, 3.2, 4096),
        Chip("v5e", 197, 16, 819, 200, 1.2, 256),
        Chip("v5p", 459, 95, 2765, 600, 4.2, 8960),
        Chip("v6e", 918, 32, 1640, 448, 2.7, 256),
        Chip("a100", 312, 80, 2039, 300, 2.5, 8),
        Chip("h100", 989, 80, 3350, 450, 3.5, 8),
        Chip("h200", 989, 141, 4800, 450, 4.0, 8),
        Chip("b200", 2250, 180, 8000, 900, 6.0, 8),
    )
}


def find_chip(name: str) -> Chip:
    """The chip of a name, in any case.

    Raises:
      InputError: for an unknown one.
    """
    if name.lower() not in CHIPS:
        raise InputError(f"unknown chip {name!r}", key="chip", remedy=nearest(name.lower(), CHIPS))
    return CHIPS[name.lower()]
