"""A gateway that says nothing is replaced, as long as another one serves; who answers, or is leaving, is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from idi.control.cluster import gateways as module
from idi.control.cluster.gateways import Gateways
from idi.control.loop import Edge, Loop
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.errors import PartError
from idi.parts.store.memory import MemoryStore
from idi.parts.targets.kubernetes import silence
from idi.parts.targets.kubernetes.pods import PART
from idi.traffic.types import GATEWAY
from tests.support.planes import RememberingPlane

pytestmark = [pytest.mark.requirement("G1", "K1"), pytest.mark.asyncio]


class Stage:
    """A cluster of which only the gateway's pods matter."""

    def __init__(self, tasks: OwnedTasks) -> None:
        self.deleted: list[str] = []
        self.refusing = False
        self.answering = False
        self.hearing = True
        self.store = MemoryStore()
        loop = Loop(RememberingPlane(), Edge("0.0.0.0", 8080, cast(Any, None), nodes=()))
        self.gateways = Gateways(
            *(cast(Any, self), "shop", loop, cast(Any, self), self.store, tasks, self.answers, self.reached)
        )

    async def answers(self, address: str) -> bool:
        assert address == "10.0.0.1"
        return self.answering

    def reached(self) -> bool:
        return self.hearing

    def add(self, node: str, identity: str) -> None: ...

    def remove(self, node: str) -> None: ...

    async def delete(self, path: str) -> None:
        if self.refusing:
            raise PartError("The API server cannot be reached.")
        self.deleted.append(path.rpartition("/")[2])

    def pod(self, name: str, *, ready: bool = False, leaving: bool = False, gone: bool = False) -> None:
        metadata: dict[str, Any] = {"name": name, "uid": name, "labels": {PART: GATEWAY}}
        if leaving:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        conditions = [{"type": "Ready", "status": "True"}] if ready else []
        status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions}
        spec = {"serviceAccountName": "idi-gateway"}
        self.gateways._pod({"metadata": metadata, "spec": spec, "status": status}, gone=gone)

    def serve(self, *names: str) -> None:
        for name in names:
            self.pod(name)
            self.gateways.ready(name, True)

    async def notes(self) -> list[str]:
        return [str(one.detail["instance"]) for one in await self.store.entries() if one.action == "replace"]


@asynccontextmanager
async def staged(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    for place in (silence, module):
        for name, seconds in (("ANSWERED_S", 0.05), ("COMES_S", 0.05)):
            monkeypatch.setattr(place, name, seconds)
    monkeypatch.setattr(silence, "ASK_AGAIN_S", 0.01)
    tasks = OwnedTasks()
    async with tasks:
        yield Stage(tasks)


async def test_one_that_says_nothing_and_does_not_answer_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(monkeypatch) as stage:
        stage.serve("a", "b")
        stage.gateways.ready("a", False)
        await asyncio.sleep(0.1)
        assert (stage.deleted, await stage.notes()) == (["a"], ["a"])


async def test_who_answers_or_is_back_or_leaves_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(monkeypatch) as stage:
        stage.serve("a", "b", "c", "d")
        stage.answering = True
        stage.gateways.ready("a", False)
        await asyncio.sleep(0.03)
        stage.gateways.ready("a", True)
        stage.answering = False
        stage.gateways.ready("b", False)
        stage.gateways.ready("b", True)
        stage.gateways.ready("c", False)
        stage.pod("c", leaving=True)
        stage.gateways.ready("d", False)
        stage.pod("d", gone=True)
        await asyncio.sleep(0.1)
        assert stage.deleted == []


async def test_the_last_one_stays_until_another_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(monkeypatch) as stage:
        stage.serve("a")
        stage.gateways.ready("a", False)
        await asyncio.sleep(0.15)
        assert stage.deleted == []
        stage.serve("b")
        await asyncio.sleep(0.15)
        assert stage.deleted == ["a"]


async def test_who_hears_nobody_at_all_replaces_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(monkeypatch) as stage:
        stage.serve("a", "b")
        stage.hearing = False
        stage.gateways.ready("a", False)
        await asyncio.sleep(0.1)
        assert stage.deleted == []


async def test_what_could_not_be_deleted_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(monkeypatch) as stage:
        stage.serve("a", "b")
        stage.refusing = True
        stage.gateways.ready("a", False)
        await asyncio.sleep(0.05)
        stage.refusing = False
        await asyncio.sleep(0.15)
        assert stage.deleted == ["a"]


async def test_one_that_died_while_there_was_no_control_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes takes it for ready still; one that never was is only new."""
    async with staged(monkeypatch) as stage:
        stage.pod("dead", ready=True)
        stage.pod("new")
        stage.serve("b")
        await asyncio.sleep(0.2)
        assert stage.deleted == ["dead"]
