# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The main job in two forms: the embedded encyclopaedia, and real public data."""
