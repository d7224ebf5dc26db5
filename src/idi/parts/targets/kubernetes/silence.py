"""Pods that have traffic and whose proxy has no stream to control: whether somebody lives there is asked.

A broken stream by itself is no death, and neither is one that never came (a pod that had traffic before this control
was started). Dead is whose agent does not answer, either, and it is asked for as long as the proxy stays away: what
answered once may end unheard later. While nobody at all has a stream it is control that is cut off, and what it does
not hear says nothing of others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from idi.parts.clients.owned_tasks import OwnedTasks
from idi.world.types import InstanceId

ASK_AGAIN_S = 1.0
ANSWERED_S = 10.0
"""After how long an agent that answered is asked once more."""
COMES_S = 10.0
"""How long a proxy may take to come to a control that has just been started: several of its tries."""


@dataclass(slots=True)
class Silence:
    """`answers` whether the agent at an address does; `reached` whether any proxy has a stream; `dead` is called once
    nobody answered twice."""

    tasks: OwnedTasks
    answers: Callable[[str], Awaitable[bool]]
    reached: Callable[[], bool]
    dead: Callable[[InstanceId], None]
    _asked: dict[InstanceId, asyncio.Task[None]] = field(default_factory=dict)

    def begin(self, pod: InstanceId, address: str, after_s: float) -> None:
        """Ask from then on; nothing where it is being asked."""
        if pod not in self._asked:
            self._asked[pod] = self.tasks.group.create_task(self._ask(pod, address, after_s))

    def end(self, pod: InstanceId) -> None:
        """Its proxy has a stream, or it has no traffic, or it is gone."""
        if task := self._asked.pop(pod, None):
            task.cancel()

    async def _ask(self, pod: InstanceId, address: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        silent = 0
        while silent < 2:
            pause = ASK_AGAIN_S
            if self.reached():
                answered = await self.answers(address)
                silent = 0 if answered else silent + 1
                pause = ANSWERED_S if answered else ASK_AGAIN_S
            await asyncio.sleep(pause)
        self._asked.pop(pod, None)
        self.dead(pod)
