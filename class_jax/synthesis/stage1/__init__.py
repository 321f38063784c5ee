# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stage-1 data: parallel cloze queries mined from linked pages (paper, section 3.1)."""
