# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""requirements.txt, uv.lock and pyproject.toml agree; remedies name extras that there are."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]


def project():
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def locked(extra):
    """(name, version) of every package of the lock that the project with one extra needs, on any Python."""
    packages = {}
    for package in tomllib.loads((REPOSITORY / "uv.lock").read_text(encoding="utf-8"))["package"]:
        packages.setdefault(package["name"], {})[package.get("version", "")] = package
    [own] = packages["class-jax"].values()
    found, todo = set(), [*own["dependencies"], *own["optional-dependencies"][extra]]
    while todo:
        needed = todo.pop()
        versions = [needed["version"]] if "version" in needed else list(packages[needed["name"]])
        for version in versions:
            package = packages[needed["name"]][version]
            extras = [e for name in needed.get("extra", ()) for e in package["optional-dependencies"][name]]
            if (needed["name"], version) not in found:
                extras += package.get("dependencies", [])
            todo += [e for e in extras if (e["name"], e.get("version")) not in found]
            found.add((needed["name"], version))
    return {pair for pair in found if pair[0] != "class-jax"}


def exported():
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def test_requirements_are_those_of_the_lock():
    found = {(canonicalize_name(r.name), str(r.specifier).removeprefix("==")) for r in exported()}
    assert found == locked("all")


def test_requirements_are_pinned_and_name_no_place():
    for requirement in exported():
        assert requirement.url is None
        assert re.fullmatch(r"==[\w.+!]+", str(requirement.specifier)), requirement


def test_the_lock_meets_what_the_project_asks_for():
    pinned = {}
    for requirement in exported():
        pinned.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    for line in project()["dependencies"]:
        wanted = Requirement(line)
        for python in ("3.11.7", "3.12.1", "3.13.0", "3.14.0"):
            here = {"python_version": python.rpartition(".")[0], "python_full_version": python}
            if wanted.marker is not None and not wanted.marker.evaluate(here):
                continue
            candidates = pinned[canonicalize_name(wanted.name)]
            [one] = [r for r in candidates if r.marker is None or r.marker.evaluate(here)]
            assert wanted.specifier.contains(str(one.specifier).removeprefix("==")), (line, python)


def test_every_remedy_names_an_extra_that_there_is():
    named = {}
    files = [p for folder in ("class_jax", "tasks", "docs") for p in (REPOSITORY / folder).rglob("*.*")]
    for path in [*files, REPOSITORY / "README.md"]:
        if path.suffix in (".py", ".md"):
            for extras in re.findall(r"class[-_]jax\[([\w,-]+)\]", path.read_text(encoding="utf-8")):
                named |= dict.fromkeys(extras.split(","), path)
    assert {"train", "retrieve", "data", "evaluate", "torch"} <= named.keys()
    unknown = {extra: path for extra, path in named.items() if extra not in project()["optional-dependencies"]}
    assert not unknown
