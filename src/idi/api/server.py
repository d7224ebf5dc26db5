"""The control API over a Unix socket: who asks is known by the kernel, not by what they say.

Every connection's peer credential (pid, uid) becomes the actor of what it changes; the socket is 0600,
so only the user who runs the platform (and root) gets that far. Changes answer JSON lines while they
run; a client that goes away does not cancel them. Every error is problem+json (RFC 9457).
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from aiohttp import web
from aiohttp.typedefs import Middleware

from idi.api.asker import Asker, Role
from idi.api.asking import Prove, bearer, body_of, may, need, need_each, peer_of, proving
from idi.api.openapi import openapi
from idi.api.problems import problem_of, problems
from idi.api.types import (
    AuditView,
    ChangeRequest,
    ConfigView,
    DeadView,
    EnvironmentView,
    EventView,
    KeysView,
    LogsRequest,
    LogView,
    PlanView,
    Progress,
    PublishedView,
    PublishRequest,
    RegistrationRequest,
    RegistrationView,
    ReplayRequest,
    ReplayView,
    RunView,
    SecretsView,
    StatusView,
    TokenRequest,
    TokenView,
    UpRequest,
)
from idi.parts.errors import IdiError, PartError

BODY_LIMIT = 2 * 1024 * 1024
WATCH_PAUSE_S = 0.1
WATCH_EVERY_S = 1.0
MOST_SOURCES = 100
LATEST = 1e11
MOST_DIGITS = 15
EMPTY = object()


class Control(Protocol):
    """What the API needs of control."""

    async def status(self, figures: bool) -> StatusView: ...

    async def next_change(self, timeout_s: float) -> None: ...

    async def plan(self, request: UpRequest) -> PlanView: ...

    async def config(self) -> ConfigView: ...

    async def change(self, request: ChangeRequest, peer: Asker) -> AsyncIterator[Progress]: ...

    async def token(self, request: TokenRequest, peer: Asker) -> TokenView: ...

    async def register(self, request: RegistrationRequest, peer: Asker) -> RegistrationView: ...

    async def heartbeat(self, instance: str, credential: str) -> None: ...

    async def deregister(self, instance: str, credential: str, peer: Asker) -> None: ...

    async def environment(
        self, module: str, instance: str, *, reveal: bool, peer: Asker
    ) -> EnvironmentView: ...

    async def run_started(self, instance: str, pid: int, peer: Asker) -> None: ...

    def run(self, instance: str) -> AsyncGenerator[RunView]: ...

    async def publish(self, request: PublishRequest, peer: Asker) -> PublishedView: ...

    async def tail(
        self, topics: list[str], since: int, attributes: Mapping[str, str]
    ) -> AsyncGenerator[EventView]: ...

    async def dead(self) -> AsyncGenerator[DeadView]: ...

    async def replay(self, request: ReplayRequest, peer: Asker) -> ReplayView: ...

    async def logs(self, request: LogsRequest) -> AsyncGenerator[LogView | None]:
        """None now and then where nothing comes."""
        ...

    async def list_secrets(self) -> SecretsView: ...

    async def audit(self, start: int, limit: int) -> AuditView: ...

    async def list_keys(self) -> KeysView: ...


GATEWAY_URL = "x-idi-gateway-url"
"""By which address whoever asks reaches the gateway, where that is another than the gateway's own."""


def seen_from(request: web.Request, view: StatusView) -> StatusView:
    url = request.headers.get(GATEWAY_URL, "")
    return {**view, "gateway": {**view["gateway"], "url": url}} if url else view


CHANGES: Mapping[str, Mapping[str, type]] = {
    "up": {"text": str, "file": str},
    "deploy": {"text": str, "file": str, "modules": list},
    "scale": {"modules": dict},
    "restart": {"modules": list},
    "config": {"module": str, "set": dict, "unset": list, "expect": int},
    "down": {},
    "run": {"module": str},
    "hand-over": {"module": str},
    "give-back": {"module": str},
    "secret": {"path": str},
    "keys": {"keys": list},
}


class Server:
    """The handlers; one method per path."""

    def __init__(self, control: Control) -> None:
        self.control = control

    def application(self, prove: Prove | None = None) -> web.Application:
        """With `prove` a token says who asks, else the kernel does."""
        asked: list[Middleware] = [problems, proving(prove)] if prove else [problems]
        app = web.Application(middlewares=asked, client_max_size=BODY_LIMIT)
        app.router.add_get("/v1/status", self.status)
        app.router.add_get("/v1/watch", self.watch)
        app.router.add_post("/v1/plan", self.plan)
        app.router.add_post("/v1/changes", self.change)
        app.router.add_get("/v1/config", self.config)
        app.router.add_post("/v1/tokens", self.token)
        app.router.add_post("/v1/registrations", self.register)
        app.router.add_put("/v1/registrations/{instance}", self.heartbeat)
        app.router.add_delete("/v1/registrations/{instance}", self.deregister)
        app.router.add_get("/v1/environment", self.environment)
        app.router.add_get("/v1/runs/{instance}", self.run)
        app.router.add_put("/v1/runs/{instance}", self.run_started)
        app.router.add_get("/v1/events", self.tail)
        app.router.add_post("/v1/events", self.publish)
        app.router.add_get("/v1/dead-letters", self.dead)
        app.router.add_post("/v1/dead-letters/replay", self.replay)
        app.router.add_get("/v1/logs", self.logs)
        app.router.add_get("/v1/secrets", self.secrets)
        app.router.add_get("/v1/keys", self.keys)
        app.router.add_get("/v1/audit", self.audit)
        app.router.add_get("/v1/openapi.json", self.openapi)
        return app

    async def status(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        return web.json_response(seen_from(request, await self.control.status("figures" in request.query)))

    async def watch(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        response = await lines(request)
        while await write_line(response, seen_from(request, await self.control.status(True))):
            await self.control.next_change(WATCH_EVERY_S)
            await asyncio.sleep(WATCH_PAUSE_S)
        return response

    async def plan(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        document = await body_of(request)
        need(document, {"text": str, "file": str})
        return web.json_response(await self.control.plan(cast(UpRequest, document)))

    async def change(self, request: web.Request) -> web.StreamResponse:
        peer = peer_of(request)
        document = await body_of(request)
        fields = CHANGES.get(str(document.get("action")))
        if fields is None:
            raise web.HTTPBadRequest(text=f"'action' must be one of {', '.join(CHANGES)}.")
        if isinstance(peer, Role):
            peer.check(str(document["action"]))
        need(document, fields)
        may(document, {"value": str, "now": bool, "why": str})
        need_each(document.get("keys", ()), str, "keys")
        need_each(document.get("modules", ()), str, "modules")
        if document["action"] == "config":
            need_each(
                document["set"].values(), (str, int, float), "set"
            )  # true and false are whole numbers too
            need_each(document["unset"], str, "unset")
        progress = await self.control.change(cast(ChangeRequest, document), peer)
        response = await lines(request)  # refusals came before this and kept their status
        async for item in progress:
            if not await write_line(response, item):
                return response
        await response.write_eof()
        return response

    async def config(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        return web.json_response(await self.control.config(), headers={"cache-control": "no-store"})

    async def token(self, request: web.Request) -> web.StreamResponse:
        peer = peer_of(request)
        document = await body_of(request)
        may(document, {"client": str, "new_secret": bool, "scopes": list, "ttl_s": (int, float)})
        need_each(document.get("scopes", ()), str, "scopes")
        if isinstance(peer, Role) and document.get("new_secret"):
            peer.check("client-secret")
        answer = await self.control.token(cast(TokenRequest, document), peer)
        return web.json_response(answer, headers={"cache-control": "no-store"})

    async def register(self, request: web.Request) -> web.StreamResponse:
        peer = peer_of(request)
        document = await body_of(request)
        need(document, {"module": str, "port": int, "ttl_s": (int, float)})
        answer = await self.control.register(cast(RegistrationRequest, document), peer)
        return web.json_response(answer, status=201, headers={"cache-control": "no-store"})

    async def heartbeat(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        await self.control.heartbeat(request.match_info["instance"], bearer(request))
        return web.Response(status=204)

    async def deregister(self, request: web.Request) -> web.StreamResponse:
        peer = peer_of(request)
        await self.control.deregister(request.match_info["instance"], bearer(request), peer)
        return web.Response(status=204)

    async def environment(self, request: web.Request) -> web.StreamResponse:
        peer, query = peer_of(request), request.query
        answer = await self.control.environment(
            query.get("module", ""), query.get("instance", ""), reveal="reveal" in query, peer=peer
        )
        return web.json_response(answer, headers={"cache-control": "no-store"})

    async def run(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        return await self._stream(request, self.control.run(request.match_info["instance"]))

    async def run_started(self, request: web.Request) -> web.StreamResponse:
        peer = peer_of(request)
        document = await body_of(request)
        need(document, {"pid": int})
        await self.control.run_started(request.match_info["instance"], document["pid"], peer)
        return web.Response(status=204)

    async def publish(self, request: web.Request) -> web.StreamResponse:
        peer = peer_of(request)
        document = await body_of(request)
        need(document, {"event": dict})
        return web.json_response(await self.control.publish(cast(PublishRequest, document), peer))

    async def tail(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        since = request.query.get("since", "0")
        if not since.isdecimal() or len(since) > 18:
            raise web.HTTPBadRequest(text="'since' is a sequence, a whole number.")
        pairs = [pair.partition("=") for pair in request.query.getall("attribute", [])]
        wanted = {name: value for name, _, value in pairs}
        found = await self.control.tail(request.query.getall("topic", []), int(since), wanted)
        return await self._stream(request, found)

    async def dead(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        return await self._stream(request, await self.control.dead())

    async def replay(self, request: web.Request) -> web.StreamResponse:
        peer = peer_of(request)
        document = await body_of(request)
        may(document, {"ids": list, "module": str})
        need_each(document.get("ids", ()), int, "ids")
        return web.json_response(await self.control.replay(cast(ReplayRequest, document), peer))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        query = request.query
        try:
            tail, since = int(query.get("tail", "0")), float(query.get("since", "0"))
        except ValueError as error:
            raise web.HTTPBadRequest(text="'tail' and 'since' are numbers.") from error
        sources = query.getall("source", [])
        if tail < 0 or not 0 <= since < LATEST or len(sources) > MOST_SOURCES:
            raise web.HTTPBadRequest(text=f"At most {MOST_SOURCES} sources, and no number below 0.")
        asked: LogsRequest = {"sources": sources, "tail": tail, "since": since, "follow": "follow" in query}
        return await self._stream(request, await self.control.logs(asked))

    async def secrets(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        return web.json_response(await self.control.list_secrets(), headers={"cache-control": "no-store"})

    async def keys(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        return web.json_response(await self.control.list_keys(), headers={"cache-control": "no-store"})

    async def audit(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        numbers = [request.query.get(name, "0") for name in ("start", "limit")]
        if not all(one.isdecimal() and len(one) <= MOST_DIGITS for one in numbers):
            raise web.HTTPBadRequest(text="'start' and 'limit' are whole numbers.")
        answer = await self.control.audit(*map(int, numbers))
        return web.json_response(answer, headers={"cache-control": "no-store"})

    async def _stream(self, request: web.Request, items: AsyncGenerator[object]) -> web.StreamResponse:
        """A line for each, until they end or the client is gone; either ends the other. What goes wrong in the
        middle is a problem document on the last line."""
        response = await lines(request)
        try:
            async with aclosing(items) as open_items:
                async for item in open_items:
                    # An empty line tells nothing, but shows whether the client is there.
                    if not await write_line(response, item if item is not None else EMPTY):
                        return response
        except* IdiError as errors:
            await write_line(response, problem_of(errors.exceptions[0]))
        await response.write_eof()
        return response

    async def openapi(self, request: web.Request) -> web.StreamResponse:
        peer_of(request)
        return web.json_response(openapi())


async def lines(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/jsonl", "cache-control": "no-store"})
    await response.prepare(request)
    return response


async def write_line(response: web.StreamResponse, document: object) -> bool:
    """False when the client is gone."""
    line = b"" if document is EMPTY else json.dumps(document, separators=(",", ":")).encode()
    try:
        await response.write(line + b"\n")
    except ConnectionResetError:
        return False
    return True


def private_socket(path: Path) -> socket.socket:
    """A bound Unix socket. Nobody can connect before it listens, and by then its mode is in force. (Changing
    the process's mask instead would spoil the folders that others make meanwhile.)"""
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        bound.close()
        raise PartError(f"{path} cannot be made: {error.strerror or error}.") from error
    return bound


@asynccontextmanager
async def serve(control: Control, path: Path) -> AsyncIterator[None]:
    """Serve the API on a Unix socket, 0600 from its first moment."""
    remove = partial(path.unlink, missing_ok=True)
    runner = web.AppRunner(
        Server(control).application(), access_log=None, handle_signals=False, shutdown_timeout=1.0
    )
    await runner.setup()
    try:
        await web.SockSite(runner, private_socket(path)).start()
        yield
    finally:
        await runner.cleanup()
        remove()
