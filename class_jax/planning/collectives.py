# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""The collectives of a compiled step and the bytes that they move, read from the compiler's text.

A loop's body counts as often as it runs (XLA notes the number of turns beside a `while`). Devices need not exist: a
step compiled for eight CPU devices (`--xla_force_host_platform_device_count=8`) has the collectives of eight
accelerators, except for what each backend's own passes join or split.
"""

import collections
import dataclasses
import math
import re
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_SIZES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_SIZES |= {"s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16}

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?[\w.\-]+ = (?P<shape>\(.*?\)|\S+) (?P<op>[\w\-]+)\(")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:to_apply|calls|body|condition|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_IOTA_GROUPS = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
_LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_MESH_GROUPS = re.compile(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}")


@dataclasses.dataclass
class Traffic:
    """What one device does of a kind of collective in a step.

    Attributes:
      times: how often. result_bytes: sizes of the results. moved_bytes: what a device sends in a ring.
    """

    times: int = 0
    result_bytes: int = 0
    moved_bytes: int = 0


class _Found(NamedTuple):
    kind: str
    result: int
    moved: int


def collectives(hlo: str) -> dict[str, Traffic]:
    """Sums up the collectives of a compiled program.

    Args:
      hlo: `compiled.as_text()`, after partitioning: its sizes are one device's.

    Returns:
      Traffic by kind; kinds that don't occur are left out.
    """
    own, calls, entry = _read(hlo)
    found: dict[str, Traffic] = {}
    times: collections.Counter[str] = collections.Counter()

    def visit(name: str, count: int) -> None:
        times[name] += count
        for called, turns in calls.get(name, ()):
            visit(called, count * turns)

    visit(entry, 1)
    for name, count in times.items():
        for one in own.get(name, ()):
            traffic = found.setdefault(one.kind, Traffic())
            traffic.times += count
            traffic.result_bytes += count * one.result
            traffic.moved_bytes += count * one.moved
    return found


def _read(hlo: str) -> tuple[dict[str, list[_Found]], dict[str, list[tuple[str, int]]], str]:
    """Collectives by computation, the computations that each calls and how often, and the first one's name."""
    own: dict[str, list[_Found]] = collections.defaultdict(list)
    calls: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
    current = entry = ""
    for line in hlo.splitlines():
        if started := _COMPUTATION.match(line):
            current = started[1]
            entry = current if line.startswith("ENTRY") else entry
        elif instruction := _INSTRUCTION.match(line):
            op = instruction["op"].removesuffix("-start")
            if op in KINDS:
                own[current].append(_traffic(op, instruction["shape"], line, started=instruction["op"] != op))
            elif not instruction["op"].endswith("-done"):
                turns = int(known[1]) if (known := _TURNS.search(line)) else 1
                for names in _CALLED.findall(line):
                    calls[current] += [(name.strip(" %"), turns) for name in names.strip("{}").split(",")]
    return own, calls, entry


def _traffic(op: str, shape: str, line: str, *, started: bool) -> _Found:
    arrays = [
        _SIZES.get(kind, 4) * math.prod(map(int, filter(None, dims.split(",")))) for kind, dims in _ARRAY.findall(shape)
    ]
    # An asynchronous start returns its operand besides (and a permutation two counters).
    result = max(arrays) if started and len(arrays) > 1 else sum(arrays)
    ways = _ways(line)
    share = (ways - 1) / ways
    factor = {"all-reduce": 2 * share, "reduce-scatter": ways - 1, "collective-permute": 1}.get(op, share)
    return _Found(op, result, round(result * factor))


def _ways(line: str) -> int:
    """How many devices take part: groups as `[count,size]<=...`, `{{0,1},...}` or `mesh['a'=2,'b'=4] {'b'}`."""
    if groups := _IOTA_GROUPS.search(line):
        return int(groups[2])
    if groups := _LISTED_GROUPS.search(line):
        return len(groups[1].split(","))
    if groups := _MESH_GROUPS.search(line):
        sizes = dict(axis.split("=") for axis in groups[1].split(","))
        return math.prod(int(sizes[axis.strip()]) for axis in groups[2].split(","))
    return 2  # a permutation: all of it goes to one neighbour
