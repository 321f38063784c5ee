# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Sides of a comparison, each in a process of its own; they take turns.

So whatever else the machine does strikes all. A worker reads seeds from standard input, a line each, and writes what it
measured with each as a line of JSON.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def pin(cores):
    """Keeps this process to its first so many cores (Linux); None leaves it all."""
    if cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def serve(run):
    """A worker's loop, once everything is loaded: `run(seed)` returns what is JSON-able."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run(int(line))), flush=True)


def take_turns(script, arguments, repeats, seed):
    """Runs `script --worker ARGUMENTS` for each side, and a seed for each repetition in turn, the same for all.

    Args:
      script: path; it calls `serve`.
      arguments: side -> JSON-able: of its worker.
      repeats: counted ones; one goes before them, which compiles.
      seed: of the first.

    Returns:
      Side -> what it measured, in the order of the repetitions.

    Raises:
      SystemExit: if a worker ends.
    """
    # As in the Makefile: with large arrays in huge pages XLA's CPU programs take less time. All sides get it.
    environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", **os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(Path(script).resolve()), "--worker"]
    found = {side: [] for side in arguments}
    with contextlib.ExitStack() as stack:
        workers = {
            side: stack.enter_context(_worker([*command, json.dumps(given)], environment))
            for side, given in arguments.items()
        }
        for side, worker in workers.items():
            _answer(side, worker)
        for repeat in range(repeats + 1):
            for side, worker in workers.items():
                worker.stdin.write(f"{seed + repeat}\n")
                worker.stdin.flush()
                measured = _answer(side, worker)
                if repeat:
                    found[side].append(measured)
    return found


@contextlib.contextmanager
def _worker(command, environment):
    """A process that ends with the block: its standard input is closed, and it is waited for."""
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield worker
    finally:
        worker.stdin.close()
        worker.wait()


def _answer(side, worker):
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"{side} failed: see above")
    return json.loads(line)
