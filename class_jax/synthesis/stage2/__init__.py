# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stage-2 data: questions made from anchors (paper, section 3.2)."""
