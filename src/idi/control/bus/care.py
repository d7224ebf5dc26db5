"""A bus whose disk was full takes events again once there is room, and nobody has to do anything for it.

The broker does not write again to a stream that it could not write to, however much room there is later, and lets
publishers wait in vain (they are answered 503 for that). It says so when it is asked; so it is asked every few seconds,
and started anew as soon as its disk has room. Until then it goes on as it is: what is kept can still be taken, which a
broker that starts on a full disk could not promise. Nothing that was acknowledged is in danger meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from idi.parts.bus.errors import BusDown

log = logging.getLogger(__name__)

LOOK_S = 3.0
AGAIN_S = 15.0
LONGEST_S = 600.0
"""After a restart: the next one not before."""

ROOM_BYTES = 16 << 20
"""Free bytes that are worth another try."""


class Health(Protocol):
    async def faults(self) -> list[str]:
        """Why the broker keeps no more; nothing where it is well. Raises `BusDown`."""


@dataclass(slots=True)
class BusCare:
    """`ask` is a connection to the broker that runs (raises `BusDown`), `room` how many bytes its disk has free, and
    `restart` ends it so that it is started again. `notice` says in a sentence what is the matter. Where nobody can say
    how much room there is (`room` is None: the volume of a pod), a person has to say when."""

    ask: Callable[[], AbstractAsyncContextManager[Health]]
    room: Callable[[], int] | None
    restart: Callable[[], None]
    notice: str = ""
    look_s: float = LOOK_S
    again_s: float = AGAIN_S
    _pause_s: float = AGAIN_S

    def __post_init__(self) -> None:
        self._pause_s = self.again_s

    async def keep(self) -> None:
        """Look after it, until cancelled."""
        while True:
            try:
                async with self.ask() as health:
                    while True:
                        await self._look(await health.faults())
                        await asyncio.sleep(self.look_s)
            except BusDown:
                self.notice = ""  # its instance says more
            except Exception:  # nobody else would look after it
                log.exception("the bus could not be asked how it is")
            await asyncio.sleep(self.look_s)

    async def _look(self, faults: list[str]) -> None:
        if not faults:
            self.notice, self._pause_s = "", self.again_s
            return
        if self.room is None or self.room() < ROOM_BYTES:
            goes_on = "It goes on by itself once its disk has room."
            if self.room is None:
                goes_on = (
                    "It goes on once its volume has room and its pod was deleted (it comes back by itself)."
                )
            self.notice = (
                f"The bus keeps no more events ({faults[0].rstrip('.')}): publishing is refused, what is kept is still "
                f"handed out, nothing is lost. {goes_on}"
            )
            return
        self.notice = "The bus could not write to its disk, which has room again: it is being restarted."
        log.warning("%s %s", self.notice, "; ".join(faults))
        self.restart()
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(
            2 * self._pause_s, LONGEST_S
        )  # what a restart does not mend is not mended by more of them
