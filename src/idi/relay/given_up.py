"""Dead letters of modules that take from the broker themselves.

The relay hands them nothing, so it is the broker that counts their attempts and says when one came to the end. What it
says is kept until the letter is: a relay that ends in between writes the same letter again, which is kept once.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing

from idi.parts.bus.interface import Bus, GivenUp
from idi.parts.errors import IdiError
from idi.relay import letters

log = logging.getLogger(__name__)

AGAIN_S = 2.0


async def bury(bus: Bus) -> None:
    """Write a letter for each, until cancelled."""
    while True:
        try:
            async with aclosing(bus.given_up()) as found:
                async for one in found:
                    await _bury(bus, one)
        except Exception:  # nobody's trouble here may end deliveries
            log.exception("what was given up")
        await asyncio.sleep(AGAIN_S)


async def _bury(bus: Bus, one: GivenUp) -> None:
    try:
        event = await bus.event(one.topic, one.sequence)
        if event is not None:  # else it was too old meanwhile
            reason = f"was not acknowledged in {one.attempts} attempts"
            key = letters.key_of(one.module, event)
            await letters.write(bus, key, one.module, letters.believed(event, ""), reason, [], one.attempts)
            log.warning("%s is dead for %s: %s", one.topic, one.module, reason)
        await one.delivery.done()
    except (IdiError, TimeoutError) as error:  # it is told again
        log.info("%s %s for %s: %s", one.topic, one.sequence, one.module, error)
