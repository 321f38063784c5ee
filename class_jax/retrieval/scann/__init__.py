# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The ScaNN index."""
