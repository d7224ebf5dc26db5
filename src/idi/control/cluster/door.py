"""The door of pods: what agents say, and what they wait for. HTTPS with a token, on a cluster.

A token says whose pod speaks; a body never does. `report` answers whether the instance has traffic now, and only after
every proxy has heard of it, since kubelet takes that answer for ready and may end another pod for it. `stopping`
returns when no proxy sends anything there any more: kubelet holds the pod's SIGTERM back for so long.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from idi.api.asking import bearer, body_of
from idi.api.problems import problems

PORT = 8443
BODY_LIMIT = 16 * 1024
READ_S = 5.0
LONGEST_REASON = 1000

Prove = Callable[[str], Awaitable[str | None]]
"""The pod that a token belongs to; None where it belongs to none of this environment."""


class Pods(Protocol):
    """What is done with what they say."""

    async def report(self, pod: str, *, ready: bool, reason: str) -> bool:
        """Whether it has traffic now."""

    async def stopping(self, pod: str) -> None: ...


@dataclass(slots=True)
class PodDoor:
    pods: Pods
    prove: Prove

    def application(self) -> web.Application:
        app = web.Application(middlewares=[problems], client_max_size=BODY_LIMIT)
        app.router.add_post("/v1/pods/self/report", self.report)
        app.router.add_post("/v1/pods/self/stopping", self.stopping)
        return app

    async def report(self, request: web.Request) -> web.StreamResponse:
        pod, document = await self._pod(request), await in_time(request)
        ready, reason = document.get("ready"), document.get("reason", "")
        if not isinstance(ready, bool) or not isinstance(reason, str):
            raise web.HTTPBadRequest(text="'ready' is true or false, 'reason' a text.")
        if document.get("envoy") == "down" and ready:  # nobody gets through to it
            ready, reason = False, "its Envoy does not run"
        return web.json_response(
            {"in_rotation": await self.pods.report(pod, ready=ready, reason=reason[:LONGEST_REASON])}
        )

    async def stopping(self, request: web.Request) -> web.StreamResponse:
        await self.pods.stopping(await self._pod(request))
        return web.json_response({})

    async def _pod(self, request: web.Request) -> str:
        pod = await self.prove(bearer(request))
        if pod is None:
            raise web.HTTPUnauthorized(text="The token belongs to no pod of this environment.")
        return pod


async def in_time(request: web.Request) -> dict[str, Any]:
    try:
        async with asyncio.timeout(READ_S):
            return await body_of(request)
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="The body did not arrive in time.") from None


@asynccontextmanager
async def listening(
    app: web.Application, address: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve on this port (0: a free one); which it is."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, port, ssl_context=tls)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
