# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Retrieval: BM25, exact and ScaNN search with the model's vectors, passage lists, and their refresh while training."""
