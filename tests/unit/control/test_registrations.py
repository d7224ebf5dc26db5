"""Registered instances end in time, whatever the journal is able to take."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from idi.control.registrations import Registrations
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.discovery.registry import Registry
from idi.parts.errors import PartError
from idi.parts.store.interface import Actor
from idi.parts.store.memory import MemoryStore
from idi.world.types import Instance, InstanceId, RevisionSpec
from tests.support.worlds import instance, spec

ME = Actor("peer", "me")


@dataclass
class Sidecars:
    there: list[InstanceId] = field(default_factory=list)

    async def attach(self, spec: RevisionSpec, port: int) -> Instance:
        made = instance(spec.module, len(self.there) + 1, spec.revision)
        self.there.append(made.id)
        return made

    async def detach(self, instance: InstanceId) -> None:
        if instance in self.there:
            self.there.remove(instance)

    def attached(self) -> list[InstanceId]:
        return list(self.there)


async def broken(*_: object, **__: object) -> int:
    raise PartError("The disk is gone.")


@pytest.mark.parametrize("breaks", ["before it is registered", "before it expires"])
async def test_without_a_journal_what_is_not_heard_of_ends_all_the_same(
    breaks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    store, sidecars = MemoryStore(), Sidecars()
    registrations = Registrations(Registry(b"key", lambda: now), sidecars, store)
    async with OwnedTasks() as tasks:
        keeping = tasks.create_task(registrations.keep())
        await asyncio.sleep(0)
        if breaks == "before it is registered":
            monkeypatch.setattr(store, "note", broken)
            with pytest.raises(PartError):
                await registrations.register(
                    {"module": "cam", "port": 5000, "ttl_s": 1.0}, spec("cam", "a"), ME
                )
        else:
            await registrations.register({"module": "cam", "port": 5000, "ttl_s": 1.0}, spec("cam", "a"), ME)
            monkeypatch.setattr(store, "note", broken)
        assert sidecars.there
        now = 2.0
        registrations._changed.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not sidecars.there
        assert not keeping.done(), "control would end with it"
