# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Gin bindings that make the main job short."""

SHORT = [
    "STEPS = 8",
    "config.TrainConfig.evaluate_every = 8",
    "config.TrainConfig.batch_size = 4",
    "config.TrainConfig.tensorboard = False",
    "config.CheckpointConfig.every = 4",
    "evaluator.EvaluationConfig.max_questions = 21",
    "evaluator.EvaluationConfig.max_answer_tokens = 3",
]
