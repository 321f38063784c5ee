# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""`.bin` files where this Python has no PyTorch: read through one that has, or refused."""

import gc
import sys
import tempfile

import numpy as np
import pytest

from class_jax.checkpoints.tensor_files import TORCH_PYTHON, read_tensors
from class_jax.errors import InputError

FILE = "pytorch_model.bin"


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """This Python can't import PyTorch, and the one that the variable names is this one again."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setenv(TORCH_PYTHON, sys.executable)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.core
def test_without_pytorch_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delenv(TORCH_PYTHON, raising=False)
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(InputError, match=rf"{FILE}: .*{TORCH_PYTHON}=.*pip install 'class-jax\[torch\]'"):
        read_tensors(tmp_path)


@pytest.mark.core
@pytest.mark.parametrize("python", ["no/such/python", sys.executable])
def test_a_python_that_can_not_help_is_named(monkeypatch, tmp_path, python):
    """One that is not there, and one whose conversion fails: there is no file."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setenv(TORCH_PYTHON, python)
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(InputError, match=rf"^({python}: {TORCH_PYTHON}|.*{FILE}): "):
        read_tensors(tmp_path)


@pytest.mark.torch
def test_a_process_reads_what_this_one_does(tmp_path, monkeypatch, request):
    import torch

    table = torch.arange(6.0).reshape(2, 3)
    state = {"a": table, "tied": table, "turned": table.T, "row": table[1], "half": table.to(torch.bfloat16)}
    torch.save(state, tmp_path / FILE)
    here = dict(read_tensors(tmp_path))
    request.getfixturevalue("elsewhere")
    tensors = read_tensors(tmp_path)
    assert set(tensors) == set(state)
    for name, array in here.items():
        assert tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(tensors[name], array)
    one = tensors.lazy["a"]
    assert len(list(tmp_path.glob("class_jax_*"))) == 1
    del tensors
    np.testing.assert_array_equal(one.load(), here["a"])  # one tensor keeps the copy
    del one
    gc.collect()
    assert not list(tmp_path.glob("class_jax_*"))


@pytest.mark.torch
def test_bad_files_are_reported_as_in_this_process(tmp_path, request):
    import torch

    torch.save([torch.zeros(2)], tmp_path / "0.bin")
    torch.save({"a": torch.zeros(2, dtype=torch.int64)}, tmp_path / "1.bin")
    (tmp_path / "2.bin").write_bytes((tmp_path / "0.bin").read_bytes()[:-50])
    messages = []
    for setting in (None, "elsewhere"):
        if setting:
            request.getfixturevalue(setting)
        for i in range(3):
            with pytest.raises(InputError, match=rf"{i}\.bin: ") as caught:
                read_tensors(tmp_path / f"{i}.bin")
            messages.append(str(caught.value))
    assert messages[:3] == messages[3:]
