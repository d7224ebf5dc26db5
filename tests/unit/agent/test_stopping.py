"""How long the barrier is waited for when control does not behave."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from idi.agent import stopping
from idi.agent.door import Away, Door
from idi.agent.envoy import Envoy
from idi.agent.state import State
from idi.agent.stopping import Stopping

pytestmark = pytest.mark.requirement("K1")


class Answering(Door):
    """Takes its time, then says this, over and over."""

    def __init__(self, takes_s: float, away: bool) -> None:
        self.asked: list[float] = []
        self._takes_s = takes_s
        self._away = away

    async def post(
        self, path: str, body: Mapping[str, object], timeout_s: float, *, connect_s: float = 2.0
    ) -> dict[str, Any]:
        del path, body, connect_s
        self.asked.append(timeout_s)
        await asyncio.sleep(min(self._takes_s, timeout_s))
        if self._away or self._takes_s > timeout_s:
            raise Away("no answer in time")
        return {}


class NoEnvoy(Envoy):
    def __init__(self) -> None:
        self.admin_socket = Path("/nowhere")


@pytest.mark.parametrize(
    ("takes_s", "away", "least_s", "most_s"),
    [
        (0.0, False, 0.0, 0.5),  # the barrier is through
        (0.6, False, 0.6, 1.5),  # it takes longer than a control that is away may
        (0.0, True, 0.2, 1.0),  # refused
        (9.0, False, 1.0, 2.5),  # it hangs: as long as a barrier may take, and no longer
        (0.3, True, 1.0, 2.5),  # it breaks off every time
    ],
)
async def test_it_has_an_end(
    monkeypatch: pytest.MonkeyPatch, takes_s: float, away: bool, least_s: float, most_s: float
) -> None:
    monkeypatch.setattr(stopping, "AWAY_S", 0.2)
    monkeypatch.setattr(stopping, "BARRIER_S", 1.0)
    door, loop = Answering(takes_s, away), asyncio.get_running_loop()
    made = Stopping(State(module=True), door, NoEnvoy(), 1.0, gateway=False)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(made.run())
        began = loop.time()
        assert await made.asked() == ""  # an Envoy that is not there has nothing under way
        assert least_s <= loop.time() - began <= most_s
        await made.end()
        assert max(door.asked) <= 1.0


class Refusing(Door):
    """Says that the pod is not about to go."""

    def __init__(self) -> None:
        self.asked = 0

    async def post(
        self, path: str, body: Mapping[str, object], timeout_s: float, *, connect_s: float = 2.0
    ) -> dict[str, Any]:
        del path, body, timeout_s, connect_s
        self.asked += 1
        raise Away("it answers 409", 409)


async def test_control_has_the_last_word_but_for_the_kernel() -> None:
    """Anybody who reaches the port can ask; only a pod that goes is taken out, and a signal needs nobody's leave."""
    state, door = State(module=True), Refusing()
    made = Stopping(state, door, NoEnvoy(), 1.0, gateway=False)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(made.run())
        assert await made.asked()
        assert not state.stopping
        assert await made.asked()
        assert not made.done.is_set()
        await made.end()
        assert state.stopping
    assert door.asked == 3
