"""What a declaration leaves over on the bus: what goes, what stays, and what is said of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from idi.control.bus.topics import Topics
from idi.parts.bus.interface import Bus, Shape, Subscription, Topic
from idi.parts.bus.own import DEAD, TRIES, again_topic
from idi.parts.bus.simulator import Kept, SimulatedBus
from tests.unit.control.test_events import TEXT, platform
from tests.unit.relay.stage import TYPE

pytestmark = pytest.mark.requirement("B1")

REVOKED = "jede.revoked"
OWN = (DEAD, TRIES, again_topic("cam"), again_topic("pas"))
SHAPE = Shape(
    {name: Topic(name) for name in (TYPE, REVOKED, *OWN)},
    (Subscription(TYPE, "cam"), Subscription(TYPE, "pas"), Subscription(again_topic("pas"), "pas")),
)
WITHOUT_PAS = TEXT.replace("  pas: {run: serve, handles: {jede.decided: /}}\n", "")
WITHOUT_REVOKED = TEXT.replace(", jede.revoked", "")


@pytest.fixture
async def bus() -> SimulatedBus:
    found = SimulatedBus(Kept())
    await found.shape(SHAPE)
    return found


def topics(bus: SimulatedBus) -> Topics:
    @asynccontextmanager
    async def connect() -> AsyncIterator[Bus]:
        async with bus:
            yield bus

    return Topics(connect)


async def there(bus: SimulatedBus) -> dict[str, dict[str, int]]:
    return {one.topic: dict(one.waiting) for one in await bus.held()}


async def test_what_is_declared_stays(bus: SimulatedBus) -> None:
    await bus.publish(TYPE, "1", {}, b"")
    before = await there(bus)
    assert await topics(bus).tidy(platform()) == []
    assert await there(bus) == before


async def test_the_subscription_of_a_module_that_takes_no_longer_goes_and_what_waited_is_said(
    bus: SimulatedBus,
) -> None:
    await bus.publish(TYPE, "1", {}, b"")
    declared = platform(WITHOUT_PAS)
    said = ["pas takes jede.decided no longer: 1 event that it is not done with will not be handed to it."]
    assert await topics(bus).ahead(declared) == said
    assert (await there(bus))[TYPE] == {"cam": 1, "pas": 1}, "a plan changes nothing"
    assert await topics(bus).tidy(declared) == said
    left = await there(bus)
    assert left[TYPE] == {"cam": 1}
    assert again_topic("pas") not in left
    assert {DEAD, TRIES, again_topic("cam")} < set(left)
    assert await topics(bus).tidy(declared) == []


async def test_letters_that_wait_to_be_handed_out_again_stay(bus: SimulatedBus) -> None:
    await bus.publish(again_topic("pas"), "1", {}, b"")
    await topics(bus).tidy(platform(WITHOUT_PAS))
    assert again_topic("pas") in await there(bus)


async def test_a_topic_that_is_declared_no_longer_stays_as_long_as_it_holds_anything(
    bus: SimulatedBus,
) -> None:
    await bus.shape(Shape({}, (Subscription(REVOKED, "cam"),)))
    await bus.publish(REVOKED, "1", {}, b"")
    declared = platform(WITHOUT_REVOKED)
    [said] = await topics(bus).tidy(declared)
    assert said.startswith("jede.revoked is declared no longer: what it holds (1 event) stays")
    assert (await there(bus))[REVOKED] == {"cam": 1}, "its place in it, too"
    await bus.drop(REVOKED, 1)
    assert await topics(bus).tidy(declared) == []
    assert REVOKED not in await there(bus)


async def test_limits_that_cannot_change_yet_are_said(bus: SimulatedBus) -> None:
    await bus.publish(TYPE, "1", {}, b"")
    event = bus.kept.events[TYPE][0]
    bus.kept.events[TYPE][0] = replace(event, at=event.at - 7200.0)
    declared = platform(TEXT + "events: {jede.decided: {keep: 1h}}\n")
    [said] = await topics(bus).ahead(declared)
    assert "jede.decided would lose events" in said
    assert await topics(bus).tidy(declared) == [said]


async def test_a_bus_that_is_away_holds_up_nothing(bus: SimulatedBus) -> None:
    bus.kept.down = True
    assert await topics(bus).ahead(platform()) == []
    [said] = await topics(bus).tidy(platform())
    assert "until the next idi up" in said
    assert await topics(bus).tidy(platform("platform: shop\nmodules: {web: {run: serve}}\n")) == []
