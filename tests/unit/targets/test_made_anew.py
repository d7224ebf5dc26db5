"""Which pods are as what was put back: what makes them says so, and only from that generation on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from idi.declaration.types import ModuleName
from idi.parts.targets.kubernetes.behind import Behind
from idi.parts.targets.kubernetes.survey import Survey
from idi.world.events import Event, RevisionAnew
from idi.world.types import Drift
from tests.support.worlds import spec

pytestmark = [pytest.mark.requirement("K1"), pytest.mark.asyncio]

CAM = spec("cam", "a")
NAME = ModuleName("cam")
IMAGE = Drift("Deployment cam-stable", "spec.template.spec.containers[module].image", "cam:1", "cam:2")


def deployment(generation: int, *, seen: int = 0, updated: int = 2) -> dict[str, Any]:
    status = {"observedGeneration": seen or generation, "updatedReplicas": updated}
    return {
        "metadata": {"name": "cam-stable", "generation": generation},
        "spec": {"replicas": 2},
        "status": {**status, "replicas": 2, "readyReplicas": 2},
    }


@dataclass
class Stage:
    """`now`: what the API server answers when it is asked."""

    now: dict[str, Any] = field(default_factory=lambda: deployment(3, updated=1))
    facts: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.behind = Behind(
            cast(Survey, self),
            self.facts.append,
            values=lambda _: None,
            busy=lambda _: True,
            tasks=cast(Any, None),
        )
        self.behind.drift[NAME] = (IMAGE,)

    async def makers(self, _module: str, _values: Mapping[str, Any]) -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        return [self.now]

    def under_way(self) -> list[bool]:
        return [one.under_way for one in self.facts if isinstance(one, RevisionAnew)]


async def test_they_are_when_their_maker_of_that_generation_says_so() -> None:
    stage = Stage()
    await stage.behind.written(CAM, {}, again=True)
    assert stage.under_way() == [True]
    stage.behind.heard(NAME, deployment(2))  # late, of before
    stage.behind.heard(NAME, deployment(3, seen=2))
    stage.behind.heard(NAME, deployment(3, updated=1))
    assert stage.under_way() == [True]
    stage.behind.heard(NAME, deployment(3))
    stage.behind.heard(NAME, deployment(3))
    assert stage.under_way() == [True, False]


async def test_what_was_said_while_it_was_asked_counts() -> None:
    stage = Stage()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stage.behind.written(CAM, {}, again=True))
        await asyncio.sleep(0)
        stage.behind.heard(NAME, deployment(3))
    assert stage.under_way() == [True, False]


@pytest.mark.parametrize(("again", "drift"), [(False, IMAGE), (True, Drift("Service cam"))])
async def test_another_revision_tells_by_itself_and_some_things_make_no_pods(
    again: bool, drift: Drift
) -> None:
    stage = Stage()
    stage.behind.drift[NAME] = (drift,)
    await stage.behind.written(CAM, {}, again=again)
    assert stage.under_way() == []


async def test_of_a_module_that_went_nothing_is_said() -> None:
    stage = Stage()
    await stage.behind.written(CAM, {}, again=True)
    stage.behind.forget(NAME)
    stage.behind.heard(NAME, deployment(3))
    assert stage.under_way() == [True]
