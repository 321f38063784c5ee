# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""What the package's metadata asks for, and what `class-jax doctor` makes of it."""

import importlib.metadata
import json

import pytest
import typer
from typer.testing import CliRunner

from class_jax.commands.doctor import BROKEN, doctor
from class_jax.common import installation

REQUIRES = {
    "class-jax": [
        "jax<0.13,>=0.12; python_version >= '3'",
        "jax<0.11; python_version < '3'",
        "flax>=0.12.12",
        "numpy",
        "torch>=2; extra == 'torch'",
        "jax[cuda12]; extra == 'gpu'",
        "class-jax[torch]; extra == 'all'",
    ],
    "jax": ["numpy", "jax-cuda12-plugin; extra == 'cuda12'"],
}
VERSIONS = {"class-jax": "1", "jax": "0.12.1", "flax": "0.12.12", "numpy": "2.4"}


@pytest.fixture
def versions(monkeypatch):
    """Installed distributions, which a test may change."""
    found = dict(VERSIONS)

    def version(name):
        if name not in found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES.get(name))
    return found


def texts(**settings):
    return [str(problem) for problem in installation.unmet(**settings)]


def test_what_is_there_is_not_missing(versions):
    assert texts() == []
    versions["torch"] = "2.13"
    assert texts(extra="torch") == texts(extra="all") == []


def test_extras_are_followed_into_other_packages(versions):
    assert texts(extra="gpu") == ["jax-cuda12-plugin is not installed"]
    assert texts(extra="torch") == texts(extra="all") == ["torch>=2 is not installed"]


def test_a_wrong_pair_is_named(versions):
    versions["flax"] = "0.12.8"
    assert texts() == ["flax>=0.12.12 is wanted, 0.12.8 is installed"]
    problem = installation._works_together(installation.unmet())
    assert "jax 0.12.1" in problem and "flax 0.12.8" in problem and ">=0.12.12" in problem
    del versions["numpy"], versions["flax"]
    assert texts() == ["flax>=0.12.12 is not installed", "numpy is not installed"]


def test_every_extra_says_what_it_is_for():
    assert set(installation.extras()) == set(installation.PURPOSES)


def call(*arguments):
    app = typer.Typer()
    app.command()(doctor)
    return CliRunner().invoke(app, list(arguments))


def test_doctor_as_json():
    done = call("--json")
    found = json.loads(done.output)
    assert done.exit_code == 0 and found["ok"] and found["problems"] == []
    assert found["versions"]["jax"] == importlib.metadata.version("jax") and found["cpus"] > 0
    assert found["devices"] and found["platform"] and found["compilation_cache"] is None  # tests switch it off
    assert found["extras"].keys() == installation.PURPOSES.keys()


@pytest.mark.core
def test_doctor_ends_with_status_1_if_the_core_is_broken(monkeypatch):
    assert "work together" in call().output
    wrong = [installation.Unmet("flax>=99", "0.12.8"), installation.Unmet("optax>=9", None)]
    monkeypatch.setattr(installation, "unmet", lambda package="class-jax", extra="": [] if extra else wrong)
    done = call()
    shown = " ".join(done.output.split())
    assert done.exit_code == BROKEN and "do not work together: flax>=99" in shown and "optax>=9 is not" in shown


def test_the_cache_is_measured(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"123")
    assert installation.folder_bytes(tmp_path) == 3 and installation.folder_bytes(tmp_path / "none") == 0
