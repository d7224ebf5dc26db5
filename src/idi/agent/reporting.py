"""Tells control how it stands: at once when that changed, again after every reconnect, and every ten seconds.

Each report says everything, so a lost one costs nothing but time, and a control that knows nothing learns it all
within seconds. Many pods hear of a dead control in the same millisecond: pauses between tries grow and are spread.
While control has not let calls in yet, it is asked again soon: what it waits for (proxies that acknowledge) takes
milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import random

from idi.agent.door import Away, Door
from idi.agent.state import State

PATH = "/v1/pods/self/report"
EVERY_S = 10.0
REASON_EVERY_S = 3.0
"""A reason alone is told this often at most: it changes with every question that a starting module is asked."""
LOST_S = 1.0
"""After a lost connection not sooner than this since the last report, lest a door that closes after each answer is
hammered."""
ANSWER_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0

_log = logging.getLogger(__name__)


class Reporter:
    """`run` owns the reporting; the others only say that there is something to tell."""

    def __init__(self, state: State, door: Door) -> None:
        self._state = state
        self._door = door
        self._wake = asyncio.Event()
        self._due = 0.0
        self._told_at = float("-inf")
        self._loop = asyncio.get_running_loop()
        self._trouble = ""
        state.changed, door.lost = self.changed, self.lost

    def changed(self, urgent: bool) -> None:
        """The report is another one now."""
        self._sooner(0.0 if urgent else self._told_at + REASON_EVERY_S)

    def lost(self) -> None:
        """The connection ended by itself; control may have been restarted."""
        self._sooner(self._told_at + spread(LOST_S))

    async def run(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            await self._until_due()
            round_, report = self._state.round, self._state.report()
            self._due = float("inf")
            try:
                answer = await self._door.post(PATH, report, ANSWER_S)
            except Away as away:
                self._say(str(away))
                await asyncio.sleep(spread(pause))
                pause = min(2 * pause, LONGEST_PAUSE_S)
                self._due = 0.0
                continue
            self._say("")
            self._told_at = self._loop.time()
            self._state.answered(round_, bool(report["ready"]), answer.get("in_rotation") is True)
            if self._state.can_serve and not self._state.in_rotation and not self._state.stopping:
                self._sooner(self._told_at + spread(pause))
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                pause = FIRST_PAUSE_S
            self._sooner(self._told_at + EVERY_S)

    async def _until_due(self) -> None:
        while (left := self._due - self._loop.time()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _sooner(self, at: float) -> None:
        if at < self._due:
            self._due = at
            self._wake.set()

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.info("control: %s", trouble or "reached again")
            self._trouble = trouble


def spread(pause_s: float) -> float:
    """Between half of it and all of it."""
    return pause_s * (0.5 + random.random() / 2)
