"""An instance that somebody runs themselves, in a seat of ours: whose two processes it is, and when it is over.

`idi run` holds the seat as long as it lives; the command that it started is the module. Both are children of
somebody's terminal, not of ours, so they are watched by pidfd, named by pid and start time in the seat's record, and
found again by the next control. Nothing here needs a heartbeat: a process that is stopped, by a debugger or by
Ctrl-Z, is alive.

A process that stands at a breakpoint answers no probe, and that must not cost it the request for which somebody set
the breakpoint. So it is asked as declared until it is ready for the first time; from then on it counts as ready
while it lives and listens. Whether it listens is seen without connecting: what stands still accepts nothing, and
connections of ours would fill its queue until no caller's had room.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from idi.parts.clients.machine import Machine
from idi.parts.errors import Refused
from idi.parts.targets.local.ports import Free
from idi.parts.targets.local.process import MARKER, Process, adopt
from idi.parts.targets.local.seats import Occupant, Seat
from idi.parts.targets.readiness import Probe

KILLED_S = 5.0
"""How long to wait for what was killed."""


class Lent:
    """`changed` is called when it becomes known that it is `over` (why, for people)."""

    def __init__(
        self, machine: Machine, seat: Seat, tasks: asyncio.TaskGroup, changed: Callable[[], None]
    ) -> None:
        self.over = ""
        self._machine = machine
        self._seat = seat
        self._tasks = tasks
        self._changed = changed
        self._command: Process | None = None
        self._watched: list[Process] = []
        self._waiting: list[asyncio.Task[None]] = []

    def begin(self, command: Process | None = None) -> None:
        """Watch who holds the seat, and the command if there is one already."""
        seat = self._seat
        self._watch(self._living(seat.holder), f"{seat.by}'s idi run has ended")
        if seat.module.pid:
            self._take(command)

    def command(self, pid: int, asking: int) -> None:
        """The command was started; idempotent. Raises `Refused` unless the holder says so."""
        if asking != self._seat.holder.pid:
            raise Refused(f"{self._seat.instance} is held by process {self._seat.holder.pid}.")
        seen = self._machine.look(pid)
        told = Occupant(pid, seen.started if seen else 0)
        if told == self._seat.module and self._command is not None:
            return  # it is said again whenever control was away
        self._seat.module = told
        self._take(self._living(self._seat.module))

    async def end(self, grace_s: float) -> None:
        """End the command: it goes with its seat."""
        self.over = self.over or "its seat was taken back"
        if self._command is not None and self._command.alive:
            for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILLED_S)):
                self._command.send(number)
                self._command.send(signal.SIGCONT)  # a stopped one hears of it only then
                try:
                    async with asyncio.timeout(wait_s):
                        await self._command.wait()
                    break
                except TimeoutError:
                    continue
        self.leave()

    def leave(self) -> None:
        """Stop watching."""
        for task in self._waiting:
            task.cancel()
        for process in self._watched:
            process.forget()

    def _living(self, occupant: Occupant) -> Process | None:
        # A terminal may have been opened by a module of ours, and what runs in it has its marker.
        mark = self._machine.variable(occupant.pid, MARKER) or ""
        return adopt(self._machine, occupant.pid, occupant.started, mark)

    def _take(self, command: Process | None) -> None:
        self._command = command
        self._watch(command, f"{self._seat.by}'s command has ended")

    def _watch(self, process: Process | None, reason: str) -> None:
        if process is None:
            self._ended(reason)
        else:
            self._watched.append(process)
            self._waiting.append(self._tasks.create_task(self._wait(process, reason)))

    async def _wait(self, process: Process, reason: str) -> None:
        await process.wait()
        self._ended(reason)

    def _ended(self, reason: str) -> None:
        if not self.over:
            self.over = reason
        self._changed()

    @property
    def serves(self) -> bool:
        """Whether the command may still answer."""
        return self._command is not None and self._command.alive


class Standing:
    """Asks as declared until `settled`, then only whether its port is held."""

    def __init__(self, declared: Probe, port: int, free: Free, settled: Callable[[], bool]) -> None:
        self._declared = declared
        self._port = port
        self._free = free
        self._settled = settled

    async def ask(self) -> str:
        if not self._settled():
            return await self._declared.ask()
        self._declared.close()
        return "nobody listens there" if self._port and self._free(self._port) else ""

    def close(self) -> None:
        self._declared.close()
