# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stopping between two steps on a signal."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from class_jax.common import stop_signals

_STDERR = 2


@contextlib.contextmanager
def caught_signals() -> Iterator[list[str]]:
    """Yields a list to which the name of SIGINT or SIGTERM is added when one arrives; a second one acts as usual.

    The signal is acknowledged at once by one line on standard error, also while the main thread compiles or waits for
    the device. Outside the main thread, where Python can't catch signals, the list stays empty.
    """
    caught: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in stop_signals.NUMBERS}
    seen = threading.Event()

    def note(number: int, _: FrameType | None) -> None:
        caught.append(signal.Signals(number).name)
        signal.signal(number, before[number])

    def acknowledge(number: int) -> None:
        if number not in before:
            return
        if not seen.is_set():
            name = signal.Signals(number).name
            _write_line(f"{name}: stopping after this step; a second signal stops without saving")
        elif signal.getsignal(number) is note:
            os._exit(128 + number)  # the main thread can't act on it yet
        seen.set()

    with stop_signals.handled(note, acknowledge):
        yield caught


def _write_line(line: str) -> None:
    """Writes to standard error, not through its lock; on a terminal it erases the progress bar first."""
    erase = "\r\x1b[K" if os.isatty(_STDERR) else ""
    with contextlib.suppress(OSError):
        os.write(_STDERR, f"{erase}{line}\n".encode())
