# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""PyTorch's `.bin` files: tensors by name, checked; and their conversion to safetensors.

This file imports nothing of this package, so that another Python, which has PyTorch and perhaps nothing else of ours,
can run it: `python torch_state.py IN.bin OUT.safetensors`.
"""

import json
import sys
from typing import Any

_ZIP = b"PK\x03\x04"  # how torch.save's files begin since PyTorch 1.6; older ones can't be mapped
_TYPES = ("torch.float32", "torch.float16", "torch.bfloat16")
BAD_FILE = 3  # exit status; standard output has the arguments of `BadStateError` as JSON
_PLAIN = "save its state_dict() and nothing else"


class BadStateError(Exception):
    """A file that holds anything but whole tensors by name: the problem, and where known the key and a remedy."""

    def __init__(self, problem: str, key: str | None = None, remedy: str | None = None):
        super().__init__(problem, key, remedy)


def is_mappable(file: Any) -> bool:
    """Whether a file is of the format that can be mapped into memory."""
    with open(file, "rb") as f:
        return f.read(len(_ZIP)) == _ZIP


def load_state(file: Any, mapped: bool) -> dict[str, Any]:
    """Reads a file's tensors by name, on the CPU; code in it is never run.

    Args:
      file: its path.
      mapped: map it into memory instead of reading it.

    Raises:
      BadStateError: if it is cut short, or holds anything but tensors of a known type by name.
    """
    import torch

    try:
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    except Exception as error:  # a file cut short or with foreign objects: a dozen types, all of them bad input
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BadStateError(f"is not a whole file of tensors only ({lines[0].split('. ')[0]})", None, _PLAIN) from error
    if not isinstance(state, dict):
        raise BadStateError(f"holds a {type(state).__name__}, not tensors by name")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise BadStateError(f"is a {type(value).__name__}, not a tensor", str(name), _PLAIN)
        if str(value.dtype) not in _TYPES:
            raise BadStateError(f"is of type {value.dtype}", name, f"supported: {', '.join(_TYPES)}")
    return state


def convert_file(file: str, to: str) -> None:
    """Writes a `.bin` file's tensors as one safetensors file.

    Raises:
      BadStateError: as `load_state`.
    """
    from safetensors.torch import save_file

    state, memory = load_state(file, is_mappable(file)), set()
    for name, tensor in state.items():
        # safetensors refuses tensors that share memory, such as T5's embeddings under their three names.
        start = tensor.untyped_storage().data_ptr()
        plain = tensor.detach().contiguous()
        state[name] = plain.clone() if start in memory else plain
        memory.add(start)
    save_file(state, to)


if __name__ == "__main__":
    try:
        convert_file(sys.argv[1], sys.argv[2])
    except BadStateError as error:
        print(json.dumps(error.args))
        sys.exit(BAD_FILE)
