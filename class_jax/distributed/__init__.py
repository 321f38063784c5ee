# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Several processes of one run ("hosts"): who is there, what they agree on, and how they end together.

JAX moves the arrays; what it leaves open is here. A host that never arrives or dies makes JAX abort the others with a
page of C++; a host that ends with an error of its own lets them wait. So the hosts keep plain TCP connections to host 0
beside JAX's: the kernel closes them when a process dies, and probes them when a machine may have. Everything sent is a
line of JSON.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Hosts:
    """The hosts of a run; this class is the only host of a run on one.

    Attributes:
      index: this host, from 0.
      count: hosts in all.
    """

    index = 0
    count = 1

    def exchange(self, name: str, value: Any) -> list[Any]:
        """Gives `value` (JSON-able) to all hosts and returns those of all, in their order.

        All hosts call this, `meet` and `first` with the same names in the same order, each from its main thread. There
        is no time limit: a host that is lost or fails ends them all.
        """
        del name
        return [value]

    def meet(self, name: str) -> None:
        """Waits until all hosts are here."""
        self.exchange(name, None)

    def first(self, name: str, work: Callable[[], T]) -> T:
        """Does `work` on host 0 before the others: what it makes on a shared disk, they find."""
        if self.index == 0:
            done = work()
            self.meet(name)
            return done
        self.meet(name)
        return work()

    def stop_after(self, done: int, caught: Sequence[str]) -> str | None:
        """Whether all hosts stop after `done` steps: the name of the signal that one of them has caught, or None.

        Called between any two steps; steps up to the answer are carried out by all hosts.
        """
        del done
        return caught[0] if caught else None

    def fail(self, error: BaseException) -> None:
        """Ends all hosts with the error's message, and does not return; does nothing on an only host."""

    def leave(self) -> None:
        """Waits until all hosts are through with their work; nothing is watched from then on."""


ALONE = Hosts()
