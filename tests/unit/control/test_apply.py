"""Waiting for instances: why it failed, what helps, what is said meanwhile and how long it lasts."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from idi.control.change import apply
from idi.control.change.apply import Executor, StepFailed
from idi.control.loop import Edge, Loop
from idi.declaration.types import ModuleName
from idi.parts.targets.simulator import SimulatedTarget
from idi.plan.types import AwaitReady
from idi.traffic.types import EmbeddedKeys
from idi.world.events import (
    InstanceFailed,
    InstanceReady,
    InstanceSeen,
    RevisionAnew,
    RevisionDegraded,
    RevisionEnsured,
)
from idi.world.types import Instance, InstanceId, RevisionId
from tests.support.planes import RememberingPlane
from tests.support.worlds import instance, spec

CAM, ONE = ModuleName("cam"), InstanceId("cam-1")
KEYS = EmbeddedKeys("http://127.0.0.1:8080", "junzi", "{}", "/run/issuer")
LACKS = "it has no certificate, since OpenBao is starting"


async def failure_of(one: Instance, failed: str = "") -> tuple[Executor, StepFailed]:
    loop = Loop(RememberingPlane(), Edge("127.0.0.1", 8080, lambda platform: KEYS))
    loop.emit(RevisionEnsured(spec("cam", "aaaa"), 1))
    loop.emit(InstanceSeen(one))
    if failed:
        loop.emit(InstanceFailed(CAM, ONE, 2.0, failed))

    async def nothing(_: object) -> None: ...

    target = SimulatedTarget(loop.emit, nothing)
    executor = Executor(loop, target, nothing, nothing, nothing, lambda _: LACKS)
    with pytest.raises(StepFailed) as caught:
        await executor.do(AwaitReady(CAM, RevisionId("aaaa"), 1, 0.01))
    return executor, caught.value


async def test_what_ended_is_not_said_to_wait_for_a_certificate() -> None:
    why = "ended with exit code 127: pyhton was not found; 5 times in a row"
    executor, failure = await failure_of(instance("cam", 1, "aaaa", "starting"), why)
    assert failure.reason == f"cam-1 failed: {why}."
    assert failure.way_out.startswith("Is pyhton spelt right, ")
    assert executor.wants(ONE) == ""


async def test_what_lives_and_waits_is_said_to_lack_what_it_lacks() -> None:
    one = replace(instance("cam", 1, "aaaa", "starting"), reason="waiting for its sidecar")
    executor, failure = await failure_of(one)
    assert failure.reason == f"cam-1 not ready after 0.01 s: waiting for its sidecar; {LACKS}."
    assert failure.way_out == "It goes on waiting; idi status says what is needed."
    assert executor.wants(ONE) == LACKS
    assert executor.wants(InstanceId("cam-2")) == ""


class Told:
    """What a step says while it waits."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, words: str) -> None:
        self.said.append(words)


def waiting(monkeypatch: pytest.MonkeyPatch, count: int) -> tuple[Loop, Executor]:
    """`count` instances of cam that are starting; a wait speaks soon."""
    monkeypatch.setattr(apply, "SAY_S", 0.02)
    loop = Loop(RememberingPlane(), Edge("127.0.0.1", 8080, lambda platform: KEYS))
    loop.emit(RevisionEnsured(spec("cam", "aaaa"), count))
    for number in range(1, count + 1):
        one = instance("cam", number, "aaaa", "starting")
        loop.emit(InstanceSeen(replace(one, reason="its image is pulled")))

    async def nothing(_: object) -> None: ...

    return loop, Executor(loop, SimulatedTarget(loop.emit, nothing), nothing, nothing, nothing)


async def test_a_wait_says_soon_what_it_waits_for_and_again_when_that_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, executor = waiting(monkeypatch, 2)
    told = Told()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(executor.do(AwaitReady(CAM, RevisionId("aaaa"), 2, 5.0), told))
        await asyncio.sleep(0.15)
        assert told.said == ["0 of 2 ready; cam-1: its image is pulled"]
        loop.emit(InstanceReady(CAM, ONE, 2.0))
        await asyncio.sleep(0.2)
        assert told.said[1:] == ["1 of 2 ready; cam-2: its image is pulled"]
        loop.emit(InstanceReady(CAM, InstanceId("cam-2"), 2.0))


async def test_a_wait_is_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three that get ready one after another may take three times as long as the first that does not."""
    loop, executor = waiting(monkeypatch, 4)
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        step = tasks.create_task(caught(executor, AwaitReady(CAM, RevisionId("aaaa"), 4, 0.3)))
        for number in (1, 2, 3):
            await asyncio.sleep(0.2)
            loop.emit(InstanceReady(CAM, InstanceId(f"cam-{number}"), 2.0))
    assert 0.85 < time.monotonic() - began < 1.5
    assert step.result().reason == "cam-4 not ready after 0.3 s: its image is pulled."


async def caught(executor: Executor, step: AwaitReady) -> StepFailed:
    with pytest.raises(StepFailed) as failure:
        await executor.do(step)
    return failure.value


@pytest.mark.requirement("K3")
async def test_what_the_target_cannot_make_ends_the_wait_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apply, "REFUSED_S", 0.05)
    loop = Loop(RememberingPlane(), Edge("127.0.0.1", 8080, lambda platform: KEYS))
    loop.emit(RevisionEnsured(spec("cam", "aaaa"), 2))
    loop.emit(InstanceSeen(instance("cam", 1, "aaaa", "ready")))
    loop.emit(RevisionDegraded(CAM, RevisionId("aaaa"), "the quota idi of the namespace is used up"))

    async def nothing(_: object) -> None: ...

    executor = Executor(loop, SimulatedTarget(loop.emit, nothing), nothing, nothing, nothing)
    step = AwaitReady(CAM, RevisionId("aaaa"), 2, 30.0)
    with pytest.raises(StepFailed) as caught:
        await executor.do(step)
    why = "1 of 2 instances of cam could be made: the quota idi of the namespace is used up."
    assert caught.value.reason == why
    assert "Raise quota under target.kubernetes" in caught.value.way_out
    # What makes room in time is waited for.
    monkeypatch.setattr(apply, "REFUSED_S", 10.0)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(executor.do(step))
        await asyncio.sleep(0.05)
        loop.emit(InstanceSeen(instance("cam", 2, "aaaa", "ready")))


async def test_where_the_target_rolls_the_former_ones_are_waited_for_too() -> None:
    loop = Loop(RememberingPlane(), Edge("127.0.0.1", 8080, lambda platform: KEYS))
    loop.emit(RevisionEnsured(spec("cam", "aaaa"), 1))
    loop.emit(RevisionEnsured(spec("cam", "bbbb"), 1))
    loop.emit(InstanceSeen(instance("cam", 1, "aaaa", "ready")))
    loop.emit(InstanceSeen(instance("cam", 2, "bbbb", "ready")))

    async def nothing(_: object) -> None: ...

    executor = Executor(loop, SimulatedTarget(loop.emit, nothing), nothing, nothing, nothing)
    step = AwaitReady(CAM, RevisionId("bbbb"), 1, 0.01, alone=True)
    with pytest.raises(StepFailed, match="cam-1 of a former revision serves still"):
        await executor.do(step)
    await executor.do(replace(step, alone=False))
    loop.emit(InstanceSeen(instance("cam", 1, "aaaa", "stopping")))
    await executor.do(step)


async def test_what_is_made_anew_is_waited_for_though_its_revision_is_ready() -> None:
    loop = Loop(RememberingPlane(), Edge("127.0.0.1", 8080, lambda platform: KEYS))
    loop.emit(RevisionEnsured(spec("cam", "aaaa"), 1))
    loop.emit(InstanceSeen(instance("cam", 1, "aaaa", "ready")))
    loop.emit(RevisionAnew(CAM, RevisionId("aaaa"), True))

    async def nothing(_: object) -> None: ...

    executor = Executor(loop, SimulatedTarget(loop.emit, nothing), nothing, nothing, nothing)
    step = AwaitReady(CAM, RevisionId("aaaa"), 1, 0.01)
    assert executor.waits_for(step) == "1 of 1 ready; they are being made anew"
    with pytest.raises(StepFailed, match="Not all pods of cam are made anew after"):
        await executor.do(step)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(executor.do(replace(step, deadline_s=30.0)))
        await asyncio.sleep(0)
        loop.emit(RevisionAnew(CAM, RevisionId("aaaa"), False))
