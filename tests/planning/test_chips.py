# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Every chip's figures against a table written from the makers' pages, and plans that depend on each of them."""

import dataclasses

import pytest

from class_jax.errors import InputError
from class_jax.planning.chips import CHIPS, PRICES_AS_OF, find_chip

# From the makers' pages. TPU: "Peak compute per chip (bf16)", "HBM capacity and bandwidth", "Inter-chip interconnect
# bandwidth" (published in Gbit/s of one direction, all links together: 1600, 4800, 3584; v4: six links of 50 GB/s) and
# "TPU Pod size"; v6e as its page had it in 2025, which rounds to 1600 GB/s and 3200 Gbit/s since. GPU, SXM form: dense
# BF16 tensor products (without sparsity), memory, its bandwidth, half of "NVLink bandwidth" (published for both
# directions: 600, 900, 900, 1800 GB/s) and the GPUs of one HGX or DGX server.
TABLE = """
chip  TFLOP/s  GB   GB/s  link  joined  source
v4    275      32   1228  300   4096    https://cloud.google.com/tpu/docs/v4
v5e   197      16   819   200   256     https://cloud.google.com/tpu/docs/v5e
v5p   459      95   2765  600   8960    https://cloud.google.com/tpu/docs/v5p
v6e   918      32   1640  448   256     https://cloud.google.com/tpu/docs/v6e
a100  312      80   2039  300   8       https://www.nvidia.com/en-us/data-center/a100
h100  989      80   3350  450   8       https://www.nvidia.com/en-us/data-center/h100
h200  989      141  4800  450   8       https://www.nvidia.com/en-us/data-center/h200
b200  2250     180  8000  900   8       https://www.nvidia.com/en-us/data-center/dgx-b200
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()[1:]]
# Round prices of an hour on demand, as of PRICES_AS_OF: no maker's figures.
DOLLARS = {"v4": 3.2, "v5e": 1.2, "v5p": 4.2, "v6e": 2.7, "a100": 2.5, "h100": 3.5, "h200": 4.0, "b200": 6.0}


def test_every_chip_is_in_the_table():
    assert [row[0] for row in ROWS] == list(CHIPS) == list(DOLLARS)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_figures_are_the_makers(row):
    name, *figures, source = row
    chip = CHIPS[name]
    found = (chip.tflops, chip.hbm_gb, chip.hbm_gbps, chip.link_gbps, chip.node)
    assert found == tuple(map(float, figures)), source
    assert (chip.name, chip.dollars) == (name, DOLLARS[name])


def test_prices_have_a_date():
    assert PRICES_AS_OF == "2025-06"


def test_chips_are_found_in_any_case():
    assert find_chip("H200") is CHIPS["h200"]
    with pytest.raises(InputError, match=r"^chip: .*'h20'.*'h200'"):
        find_chip("h20")


def test_a_chip_has_no_other_figures():
    names = {"name", "tflops", "hbm_gb", "hbm_gbps", "link_gbps", "dollars", "node"}
    assert {field.name for field in dataclasses.fields(CHIPS["v4"])} == names
