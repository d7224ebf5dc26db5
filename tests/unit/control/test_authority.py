"""Whatever happens to certificates and to OpenBao, control goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from idi.control.loop import Edge, Loop
from idi.control.trust import authority as module
from idi.control.trust.authority import Authority
from idi.control.trust.identities import Identities
from idi.parts.clients.openbao import Health, State
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.errors import PartError
from idi.world.events import InstanceGone, InstanceSeen
from tests.support.planes import RememberingPlane
from tests.support.worlds import instance


class Issued:
    """A renewal that remembers what it was asked for, and what else it is to do."""

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.nodes: list[str] = []
        self.act = act

    async def ensure(self, node: str, spiffe_id: str) -> None:
        self.nodes.append(node)
        self.act()

    def remove(self, node: str) -> None:
        """Nothing was kept."""


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def closed() -> None:
    raise RuntimeError("Session is closed")


async def test_a_connection_that_closes_under_a_certificates_feet_ends_nothing() -> None:
    renewal: Any = Issued(closed)
    async with OwnedTasks() as tasks:
        identities = Identities(RememberingPlane(), lambda workload: f"spiffe://{workload}", tasks, renewal)
        identities.hear(InstanceSeen(instance("cam", 1, "aaaa", "starting")))
        await turns()
        assert renewal.nodes == ["cam-1"]


async def test_nothing_is_issued_for_what_went_at_once() -> None:
    renewal: Any = Issued()
    async with OwnedTasks() as tasks:
        identities = Identities(RememberingPlane(), lambda workload: f"spiffe://{workload}", tasks, renewal)
        seen = instance("cam", 1, "aaaa", "starting")
        identities.hear(InstanceSeen(seen))
        identities.hear(InstanceGone(seen.module, seen.id, 1.0))
        await turns()
        assert renewal.nodes == []


async def test_an_openbao_that_does_not_end_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SOON_S", 0.0)
    tries: list[str] = []
    again = asyncio.Event()

    async def restart(reason: str) -> None:
        tries.append(reason)
        if len(tries) == 2:
            again.set()
        raise PartError("Process 7 does not end, not even by SIGKILL.")

    async def health() -> Health:
        return Health(State.UNREACHABLE, "no answer")

    part: Any = SimpleNamespace(alive=True, pid=7, restart=restart)
    client: Any = SimpleNamespace(health=health)
    places: Any = SimpleNamespace(socket=tmp_path / "bao.sock")
    unused: Any = None
    loop = Loop(RememberingPlane(), Edge("127.0.0.1", 8080, lambda platform: unused))
    async with asyncio.timeout(10), OwnedTasks() as tasks:
        authority = Authority(places, tmp_path / "log", unused, loop, unused, tasks, unused)
        tasks.create_task(authority._watch(client, part))
        await again.wait()
