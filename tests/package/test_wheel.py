# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What the wheel holds."""

import email
import zipfile
from pathlib import Path

import pytest

import class_jax

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def names(wheel):
    return set(zipfile.ZipFile(wheel).namelist())


def test_nothing_but_the_package_is_at_top_level(names):
    tops = {name.split("/")[0] for name in names}
    assert tops == {"class_jax", f"class_jax-{class_jax.__version__}.dist-info"}


def test_it_holds_what_the_checkout_holds(names):
    def sources(folder, inside):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".md", ".pyc"):
                yield f"{inside}/{path.relative_to(REPOSITORY / folder).as_posix()}"

    wanted = {
        *sources("class_jax", "class_jax"),
        *sources("gin", "class_jax/gin"),
        *sources("tasks", "class_jax/tasks"),
    }
    missing = wanted - names
    assert not missing
    assert {"class_jax/gin/runs/stage1.gin", "class_jax/tasks/__init__.py", "class_jax/py.typed"} <= names


def test_metadata(wheel, names):
    folder = f"class_jax-{class_jax.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as opened:
        metadata = email.message_from_bytes(opened.read(f"{folder}/METADATA"))
        commands = opened.read(f"{folder}/entry_points.txt").decode()
    assert metadata["Version"] == class_jax.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert "class-jax = " in commands
    assert f"{folder}/licenses/LICENSE" in names
