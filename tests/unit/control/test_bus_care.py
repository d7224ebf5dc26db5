"""Who looks after a bus whose disk was full: it waits for room, starts the broker anew, and says so meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from idi.control.bus.care import ROOM_BYTES, BusCare
from idi.parts.bus.errors import BusDown

pytestmark = pytest.mark.requirement("B1", "T3")

FULL = "write error: no space left on device"


class Broker:
    def __init__(self) -> None:
        self.room = 0
        self.full = self.down = False
        self.restarts = self.looks = 0
        self.care = BusCare(self.ask, lambda: self.room, self.restart, look_s=0.01, again_s=0.01)

    @asynccontextmanager
    async def ask(self) -> AsyncIterator[Broker]:
        if self.down:
            raise BusDown("away")
        yield self

    async def faults(self) -> list[str]:
        self.looks += 1
        if self.down:
            raise BusDown("away")
        return [FULL] if self.full else []

    def restart(self) -> None:
        self.restarts += 1
        self.full = self.room < ROOM_BYTES


async def until(found: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not found():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    found = Broker()
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(found.care.keep())
        yield found
        keeping.cancel()


async def test_a_broker_that_is_well_is_left_alone(broker: Broker) -> None:
    await until(lambda: broker.looks > 5)
    assert (broker.restarts, broker.care.notice) == (0, "")


async def test_it_is_started_anew_once_there_is_room_and_not_before(broker: Broker) -> None:
    broker.full, broker.room = True, ROOM_BYTES - 1
    await until(lambda: broker.care.notice)
    assert FULL in broker.care.notice
    assert "nothing is lost" in broker.care.notice
    looks = broker.looks
    await until(lambda: broker.looks > looks + 3)
    assert broker.restarts == 0
    broker.room = ROOM_BYTES
    await until(lambda: broker.restarts)
    await until(lambda: not broker.care.notice)
    assert broker.restarts == 1


async def test_one_that_is_away_is_asked_again_when_it_is_back(broker: Broker) -> None:
    broker.full = True
    await until(lambda: broker.care.notice)
    broker.down = True
    await until(lambda: not broker.care.notice)
    broker.down = False
    await until(lambda: broker.care.notice)


async def test_what_goes_wrong_in_looking_does_not_end_it(broker: Broker) -> None:
    def nowhere() -> int:
        raise OSError("no such folder")

    broker.care.room = nowhere
    broker.full = True
    looks = broker.looks
    await until(lambda: broker.looks > looks + 3)


async def test_where_nobody_knows_of_room_a_person_is_told_what_to_do(broker: Broker) -> None:
    broker.care.room = None
    broker.full, broker.room = True, ROOM_BYTES
    await until(lambda: broker.care.notice)
    looks = broker.looks
    await until(lambda: broker.looks > looks + 3)
    assert broker.restarts == 0
    assert "its pod was deleted" in broker.care.notice
