# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Language models as a client: behind a server or in this process, with a cache of replies."""
