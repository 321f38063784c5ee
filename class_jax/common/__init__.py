# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Files that are whole or absent, batches of few shapes, work logs."""
