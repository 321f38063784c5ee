# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Evaluation: pure Python and NumPy, callable from the training loop and from files alike.

`text` normalises, segments and tokenises; `xor_full` scores answers; `xor_retrieve`, `passages` and
`mkqa` score ranked passages; `scores` holds what they return, one value a question, and averages it;
`breakdown` averages by kind of question; `significance` and `uncertainty` say what is more than chance;
`predictions` and `runs` read files; `published` holds what others measured; `reports` puts a run's
results into one file and several runs side by side; `tables`, `curves` and `plots` present them.

Scores are fractions in 0..1 everywhere; only tables show them times 100.
"""
