# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stop signals that are acknowledged at once, also while the main thread compiles or waits for a device."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None], acknowledge: Callable[[int], None]) -> Iterator[None]:
    """Handles SIGINT and SIGTERM in the block; only for the main thread, where Python handles signals.

    Args:
      handler: called by Python, which may be late: only between two bytecodes of the main thread.
      acknowledge: called with the signal's number in a thread of its own, as soon as the signal arrives.
    """
    # Python writes each signal's number to this pipe when it arrives.
    read, write = os.pipe()
    os.set_blocking(write, False)

    def watch() -> None:
        while arrived := os.read(read, 1):
            acknowledge(arrived[0])
        os.close(read)

    thread = threading.Thread(target=watch, name="signals", daemon=True)
    thread.start()
    before = {number: signal.signal(number, handler) for number in NUMBERS}
    descriptor = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, former in before.items():
            signal.signal(number, former)
        os.close(write)
        thread.join()
