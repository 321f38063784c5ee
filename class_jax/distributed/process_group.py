# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""A process group over TCP connections to host 0: hosts exchange values, notice a lost host, and end together."""

import contextlib
import json
import os
import queue
import selectors
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from class_jax.distributed import ProcessGroup
from class_jax.distributed.agreement import values_by_host
from class_jax.errors import InputError

LOST = 75
"""Exit status where another host was lost: the same command may well succeed (EX_TEMPFAIL of sysexits.h)."""

# A connection to a machine that is gone is given up after 4 + 4 * 3 seconds.
_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 4, 3, 4
# How long a failing host waits for the others to read its message, and they for an error of their own.
_LINGER_SECONDS, _GRACE_SECONDS = 3.0, 1.0


class ConnectedProcessGroup(ProcessGroup):
    """Processes that are connected to host 0; made by `rendezvous`.

    Args:
      index: of this host.
      count: number of hosts.
      peers: open connections: from host 0 to each other host, or from another host to host 0.
    """

    def __init__(self, index: int, count: int, peers: Mapping[int, socket.socket]):
        self.index, self.count = index, count
        self._peers = dict(peers)
        self._outgoing: queue.SimpleQueue = queue.SimpleQueue()
        self._changed = threading.Condition(threading.RLock())
        self._number = 0
        self._results: dict[int, list] = {}
        self._closed = self._failing = False
        self._ending = threading.Lock()
        # The agreement on the last step: the step that this host will take in any case, and the answers so far.
        self._bound = 0
        self._stopping: str | None = None
        self._stop_at: int | None = None
        # Only on host 0: what has been received so far.
        self._given: dict[int, dict[int, list]] = {}
        self._positions: dict[int, int] = {}
        self._left: set[int] = set()
        for peer in self._peers.values():
            _watch_connection(peer)
        for work in (self._send_all, self._read_all):
            threading.Thread(target=work, name=f"hosts{work.__name__}", daemon=True).start()

    def exchange(self, name: str, value: Any) -> list[Any]:
        """See `ProcessGroup.exchange`."""
        with self._changed:
            number, self._number = self._number, self._number + 1
        self._send(0, ["value", number, name, value])
        with self._changed:
            self._changed.wait_for(lambda: number in self._results)
            return self._results.pop(number)

    def stop_after(self, done: int, caught: Sequence[str]) -> str | None:
        """See `ProcessGroup.stop_after`. Where nobody has caught a signal this costs a lock."""
        if caught and self._stopping is None:
            self._send(0, ["stop", caught[0]])
        with self._changed:
            # Once asked for its step, a host takes no further one before all have answered. The reading threads
            # answer, so no host waits for a step that needs another host.
            self._changed.wait_for(lambda: self._stopping is None or self._stop_at is not None)
            if self._stop_at is not None and done >= self._stop_at:
                return self._stopping
            self._bound = done + 1
            return None

    def fail(self, error: BaseException) -> NoReturn:
        """See `ProcessGroup.fail`. Waits a while if the error may come from the loss of another host."""
        bad_input = isinstance(error, InputError)
        if not bad_input and type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError"):
            time.sleep(_IDLE_SECONDS + _PROBES * _PROBE_SECONDS)  # in that case the reading thread ends the process
        reason = str(error).partition("\n")[0]
        if not bad_input:
            reason = f"{type(error).__name__}: {reason}"
        status = 2 if bad_input else 1

        def show() -> None:
            if not bad_input:
                traceback.print_exception(error)

        failed = ["failed", self.index, reason, status]
        self._end(reason, status, failed, show)

    def leave(self) -> None:
        """See `ProcessGroup.leave`."""
        self._send(0, ["left", self.index])
        with self._changed:
            self._changed.wait_for(lambda: self._closed)

    def _send(self, host: int, message: list) -> None:
        if host == self.index:
            self._handle(host, message)
        else:
            self._outgoing.put((host, message))

    def _send_to_each(self, message: list) -> None:
        """Sends from host 0 to all hosts; host 0 itself handles the message last."""
        for host in self._peers:
            self._send(host, message)
        self._handle(self.index, message)

    def _send_all(self) -> None:
        while True:
            host, message = self._outgoing.get()
            if isinstance(message, threading.Event):
                message.set()
                continue
            with contextlib.suppress(OSError):  # the reading thread sees that the peer is gone
                self._peers[host].sendall(json.dumps(message).encode() + b"\n")

    def _read_all(self) -> None:
        with selectors.DefaultSelector() as selector:
            for host, peer in self._peers.items():
                selector.register(peer, selectors.EVENT_READ, host)
            waiting = dict.fromkeys(self._peers, b"")
            while True:
                for key, _ in selector.select():
                    host = key.data
                    try:
                        read = key.fileobj.recv(1 << 16)
                    except OSError:
                        read = b""
                    if not read:
                        selector.unregister(key.fileobj)
                        self._lost(host)
                        continue
                    *lines, waiting[host] = (waiting[host] + read).split(b"\n")
                    for line in lines:
                        self._handle(host, json.loads(line))

    def _handle(self, sender: int, message: list) -> None:
        kind, *rest = message
        with self._changed:
            getattr(self, f"_on_{kind}")(sender, *rest)
            self._changed.notify_all()

    def _on_value(self, sender: int, number: int, name: str, value: Any) -> None:
        given = self._given.setdefault(number, {})
        given[sender] = [name, value]
        if len(given) == self.count:
            del self._given[number]
            names = {host: given[host][0] for host in range(self.count)}
            if len(set(names.values())) > 1:
                at = f"the hosts do different things ({values_by_host(names)})"
                self._on_failed(0, 0, f"{at}; run the same command with the same files on all", 2)
                return
            self._send_to_each(["values", number, [given[host][1] for host in range(self.count)]])

    def _on_values(self, sender: int, number: int, values: list) -> None:
        del sender
        self._results[number] = values

    def _on_stop(self, sender: int, name: str) -> None:
        del sender
        if self._stopping is None:
            self._send_to_each(["where", name])

    def _on_where(self, sender: int, name: str) -> None:
        del sender
        self._stopping = name
        self._send(0, ["at", self._bound])

    def _on_at(self, sender: int, bound: int) -> None:
        self._positions[sender] = bound
        if len(self._positions) == self.count:
            self._send_to_each(["last", max(self._positions.values())])

    def _on_last(self, sender: int, step: int) -> None:
        del sender
        self._stop_at = step

    def _on_left(self, sender: int, host: int) -> None:
        del sender
        self._left.add(host)
        if len(self._left) == self.count:
            self._send_to_each(["closed"])

    def _on_closed(self, sender: int) -> None:
        del sender
        self._closed = True

    def _on_failed(self, sender: int, host: int, reason: str, status: int) -> None:
        """Ends this process, unless it is already ending with an error of its own."""
        del sender
        self._failing = True
        threading.Thread(
            target=self._end,
            args=(reason if status == LOST else f"host {host}: {reason}", status, ["failed", host, reason, status]),
            kwargs={"grace": 0.0 if status == LOST else _GRACE_SECONDS},
            daemon=True,
        ).start()

    def _lost(self, host: int) -> None:
        with self._changed:
            if self._closed or self._failing or host in self._left:
                return
        reason = (
            f"host {host} of {self.count} is gone (it was killed, or its machine or network failed); "
            "the same command on all hosts resumes from the last checkpoint"
        )
        self._end(reason, LOST, ["failed", host, reason, LOST])

    def _end(
        self,
        reason: str,
        status: int,
        message: list,
        show: Callable[[], None] | None = None,
        *,
        grace: float = 0.0,
    ) -> NoReturn:
        """Notifies the others, prints one line and ends the process at once; JAX's own shutdown would wait for them."""
        for host in self._peers:
            if host != message[1]:
                self._send(host, message)
        time.sleep(grace)
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()  # another thread is ending the process
        if show is not None:
            show()
        print(f"error: {reason}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        sent = threading.Event()
        self._outgoing.put((self.index, sent))
        sent.wait(_LINGER_SECONDS)
        if self.index == 0:
            # JAX's service lives in this process: the others must have ended before, or it aborts them.
            self._await_ends(time.monotonic() + _LINGER_SECONDS)
        os._exit(status)

    def _await_ends(self, deadline: float) -> None:
        for peer in self._peers.values():
            with contextlib.suppress(OSError):
                while (left := deadline - time.monotonic()) > 0:
                    peer.settimeout(left)
                    if not peer.recv(1 << 16):
                        break


def _watch_connection(peer: socket.socket) -> None:
    """Lets the kernel probe whether the machine at the other end still answers."""
    peer.settimeout(None)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    limits = {
        "TCP_KEEPIDLE": _IDLE_SECONDS,
        "TCP_KEEPINTVL": _PROBE_SECONDS,
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": 1000 * (_IDLE_SECONDS + _PROBES * _PROBE_SECONDS),
    }
    for name, value in limits.items():
        if hasattr(socket, name):  # Linux has them all
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
