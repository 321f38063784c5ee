# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The gin files of the model's sizes, against the published ones; no parameter is allocated."""

import dataclasses
import math
from pathlib import Path

import jax
import pytest

import gin
from class_jax.models import ModelConfig, param_shapes

pytestmark = pytest.mark.core

FOLDER = Path(__file__).resolve().parents[2] / "gin" / "models"
# Published counts are rounded to two or three digits (mT5, section 3.2).
TOLERANCE = 0.015

# name -> published, exact with the multi-vector retriever.
SIZES = {
    "small": (300e6, 300_176_768),
    "base": (580e6, 582_401_280),
    "large": (1.23e9, 1_229_581_312),
    "xl": (3.74e9, 3_742_619_648),
    "xxl": (12.9e9, 12_921_057_280),
}


def read(name):
    gin.clear_config()
    try:
        gin.parse_config_file(str(FOLDER / f"{name}.gin"))
        return gin.get_configurable(ModelConfig)()
    finally:
        gin.clear_config()


def count(config):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(param_shapes(config)))


def test_every_size_is_checked():
    assert {path.stem for path in FOLDER.glob("*.gin")} == {*SIZES, "tiny"}


@pytest.mark.parametrize("name", SIZES)
def test_parameters(name):
    published, exact = SIZES[name]
    config = read(name)
    assert config.retriever == "multi_vector"
    assert count(config) == exact
    assert abs(exact / published - 1) < TOLERANCE


@pytest.mark.parametrize("name", SIZES)
def test_the_dense_retriever_adds_two_projections_and_a_norm(name):
    config = read(name)
    width = config.num_heads * config.d_kv
    dense = dataclasses.replace(config, retriever="dense")
    assert count(dense) - count(config) == 2 * config.d_model * width + width


@pytest.mark.parametrize("name", SIZES)
def test_the_retriever_is_the_lower_half(name):
    config = read(name)
    assert config.retriever_layer == config.num_reader_layers == config.num_layers // 2
    # The paper's head, or the last one where there are not so many.
    assert config.retriever_head == min(6, config.num_heads - 1)


@pytest.mark.parametrize("name", SIZES)
def test_the_header_states_the_count(name):
    assert f"{SIZES[name][1]:,} here" in (FOLDER / f"{name}.gin").read_text(encoding="utf-8")
