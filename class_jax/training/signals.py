# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stopping between two steps on a signal."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM)
_STDERR = 2


@contextlib.contextmanager
def caught_signals(stopping: str = "stopping after this step") -> Iterator[list[str]]:
    """Yields a list to which the name of SIGINT or SIGTERM is added when one arrives; a second one acts as usual.

    The signal is acknowledged at once by one line on standard error, also while the main thread compiles or waits for
    the device. Outside the main thread, where Python can't catch signals, the list stays empty.

    Args:
      stopping: the line's text after the signal's name.
    """
    caught: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, _: FrameType | None) -> None:
        caught.append(signal.Signals(number).name)
        signal.signal(number, before[number])

    # Python writes each signal's number here when it arrives; it calls `note` only between two bytecodes.
    read, write = os.pipe()
    os.set_blocking(write, False)
    thread = threading.Thread(target=_acknowledge, args=(read, note, stopping), name="signals", daemon=True)
    thread.start()
    before = {number: signal.signal(number, note) for number in NUMBERS}
    descriptor = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield caught
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(write)
        thread.join()
        os.close(read)


def _acknowledge(read: int, handler: object, stopping: str) -> None:
    """Writes a line for the first signal; a second one ends the process if the main thread can't act on it yet."""
    seen = False
    while arrived := os.read(read, 1):
        number = arrived[0]
        if number not in NUMBERS:
            continue
        if not seen:
            _write_line(f"{signal.Signals(number).name}: {stopping}; a second signal stops without saving")
        elif signal.getsignal(number) is handler:
            os._exit(128 + number)
        seen = True


def _write_line(line: str) -> None:
    """Writes to standard error, not through its lock; on a terminal it erases the progress bar first."""
    erase = "\r\x1b[K" if os.isatty(_STDERR) else ""
    with contextlib.suppress(OSError):
        os.write(_STDERR, f"{erase}{line}\n".encode())
