# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A stop signal in a real process: acknowledged at once, noted for the loop, and final when it comes again."""

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny_run

from class_jax.training.signals import caught_signals

# The main thread is busy in C for a long time, as when it compiles: Python's own handlers wait until it returns.
BUSY = """
import hashlib, sys, time
from class_jax.training.signals import caught_signals
with caught_signals() as caught:
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", int(sys.argv[1]))
    while not caught:
        time.sleep(0.01)
    print("caught", *caught, flush=True)
    time.sleep(float(sys.argv[2]))
print("left", flush=True)
"""
LONG = 300_000_000  # minutes of hashing


def start(rounds: int, seconds: float, **streams) -> subprocess.Popen:
    command = [sys.executable, "-c", BUSY, str(rounds), str(seconds)]
    environment = os.environ | {"PYTHONPATH": str(tiny_run.REPOSITORY)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, **streams)
    assert process.stdout.readline() == b"begun\n"
    if rounds == LONG:
        begun = cpu_seconds(process)
        while cpu_seconds(process) < begun + 0.3:  # the main thread is inside the hashing from then on
            time.sleep(0.01)
    return process


def cpu_seconds(process: subprocess.Popen) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_acknowledged_while_the_main_thread_is_busy_and_a_second_one_ends_it(name):
    process = start(LONG, 0, stderr=subprocess.PIPE)
    try:
        process.send_signal(getattr(signal, name))
        ready, _, _ = select.select([process.stderr], [], [], 30)
        assert ready, "no line"
        line = process.stderr.readline().decode()
        assert line.startswith(f"{name}: stopping after this step") and process.poll() is None
        process.send_signal(getattr(signal, name))
        assert process.wait(30) != 0
    finally:
        process.kill()


def test_the_loop_learns_of_the_signal_and_the_line_comes_once():
    process = start(1, 0, stderr=subprocess.PIPE)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=60)
    assert out == b"caught SIGTERM\nleft\n" and process.returncode == 0
    assert error.count(b"\n") == error.count(b"SIGTERM") == 1


def test_on_a_terminal_the_progress_bar_is_erased_before_the_line():
    main, terminal = pty.openpty()
    process = start(1, 0, stderr=terminal)
    os.close(terminal)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    shown = os.read(main, 4096)
    assert shown.startswith(b"\r\x1b[KSIGINT: ") and shown.endswith(b"\n")


def test_handlers_and_threads_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)], threading.active_count()
    with caught_signals() as caught:
        assert not caught and signal.getsignal(signal.SIGINT) is not before[0][0]
    assert (
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        threading.active_count(),
    ) == before


def test_outside_the_main_thread_no_signal_is_handled():
    found = []

    def enter():
        with caught_signals() as caught:
            found.append((list(caught), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [([], signal.getsignal(signal.SIGINT))]
