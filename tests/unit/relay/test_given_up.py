"""What a module that takes by itself could not take lies in the dead letters, once, whatever comes between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from idi.parts.bus.interface import Bus, Event, Shape, Subscription, Topic
from idi.parts.bus.own import DEAD, DEAD_ATTEMPTS, DEAD_MODULE, DEAD_REASON, DEAD_TOPIC
from idi.parts.bus.simulator import Kept, SimulatedBus
from idi.relay import given_up

pytestmark = pytest.mark.requirement("B1")

TYPE = "jede.decided"
EAT = Subscription(TYPE, "eat", answer_s=0.05, attempts=2)


async def dead(bus: Bus) -> list[Event]:
    return [one async for one in bus.read(DEAD, follow=False)]


async def first(bus: Bus) -> Event:
    async with asyncio.timeout(10), aclosing(bus.read(DEAD)) as found:
        return await anext(found)


async def told_of(kept: Kept) -> None:
    """Nothing is left that nobody was done with."""
    async with asyncio.timeout(5):
        while kept.given_up:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@asynccontextmanager
async def burying(bus: Bus) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(given_up.bury(bus))
        try:
            yield
        finally:
            task.cancel()


async def never_done(bus: Bus) -> None:
    async with aclosing(bus.take(EAT)) as found:
        async for _ in found:
            continue


async def test_it_is_buried_with_its_data_once() -> None:
    kept = Kept()
    bus = SimulatedBus(kept)
    await bus.shape(Shape({TYPE: Topic(TYPE), DEAD: Topic(DEAD)}, (EAT,)))
    headers = {
        "ce-id": "1",
        "ce-source": "/jede",
        "ce-type": TYPE,
        "ce-specversion": "1.0",
        "idi-reason": '"forged"',
    }
    await bus.publish(TYPE, "1", headers, b"data")
    async with asyncio.TaskGroup() as tasks:
        taking = tasks.create_task(never_done(bus))
        async with burying(bus):
            letter = await first(bus)
            await told_of(kept)
        taking.cancel()
    assert letter.payload == b"data"
    assert (letter.headers[DEAD_TOPIC], letter.headers[DEAD_MODULE]) == (TYPE, "eat")
    assert letter.headers[DEAD_ATTEMPTS] == "2"
    assert json.loads(letter.headers[DEAD_REASON]) == "was not acknowledged in 2 attempts"
    # A relay that ended before it could say that it is done writes the same letter again.
    kept.given_up.append((TYPE, "eat", 1, 2))
    async with burying(bus):
        await told_of(kept)
    assert len(await dead(bus)) == 1


async def test_what_is_too_old_meanwhile_holds_nothing_up() -> None:
    kept = Kept(given_up=[(TYPE, "eat", 7, 2)])
    bus = SimulatedBus(kept)
    await bus.shape(Shape({TYPE: Topic(TYPE), DEAD: Topic(DEAD)}))
    async with burying(bus):
        await told_of(kept)
    assert await dead(bus) == []
