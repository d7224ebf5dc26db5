"""One of IDI's own processes (OpenBao, the gateway), kept by the same supervisor as a module.

Its record names the process, so the next control adopts it. When it is ready is decided by who knows
what the process is for; here only starts, deaths and crash loops are told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from idi.parts.errors import PartError
from idi.parts.targets.interface import Emit
from idi.parts.targets.local.process import Process, ProcessSpec
from idi.parts.targets.local.seats import Occupant, Records
from idi.parts.targets.local.strays import living, marked
from idi.parts.targets.local.supervisor import Supervisor, Workshop
from idi.world.events import PartChanged
from idi.world.types import PartState

_log = logging.getLogger(__name__)

BeforeStart = Callable[[], Awaitable[None]]


class Part:
    """A part that is kept running."""

    def __init__(
        self,
        spec: ProcessSpec,
        workshop: Workshop,
        records: Records,
        emit: Emit,
        before_start: BeforeStart | None,
    ) -> None:
        self.spec = spec
        self._workshop = workshop
        self._records = records
        self._emit = emit
        self._before_start = before_start
        self._supervisor = Supervisor(self, workshop)
        self._occupant = Occupant()
        self._looping = False

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def pid(self) -> int:
        return self._supervisor.pid

    @property
    def alive(self) -> bool:
        return self._supervisor.process is not None

    async def launched(self) -> None:
        """Wait until it is started or adopted; raises `PartError` if it cannot be started."""
        await self._supervisor.launched()

    async def restart(self, reason: str) -> None:
        """End it and start it again as its spec now says."""
        await self._supervisor.restart(reason)

    async def stop(self) -> None:
        """End it, and do not start it again. Idempotent."""
        await self._supervisor.stop()
        self._records.remove(self.name)
        self._tell("absent", "stopped")

    def begin(self, tasks: asyncio.TaskGroup, record: Mapping[str, Any] | None) -> None:
        """Adopt what the record names, or start."""
        process = None
        if record is not None:
            self._occupant = Occupant(**record.get("process", {}))
            process = find(self._workshop, self.name, record)
        self._supervisor.begin(tasks, adopted=process, grace_s=self.spec.grace_s)
        if process is not None and record is not None:
            self._occupant = Occupant(process.pid, process.started)
            self._tell("starting", "")

    # --- what its supervisor tells

    async def prepare(self) -> ProcessSpec:
        if self._before_start is not None:
            await self._before_start()
        return self.spec

    def spawning(self) -> None:
        self._occupant.pending = True
        self._record_or_warn(first=self._occupant.pid == 0)

    def started(self, process: Process) -> None:
        self._occupant = Occupant(process.pid, process.started)
        self._tell("failed" if self._looping else "starting", "")
        self._record_or_warn(first=False)

    def died(self, reason: str) -> None:
        self._tell("unready", reason)

    def looping(self, reason: str) -> None:
        self._looping = True
        self._tell("failed", reason)

    def steady(self) -> None:
        self._looping = False  # that it is ready has been said by who knows what it is for

    def _tell(self, state: PartState, reason: str) -> None:
        self._emit(PartChanged(self.name, state, time.time(), self.pid, reason))

    def _record_or_warn(self, *, first: bool) -> None:
        """On a full disk what crashed starts again: its marker still names it."""
        try:
            self._record()
        except PartError as error:
            if first:
                raise
            _log.warning("%s: %s", self.name, error)

    def _record(self) -> None:
        self._records.write(self.name, {"role": self.spec.role, "process": asdict(self._occupant)})


def find(workshop: Workshop, name: str, record: Mapping[str, Any]) -> Process | None:
    """The living process of a part's record, watched again."""
    machine, platform_hash = workshop.machine, workshop.platform_hash
    occupant = Occupant(**record.get("process", {}))
    processes = marked(machine, platform_hash) if occupant.pending else []
    return living(machine, platform_hash, name, str(record.get("role")), occupant, processes)
