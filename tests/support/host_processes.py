# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Runs on several hosts for the tests: processes on this machine, each with some devices of the CPU's."""

import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tiny_run

# Seconds that a test waits for a process at most.
TIMEOUT = 240


class Ended(NamedTuple):
    """How a host's process ended: exit status, standard error, and when (`time.monotonic`)."""

    status: int
    error: str
    at: float

    @property
    def said(self) -> list[str]:
        """What it said of its end, a line each."""
        return [line for line in self.error.splitlines() if line.startswith("error: ")]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_hosts(
    commands: Sequence[list[str]],
    devices: int,
    *,
    processes: int | None = None,
    stop: dict[int, str] | None = None,
    cache: Path | None = None,
    timeout: float = 60,
) -> list[subprocess.Popen]:
    """Starts hosts of one run.

    Args:
      commands: command lines of `tiny_run.arguments`, one for each host.
      devices: how many each has.
      processes: hosts that there should be, if not as many as commands.
      stop: what stops the host of an index, as in `tiny_run.start`.
      cache: folder of compiled programs.
      timeout: seconds that they wait for each other.
    """
    count, port = processes or len(commands), free_port()
    flags = [f"--coordinator=127.0.0.1:{port}", f"--processes={count}", f"--host_timeout={timeout}"]
    return [
        tiny_run.start([*command, *flags, f"--process={host}"], (stop or {}).get(host), cache, devices)
        for host, command in enumerate(commands)
    ]


def ended(processes: Sequence[subprocess.Popen]) -> list[Ended]:
    """Waits for processes; one that does not end is killed."""
    found = []
    for process in processes:
        try:
            _, error = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            _, error = process.communicate()
        found.append(Ended(process.returncode, error, time.monotonic()))
    return found


def run_hosts(commands: Sequence[list[str]], devices: int, **how: object) -> list[Ended]:
    """Starts hosts of one run and waits for them; see `start_hosts`."""
    return ended(start_hosts(commands, devices, **how))
