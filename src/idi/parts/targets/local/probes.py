"""Who asks an instance on this machine whether it is ready: over the network, or by a command of its own.

A command runs in the module's environment and folder, so it can be asked only where the module's processes are ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from idi.declaration.types import Readiness
from idi.parts.clients.machine import Machine
from idi.parts.errors import PartError
from idi.parts.targets.local.process import ProcessSpec, shell, spawn
from idi.parts.targets.readiness import Probe, network_probe


class CommandProbe:
    """Whether a command succeeds in the module's environment; killed when it takes too long."""

    def __init__(self, machine: Machine, spec: ProcessSpec, mark: str, timeout_s: float) -> None:
        self._machine = machine
        self._spec = spec
        self._mark = mark
        self._timeout_s = timeout_s

    async def ask(self) -> str:
        try:
            process = spawn(self._machine, self._spec, self._mark)
        except PartError as error:
            return error.message
        try:
            async with asyncio.timeout(self._timeout_s):
                await process.wait()
        except TimeoutError:
            return f"not done within {self._timeout_s:g}s"
        finally:
            # Also on cancellation, and what a finished command left behind.
            with suppress(PartError):
                await process.clear(0.0)
            process.forget()
        return "" if process.code == 0 else f"it {process.ended()}"

    def close(self) -> None:
        """Nothing is kept open."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Where to ask: the instance's ports, and what a command needs."""

    ports: Mapping[str, int]
    machine: Machine
    env: Mapping[str, str]
    cwd: Path
    name: str
    mark: str


def make_probe(readiness: Readiness, asked: Asked) -> tuple[str, Probe]:
    """What is asked, for people, and who asks."""
    if readiness.command:
        timeout_s = readiness.timeout_s
        spec = ProcessSpec(
            asked.name, "probe", shell(readiness.command), asked.env, asked.cwd, Path("/dev/null"), timeout_s
        )
        return f"'{readiness.command}'", CommandProbe(asked.machine, spec, asked.mark, timeout_s)
    return network_probe(readiness, asked.ports[readiness.port])
