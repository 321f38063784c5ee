# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Training state that survives anything (`state`), and weights in other projects' layouts (`huggingface`)."""
