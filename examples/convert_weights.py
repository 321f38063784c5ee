# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Makes a CLASS model of a plain mT5: everything is kept, and head 6 of layer 6 becomes the retriever's.

  python examples/convert_weights.py google/mt5-base class-start 6

The last argument is the retriever's head. `class-jax convert` does the same and more.
"""

import sys

from class_jax.checkpoints.convert import Retriever, convert, open_source
from class_jax.checkpoints.hub import local_folder

source_name, destination, head = sys.argv[1:]
source = open_source(local_folder(source_name), retriever=Retriever("multi_vector", head=int(head)))
convert(source, destination)
print(f"{len(source.tensors)} tensors; the retriever is layer {source.config.retriever_layer}, head {head}")
