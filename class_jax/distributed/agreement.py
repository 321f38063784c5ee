# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""Values that must be the same on all hosts, and the message that reports a difference."""

from collections.abc import Iterable, Mapping
from typing import Any

from class_jax.errors import InputError


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
            raise InputError(values_by_host(mine), key=key, remedy="it must be the same on all hosts")


def values_by_host(values: Mapping[int, str]) -> str:
    """Describes which hosts have which value: "hosts 0, 2 have 4, host 1 has 8"."""
    hosts: dict[str, list[int]] = {}
    for host, value in values.items():
        hosts.setdefault(value, []).append(host)
    return ", ".join(f"{named(some)} {'has' if len(some) == 1 else 'have'} {value}" for value, some in hosts.items())


def named(hosts: Iterable[int]) -> str:
    """Names hosts: "host 1", "hosts 0, 2"."""
    hosts = sorted(hosts)
    return f"host{'s' if len(hosts) > 1 else ''} {', '.join(map(str, hosts))}"
