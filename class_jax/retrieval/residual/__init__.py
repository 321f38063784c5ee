# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Token vectors as centroids and residuals of a few bits, on the disk: larger than memory, searched by MaxSim."""

from class_jax.retrieval.residual.build import ResidualSettings, build_residual
from class_jax.retrieval.residual.codec import Codec
from class_jax.retrieval.residual.search import ResidualIndex

__all__ = ["Codec", "ResidualIndex", "ResidualSettings", "build_residual"]
