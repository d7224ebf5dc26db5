"""What is known of attempts: after a restart, of another relay, and never more than there is room for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping

import pytest

from idi.parts.bus.errors import BusDown, BusFull
from idi.parts.bus.interface import Event, Receipt, Shape, Topic
from idi.parts.bus.own import TRIES
from idi.parts.bus.simulator import Kept, SimulatedBus
from idi.relay import tries as tries_module
from idi.relay.tries import Tries
from tests.unit.relay.stage import cancelled

pytestmark = pytest.mark.requirement("B1")

DAY_S = 86400.0


class Bus(SimulatedBus):
    error: Exception | None = None

    async def publish(self, topic: str, id: str, headers: Mapping[str, str], payload: bytes) -> Receipt:
        if self.error:
            raise self.error
        return await super().publish(topic, id, headers, payload)


@pytest.fixture
async def bus() -> Bus:
    found = Bus(Kept())
    await found.shape(Shape({TRIES: Topic(TRIES)}))
    return found


async def begun(bus: SimulatedBus) -> Tries:
    found = Tries(bus, DAY_S)
    await found.recall()
    return found


def reasons(tries: Tries, key: str) -> list[str]:
    return [one.reason for one in tries.of(key)]


async def test_they_outlive_the_relay(bus: Bus) -> None:
    first = await begun(bus)
    for number in range(3):
        await first.add("cam a 1", f"a{number}")
        await first.add("cam a 2", f"b{number}")
    second = await begun(bus)
    assert reasons(second, "cam a 1") == ["a0", "a1", "a2"]
    assert second.of("cam a 1") == first.of("cam a 1")
    await second.recall()
    assert (len(second), reasons(second, "cam a 2")) == (6, ["b0", "b1", "b2"])


async def test_of_an_event_that_is_done_nothing_is_left(bus: Bus) -> None:
    first = await begun(bus)
    for key in ("cam a 1", "cam a 2"):
        await first.add(key, "x")
        await first.add(key, "y")
    second = await begun(bus)
    await second.close("cam a 1")
    await second.close("cam a 7")
    assert (reasons(second, "cam a 1"), len(second)) == ([], 2)
    third = await begun(bus)
    assert (reasons(third, "cam a 1"), len(third)) == ([], 2)


async def test_another_relays_are_heard_of_while_it_works(bus: Bus) -> None:
    first, second = await begun(bus), await begun(bus)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(first.follow(60))
        await second.add("cam a 1", "theirs")
        await first.add("cam a 1", "mine")
        async with asyncio.timeout(5):
            while len(first) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        following.cancel()
    assert reasons(first, "cam a 1") == ["theirs", "mine"]


async def test_what_is_known_is_bounded(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tries_module, "MOST_KNOWN", 20)
    monkeypatch.setattr(tries_module, "MOST_TRIES", 5)
    found = await begun(bus)
    for number in range(8):
        await found.add("cam a 1", str(number))
    assert reasons(found, "cam a 1") == ["3", "4", "5", "6", "7"]
    for number in range(100):
        await found.add(f"cam b {number}", "x")
    assert len(found) == 20
    assert (found.of("cam a 1"), len(found.of("cam b 99"))) == ([], 1)
    for number in range(100):
        await found.close(f"cam b {number}")
    assert (len(found), len(found._known)) == (0, 0)


async def test_what_is_too_old_is_dropped(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await begun(bus)
    await found.add("cam a 1", "x")
    later = time.time() + DAY_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    await found.add("cam a 2", "y")
    assert (found.of("cam a 1"), len(found)) == ([], 1)


async def test_without_room_at_the_broker_they_count_all_the_same(bus: Bus) -> None:
    found = await begun(bus)
    bus.error = BusFull("full")
    await found.add("cam a 1", "x")
    await found.add("cam a 1", "y")
    assert reasons(found, "cam a 1") == ["x", "y"]
    bus.error = None
    await found.close("cam a 1")
    assert len(found) == 0
    bus.error = BusDown("down")
    with pytest.raises(BusDown):
        await found.add("cam a 1", "x")
    assert reasons(found, "cam a 1") == ["x"]


async def test_records_that_are_taken_away_meanwhile_keep_nobody_waiting(bus: Bus) -> None:
    """A broker that said there are more may never hand them out, and its stream never end."""
    first = await begun(bus)
    for number in range(3):
        await first.add(f"cam a {number}", "x")

    class Endless(SimulatedBus):
        async def read(self, topic: str, since: int = 0, *, follow: bool = True) -> AsyncGenerator[Event]:
            async for event in super().read(topic, since, follow=True):
                yield event
                await first.close("cam a 2")

    found = Tries(Endless(bus.kept), DAY_S)
    async with asyncio.timeout(5):
        await found.recall()
    assert len(found) in (2, 3)


async def test_without_room_for_a_record_it_begins_all_the_same(bus: Bus) -> None:
    first = await begun(bus)
    await first.add("cam a 1", "x")
    bus.error = BusFull("full")
    assert len(await begun(bus)) == 1


async def test_a_record_that_cannot_be_read_is_no_reason_to_fail(bus: Bus) -> None:
    nonsense = (b"", b"{", b"[]", b"7", b"null", b"{}", b'{"by":1,"at":"x","reason":1}', b"\xff")
    for number, payload in enumerate(nonsense):
        await bus.publish(TRIES, str(number), {}, payload)
    await (await begun(bus)).add("cam a 1", "x")
    assert len(await begun(bus)) == 1


async def settled(found: Tries, within_s: float, quiet_s: float = 60.0) -> bool:
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(found.follow(quiet_s))
        try:
            async with asyncio.timeout(within_s):
                await found.settled.wait()
                # What it notes of others after that is noted too.
                await asyncio.sleep(0.05)
        except TimeoutError:
            pass
        await cancelled(following)
    return found.settled.is_set()


async def test_the_first_relay_and_one_after_a_good_end_begin_at_once(bus: Bus) -> None:
    first = await begun(bus)
    assert first.settled.is_set()
    await first.leave()
    assert (await begun(bus)).settled.is_set()


async def test_after_one_that_was_killed_it_takes_until_its_events_are_back(bus: Bus) -> None:
    await begun(bus)
    second = await begun(bus)
    assert not await settled(second, 0.2)
    assert await settled(second, 2.0, quiet_s=0.1)
    await second.leave()
    assert (await begun(bus)).settled.is_set()  # the first is known to be gone


async def test_one_that_takes_over_waits_until_the_other_has_left(bus: Bus) -> None:
    first = await begun(bus)
    second = await begun(bus)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(settled(second, 5.0))
        await asyncio.sleep(0.1)
        assert not second.settled.is_set()
        await first.leave()
    assert waiting.result()
