"""Noticing that the machine slept or that its clock was set.

Nothing announces either. BOOTTIME runs through sleep and MONOTONIC does not, so their difference grows by
a sleep; the wall clock minus MONOTONIC moves when it is set. Both are read once a second, which costs
nothing; certificates are then renewed before anything else is done about it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

EVERY_S = 1.0
SLEPT_S = 2.0
SET_S = 5.0


async def notice_jumps(
    suspended_s: Callable[[], float],
    jumped: Callable[[], None],
    *,
    wall: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Call `jumped` after each sleep or setting of the clock, until cancelled.

    `suspended_s` is how long the machine has slept since it booted. A wall clock that is slowly adjusted
    moves by less than the bound between two looks and is not noticed.
    """
    slept, offset = suspended_s(), wall() - monotonic()
    while True:
        await sleep(EVERY_S)
        slept_now, offset_now = suspended_s(), wall() - monotonic()
        if slept_now - slept > SLEPT_S:
            log.info("the machine slept for %.0f s", slept_now - slept)
            jumped()
        elif abs(offset_now - offset) > SET_S:
            log.info("the clock was set by %.0f s", offset_now - offset)
            jumped()
        slept, offset = slept_now, offset_now
