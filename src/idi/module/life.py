"""A module's life, and what becomes of a request in each part of it.

Starting: it listens at once, and says on its readiness path that it is not ready yet; what was registered with
`lifespan` is entered. Ready: it answers. Draining (SIGTERM): no longer ready; for a moment it still takes what is on
its way, then it listens no more, finishes what is under way, leaves its lifespans in the opposite order, and ends with
0. All that within its grace; what is not finished by then is cut, which is logged.

A request is answered within a time, a body has a length, and there are so many at once: beyond that the answer is 503
with Retry-After, not a queue.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from aiohttp import web

from idi.module import tracing
from idi.module.events import GiveUp, Handling, received
from idi.module.http import Answer, Handler, Request, caller_of, response, response_of
from idi.module.problem import Misconfigured, Problem

log = logging.getLogger("idi.module")
RELAY = "relay"
CHECK_S = 1.0
CONNECTIONS = 256

Lifespan = Callable[[], AbstractAsyncContextManager[object]]
Check = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Limits:
    """`grace_s` is within the ten seconds that a module has by default between SIGTERM and SIGKILL; `linger_s` is for
    what is on its way when SIGTERM comes."""

    body_bytes: int = 2 << 20
    at_once: int = 256
    answer_s: float = 30.0
    grace_s: float = 8.0
    linger_s: float = 0.3


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    handler: Handler
    answer_s: float


@dataclass(slots=True)
class Parts:
    """Everything that a module registers."""

    name: str = "module"
    ready: str = "/ready"
    limits: Limits = field(default_factory=Limits)
    routes: list[Route] = field(default_factory=list)
    handlings: dict[str, tuple[str, Handling]] = field(default_factory=dict)
    """By path: the type, and who handles it."""
    lifespans: list[Lifespan] = field(default_factory=list)
    checks: dict[str, Check] = field(default_factory=dict)


class Life:
    def __init__(self, parts: Parts, name: str) -> None:
        self._parts, self._limits, self._name = parts, parts.limits, name
        self.state: Literal["starting", "ready", "draining"] = "starting"
        self._under_way: set[asyncio.Task[object]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Ready inside of it; gives the port, which is another one where 0 was asked for."""
        loop, limits = asyncio.get_running_loop(), self._limits
        runner = web.AppRunner(
            self._application(), access_log=None, handle_signals=False, shutdown_timeout=0.5
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, backlog=512)
            try:
                await site.start()
            except OSError as error:
                where = f"{host}:{port} cannot be listened on"
                raise Misconfigured(self._name, [f"{where}: {os.strerror(error.errno or 0)}."]) from None
            async with AsyncExitStack() as entered:
                for lifespan in self._parts.lifespans:
                    await entered.enter_async_context(lifespan())
                self.state = "ready"
                log.info("ready", extra={"port": runner.addresses[0][1]})
                try:
                    yield int(runner.addresses[0][1])
                finally:
                    self.state = "draining"
                    end = loop.time() + limits.grace_s
                    await asyncio.sleep(limits.linger_s)
                    await site.stop()
                    await self._finish(end)
                    await runner.cleanup()
                    await self._leave(entered, end)
        finally:
            await runner.cleanup()

    async def _finish(self, end: float) -> None:
        try:
            async with asyncio.timeout_at(end):
                await self._idle.wait()
        except TimeoutError:
            log.warning("the grace is over: %d requests are cut", len(self._under_way))
            for task in self._under_way:
                task.cancel()

    async def _leave(self, entered: AsyncExitStack, end: float) -> None:
        try:
            async with asyncio.timeout_at(end + self._limits.linger_s):
                await entered.aclose()
        except TimeoutError:
            log.warning("the grace is over: a lifespan is cut")

    # -- requests

    def _application(self) -> web.Application:
        app = web.Application(client_max_size=self._limits.body_bytes, middlewares=[self._around])
        app.router.add_get(self._parts.ready, self._ready)
        for route in self._parts.routes:
            # With GET comes HEAD.
            add = (
                app.router.add_get
                if route.method == "GET"
                else functools.partial(app.router.add_route, route.method)
            )
            add(route.path, functools.partial(self._route, route))
        for path, (type, handling) in self._parts.handlings.items():
            app.router.add_post(path, functools.partial(self._handle, type, handling))
        return app

    @web.middleware
    async def _around(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path == self._parts.ready:
            return await self._answered(request, handler)
        if self.state == "starting":
            return response_of(Problem(503, f"{self._name} is starting.", headers={"retry-after": "1"}))
        if len(self._under_way) >= self._limits.at_once:
            detail = f"{self._name} has {self._limits.at_once} requests under way already."
            return response_of(Problem(503, detail, headers={"retry-after": "1"}))
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        self._idle.clear()
        try:
            route = request.match_info.route.resource
            named = f"{request.method} {route.canonical if route else request.path}"
            with tracing.step(named, "SERVER", request.headers):
                answer = await self._answered(request, handler)
                if answer.status >= 500:
                    tracing.failed(f"answered {answer.status}")
        finally:
            self._under_way.discard(task)
            if not self._under_way:
                self._idle.set()
        if self.state == "draining" and not answer.prepared:
            answer.force_close()
        return answer

    async def _answered(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Every mistake in the one form."""
        try:
            return await handler(request)
        except Problem as problem:
            if problem.status >= 500:
                log.warning("%s %s: %s", request.method, request.path, problem.detail)
            return response_of(problem)
        except web.HTTPRequestEntityTooLarge:
            return response_of(Problem(413, f"A request has at most {self._limits.body_bytes} bytes."))
        except web.HTTPMethodNotAllowed as error:
            allow = ", ".join(sorted(error.allowed_methods))
            return response_of(Problem(405, f"{request.path} takes {allow}.", headers={"allow": allow}))
        except web.HTTPNotFound:
            return response_of(Problem(404, self._not_found(request)))
        except web.HTTPException:
            raise
        except Exception:
            log.exception("%s %s", request.method, request.path)
            return response_of(Problem(500, f"{self._name} has a mistake of its own; its log says which."))

    def _not_found(self, request: web.Request) -> str:
        """An event that came to another path than the one where its type is handled: the declaration can be mended."""
        wanted = request.headers.get("ce-type", "")
        for path, (type, _) in self._parts.handlings.items():
            if type == wanted:
                return f"{type} is handled at {path}: declare `handles: {{{type}: {path}}}`."
        return f"{self._name} has no {request.path}."

    async def _ready(self, _: web.Request) -> web.StreamResponse:
        wrong: list[str] = [] if self.state == "ready" else [self.state]
        for name, check in self._parts.checks.items() if not wrong else ():
            try:
                async with asyncio.timeout(CHECK_S):
                    if await check() is False:
                        wrong.append(name)
            except TimeoutError:
                wrong.append(f"{name}: no answer within {CHECK_S:g} s")
            except Exception as error:  # noqa: BLE001 - whatever it is, the module is not ready
                wrong.append(f"{name}: {error}")
        if wrong:
            return response_of(Problem(503, f"{self._name} is not ready: {', '.join(wrong)}."))
        return response({"ready": True})

    async def _route(self, route: Route, request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(route.answer_s) as limit:
                body = await request.read()
                return response(await route.handler(Request(request, body, request.match_info)))
        except TimeoutError:
            if not limit.expired():
                raise
            raise Problem(504, f"{self._name} has no answer within {route.answer_s:g} s.") from None

    async def _handle(self, type: str, handling: Handling, request: web.Request) -> web.StreamResponse:
        caller = caller_of(request)
        if caller not in ("", RELAY):
            raise Problem(403, f"An event comes from the platform's {RELAY}, not from {caller}.")
        event = received(request.headers, await request.read())
        if event.type != type:
            return response_of(GiveUp(f"At {request.path} {type} is handled, not {event.type}."))
        try:
            async with asyncio.timeout(self._limits.answer_s) as limit:
                await handling(event)
        except Problem as problem:
            log.warning("%s, attempt %d: %s", type, event.attempt, problem.detail)
            return response(Answer(problem.detail, problem.status, problem.headers))
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                log.warning("%s was not handled within %g s", type, self._limits.answer_s)
                return response(Answer(f"not handled within {self._limits.answer_s:g} s", 503))
            log.exception("%s, attempt %d", type, event.attempt)
            return response(Answer(f"{error.__class__.__name__}; the log of {self._name} says more", 500))
        return response(None)


@asynccontextmanager
async def sending() -> AsyncIterator[aiohttp.ClientSession]:
    """What peers and events are reached by: bounded, without cookies, and never by a proxy that is set somewhere."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=5.0),
        trust_env=False,
    ) as session:
        yield session
