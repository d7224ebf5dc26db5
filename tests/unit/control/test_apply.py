"""Why a step failed: the reason of what ended stands alone, and says what helps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from idi.control.apply import Executor, StepFailed
from idi.control.loop import Edge, Loop
from idi.declaration.types import ModuleName
from idi.parts.targets.simulator import SimulatedTarget
from idi.plan.types import AwaitReady
from idi.traffic.types import EmbeddedKeys
from idi.world.events import InstanceFailed, InstanceSeen, RevisionEnsured
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
