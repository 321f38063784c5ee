# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What both stages' data are made of: linked pages and their entities."""
