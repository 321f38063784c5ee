# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""How the processes of a run find each other: all report to host 0, and an error names those that are missing."""

import contextlib
import json
import logging
import selectors
import socket
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from class_jax.distributed.agreement import named, refuse_differences
from class_jax.distributed.process_group import ConnectedProcessGroup
from class_jax.errors import InputError

_log = logging.getLogger(__name__)
_MAX_HELLO = 65536


def rendezvous(
    index: int, count: int, coordinator: str, timeout: float, versions: Mapping[str, str] | None = None
) -> ConnectedProcessGroup:
    """Waits until all hosts have reported to host 0, and connects them.

    Host 0 listens at the coordinator's port and frees it when all have reported: JAX's own coordinator takes it next.

    Args:
      index: of this host.
      count: number of hosts.
      coordinator: "HOST:PORT" of host 0, as JAX takes it.
      timeout: seconds that host 0 waits for the others, and they for it.
      versions: name -> version, which must be the same on all hosts.

    Raises:
      InputError: on all hosts that have reported, if one is missing at the end (the message has its index), two have
        the same index, or they differ in the count or in a version; on host 0 if the port can't be listened on.
    """
    address, _, port = coordinator.rpartition(":")
    hello = {"index": index, "count": count, "versions": dict(versions or {})}
    if index == 0:
        return ConnectedProcessGroup(0, count, _Coordinator(hello, int(port), timeout).connections())
    return ConnectedProcessGroup(
        index, count, {0: _report_to_coordinator(hello, address.strip("[]"), int(port), timeout)}
    )


class _Coordinator:
    """Host 0's side of the rendezvous."""

    def __init__(self, hello: dict[str, Any], port: int, timeout: float):
        self.port, self.timeout, self.count = port, timeout, hello["count"]
        self.hellos: dict[int, dict[str, Any]] = {0: hello}
        self.peers: dict[int, socket.socket] = {}
        self.unidentified: dict[socket.socket, bytes] = {}  # connected, but not identified yet

    def connections(self) -> dict[int, socket.socket]:
        """Waits for all hosts; returns the connection to each, by index."""
        deadline = time.monotonic() + self.timeout
        with self._listen() as server, selectors.DefaultSelector() as selector:
            selector.register(server, selectors.EVENT_READ)
            while missing := [host for host in range(self.count) if host not in self.hellos]:
                if (left := deadline - time.monotonic()) <= 0:
                    there = f"arrived: {named(self.hellos)}" if self.peers else "none but host 0 did"
                    self._refuse(
                        f"{named(missing)} of {self.count} did not arrive within {self.timeout:g} s ({there})",
                        "look at the output of the missing, and whether they can reach host 0",
                    )
                for key, _ in selector.select(min(left, 10.0)) or [(None, None)]:
                    if key is None:
                        _log.info("waiting for %s of %d", named(missing), self.count)
                    elif key.fileobj is server:
                        newcomer = server.accept()[0]
                        self.unidentified[newcomer] = b""
                        selector.register(newcomer, selectors.EVENT_READ)
                    else:
                        self._read(key.fileobj, selector)
        try:
            refuse_differences({host: hello["versions"] for host, hello in self.hellos.items()})
        except InputError as error:
            self._refuse(str(error))
        for peer in self.peers.values():
            peer.sendall(b'["go"]\n')
        for newcomer in self.unidentified:
            newcomer.close()
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
        received = self.unidentified.get(peer, b"") + read
        if here is None and read and b"\n" in received:
            self._greet(peer, received)
        elif here is None and read and len(received) < _MAX_HELLO:
            self.unidentified[peer] = received
        else:  # gone, or somebody else's protocol
            selector.unregister(peer)
            peer.close()
            self.unidentified.pop(peer, None)
            if here is not None:
                del self.peers[here], self.hellos[here]

    def _greet(self, peer: socket.socket, received: bytes) -> None:
        try:
            hello = json.loads(received)
            index, count = int(hello["index"]), int(hello["count"])
        except (ValueError, KeyError, TypeError):
            return  # not a host of this run
        if count != self.count:
            self._refuse(
                f"--processes is {self.count} on host 0 and {count} on host {index}", "give the same number to all"
            )
        if index in self.hellos:
            self._refuse(f"two processes have index {index}", "give each its own index")
        del self.unidentified[peer]
        self.peers[index], self.hellos[index] = peer, hello

    def _refuse(self, problem: str, remedy: str | None = None) -> NoReturn:
        error = InputError(problem, remedy=remedy)
        for peer in [*self.peers.values(), *self.unidentified]:
            with contextlib.suppress(OSError):
                peer.sendall(json.dumps(["refused", str(error)]).encode() + b"\n")
                peer.close()
        raise error


def _report_to_coordinator(hello: dict[str, Any], address: str, port: int, timeout: float) -> socket.socket:
    """Another host's side of the rendezvous: returns the connection to host 0."""
    deadline = time.monotonic() + timeout
    verdict, reason = [], "no answer"
    while not verdict and (left := deadline - time.monotonic()) > 0:
        peer = None
        try:
            peer = socket.create_connection((address, port), timeout=min(left, 10.0))
            peer.sendall(json.dumps(hello).encode() + b"\n")
            # Host 0 may have started to wait later: it decides when the time is up.
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
    received = b""
    while not received.endswith(b"\n"):
        read = peer.recv(1)
        if not read:
            raise OSError("closed")
        received += read
    return received
