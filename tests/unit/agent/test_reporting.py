"""When the agent reports, and how it waits for a control that is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from idi.agent import reporting
from idi.agent.door import Away, Door
from idi.agent.reporting import Reporter, spread
from idi.agent.state import State

pytestmark = pytest.mark.requirement("K1")


class Listening(Door):
    """Remembers instead of calling."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, object]] = []
        self.away = False
        self.in_rotation = True

    async def post(
        self,
        path: str,
        body: Mapping[str, object],
        timeout_s: float,
        *,
        connect_s: float = 2.0,
    ) -> dict[str, Any]:
        del path, timeout_s, connect_s
        self.told.append(body)
        if self.away:
            raise Away("connection refused")
        return {"in_rotation": self.in_rotation}


@asynccontextmanager
async def reporting_to(door: Listening) -> AsyncIterator[State]:
    state = State(module=True)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(Reporter(state, door).run())
        await asyncio.sleep(0.01)
        yield state
        task.cancel()


async def test_a_change_is_told_at_once_and_a_reason_is_not() -> None:
    door = Listening()
    async with reporting_to(door) as state:
        assert len(door.told) == 1
        state.module(ready=False, reason="1st try")
        await asyncio.sleep(0.05)
        assert len(door.told) == 1
        state.module(ready=True)
        await asyncio.sleep(0.01)
        assert door.told[-1]["ready"] is True
        assert len(door.told) == 2


async def test_a_reason_is_told_a_little_later_and_everything_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporting, "REASON_EVERY_S", 0.05)
    monkeypatch.setattr(reporting, "EVERY_S", 0.2)
    door, loop = Listening(), asyncio.get_running_loop()
    began = loop.time()
    async with reporting_to(door) as state:
        for count in range(20):
            state.module(ready=False, reason=f"try {count}")
        await asyncio.sleep(0.1)
        assert [told["reason"] for told in door.told] == ["waiting for its module", "try 19"]
        await asyncio.sleep(0.5)
        assert 3 <= len(door.told) <= 3 + (loop.time() - began) / 0.2


def most(passed_s: float) -> float:
    """Calls in that time with pauses that double from 0.1 s to 2 s, each shortened to its half."""
    return 8 + passed_s


async def test_until_calls_are_let_in_it_is_asked_soon() -> None:
    door, loop = Listening(), asyncio.get_running_loop()
    door.in_rotation = False
    began = loop.time()
    async with reporting_to(door) as state:
        state.module(ready=True)
        await asyncio.sleep(0.6)
        assert 3 <= len(door.told) <= most(loop.time() - began)
        door.in_rotation = True
        await asyncio.sleep(1.2)
        assert state.in_rotation
        count = len(door.told)
        await asyncio.sleep(0.5)
        assert len(door.told) == count


async def test_pauses_grow_while_control_is_away() -> None:
    door, loop = Listening(), asyncio.get_running_loop()
    door.away = True
    began = loop.time()
    async with reporting_to(door) as state:
        for _ in range(50):
            state.module(ready=True)
            state.module(ready=False)
            await asyncio.sleep(0.02)
        assert 4 <= len(door.told) <= most(loop.time() - began)
        door.away = False
        await asyncio.sleep(2.2)
        assert door.told[-1]["ready"] is False


async def test_a_door_that_closes_after_each_answer_is_not_hammered() -> None:
    door, loop = Listening(), asyncio.get_running_loop()
    began = loop.time()
    async with reporting_to(door):
        for _ in range(120):
            door.lost()
            await asyncio.sleep(0.01)
        assert 2 <= len(door.told) <= 1 + (loop.time() - began) / 0.5


def test_pauses_are_spread() -> None:
    pauses = [spread(2.0) for _ in range(200)]
    assert min(pauses) >= 1.0
    assert max(pauses) <= 2.0
    assert max(pauses) - min(pauses) > 0.5
