"""Who goes next, where events of the same value go one after another.

A value that is in somebody's hands has a lane; whoever else has an event of it waits there, and the one with the lowest
sequence is next. Lanes are there only while somebody is in them, so there are never more than events in hand.

Before `begin` everybody waits: who comes first then is not who is first.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Lanes:
    def __init__(self) -> None:
        self._waiting: dict[str, list[tuple[int, asyncio.Future[None]]]] = {}
        self._begun = False

    def begin(self) -> None:
        self._begun = True
        for value in [*self._waiting]:
            self._next(value)

    @asynccontextmanager
    async def turn(self, value: str, sequence: int) -> AsyncIterator[None]:
        """Inside it, nobody else of this value is."""
        if value not in self._waiting and self._begun:
            self._waiting[value] = []
        else:
            lane = self._waiting.setdefault(value, [])
            mine = asyncio.get_running_loop().create_future()
            heapq.heappush(lane, (sequence, mine))
            try:
                await mine
            except asyncio.CancelledError:
                # It may have become this one's turn in the same moment: then it is the next one's.
                if mine.done() and not mine.cancelled():
                    self._next(value)
                raise
        try:
            yield
        finally:
            self._next(value)

    def _next(self, value: str) -> None:
        lane = self._waiting[value]
        while lane:
            _, following = heapq.heappop(lane)
            if not following.done():
                following.set_result(None)
                return
        del self._waiting[value]

    def __len__(self) -> int:
        return len(self._waiting)
