# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""seqio tasks and mixtures over the public question files, made by functions that gin configures.

Nothing is registered on import, and TensorFlow is imported by the first registration, not before.
"""

from class_jax.tasks.registration import (
    register_benchmark,
    register_mkqa,
    register_nq,
    register_parallel_lines,
    register_stage1,
    register_stage2,
    register_xor,
)

__all__ = [
    "register_benchmark",
    "register_mkqa",
    "register_nq",
    "register_parallel_lines",
    "register_stage1",
    "register_stage2",
    "register_xor",
]
