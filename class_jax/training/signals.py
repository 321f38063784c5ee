# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Stopping between two steps when asked to."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def caught_signals() -> Iterator[list[str]]:
    """Yields a list that gets the name of SIGINT or SIGTERM when one comes; a second one acts as usual.

    Outside the main thread, where Python can't catch signals, the list stays empty.
    """
    caught: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        caught.append(signal.Signals(number).name)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
