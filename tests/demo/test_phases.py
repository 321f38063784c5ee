# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Phases of a job: what they print while they run, and stop signals."""

import io
import os
import signal
import threading
import time

import pytest
from rich.console import Console

from class_jax.demo import phases as room
from class_jax.demo.phases import Phases, in_child
from class_jax.errors import InputError


@pytest.fixture
def printed(monkeypatch):
    """What is printed, with a line every twentieth of a second."""
    monkeypatch.setattr(room, "_TICK", 0.01)
    monkeypatch.setattr(room, "_LINE_EVERY", 0.05)
    return io.StringIO()


def test_a_long_phase_says_that_it_is_running(printed, tmp_path):
    with Phases(tmp_path, Console(file=printed)).phase("counting [1/2]") as how_far:
        how_far("half of it")
        time.sleep(0.2)
    first, *later = printed.getvalue().splitlines()
    assert first.endswith("] counting [1/2]") and len(later) >= 2
    assert all("counting [1/2]" in line and "half of it" in line for line in later)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_is_acknowledged_and_ends_the_phase(printed, tmp_path, number):
    before = signal.getsignal(number)
    phases = Phases(tmp_path, Console(file=printed))
    with pytest.raises(InputError, match=f"^{tmp_path}: .*counting"), phases.phase("counting"):
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
        time.sleep(5)
    assert f"{number.name}: stopping" in printed.getvalue()
    assert signal.getsignal(number) == before


def test_training_acknowledges_its_own_signals(printed, tmp_path):
    came = []
    with Phases(tmp_path, Console(file=printed)).phase("training"):
        before = signal.signal(signal.SIGTERM, lambda *_: came.append(True))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        signal.signal(signal.SIGTERM, before)
    assert came and "stopping" not in printed.getvalue()


def test_a_child_returns_what_the_function_does():
    assert in_child(os.getpid) != os.getpid()
