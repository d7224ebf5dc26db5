"""Who may change something now: one change at a time, in the order in which they were asked for.

Up to `QUEUE` wait, further ones are refused. Two do not wait for what is pointless by then: a `down` not for what will
be stopped anyway (the change before it gives up waiting for instances), and a new `up` not for one that control took up
by itself after a restart: that one ends at the next boundary of a step, each step with its outcome in the journal, and
what it had left is in the new one's plan. If the new one never comes to hold, what gave way is taken up once more.
Whoever waits hears what for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from idi.control.change.apply import Executor
from idi.control.change.changes import Change
from idi.parts.errors import Refused

QUEUE = 16
SAY_S = 5.0


@dataclass(slots=True)
class Turns:
    """`running` is the change that is being made."""

    executor: Executor
    tasks: asyncio.TaskGroup
    running: Change | None = None
    _downs: int = 0
    _waiting: int = 0
    _ups: int = 0
    """Those of the waiting that are an `up` of somebody's."""
    _resumed: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def leaving(self) -> bool:
        """Whether a `down` is being made or waits."""
        return self._downs > 0

    def check(self) -> None:
        """Raises `Refused` where too many wait."""
        if self._waiting >= QUEUE:
            raise Refused(f"{QUEUE} changes are waiting already.", "Try again when they are done.")

    def announce(self, change: Change, action: str) -> None:
        """It is going to come: what it waits for, if it does."""
        self._waiting += 1
        if self.running is None:
            return
        if action == "up" and self._resumed:
            change.message(
                f"'{self.running.title}', which control had taken up again, ends after the step that it is at."
            )
        else:
            change.message(f"Waiting for '{self.running.title}' to end.")

    @asynccontextmanager
    async def turn(self, change: Change, action: str, *, resumed: bool = False) -> AsyncIterator[None]:
        """The turn of a change that was announced."""
        down = action == "down"
        self._leave(self._downs + down)
        try:
            await self._come(change, before=action == "up" and not resumed)
            self.running, self._resumed = change, resumed
            self.executor.superseded = resumed and self._ups > 0
            yield
        finally:
            if self.running is change:
                change.gave_way = self.executor.superseded
                self.running, self._resumed, self.executor.superseded = None, False, False
                self._lock.release()
            self._leave(self._downs - down)

    async def _come(self, change: Change, *, before: bool) -> None:
        """`before` what was resumed: that ends if it is running, and where it comes to its turn meanwhile."""
        self._ups += before
        if before and self._resumed:
            self.executor.superseded = True
            self.executor.loop.wake()
        telling = self.tasks.create_task(self._tell(change))
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
            self._ups -= before
            telling.cancel()

    async def _tell(self, change: Change) -> None:
        """What is done meanwhile, each time it is something else."""
        said = ""
        while True:
            await asyncio.sleep(SAY_S)
            now = f"'{self.running.title}' is at: {self.running.doing()}." if self.running else said
            if now != said:
                change.message(now)
                said = now

    def _leave(self, downs: int) -> None:
        self._downs, self.executor.leaving = downs, downs > 0
        self.executor.loop.wake()
