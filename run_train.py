# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Trains CLASS from gin files.

  python run_train.py --gin_file=runs/demo_stage1.gin --gin.MODEL_DIR="'runs/stage1'"

Any setting can be overridden by --gin.NAME=VALUE (strings need quotes of their own). The same command resumes an
interrupted run.
"""

import sys

from class_jax.training.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
