# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The processes of a run ("hosts", each with an index): values that they exchange, and how they end together.

JAX moves arrays between them; the rest is here. When a host never arrives or dies, JAX aborts the others with a page of
C++; when one ends with an error of its own, the others wait. So all hosts keep plain TCP connections to host 0 beside
JAX's: the kernel closes them when a process dies, and probes them in case a machine has. Messages are lines of JSON.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class ProcessGroup:
    """The processes of a run; this class is a group of one.

    Attributes:
      index: of this process, from 0.
      count: number of processes.
    """

    index = 0
    count = 1

    def exchange(self, name: str, value: Any) -> list[Any]:
        """Gathers one `value` (JSON) from each host; all hosts get the same list, ordered by index.

        All hosts call this, `meet` and `first` with the same names in the same order, each from its main thread. There
        is no time limit: a host that is lost or fails ends all of them.
        """
        del name
        return [value]

    def meet(self, name: str) -> None:
        """Waits until all hosts have called this."""
        self.exchange(name, None)

    def first(self, name: str, work: Callable[[], T]) -> T:
        """Calls `work` on host 0 first, then on the others, which find what it wrote to the shared disk."""
        if self.index == 0:
            done = work()
            self.meet(name)
            return done
        self.meet(name)
        return work()

    def stop_after(self, done: int, caught: Sequence[str]) -> str | None:
        """Returns the name of the signal that one of the hosts has caught if all of them stop after `done` steps.

        Called between any two steps. None lets the host take the next step; all hosts stop after the same step.
        """
        del done
        return caught[0] if caught else None

    def fail(self, error: BaseException) -> None:
        """Ends all hosts with the error's message and does not return; does nothing in a group of one."""

    def leave(self) -> None:
        """Waits until all hosts have finished; from then on a lost host is no error."""


SINGLE_PROCESS = ProcessGroup()
