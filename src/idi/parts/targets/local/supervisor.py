"""Keeps one named process running: starts it, and starts it again when it ends without being asked.

The supervisor knows nothing of modules or ports. It asks its owner what to run (`prepare`, also the
moment to write files) and tells it what happened. Modules, their sidecars and IDI's own parts are all
kept by this class. Leaving it (its task is cancelled) ends nothing: the process goes on and can be
adopted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from idi.parts.clients.machine import Machine
from idi.parts.errors import Bug, PartError
from idi.parts.targets.backoff import Backoff, Policy
from idi.parts.targets.interface import Unsupplied
from idi.parts.targets.local.process import DEFAULT_GRACE_S, Process, ProcessSpec, marker, spawn

_log = logging.getLogger(__name__)

LEFTOVERS_S = 1.0
"""What a dead process leaves in its session gets this long before it is killed: it may hold the port."""


class Owner(Protocol):
    """Whom a supervisor works for. Nothing here may block; only `prepare` may wait."""

    async def prepare(self) -> ProcessSpec | None:
        """Called before each start. None: there is nothing to run. Raises `PartError` when it cannot
        be started now."""

    def spawning(self) -> None:
        """The process starts in the next moment: record the intent, so that it can be found again."""

    def started(self, process: Process) -> None: ...

    def died(self, reason: str) -> None:
        """It ended, or could not be started, without being asked to end."""

    def looping(self, reason: str) -> None:
        """It crashes in a loop; said after each death of a loop."""

    def steady(self) -> None:
        """After a crash loop it has been up for the steady time."""


@dataclass
class Workshop:
    """What supervisors of one target share. `spawning` keeps a burst of starts from holding up the
    event loop, which looks for I/O only between two of them."""

    machine: Machine
    platform_hash: str
    policy: Policy = field(default_factory=Policy)
    spawning: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))


async def nothing() -> None:
    pass


class Supervisor:
    """`gather` is awaited before each start: what has to come from elsewhere. It may take its time, since other
    starts go on meanwhile, and raises `Unsupplied` where it came to nothing."""

    def __init__(
        self, owner: Owner, workshop: Workshop, gather: Callable[[], Awaitable[None]] = nothing
    ) -> None:
        self.process: Process | None = None
        self._owner = owner
        self._workshop = workshop
        self._gather = gather
        self._backoff = Backoff(workshop.policy)
        self._task: asyncio.Task[None] | None = None
        self._last: Process | None = None
        self._grace_s = DEFAULT_GRACE_S
        self._held = False
        self._asked: str = ""
        self._tried = asyncio.Event()
        self._now = asyncio.Event()
        self._failure: PartError | None = None

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0

    def begin(
        self,
        tasks: asyncio.TaskGroup,
        *,
        adopted: Process | None = None,
        died: str = "",
        grace_s: float = 5.0,
    ) -> None:
        """Start the process, or go on with an adopted one, or with one that died meanwhile."""
        if self._task is not None:
            raise Bug("a supervisor begins once")
        self._grace_s = grace_s
        self.process = adopted
        if adopted is not None:
            self._tried.set()
        self._task = tasks.create_task(self._keep(died))

    async def launched(self) -> None:
        """Wait for the first start; raises its `PartError` if it failed and none succeeded since."""
        await self._tried.wait()
        if self._failure is not None:
            raise self._failure

    def hold(self) -> None:
        """From now on its end is wanted: no further start."""
        self._held = True
        if self.process is None and self._task is not None:
            self._task.cancel()

    async def stop(self) -> None:
        """End it and all of its session, within its grace period. Idempotent."""
        self.hold()
        process = self.process or self._last
        if process is not None:
            await process.stop(self._grace_s)
        if self._task is not None:
            await asyncio.wait([self._task])

    async def restart(self, reason: str) -> None:
        """End it and let it start again at once; not counted as a crash."""
        if (process := self.process) is not None:
            self._asked = reason
            await process.stop(self._grace_s)

    async def retry(self, reason: str) -> None:
        """Forget its deaths; end it where it runs, and start it again without a pause."""
        self._backoff.steady()
        self._now.set()
        await self.restart(reason)

    async def _keep(self, died: str) -> None:
        delay = self._count(died, 0.0, first=True) if died else 0.0
        try:
            while True:
                if self.process is None:
                    await self._pause(delay)
                    try:
                        if not await self._start():
                            return
                    except Unsupplied as error:  # it stays, and starts when that comes
                        delay = self._count(error.message, 0.0)
                        if not error.retryable:
                            self._owner.looping(error.message)
                        continue
                    except PartError as error:
                        if not self._tried.is_set():
                            self._failure = error
                        delay = self._count(str(error), 0.0)
                        continue
                    finally:
                        self._tried.set()
                delay = await self._outlive()
                if self._held:
                    return
        finally:
            self._tried.set()
            if self.process is not None:
                self.process.forget()

    async def _pause(self, delay: float) -> None:
        try:
            async with asyncio.timeout(delay):
                await self._now.wait()
        except TimeoutError:
            pass
        self._now.clear()

    async def _start(self) -> bool:
        await self._gather()
        async with self._workshop.spawning:
            spec = await self._owner.prepare()
            if spec is None:
                return False
            self._grace_s = spec.grace_s
            self._owner.spawning()
            mark = marker(self._workshop.platform_hash, spec.name, spec.role)
            self.process = spawn(self._workshop.machine, spec, mark)
            self._failure = None
            self._owner.started(self.process)
            await asyncio.sleep(0)
        return True

    async def _outlive(self) -> float:
        """Wait until the process has ended; the delay until the next start."""
        process = self.process
        assert process is not None
        if self._backoff.looping:
            try:
                async with asyncio.timeout(self._workshop.policy.steady_s):
                    await process.wait()
            except TimeoutError:
                self._backoff.steady()
                self._owner.steady()
        await process.wait()
        self.process, self._last = None, process
        if self._held:
            return 0.0
        asked, self._asked = self._asked, ""
        if asked:
            self._owner.died(asked)
            delay = 0.0
        else:
            delay = self._count(process.ended(), process.up_s())
        try:
            await process.clear(LEFTOVERS_S)
        except PartError as error:
            _log.warning("%s", error)
        return delay

    def _count(self, reason: str, up_s: float, *, first: bool = False) -> float:
        """Tell of a death; the delay until the next start."""
        self._owner.died(reason)
        # What died while nobody watched may have been up for days.
        delay = self._backoff.died(self._workshop.policy.steady_s if first else up_s)
        if self._backoff.looping:
            self._owner.looping(f"{reason.rstrip('.')}; {self._backoff.deaths} times in a row")
        return delay
