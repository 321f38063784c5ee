# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Reading gin: files, bindings, search path, errors in one line."""
