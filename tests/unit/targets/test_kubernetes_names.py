"""Pods that come back under the same name, as those with storage do: each is an instance of its own."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from idi.parts.clients.kubernetes import Kubernetes
from idi.parts.clients.kubernetes_watch import Event, Kind
from idi.parts.targets.kubernetes.target import KubernetesTarget
from idi.parts.targets.kubernetes.values import Around, Settings
from idi.parts.targets.recorded import document_of
from idi.world.events import Event as Fact
from idi.world.events import InstanceGone, InstanceSeen
from idi.world.types import Instance, InstanceId
from tests.support.worlds import spec

pytestmark = [pytest.mark.requirement("K1"), pytest.mark.asyncio]

NAME = InstanceId("sfl-stable-0")


class Stage:
    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.there: dict[str, Any] | None = None
        self.retired: list[str] = []
        self.ended: list[str] = []
        nothing = cast(Any, None)
        self.target = KubernetesTarget(
            api=cast(Kubernetes, self),
            namespace="shop",
            releases=nothing,
            around=lambda *_: Around(Settings("shop", "staging", "shop", "s")),
            emit=self.facts.append,
            retire=self.retire,
            supply=nothing,
            answers=nothing,
            ended=self.ended.append,
        )

    async def retire(self, instance: Instance) -> None:
        self.retired.append(instance.id)

    async def find(self, _path: str) -> dict[str, Any] | None:
        return self.there

    def pod(self, uid: str, kind: Kind = Kind.ADDED) -> None:
        self.there = None if kind is Kind.DELETED else pod(uid)
        self.target.instances.heard(Event(kind, pod(uid)))

    def ready(self) -> None:
        self.target.sidecar_ready(NAME, True)
        self.target.instances.report(NAME, True, "")

    @property
    def states(self) -> list[str]:
        return [one.instance.state if isinstance(one, InstanceSeen) else "gone" for one in self.facts]


def pod(uid: str) -> dict[str, Any]:
    own = spec("sfl", "aaaa")
    return {
        "metadata": {
            "name": NAME,
            "uid": uid,
            "labels": {"idi.dev/module": "sfl", "idi.dev/revision": own.revision},
            "annotations": {"idi.dev/spec": json.dumps(document_of(own))},
        },
        "spec": {"serviceAccountName": "idi-sfl"},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    }


async def test_the_goodbye_of_one_that_is_gone_is_not_its_successors() -> None:
    stage = Stage()
    stage.pod("one")
    stage.ready()
    stage.pod("one", Kind.DELETED)
    await stage.target.instances.stopping(NAME)
    stage.pod("two")
    stage.ready()
    assert stage.states == ["starting", "ready", "gone", "starting", "ready"]
    assert stage.ended == ["one"]
    assert stage.retired == []


async def test_one_that_took_anothers_place_unseen_starts_from_nothing() -> None:
    stage = Stage()
    stage.pod("one")
    stage.ready()
    stage.pod("two", Kind.MODIFIED)
    assert stage.states == ["starting", "ready", "gone", "starting"]
    assert isinstance(stage.facts[2], InstanceGone)
    assert stage.ended == ["one"]
