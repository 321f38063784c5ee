# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Training: feed, step, loop, and what they need."""
