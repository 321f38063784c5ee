# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Question-generation re-ranking (arXiv 2501.04153): how likely a model finds the question, given the passage."""
