# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Evaluation: pure Python and NumPy, callable from the training loop and from files alike.

`text` normalises, segments and tokenises; `xor_full` scores answers; `xor_retrieve` and `passages`
score ranked passages; `scores` holds what they return, one value a question, and averages it;
`predictions` reads prediction files; `tables` and `curves` present the result.

Scores are fractions in 0..1 everywhere; only tables show them times 100.
"""
