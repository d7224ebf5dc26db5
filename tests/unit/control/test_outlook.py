"""What control sees of others' doing, and what it asks before something is done."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

import pytest

from idi.control.change.outlook import Outlook
from idi.control.loop import Edge, Loop
from idi.declaration.load import Loaded, load
from idi.declaration.types import ModuleName, Platform
from idi.parts.errors import PartError
from idi.parts.store.interface import Entry
from idi.parts.store.memory import MemoryStore
from idi.parts.targets.interface import Objection
from idi.plan.types import AwaitReady, Ensure, Plan
from idi.traffic.types import EmbeddedKeys
from idi.world.events import RevisionDrifted, RevisionEnsured
from idi.world.types import Drift, RevisionSpec
from tests.support.planes import RememberingPlane
from tests.support.worlds import spec

pytestmark = pytest.mark.requirement("K1", "S5")

CAM = spec("cam", "a")
KEYS = EmbeddedKeys("http://127.0.0.1:8080", "junzi", "{}", "/run/issuer")
IMAGE = Drift("Deployment cam-stable", "spec.image", "cam:1", "hunter2", "kubectl-edit")


@dataclass
class Cluster:
    loop: Loop
    drift: tuple[Drift, ...] = ()
    fails: bool = False
    tried: list[RevisionSpec] = field(default_factory=list)

    async def survey(self, modules: Collection[ModuleName] | None = None) -> None:
        if self.fails:
            raise PartError("Nobody answers there.")
        self.loop.emit(RevisionDrifted(CAM.module, CAM.revision, self.drift))

    async def trial(
        self, wanted: RevisionSpec, count: int, around: str = "", platform: Platform | None = None
    ) -> list[Objection]:
        assert platform is self.loop.platform
        self.tried.append(wanted)
        if self.fails:
            raise PartError("Nobody answers there.")
        return [Objection("Pod of Deployment cam-stable", "exceeded quota", "Raise it.")]


def declared(cluster: Cluster) -> Platform:
    assert cluster.loop.platform is not None
    return cluster.loop.platform


def entries_about_drift(entries: list[Entry]) -> list[Entry]:
    return [one for one in entries if one.action == "drift"]


@pytest.fixture
async def cluster() -> Cluster:
    loop = Loop(RememberingPlane(), Edge("127.0.0.1", 8080, lambda platform: KEYS))
    found = load("platform: shop\nmodules: {cam: {run: x}}")
    assert isinstance(found, Loaded)
    loop.platform = found.platform
    loop.emit(RevisionEnsured(CAM, 2))
    return Cluster(loop)


async def looked(cluster: Cluster, store: MemoryStore) -> list[str]:
    """By a control that has just started."""
    cluster.loop.listeners.clear()
    async with asyncio.TaskGroup() as tasks:
        return await Outlook(cluster, cluster.loop, store, tasks).look()


async def test_what_was_seen_is_an_entry_once_and_no_value_is_in_it(cluster: Cluster) -> None:
    store = MemoryStore()
    cluster.drift = (IMAGE,)
    for _ in range(2):  # the second is a control that starts anew
        assert await looked(cluster, store) == []
    [one] = entries_about_drift(await store.entries(0, 100))
    assert (one.subject, one.actor.name) == ("cam", "control")
    assert one.detail == {"what": "Deployment cam-stable spec.image is another (kubectl-edit)"}
    # Put back, and done again.
    await store.note(one.actor, "ensure", {}, subject="cam")
    await looked(cluster, store)
    assert len(entries_about_drift(await store.entries(0, 100))) == 2
    cluster.drift = ()
    await looked(cluster, store)
    assert len(entries_about_drift(await store.entries(0, 100))) == 2


async def test_only_what_the_plan_ensures_is_tried(cluster: Cluster) -> None:
    store = MemoryStore()
    steps = (Ensure(CAM, 3, 2), AwaitReady(CAM.module, CAM.revision, 3, 1.0), Ensure(spec("jede", "b"), 0, 1))
    async with asyncio.TaskGroup() as tasks:
        outlook = Outlook(cluster, cluster.loop, store, tasks)
        refused, untried = await outlook.refused(Plan(lanes={"cam": steps}), declared(cluster))
        assert [one["object"] for one in refused] == ["Pod of Deployment cam-stable"]
        assert (refused[0]["module"], refused[0]["reason"], untried) == ("cam", "exceeded quota", [])
        assert cluster.tried == [CAM]
        assert await outlook.refused(Plan(), declared(cluster)) == ([], [])


async def test_a_cluster_that_does_not_answer_is_said_and_stops_no_plan(cluster: Cluster) -> None:
    cluster.fails = True
    async with asyncio.TaskGroup() as tasks:
        outlook = Outlook(cluster, cluster.loop, MemoryStore(), tasks)
        assert await outlook.look() == ["What others changed there was not looked at: Nobody answers there."]
        found = await outlook.refused(Plan(lanes={"cam": (Ensure(CAM, 3, 2),)}), declared(cluster))
    assert found == ([], ["Whether cam would be taken was not tried: Nobody answers there."])
