"""A relay's surroundings without servers: a simulated bus, and a module on loopback that answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from aiohttp import web

from idi.parts.bus.cloudevents import CloudEvent, to_headers
from idi.parts.bus.interface import Bus, Event, Subscription, Topic
from idi.parts.bus.own import DEAD, DEAD_TRIES
from idi.parts.bus.simulator import Kept, SimulatedBus
from idi.relay.delivering import Delivering
from idi.relay.serving import connections
from idi.relay.settings import Deliver, Settings
from idi.relay.tries import Tries

TYPE = "jede.decided"
TRUST = "spiffe://shop/dev/"

Answer = tuple[int, str, Mapping[str, str]]
OK: Answer = (204, "", {})
BROKEN: Answer = (500, "boom", {})


@dataclass(frozen=True)
class Got:
    """What the module was handed: the event's id, the attempt that it was told, headers, data, and when."""

    id: str
    attempt: int
    headers: Mapping[str, str]
    data: bytes
    path: str
    at: float


@dataclass
class Module:
    """`answers`: by event id, one after another and the last for ever; a test may set `answer` instead."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    got: list[Got] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    """Ids answered 2xx, in the order of the answers."""
    answer: Callable[[Got], Awaitable[Answer]] | None = None
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0

    async def post(self, request: web.Request) -> web.Response:
        data = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        id, attempt = headers.get("ce-id", ""), int(headers["x-idi-attempt"])
        one = Got(id, attempt, headers, data, request.path, time.time())
        self.got.append(one)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            status, text, more = await self._answer(one)
        finally:
            self.at_once -= 1
        if 200 <= status < 300:
            self.taken.append(id)
        return web.Response(status=status, text=text or None, headers=dict(more))

    async def _answer(self, one: Got) -> Answer:
        if self.answer is not None:
            return await self.answer(one)
        waiting = self.answers.get(one.id, [OK])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def ids(self) -> list[str]:
        return [one.id for one in self.got]


@asynccontextmanager
async def serving(module: Module) -> AsyncIterator[None]:
    app = web.Application(client_max_size=8 << 20)
    app.router.add_post("/{path:.*}", module.post)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        module.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield
    finally:
        await runner.cleanup()


def settings(url: str = "http://127.0.0.1:1", **changes: object) -> Settings:
    """One module, cam, that handles one type; jede publishes it."""
    deliver = Deliver(TYPE, "cam", "/events/decided", attempts=4, first_s=0.05, last_s=0.1)
    found = Settings(
        port=0,
        bus_url="nats://127.0.0.1:1",
        user="idi",
        password="secret",
        trust=TRUST,
        publishers={"jede": frozenset({TYPE})},
        topics={TYPE: Topic(TYPE)},
        deliveries={(TYPE, "cam"): deliver},
        urls={"cam": url},
        timeout_s=2.0,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def delivering(found: Settings, **changes: object) -> Settings:
    """With another way to deliver."""
    one = replace(found.deliveries[(TYPE, "cam")], **changes)  # type: ignore[arg-type]
    return replace(found, deliveries={(TYPE, "cam"): one})


def event(id: str, data: bytes = b"{}", **attributes: str) -> CloudEvent:
    known = {"specversion": "1.0", "id": id, "source": "/jede", "type": TYPE}
    return CloudEvent({**known, "datacontenttype": "application/json", **attributes}, data)


@dataclass
class Stage:
    """`answer_s`: how long the broker waits for an answer; shorter than in earnest."""

    module: Module
    settings: Settings
    kept: Kept = field(default_factory=Kept)
    answer_s: float = 0.6

    @property
    def bus(self) -> SimulatedBus:
        return SimulatedBus(self.kept)

    def subscriptions(self) -> list[Subscription]:
        return [replace(one, answer_s=self.answer_s) for one in self.settings.subscriptions()]

    async def shape(self) -> None:
        wanted = self.settings.shape
        await self.bus.shape(replace(wanted, subscriptions=tuple(self.subscriptions())))

    async def publish(self, *events: CloudEvent, topic: str = TYPE) -> None:
        for one in events:
            await self.bus.publish(topic, one.key, to_headers(one), one.data)

    async def waiting(self) -> int:
        return sum([await self.bus.waiting(one) for one in self.subscriptions()])

    async def letters(self) -> list[Event]:
        return [one async for one in self.bus.read(DEAD, follow=False)]

    @asynccontextmanager
    async def relay(self, bus: Bus | None = None) -> AsyncIterator[list[Delivering]]:
        """One that delivers meanwhile; at the end it is killed, and hands nothing back."""
        used = bus or self.bus
        tries = Tries(used, self.settings.tries_keep_s)
        await tries.recall()
        async with connections() as http, asyncio.TaskGroup() as tasks:
            following = tasks.create_task(tries.follow(self.answer_s + 0.2))
            each = [Delivering(self.settings, one, used, http, tries) for one in self.subscriptions()]
            running = [tasks.create_task(one.run()) for one in each]
            try:
                yield each
            finally:
                for task in (following, *running):
                    task.cancel()

    async def until(self, condition: Callable[[], object], within_s: float = 10.0) -> None:
        async with asyncio.timeout(within_s):
            while True:
                if condition():
                    return
                await asyncio.sleep(0.01)

    async def until_done(self, within_s: float = 10.0) -> None:
        """Until no event is open."""
        async with asyncio.timeout(within_s):
            while True:
                if not await self.waiting():
                    return
                await asyncio.sleep(0.01)


def tries_of(letter: Event) -> list[str]:
    return [one["reason"] for one in json.loads(letter.headers[DEAD_TRIES])]


@asynccontextmanager
async def staged(**changes: object) -> AsyncIterator[Stage]:
    module = Module()
    async with serving(module):
        stage = Stage(module, delivering(settings(module.url), **changes))
        await stage.shape()
        yield stage


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
