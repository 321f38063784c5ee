# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Passage lists of the training questions, and what makes the next ones beside training."""
