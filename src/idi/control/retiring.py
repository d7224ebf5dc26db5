"""How an instance goes without a request meeting a closed door.

Its endpoint is out of the world already (`InstanceStopping` was folded). What is left is to be sure that
every proxy knows: push, wait until all have acknowledged or count as lost, let the sidecar say goodbye to
its connections, wait until nothing is in flight. Only then the target ends the process.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
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
    hurry: bool = False

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
        except Exception:  # a bug in here must cost neither the instance its end nor the others their control
            log.exception("draining %s", instance.id)
