"""Takes the pod out before its module is ended: nobody sends to it any more, and what is under way is done.

Control takes the endpoint out and answers when every proxy has acknowledged that; then Envoy's inbound side is
drained. The kubelet sends SIGTERM to the module only after its question is answered, so no request meets a module
that is on its way out. A control that is away must not hold a pod: after two seconds it is drained without it.

Whoever reaches the agent's port can say that the pod stops, so control has the last word: it knows from the API server
whether the pod is about to go, and where it is not, nothing happens (`refused`).

A gateway has no proxies before it but a Service: those that learn of its end by themselves (kube-proxy, load
balancers) need a moment, during which it serves as before.
"""

from __future__ import annotations

import asyncio
import logging

from idi.agent.door import Away, Door
from idi.agent.envoy import Envoy
from idi.agent.reporting import FIRST_PAUSE_S, spread
from idi.agent.state import State
from idi.parts.errors import PartError
from idi.parts.gateway.envoy import admin

PATH = "/v1/pods/self/stopping"
AWAY_S = 2.0
BARRIER_S = 12.0
"""Control answers within ten seconds."""
SETTLE_S = 3.0
NOT_LEAVING = 409
"""Control's answer where the pod is not about to go."""

_log = logging.getLogger(__name__)


class Stopping:
    """`run` once; whoever comes later waits for the same. `ending`: the kernel said so, and needs nobody's leave."""

    def __init__(self, state: State, door: Door, envoy: Envoy, drain_s: float, *, gateway: bool) -> None:
        self._state = state
        self._door = door
        self._envoy = envoy
        self._drain_s = drain_s
        self._gateway = gateway
        self.begun = asyncio.Event()
        self.done = asyncio.Event()
        self.ending = False
        self._answered: asyncio.Future[str] = asyncio.get_event_loop().create_future()
        """Why not, or empty once it is done; another one for whoever asks after a refusal."""

    async def run(self) -> None:
        """Wait until somebody begins it, then do it; wait again where control says no."""
        while True:
            await self.begun.wait()
            self._state.stopping = True
            refused = await self._barrier()
            if not refused or self.ending:
                break
            self._state.stopping = False
            self.begun.clear()
            answered, self._answered = self._answered, asyncio.get_event_loop().create_future()
            answered.set_result(refused)
        socket = self._envoy.admin_socket
        try:
            if self._gateway:
                await admin.ask(socket, "POST", "/healthcheck/fail")
                await asyncio.sleep(SETTLE_S)
            if not await admin.drain(socket, self._drain_s, "gateway" if self._gateway else "in"):
                _log.warning("after %gs requests are still under way", self._drain_s)
        except PartError as error:
            _log.warning("not drained: %s", error)
        self.done.set()
        self._answered.set_result("")

    async def asked(self) -> str:
        """Somebody says so: begin it, unless it has begun; empty once it is done, else why it is not."""
        answered = self._answered
        self.begun.set()
        return await asyncio.shield(answered)

    async def end(self) -> None:
        """The kernel says so: begin it, unless it has begun, and wait until it is done."""
        self.ending = True
        self.begun.set()
        await self.done.wait()

    async def _barrier(self) -> str:
        """Empty once nobody sends any more, or control is away; else why control says no."""
        loop = asyncio.get_running_loop()
        end, since = loop.time() + BARRIER_S + AWAY_S, loop.time()
        while True:
            asked = loop.time()
            left = min(end, since + AWAY_S) - asked
            try:
                await self._door.post(
                    PATH, {}, max(0.1, min(BARRIER_S, end - asked)), connect_s=max(0.1, left)
                )
                return ""
            except Away as away:
                if away.status == NOT_LEAVING:
                    return "control knows nothing of it"
                now = loop.time()
                if now - asked > AWAY_S:
                    since = now  # it was there, and broke off
                if now >= min(end, since + AWAY_S):
                    _log.warning("drained without control: %s", away)
                    return ""
            await asyncio.sleep(spread(FIRST_PAUSE_S))
