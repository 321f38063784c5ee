# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Training and evaluation questions: readers of the public files, columns, selection."""
