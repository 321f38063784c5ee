# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Tables, plots and pages of results; published rows."""
