# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The commands of `class-jax`, one module each; `class_jax.commands.cli` puts them together."""
