"""The relay as a whole: serve HTTP at once, reach the broker as soon as it is there, and leave in order.

Ready means that the broker was reached once and every topic is there, so that nobody who waited for it is refused for
that. Later the broker may be away for a while without the relay being unwell: what is published then is refused with
Retry-After, and deliveries go on by themselves when it is back.

Told to end, it takes no more from either side, ends what is under way, and hands the rest back to the broker; all that
within its grace, after which deliveries are cut and handed back too. So whoever comes after it has the events at once,
and not only when the broker misses their answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from idi.parts.bus.errors import BusDown
from idi.parts.bus.interface import Bus, Shape
from idi.parts.errors import IdiError, Refused
from idi.relay import given_up
from idi.relay.delivering import Delivering
from idi.relay.publishing import BODY_BYTES, Publishing, problem
from idi.relay.settings import ANSWER_S, Settings
from idi.relay.tries import Tries

log = logging.getLogger("idi.relay")

AGAIN_S = 0.5
SETTLE_S = 5.0
"""For what the broker hands out again to get here."""

RESHAPE_S = 30.0

HAND_BACK = 0.15
"""This part of the grace is for handing back."""


class ConnectedBus(Bus, AbstractAsyncContextManager[Any], Protocol):
    """Inside it there is a connection; it may be entered again after it was left."""


class Relay:
    def __init__(self, settings: Settings, bus: ConnectedBus) -> None:
        self._settings, self._bus = settings, bus
        self._stop = asyncio.Event()
        self._answered = asyncio.Event()
        self._begun = asyncio.Event()
        self._connected = False

    def stop(self) -> None:
        self._stop.set()

    async def run(self) -> None:
        """Until `stop`."""
        grace_s = self._settings.grace_s
        runner = web.AppRunner(
            application(self._settings, self._bus, self._begun),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=grace_s * (1 - HAND_BACK),
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self._settings.port, backlog=512).start()
            async with asyncio.TaskGroup() as tasks:
                working = tasks.create_task(self._work())
                await self._stop.wait()
                end = asyncio.get_running_loop().time() + grace_s
                await runner.cleanup()
                # Only now: what was being published needed the broker.
                self._answered.set()
                # Without a connection there is nothing to hand back, and waiting for one would be for nothing.
                left_s = end - asyncio.get_running_loop().time() if self._connected else 0.0
                await asyncio.wait([working], timeout=max(0.1, left_s))
                working.cancel()
        finally:
            await runner.cleanup()

    async def _work(self) -> None:
        """Shape the bus, then deliver; until it is told to end."""
        while not self._stop.is_set():
            try:
                async with self._bus:
                    self._connected = True
                    refused = await self._shape(each_of(self._settings.shape))
                    self._begun.set()
                    await self._deliver(refused)
                    await self._answered.wait()
            except BusDown as error:
                log.info("%s", error)
            except Exception:  # publishing goes on, and this may too, the next time
                log.exception("deliveries begin again")
            finally:
                self._connected = False
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(AGAIN_S):
                await self._stop.wait()
        except TimeoutError:
            return

    async def _shape(self, wanted: list[Shape]) -> list[Shape]:
        """One by one: a topic that cannot be as it is wanted stays as it is, and keeps no others waiting. What was
        refused."""
        refused: list[Shape] = []
        for shape in wanted:
            try:
                for line in await self._bus.shape(shape):
                    log.info("%s", line)
            except Refused as error:
                log.error("%s", error)
                refused.append(shape)
        return refused

    async def _reshape(self, refused: list[Shape]) -> None:
        """What would have lost events is possible when they are taken."""
        while refused:
            await asyncio.sleep(RESHAPE_S)
            try:
                refused = await self._shape(refused)
            except IdiError as error:
                log.info("%s", error)

    async def _deliver(self, refused: list[Shape]) -> None:
        settings = self._settings
        tries = Tries(self._bus, settings.tries_keep_s)
        await tries.recall()
        async with connections() as http, asyncio.TaskGroup() as tasks:
            following = tasks.create_task(tries.follow(ANSWER_S + SETTLE_S))
            reshaping = tasks.create_task(self._reshape(refused))
            burying = tasks.create_task(given_up.bury(self._bus)) if settings.consumers else None
            each = [Delivering(settings, one, self._bus, http, tries) for one in settings.subscriptions()]
            running = [tasks.create_task(one.run()) for one in each]
            await self._stop.wait()
            for one in each:
                one.leave()
            if running:
                await asyncio.wait(running, timeout=settings.grace_s * (1 - HAND_BACK))
            for task in running:
                task.cancel()
            if running:
                await asyncio.wait(running)
            following.cancel()
            reshaping.cancel()
            if burying is not None:
                burying.cancel()
            await leave(each, tries, settings.grace_s * HAND_BACK)


def each_of(wanted: Shape) -> list[Shape]:
    """Topic by topic, then what needs them."""
    topics = [Shape({name: topic}) for name, topic in sorted(wanted.topics.items())]
    return topics + [Shape({}, (one,)) for one in wanted.subscriptions]


async def leave(each: list[Delivering], tries: Tries, within_s: float) -> None:
    """With nothing in hand; where the broker does not answer any more, it finds out by itself."""
    held = sum(len(one) for one in each)
    try:
        async with asyncio.timeout(within_s):
            for one in each:
                await one.hand_back()
            await tries.leave()
    except (TimeoutError, IdiError) as error:
        log.info("not everything is handed back: %s", error or "no answer in time")
    else:
        log.info("left; %d handed back", held)


@asynccontextmanager
async def connections() -> AsyncIterator[aiohttp.ClientSession]:
    """To modules. As many as there are deliveries at once: with fewer, modules that hang would take them from others,
    whose time would be up before they are asked. No module's cookies go to another."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield http


def application(settings: Settings, bus: Bus, begun: asyncio.Event) -> web.Application:
    """`begun` says that the broker was reached and has every topic."""

    async def ready(_: web.Request) -> web.Response:
        if begun.is_set():
            return web.Response(text="ready\n")
        return web.Response(status=503, text="waiting for the broker\n")

    app = web.Application(client_max_size=BODY_BYTES, middlewares=[in_our_words])
    app.add_routes([web.get("/ready", ready), *Publishing(settings, bus).routes()])
    return app


@web.middleware
async def in_our_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        return problem(413, f"A request has at most {BODY_BYTES} bytes.")
    except web.HTTPMethodNotAllowed as error:
        return problem(
            405, "Events are published by POST to /events.", allow=", ".join(sorted(error.allowed_methods))
        )
    except web.HTTPNotFound:
        return problem(404, "Events are published by POST to /events.")
    except web.HTTPException:
        raise
    except ConnectionResetError:
        raise
    except Exception:
        log.exception("%s %s", request.method, request.path)
        return problem(500, "The relay could not answer; its log says more.")
