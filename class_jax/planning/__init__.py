# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What a run costs before anyone pays for it: FLOPs, memory, traffic between devices, time and money."""
