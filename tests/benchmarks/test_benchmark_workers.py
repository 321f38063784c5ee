# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""benchmarks/workers.py: sides take turns with the same seeds, the first repetition does not count, failures are reported."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import workers  # noqa: E402

SCRIPT = """
import json, sys
sys.path.insert(0, {benchmarks!r})
import workers

assert sys.argv[1] == "--worker"
name, path = json.loads(sys.argv[2])
if name == "broken":
    sys.exit(1)

def run(seed):
    with open(path, "a") as f:
        f.write(f"{{name}}{{seed}} ")
    return {{"side": name, "seed": seed}}

workers.serve(run)
"""


@pytest.fixture
def script(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.format(benchmarks=str(BENCHMARKS)))
    return tmp_path / "script.py"


def test_sides_take_turns(script, tmp_path):
    order = tmp_path / "order"
    found = workers.take_turns(script, {side: [side, str(order)] for side in "ab"}, 2, 7)
    assert found == {side: [{"side": side, "seed": seed} for seed in (8, 9)] for side in "ab"}
    assert order.read_text().split() == ["a7", "b7", "a8", "b8", "a9", "b9"]


def test_a_worker_that_ends_is_named(script, tmp_path):
    with pytest.raises(SystemExit, match="broken failed: see above"):
        workers.take_turns(script, {"a": ["a", str(tmp_path / "o")], "broken": ["broken", ""]}, 1, 0)
    assert not (tmp_path / "o").exists()
