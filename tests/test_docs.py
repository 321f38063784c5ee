# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What the documents name is there: files of the repository, modules of the package, other documents."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.core

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]
FILE = re.compile(r"(?<![\w/.-])(?:class_jax|tests|tasks|benchmarks|examples|gin)/[\w/]+\.(?:py|gin|json)\b")
MODULE = re.compile(r"(?<![\w/.])class_jax(?:\.[a-z_0-9]+)+")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def module_exists(name):
    """Whether a dotted name is a module of the package, or something in one."""
    folders = {"class_jax": REPOSITORY / "class_jax", "class_jax.tasks": REPOSITORY / "tasks"}
    if name.startswith("class_jax.tasks"):
        path, rest = folders["class_jax.tasks"], name.split(".")[2:]
    else:
        path, rest = folders["class_jax"], name.split(".")[1:]
    while rest and ((path / rest[0]).is_dir() or (path / f"{rest[0]}.py").exists()):
        path = path / rest.pop(0)
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return not rest or (len(rest) <= 2 and re.search(rf"\b{rest[0]}\b", source.read_text(encoding="utf-8")) is not None)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_is_there(document):
    text = document.read_text(encoding="utf-8")
    missing = [name for name in FILE.findall(text) if not (REPOSITORY / name).exists()]
    missing += [name for name in MODULE.findall(text) if not module_exists(name)]
    missing += [link for link in LINK.findall(text) if not (document.parent / link).exists()]
    assert not missing


def test_a_name_that_is_not_there_is_seen():
    assert module_exists("class_jax.retrieval.exact.exact_search") and module_exists("class_jax.tasks")
    assert not module_exists("class_jax.retrieval.spaces") and not module_exists("class_jax.llm_local")
