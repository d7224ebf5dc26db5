"""Which pods are of what was written last: what makes them says so, of itself and not of before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from idi.declaration.types import ModuleName
from idi.parts.targets.kubernetes.anew import Anew
from idi.parts.targets.kubernetes.behind import Behind
from idi.parts.targets.kubernetes.makers import Makers
from idi.parts.targets.kubernetes.survey import Survey
from idi.world.events import Event, RevisionAnew
from tests.support.worlds import spec

pytestmark = [pytest.mark.requirement("K1"), pytest.mark.asyncio]

CAM = spec("cam", "a")
NAME = ModuleName("cam")


def deployment(
    generation: int, *, seen: int = 0, updated: int = 2, there: int = 2, wanted: int = 2, uid: str = "u"
) -> dict[str, Any]:
    status = {"observedGeneration": seen or generation, "updatedReplicas": updated, "replicas": there}
    metadata = {"name": "cam-stable", "generation": generation, "uid": uid}
    return {
        "metadata": {**metadata, "annotations": {"idi.dev/count": "2"}},
        "spec": {"replicas": wanted},
        "status": status,
    }


ROLLING = deployment(3, updated=1, there=3)


@dataclass
class Stage:
    """`now`: what the API server answers when it is asked."""

    now: list[dict[str, Any]] = field(default_factory=lambda: [ROLLING])
    facts: list[Event] = field(default_factory=list)
    taken_away: int = 0

    def __post_init__(self) -> None:
        self.makers_told = Makers()
        self.behind = Behind(
            cast(Survey, self),
            self.facts.append,
            Anew(self.facts.append, self.makers_told),
            values=lambda _: None,
            busy=lambda _: True,
            tasks=cast(Any, None),
        )

    async def makers(self, _module: str) -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        return self.now

    async def take_away(self, _module: str, _values: Mapping[str, Any]) -> None:
        self.taken_away += 1

    async def written(self, *, again: bool = True) -> None:
        await self.behind.written(CAM, {}, found=True, again=again)

    def hear(self, document: dict[str, Any], *, gone: bool = False) -> None:
        self.makers_told.heard(document, gone=gone)
        self.behind.heard(NAME, document, gone=gone)

    def under_way(self) -> list[bool]:
        return [one.under_way for one in self.facts if isinstance(one, RevisionAnew)]


async def test_they_are_when_their_maker_of_that_generation_says_so() -> None:
    stage = Stage()
    await stage.written()
    assert stage.under_way() == [True]
    stage.hear(deployment(2))  # late, of before
    stage.hear(deployment(3, seen=2))
    stage.hear(deployment(9, uid="its namesake of before"))
    stage.hear(ROLLING)
    stage.hear(deployment(3, updated=1, there=1))
    assert stage.under_way() == [True]
    stage.hear(deployment(3))
    stage.hear(deployment(3))
    assert stage.under_way() == [True, False]


async def test_what_was_said_while_it_was_asked_counts() -> None:
    stage = Stage()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stage.written())
        await asyncio.sleep(0)
        stage.hear(deployment(3))
    assert stage.under_way() == []


@pytest.mark.parametrize(
    ("again", "now"),
    [
        pytest.param(False, ROLLING, id="another revision tells by itself"),
        pytest.param(True, deployment(3), id="nothing had to be made"),
        pytest.param(True, deployment(3, wanted=8), id="an autoscaler wants more than fits"),
    ],
)
async def test_what_is_not_waited_for(again: bool, now: dict[str, Any]) -> None:
    stage = Stage([now])
    await stage.written(again=again)
    assert stage.under_way() == []


async def test_the_wait_ends_with_what_takes_its_place() -> None:
    """None of it, another revision, one that was deleted and made again."""
    stage = Stage()
    await stage.written()
    await stage.written(again=False)
    assert stage.under_way() == [True, False]
    await stage.written()
    stage.now = []
    await stage.written()
    assert stage.under_way() == [True, False] * 2
    stage.now = [ROLLING]
    await stage.written()
    stage.hear(deployment(9), gone=True)
    stage.now = [deployment(1, uid="another")]
    await stage.written()
    assert stage.under_way() == [True, False] * 3


async def test_of_a_module_that_went_nothing_is_said() -> None:
    stage = Stage()
    await stage.written()
    stage.behind.forget(NAME)
    stage.hear(deployment(3))
    assert stage.under_way() == [True]


async def test_what_was_added_before_this_control_came_goes_too() -> None:
    new, found = Stage(), Stage()
    await new.behind.written(CAM, {})
    assert new.taken_away == 0
    await found.written()
    await found.written()
    assert found.taken_away == 1
