# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Losses and what a training step minimises: pure functions."""
