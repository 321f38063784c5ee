# Copyright 2026 The class_jax Authors. SPDX-License-Identifier: Apache-2.0
"""How a process finds the others of its run; imports no JAX, so that a wrong setting is reported at once."""

import dataclasses

from class_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class ProcessGroupConfig:
    """How a process finds the others of its run.

    Attributes:
      coordinator: "HOST:PORT" of host 0, reached by all. processes: how many there are. process: this one's index.
        All three or none.
      detect: takes what is not given from the cluster: SLURM, Open MPI, Cloud TPU, GKE (JAX's own detection).
      timeout: seconds in which all must have reported.

    Raises:
      InputError: if only some of the three are given, or an index or address is impossible.
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    detect: bool = False
    timeout: float = 300.0

    def __post_init__(self):
        given = {"--coordinator": self.coordinator, "--processes": self.processes, "--process": self.process}
        missing = [key for key, value in given.items() if value is None]
        if missing and not self.detect and len(missing) < 3:
            raise InputError("is not set", key=missing[0], remedy="give all of --coordinator, --processes, --process")
        if self.timeout <= 0:
            raise InputError(f"is {self.timeout:g}", key="--host_timeout", remedy="give seconds")
        if self.coordinator is not None and not self.coordinator.rpartition(":")[2].isdigit():
            raise InputError(f"is {self.coordinator!r}", key="--coordinator", remedy="give HOST:PORT of host 0")
        if self.processes is not None and self.processes < 1:
            raise InputError(f"is {self.processes}", key="--processes", remedy="give at least 1")
        if self.process is not None and not 0 <= self.process < (self.processes or self.process + 1):
            raise InputError(f"is {self.process}, of {self.processes}", key="--process", remedy="count from 0")
