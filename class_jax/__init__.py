# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""CLASS (arXiv 2402.16508) in JAX: one encoder-decoder that retrieves and answers across languages."""
