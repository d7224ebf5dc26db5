"""How an instance goes without a request meeting a closed door.

Its endpoint is out of the world already (`InstanceStopping` was folded). What is left is to be sure that
every proxy knows: push, wait until all have acknowledged or count as lost, let the sidecar say goodbye to
its connections, wait until nothing is in flight. Only then the target ends the process.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Protocol

from idi.control.loop import Loop
from idi.parts.errors import PartError
from idi.parts.gateway.interface import DataPlane
from idi.world.types import Instance

log = logging.getLogger(__name__)

BARRIER_S = 5.0
DRAIN_S = 10.0


class Drain(Protocol):
    async def __call__(self, node: str, deadline_s: float) -> None: ...


@dataclass(slots=True)
class Retiring:
    """`hurry` is set while everything goes down: then nobody is left to wait for."""

    loop: Loop
    plane: DataPlane
    drain: Drain
    blind_s: float = DRAIN_S
    _hurried: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def hurry(self) -> bool:
        return self._hurried.is_set()

    @hurry.setter
    def hurry(self, hurried: bool) -> None:
        (self._hurried.set if hurried else self._hurried.clear)()

    async def retire(self, instance: Instance) -> None:
        """Return when no more traffic comes to the instance. Never raises: it goes in any case."""
        if self.hurry:
            return
        self.loop.flush()
        result = await self.plane.barrier(BARRIER_S)
        if result.lost:
            log.warning("retiring %s: no word from %s", instance.id, ", ".join(result.lost))
        try:
            await self.drain(instance.id, DRAIN_S)
        except PartError as error:
            log.warning("draining %s: %s", instance.id, error)
            if instance.sidecar_pid:
                await self._wait_blindly()
        except Exception:  # a bug in here must cost neither the instance its end nor the others their control
            log.exception("draining %s", instance.id)

    async def _wait_blindly(self) -> None:
        """Its sidecar serves but cannot be asked (the runtime folder vanished, and its socket with it): nobody
        says when the last request is answered, so it gets all the time that a drain has."""
        try:
            async with asyncio.timeout(self.blind_s):
                await self._hurried.wait()
        except TimeoutError:
            pass
