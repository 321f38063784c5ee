# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Training questions made from pages and their links: parallel cloze queries (stage 1), anchor questions (stage 2)."""
