# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Text in: passages, the vocabulary, what the model is given of them, and the token store."""
