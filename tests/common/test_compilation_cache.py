# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Programs compiled by one process are kept for the next, where the switch says."""

import os
import subprocess
import sys

import pytest

from class_jax.common.compilation_cache import SWITCH, use_compilation_cache
from class_jax.errors import InputError

pytestmark = pytest.mark.core

PROGRAM = """
from class_jax.common.compilation_cache import use_compilation_cache
print(use_compilation_cache())
import jax
jax.jit(lambda x: x * 3 + 1)(2.0).block_until_ready()
"""


def run(home, **variables):
    """Runs the program with a home and environment variables of its own; returns the folder that it printed."""
    kept = {k: v for k, v in os.environ.items() if k not in (SWITCH, "JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")}
    environment = kept | {"HOME": str(home)} | variables
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_program_is_kept_once_where_the_switch_says(tmp_path):
    chosen = tmp_path / "chosen"
    for _ in range(2):
        assert run(tmp_path, **{SWITCH: str(chosen)}) == str(chosen)
        assert len(list(chosen.glob("*-cache"))) == 1


def test_without_the_switch_the_user_s_cache_folder_is_taken(tmp_path):
    folder = run(tmp_path)
    assert folder.startswith(str(tmp_path)) and list((tmp_path / ".cache").rglob("*-cache"))


def test_off_keeps_nothing(tmp_path):
    assert run(tmp_path, **{SWITCH: "off", "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "kept")}) == "None"
    assert not list(tmp_path.rglob("*-cache"))


def test_a_folder_that_can_t_be_made_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as error:
        use_compilation_cache(tmp_path / "file" / "cache")
    assert str(tmp_path / "file" / "cache") in str(error.value) and SWITCH in str(error.value)
