# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""From Wikipedia dumps to pages and passages."""
