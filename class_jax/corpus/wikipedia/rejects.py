# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Names of the counters of what a dump's reader rejects."""

REJECTED = "rejected/"
DAMAGE = ("broken_xml", "encoding", "too_large")
"""Reasons of rejected pages that could not be read."""
CUT_OFF = "cut_off"
"""Counter of files, or parts of them, of which the rest could not be read."""
BAD_LINKS = "links/unreadable"
"""Counter of places in tables of language links that could not be read."""
