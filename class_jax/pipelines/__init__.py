# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stages over Apache Beam, each done once."""
