# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Reads a run's configuration, changes it, and prints what it takes to train.

  python examples/read_gin.py runs/stage1.gin "MODEL_DIR = 'runs/mine'" "STEPS = 1000"

Bindings set what the file leaves open or override it; the head of each gin file lists what must be set.
"""

import sys

from class_jax.configuration.gin_files import configured
from class_jax.training.config import TrainConfig

file, *bindings = sys.argv[1:]
config = configured(TrainConfig, [file], bindings)
print(f"{config.objective}, {config.optimizer.total_steps} steps of {config.batch_size} questions")
print(f"model: {config.model.num_layers} layers of {config.model.d_model}, {config.model.retriever} retriever")
