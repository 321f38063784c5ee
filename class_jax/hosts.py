# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Several processes of one run ("hosts"): who is there, what they agree on, and how they end together.

JAX moves the arrays; what it leaves open is here. A host that never arrives or dies makes JAX abort the others with a
page of C++; a host that ends with an error of its own lets them wait. So the hosts keep plain TCP connections to host 0
beside JAX's: the kernel closes them when a process dies, and probes them when a machine may have. Everything sent is a
line of JSON.
"""

import contextlib
import json
import logging
import os
import queue
import selectors
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from class_jax.errors import InputError

_log = logging.getLogger(__name__)
T = TypeVar("T")

LOST = 75
"""Exit status where another host was lost: the same command may well succeed (EX_TEMPFAIL of sysexits.h)."""

# A connection to a machine that is gone is given up after 4 + 4 * 3 seconds.
_IDLE_SECONDS, _PROBE_SECONDS, _PROBES = 4, 3, 4
# What a host that fails waits for the others to have read why, and they wait for an error of their own.
_LINGER_SECONDS, _GRACE_SECONDS = 3.0, 1.0
_MAX_HELLO = 65536


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


class LinkedHosts(Hosts):
    """Hosts that are connected with host 0; made by `call_roll`.

    Args:
      index: this host.
      count: hosts in all.
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
        # Of the agreement on a last step: what this host is bound to carry out, and what has been said.
        self._bound = 0
        self._stopping: str | None = None
        self._stop_at: int | None = None
        # On host 0 alone: what has come in so far.
        self._given: dict[int, dict[int, list]] = {}
        self._positions: dict[int, int] = {}
        self._left: set[int] = set()
        for peer in self._peers.values():
            _watch_connection(peer)
        for work in (self._send_all, self._read_all):
            threading.Thread(target=work, name=f"hosts{work.__name__}", daemon=True).start()

    def exchange(self, name: str, value: Any) -> list[Any]:
        """See `Hosts.exchange`."""
        with self._changed:
            number, self._number = self._number, self._number + 1
        self._tell(0, ["value", number, name, value])
        with self._changed:
            self._changed.wait_for(lambda: number in self._results)
            return self._results.pop(number)

    def stop_after(self, done: int, caught: Sequence[str]) -> str | None:
        """See `Hosts.stop_after`. Where nobody has caught a signal this costs a lock."""
        if caught and self._stopping is None:
            self._tell(0, ["stop", caught[0]])
        with self._changed:
            # Once asked where it is, a host goes no further before all have answered. Answers come from the threads
            # that read, so none waits for a step that another would have to take part in.
            self._changed.wait_for(lambda: self._stopping is None or self._stop_at is not None)
            if self._stop_at is not None and done >= self._stop_at:
                return self._stopping
            self._bound = done + 1
            return None

    def fail(self, error: BaseException) -> NoReturn:
        """See `Hosts.fail`. Waits a while where the error may be what another host's end looks like from here."""
        bad_input = isinstance(error, InputError)
        if not bad_input and type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError"):
            time.sleep(_IDLE_SECONDS + _PROBES * _PROBE_SECONDS)  # the reading thread ends the process if so
        said = str(error).partition("\n")[0]
        if not bad_input:
            said = f"{type(error).__name__}: {said}"
        status = 2 if bad_input else 1

        def show() -> None:
            if not bad_input:
                traceback.print_exception(error)

        failed = ["failed", self.index, said, status]
        self._end(said, status, failed, show)

    def leave(self) -> None:
        """See `Hosts.leave`."""
        self._tell(0, ["left", self.index])
        with self._changed:
            self._changed.wait_for(lambda: self._closed)

    def _tell(self, host: int, message: list) -> None:
        if host == self.index:
            self._handle(host, message)
        else:
            self._outgoing.put((host, message))

    def _tell_all(self, message: list) -> None:
        """From host 0 to all, itself last."""
        for host in self._peers:
            self._tell(host, message)
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
                at = f"the hosts do different things ({said_by_host(names)})"
                self._on_failed(0, 0, f"{at}; run the same command with the same files on all", 2)
                return
            self._tell_all(["values", number, [given[host][1] for host in range(self.count)]])

    def _on_values(self, sender: int, number: int, values: list) -> None:
        del sender
        self._results[number] = values

    def _on_stop(self, sender: int, name: str) -> None:
        del sender
        if self._stopping is None:
            self._tell_all(["where", name])

    def _on_where(self, sender: int, name: str) -> None:
        del sender
        self._stopping = name
        self._tell(0, ["at", self._bound])

    def _on_at(self, sender: int, bound: int) -> None:
        self._positions[sender] = bound
        if len(self._positions) == self.count:
            self._tell_all(["last", max(self._positions.values())])

    def _on_last(self, sender: int, step: int) -> None:
        del sender
        self._stop_at = step

    def _on_left(self, sender: int, host: int) -> None:
        del sender
        self._left.add(host)
        if len(self._left) == self.count:
            self._tell_all(["closed"])

    def _on_closed(self, sender: int) -> None:
        del sender
        self._closed = True

    def _on_failed(self, sender: int, host: int, said: str, status: int) -> None:
        """Ends this process, unless it is just about to end with an error of its own."""
        del sender
        self._failing = True
        threading.Thread(
            target=self._end,
            args=(said if status == LOST else f"host {host}: {said}", status, ["failed", host, said, status]),
            kwargs={"grace": 0.0 if status == LOST else _GRACE_SECONDS},
            daemon=True,
        ).start()

    def _lost(self, host: int) -> None:
        with self._changed:
            if self._closed or self._failing or host in self._left:
                return
        said = (
            f"host {host} of {self.count} is gone (it was killed, or its machine or network failed); "
            "the same command on all hosts goes on from the last checkpoint"
        )
        self._end(said, LOST, ["failed", host, said, LOST])

    def _end(
        self,
        said: str,
        status: int,
        message: list,
        show: Callable[[], None] | None = None,
        *,
        grace: float = 0.0,
    ) -> NoReturn:
        """Tells the others, prints one line and ends the process, without JAX's waiting for the others."""
        for host in self._peers:
            if host != message[1]:
                self._tell(host, message)
        time.sleep(grace)
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()  # another thread is ending the process
        if show is not None:
            show()
        print(f"error: {said}", file=sys.stderr, flush=True)
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
    """Has the kernel find out whether the machine at the other end is still there."""
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


def call_roll(
    index: int, count: int, coordinator: str, timeout: float, versions: Mapping[str, str] | None = None
) -> LinkedHosts:
    """Waits until all hosts are there and connects them.

    Host 0 listens at the coordinator's port, and leaves it when all have come, so that JAX's coordinator can take it.

    Args:
      index: this host.
      count: hosts in all.
      coordinator: "HOST:PORT" of host 0, as JAX takes it.
      timeout: seconds that host 0 waits for the others, and they for it.
      versions: what must be the same on all hosts before they can talk of anything else, by name.

    Raises:
      InputError: on all hosts that are there, if one is missing at the end (its index is named), two have the same
        index, or they differ in the count or in a version; on host 0 if the port can't be had.
    """
    address, _, port = coordinator.rpartition(":")
    hello = {"index": index, "count": count, "versions": dict(versions or {})}
    if index == 0:
        return LinkedHosts(0, count, _Roll(hello, int(port), timeout).call())
    return LinkedHosts(index, count, {0: _answer_roll(hello, address.strip("[]"), int(port), timeout)})


class _Roll:
    """Host 0's side of the roll."""

    def __init__(self, hello: dict[str, Any], port: int, timeout: float):
        self.port, self.timeout, self.count = port, timeout, hello["count"]
        self.hellos: dict[int, dict[str, Any]] = {0: hello}
        self.peers: dict[int, socket.socket] = {}
        self.strangers: dict[socket.socket, bytes] = {}  # connected, but they have not said who they are

    def call(self) -> dict[int, socket.socket]:
        """Returns the connections, by index."""
        deadline = time.monotonic() + self.timeout
        with self._listen() as server, selectors.DefaultSelector() as selector:
            selector.register(server, selectors.EVENT_READ)
            while missing := [host for host in range(self.count) if host not in self.hellos]:
                if (left := deadline - time.monotonic()) <= 0:
                    there = f"arrived: {_named(self.hellos)}" if self.peers else "none but host 0 did"
                    self._refuse(
                        f"{_named(missing)} of {self.count} did not arrive within {self.timeout:g} s ({there})",
                        "look at the output of the missing, and whether they can reach host 0",
                    )
                for key, _ in selector.select(min(left, 10.0)) or [(None, None)]:
                    if key is None:
                        _log.info("waiting for %s of %d", _named(missing), self.count)
                    elif key.fileobj is server:
                        stranger = server.accept()[0]
                        self.strangers[stranger] = b""
                        selector.register(stranger, selectors.EVENT_READ)
                    else:
                        self._read(key.fileobj, selector)
        try:
            refuse_differences({host: hello["versions"] for host, hello in self.hellos.items()})
        except InputError as error:
            self._refuse(str(error))
        for peer in self.peers.values():
            peer.sendall(b'["go"]\n')
        for stranger in self.strangers:
            stranger.close()
        return self.peers

    def _listen(self) -> socket.socket:
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        try:
            return socket.create_server(("", self.port), family=family, backlog=self.count + 16, dualstack_ipv6=both)
        except OSError as error:
            raise InputError(
                f"port {self.port} can't be listened on ({error.strerror})", key="--coordinator", remedy="take another"
            ) from error

    def _read(self, peer: socket.socket, selector: selectors.BaseSelector) -> None:
        try:
            read = peer.recv(_MAX_HELLO)
        except OSError:
            read = b""
        here = next((host for host, other in self.peers.items() if other is peer), None)
        said = self.strangers.get(peer, b"") + read
        if here is None and read and b"\n" in said:
            self._greet(peer, said)
        elif here is None and read and len(said) < _MAX_HELLO:
            self.strangers[peer] = said
        else:  # gone, or somebody else's protocol
            selector.unregister(peer)
            peer.close()
            self.strangers.pop(peer, None)
            if here is not None:
                del self.peers[here], self.hellos[here]

    def _greet(self, peer: socket.socket, said: bytes) -> None:
        try:
            hello = json.loads(said)
            index, count = int(hello["index"]), int(hello["count"])
        except (ValueError, KeyError, TypeError):
            return  # not one of ours; it stays a stranger
        if count != self.count:
            self._refuse(f"host 0 was told of {self.count} hosts, host {index} of {count}", "give all the same number")
        if index in self.hellos:
            self._refuse(f"two processes say that they are host {index}", "give each its own index")
        del self.strangers[peer]
        self.peers[index], self.hellos[index] = peer, hello

    def _refuse(self, problem: str, remedy: str | None = None) -> NoReturn:
        error = InputError(problem, remedy=remedy)
        for peer in [*self.peers.values(), *self.strangers]:
            with contextlib.suppress(OSError):
                peer.sendall(json.dumps(["refused", str(error)]).encode() + b"\n")
                peer.close()
        raise error


def _answer_roll(hello: dict[str, Any], address: str, port: int, timeout: float) -> socket.socket:
    """Another host's side of the roll: the connection to host 0."""
    deadline = time.monotonic() + timeout
    verdict, reason = [], "no answer"
    while not verdict and (left := deadline - time.monotonic()) > 0:
        peer = None
        try:
            peer = socket.create_connection((address, port), timeout=min(left, 10.0))
            peer.sendall(json.dumps(hello).encode() + b"\n")
            # Host 0 may have begun to wait later; it ends the waiting.
            peer.settimeout(timeout + 10.0)
            verdict = json.loads(_line(peer))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            if peer is not None:
                peer.close()
            time.sleep(min(left, 0.2))
    if not verdict:
        raise InputError(
            f"host 0 did not answer at {address}:{port} within {timeout:g} s ({reason})",
            remedy="look at its output, and whether this host can reach it",
        )
    if verdict[0] == "refused":
        raise InputError(verdict[1])  # in host 0's words
    return peer


def _line(peer: socket.socket) -> bytes:
    said = b""
    while not said.endswith(b"\n"):
        read = peer.recv(1)
        if not read:
            raise OSError("closed")
        said += read
    return said


def refuse_differences(values: Mapping[int, Mapping[str, Any]]) -> None:
    """Checks that all hosts have the same value for each key.

    Args:
      values: by host.

    Raises:
      InputError: naming the first key that differs, and which hosts have which value.
    """
    for key in sorted({key for mine in values.values() for key in mine}):
        mine = {host: str(values[host].get(key, "nothing")) for host in sorted(values)}
        if len(set(mine.values())) > 1:
            raise InputError(said_by_host(mine), key=key, remedy="it must be the same on all hosts")


def said_by_host(values: Mapping[int, str]) -> str:
    """Words what hosts have: "hosts 0, 2 have 4, host 1 has 8"."""
    hosts: dict[str, list[int]] = {}
    for host, value in values.items():
        hosts.setdefault(value, []).append(host)
    return ", ".join(f"{_named(some)} {'has' if len(some) == 1 else 'have'} {value}" for value, some in hosts.items())


def _named(hosts: Any) -> str:
    hosts = sorted(hosts)
    return f"host{'s' if len(hosts) > 1 else ''} {', '.join(map(str, hosts))}"
