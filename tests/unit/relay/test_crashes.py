"""A relay that ends at any await loses nothing: what it had is handed over, or is a dead letter, by the next one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import pytest

from idi.parts.bus.cloudevents import CloudEvent
from idi.parts.bus.interface import Delivery, Event, Receipt, Subscription
from idi.parts.bus.own import DEAD_TRIES, TRIES
from idi.parts.bus.simulator import SimulatedBus
from idi.relay.delivering import Delivering
from idi.relay.settings import Deliver
from tests.support.scale import scale
from tests.unit.relay.stage import TYPE, Module, Stage, delivering, event, settings, tries_of

pytestmark = pytest.mark.requirement("B1")

FINE, ONCE, NEVER = "fine", "once", "never"
"""How the module takes an event: at once, at the second attempt, never."""


@dataclass
class Slow:
    """A delivery whose every answer takes a while to get there, and a while to come back."""

    inner: Delivery

    @property
    def event(self) -> Event:
        return self.inner.event

    @property
    def attempt(self) -> int:
        return self.inner.attempt

    async def done(self) -> None:
        await asyncio.sleep(0)
        await self.inner.done()
        await asyncio.sleep(0)

    async def again(self, after_s: float) -> None:
        await asyncio.sleep(0)
        await self.inner.again(after_s)
        await asyncio.sleep(0)

    async def working(self) -> None:
        await asyncio.sleep(0)
        await self.inner.working()


class SlowBus(SimulatedBus):
    """One that can be crashed before and after everything it does."""

    async def publish(self, topic: str, id: str, headers: Mapping[str, str], payload: bytes) -> Receipt:
        await asyncio.sleep(0)
        receipt = await super().publish(topic, id, headers, payload)
        await asyncio.sleep(0)
        return receipt

    async def drop(self, topic: str, sequence: int) -> None:
        await asyncio.sleep(0)
        await super().drop(topic, sequence)
        await asyncio.sleep(0)

    async def take(self, subscription: Subscription) -> AsyncGenerator[Delivery]:
        async for delivery in super().take(subscription):
            await asyncio.sleep(0)
            yield Slow(delivery)


class Taken:
    """Instead of a module: what it took, and in which order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: list[str] = []
        self.posts: Counter[str] = Counter()

        async def post(_: Delivering, __: Deliver, sent: CloudEvent, attempt: int) -> tuple[str, float]:
            id = sent.attributes["id"]
            await asyncio.sleep(0)
            self.posts[id] += 1
            if id.startswith(NEVER) or (id.startswith(ONCE) and attempt == 1):
                await asyncio.sleep(0)
                return "broken", 0.0
            self.ids.append(id)
            await asyncio.sleep(0)
            return "", 0.0

        monkeypatch.setattr(Delivering, "_post", post)


def stage_of(order: str = "") -> Stage:
    found = delivering(settings(), attempts=2, first_s=0.001, last_s=0.001, order=order)
    return Stage(Module(), found, answer_s=0.05)


async def ticks(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def end_well(stage: Stage) -> None:
    """A relay that nobody ends."""
    async with stage.relay(SlowBus(stage.kept)):
        await stage.until_done()


async def judge(stage: Stage, taken: Taken, ids: list[str]) -> None:
    letters = Counter([letter.headers["ce-id"] for letter in await stage.letters()])
    for id in ids:
        assert (id in letters) == id.startswith(NEVER), id
        assert (id in taken.ids) != id.startswith(NEVER), id
    assert set(letters.values()) <= {1}
    for letter in await stage.letters():
        assert len(tries_of(letter)) >= 2, letter.headers[DEAD_TRIES]


@pytest.mark.parametrize("first", range(0, 80, 10))
async def test_an_end_at_every_await_loses_nothing(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [FINE, ONCE, NEVER]
    for number in range(first, first + 10):
        taken, stage = Taken(monkeypatch), stage_of()
        await stage.shape()
        await stage.publish(*map(event, ids))
        async with stage.relay(SlowBus(stage.kept)):
            await ticks(number)
        await end_well(stage)
        await judge(stage, taken, ids)


@pytest.mark.parametrize("run", range(scale(6, 200)))
async def test_ends_again_and_again_lose_nothing(
    run: int, seeded: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, stage = Taken(monkeypatch), stage_of("subject" if run % 2 else "")
    await stage.shape()
    ids = [f"{seeded.choice((FINE, FINE, ONCE, NEVER))}-{number}" for number in range(30)]
    for id in ids:
        await stage.publish(event(id, subject=seeded.choice("abc")))
    for _ in range(seeded.randrange(1, 8)):
        async with stage.relay(SlowBus(stage.kept)):
            await ticks(seeded.randrange(400))
            await asyncio.sleep(seeded.choice((0, 0, 0.002, 0.06)))
    await end_well(stage)
    await judge(stage, taken, ids)
    records = [one async for one in stage.bus.read(TRIES, follow=False) if b'"key"' in one.payload]
    assert len(records) <= sum(taken.posts.values())


@pytest.mark.parametrize("run", range(scale(6, 200)))
async def test_an_order_outlives_relays_that_are_killed(
    run: int, seeded: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time that each event of a value was taken is in the order of their sequence."""
    taken, stage = Taken(monkeypatch), stage_of("subject")
    await stage.shape()
    values = {f"{seeded.choice((FINE, FINE, ONCE))}-{n}": seeded.choice("abc") for n in range(30)}
    for id, value in values.items():
        await stage.publish(event(id, subject=value))
    for _ in range(seeded.randrange(1, 6)):
        async with stage.relay(SlowBus(stage.kept)):
            await asyncio.sleep(seeded.choice((0, 0.06, 0.06)))
            await ticks(seeded.randrange(300))
    await end_well(stage)
    for value in "abc":
        first = [id for id in dict.fromkeys(taken.ids) if values[id] == value]
        assert first == [id for id in values if values[id] == value]
    assert stage.kept.last[TYPE] == 30
