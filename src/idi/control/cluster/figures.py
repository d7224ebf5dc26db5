"""The figures of a pod's sidecar, asked of its agent: what a status on a cluster shows of traffic.

Agents are asked a bounded number at a time, and whatever was not answered by the end of a look is left out: a node that
went away must not make a status slow. An agent is a pod's, so what it says is bounded and checked like a stranger's.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import aiohttp

from idi.parts.errors import PartError
from idi.parts.gateway.envoy.admin import Figures
from idi.parts.targets.kubernetes.pods import AGENT_PORT
from idi.world.types import Instance

ANSWER_S = 1.0
BESIDE = 32
"""Agents that are asked at once."""
MOST_BYTES = 4096


@dataclass(slots=True)
class PodFigures:
    """Asked through `session`."""

    session: aiohttp.ClientSession
    port: int = AGENT_PORT
    answer_s: float = ANSWER_S
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(BESIDE))

    async def read(self, instance: Instance) -> Figures:
        """Raises `PartError` where they cannot be had in time, waiting for a place included."""
        try:
            async with asyncio.timeout(self.answer_s), self._places:
                return await self._ask(instance.address)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise PartError(
                f"The agent of {instance.id} tells no figures: {error or 'it took too long'}."
            ) from error

    async def _ask(self, address: str) -> Figures:
        if not address:
            raise ValueError("it has no address yet")
        host = f"[{address}]" if ":" in address else address
        async with self.session.get(f"http://{host}:{self.port}/figures", allow_redirects=False) as answer:
            if answer.status != 200:
                raise ValueError(f"it answers {answer.status}")
            raw = await answer.content.read(MOST_BYTES + 1)
            while len(raw) <= MOST_BYTES and (more := await answer.content.read(MOST_BYTES)):
                raw += more
        if len(raw) > MOST_BYTES:
            raise ValueError("its answer is too large")
        return Figures.of(json.loads(raw))
