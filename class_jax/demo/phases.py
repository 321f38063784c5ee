# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Phases of a long job: what is being done and for how long, and stop signals acknowledged at once."""

import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from tqdm import tqdm

from class_jax.common import stop_signals
from class_jax.errors import InputError

_TICK, _LINE_EVERY = 0.5, 10.0  # seconds between updates on a terminal, and between lines in a log


class Phases:
    """Prints a line when a phase begins and shows its running time: a ticking bar on a terminal, lines in a log.

    Args:
      folder: of the job, for errors.
      console: where it prints.
    """

    def __init__(self, folder: Path, console: Console):
        self.folder, self.console, self._begun = folder, console, time.monotonic()

    def say(self, text: str) -> None:
        """Prints a line with the job's running time."""
        with tqdm.external_write_mode():
            seconds = time.monotonic() - self._begun
            self.console.print(f"[bold green]\\[{seconds:4.0f} s][/bold green] {escape(text)}", highlight=False)

    @contextlib.contextmanager
    def phase(self, what: str) -> Iterator[Callable[[str], None]]:
        """A phase of the job; yields a function that takes a few words on how far it is.

        Raises:
          InputError: after SIGINT or SIGTERM.
        """
        self.say(what)
        how_far = [""]
        ended = threading.Event()
        thread = threading.Thread(target=self._show, args=(what, how_far, ended), daemon=True)
        with self._acknowledged(what):
            thread.start()
            try:
                yield lambda words: how_far.__setitem__(0, words)
            finally:
                ended.set()
                thread.join()

    def _show(self, what: str, how_far: list[str], ended: threading.Event) -> None:
        begun = written = time.monotonic()
        with tqdm(desc=what, bar_format="{desc}: {elapsed}{postfix}", leave=False, disable=None) as bar:
            while not ended.wait(_TICK):
                bar.set_postfix_str(how_far[0], refresh=False)
                bar.refresh()
                if bar.disable and time.monotonic() - written >= _LINE_EVERY:
                    written = time.monotonic()
                    done = f" ({how_far[0]})" if how_far[0] else ""
                    self.say(f"{what}: {written - begun:.0f} s so far{done}")

    @contextlib.contextmanager
    def _acknowledged(self, what: str) -> Iterator[None]:
        """Acknowledges a signal when it arrives, and ends the phase as soon as Python handles it."""
        if threading.current_thread() is not threading.main_thread():
            yield  # Python handles signals in the main thread only
            return

        caught = []

        def stop(number: int, _: object) -> None:
            caught.append(number)
            raise KeyboardInterrupt

        def acknowledge(number: int) -> None:
            if number in caught or signal.getsignal(number) is stop:  # training handles its own
                self.say(f"{signal.Signals(number).name}: stopping; what is finished stays")

        try:
            with stop_signals.handled(stop, acknowledge):
                yield
        except KeyboardInterrupt as error:
            problem = f"stopped while {what}"
            raise InputError(problem, file=self.folder, remedy="the same command resumes") from error


def in_child(function: Callable[..., Any], *arguments: object) -> Any:
    """Calls a function in a new process: for libraries that let no other thread of their process run."""
    ignored = (signal.SIGINT, signal.SIG_IGN)  # this process ends the child
    with multiprocessing.get_context("spawn").Pool(1, signal.signal, ignored) as pool:
        return pool.apply(function, arguments)
