"""What every target keeps to, run against the simulator and against the local target with real processes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from idi.parts.errors import PartError
from idi.world.events import (
    InstanceDied,
    InstanceFailed,
    InstanceGone,
    InstanceReady,
    InstanceSeen,
    InstanceStopping,
    InstanceUnready,
    RevisionDegraded,
    RevisionEnsured,
    RevisionRemoved,
)
from idi.world.types import InstanceId
from tests.support.targets import JEDE, SimulatedStage, Stage, hash8_of, local_stage, ready

pytestmark = pytest.mark.requirement("D1")


@pytest.fixture(params=["simulator", "local"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    if request.param == "simulator":
        yield SimulatedStage()
        return
    async with local_stage(tmp_path / "platform", hash8_of(request.node.nodeid)) as local:
        yield local


async def test_starting_is_told_step_by_step(stage: Stage) -> None:
    async with stage.control() as target:
        await target.adopt()
        assert stage.told.events == []
        await target.ensure(stage.spec(), 2)
        assert set(stage.told.states()) == {"jede-1", "jede-2"}
        await stage.until(ready(stage, 2))
    assert stage.told.names()[:2] == ["RevisionEnsured", "InstanceSeen"]
    assert stage.told.names().count("InstanceReady") == 2
    first, second = stage.told.instances().values()
    assert 0 not in (first.pid, second.pid, first.sidecar_pid, second.sidecar_pid)
    assert first.address == "127.0.0.1"
    assert set(first.ports) == {"http"} == set(first.mesh)
    assert set(first.outbound) == {"cam"}
    ports = [
        port
        for one in (first, second)
        for group in (one.ports, one.mesh, one.outbound)
        for port in group.values()
    ]
    assert len(set(ports)) == 6


async def test_ensure_again_changes_nothing(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 2)
        await stage.until(ready(stage, 2))
        told = len(stage.told.events)
        await target.ensure(stage.spec(), 2)
        assert stage.told.events[told:] == []


async def test_scaling_keeps_what_is_there(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 1)
        await stage.until(ready(stage, 1))
        (first,) = stage.told.instances().values()
        await target.ensure(stage.spec(), 3)
        await stage.until(ready(stage, 3))
        assert stage.told.instances()[first.id] == first
        told = len(stage.told.events)
        await target.ensure(stage.spec(), 1)
        assert stage.told.instances() == {first.id: first}
        assert sorted(one.id for one in stage.retired) == ["jede-2", "jede-3"]
        for name in ("jede-2", "jede-3"):
            mine = [event for event in stage.told.events[told:] if getattr(event, "instance", None) == name]
            assert [type(event) for event in mine] == [InstanceStopping, InstanceGone]


async def test_an_unready_one_goes_first(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 2)
        await stage.until(ready(stage, 2))
        stage.answer("jede-1", False)
        await stage.until(lambda: stage.told.states()["jede-1"] == "unready")
        await target.ensure(stage.spec(), 1)
        assert stage.told.states() == {"jede-2": "ready"}


async def test_an_instance_ends_only_after_it_was_retired(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 1)
        await stage.until(ready(stage, 1))
        stage.retiring.clear()
        async with asyncio.TaskGroup() as tasks:
            removal = tasks.create_task(target.remove(JEDE, stage.spec().revision))
            await stage.until(lambda: stage.retired)
            assert stage.told.states() == {"jede-1": "stopping"}
            assert not removal.done()
            stage.retiring.set()
        assert stage.told.instances() == {}
        assert [type(event) for event in stage.told.events[-4:]] == [
            RevisionEnsured,
            InstanceStopping,
            InstanceGone,
            RevisionRemoved,
        ]
        await target.remove(JEDE, stage.spec().revision)
        assert isinstance(stage.told.events[-1], RevisionRemoved)
        assert len(stage.told.of(RevisionRemoved)) == 1


async def test_a_cancelled_scale_down_goes_on(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 2)
        await stage.until(ready(stage, 2))
        stage.retiring.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await target.ensure(stage.spec(), 1)
        assert stage.told.states() == {"jede-1": "ready", "jede-2": "stopping"}
        stage.retiring.set()
        await target.ensure(stage.spec(), 1)
        assert stage.told.states() == {"jede-1": "ready"}
        assert len(stage.retired) == 1


async def test_what_is_stopping_does_not_count(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 2)
        await stage.until(ready(stage, 2))
        stage.retiring.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await target.ensure(stage.spec(), 1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(target.ensure(stage.spec(), 2))
            await stage.until(lambda: stage.told.states().get("jede-3") == "ready")
            stage.retiring.set()
        assert stage.told.states() == {"jede-1": "ready", "jede-3": "ready"}


async def test_a_death_is_told_and_answered(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 2)
        await stage.until(ready(stage, 2))
        before = stage.told.instances()
        told = len(stage.told.events)
        stage.kill("jede-1")
        await stage.until(lambda: stage.told.of(InstanceDied, since=told))
        await stage.until(ready(stage, 2))
        after = stage.told.instances()
        assert after[InstanceId("jede-2")] == before[InstanceId("jede-2")]
        old, new = before[InstanceId("jede-1")], after[InstanceId("jede-1")]
        assert (new.ports, new.mesh, new.outbound) == (old.ports, old.mesh, old.outbound)
        assert new.pid != old.pid
        assert new.sidecar_pid == old.sidecar_pid
        assert (old.restarts, new.restarts) == (0, 1)
        assert stage.told.names(since=told) == ["InstanceDied", "InstanceSeen", "InstanceReady"]
        assert "SIGKILL" in stage.told.of(InstanceDied)[0].reason
        assert stage.retired == []


async def test_a_dead_sidecar_leaves_the_module_alone(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 1)
        await stage.until(ready(stage, 1))
        (old,) = stage.told.instances().values()
        stage.told.sidecars_connect = False
        stage.kill_sidecar("jede-1")
        await stage.until(lambda: stage.told.of(InstanceDied))
        await stage.until(lambda: next(iter(stage.told.instances().values())).sidecar_pid != old.sidecar_pid)
        (new,) = stage.told.instances().values()
        assert "sidecar" in stage.told.of(InstanceDied)[0].reason
        assert (new.pid, new.ports, new.mesh, new.outbound) == (old.pid, old.ports, old.mesh, old.outbound)
        assert new.state == "starting"
        target.sidecar_ready(new.id, True)
        await stage.until(ready(stage, 1))


async def test_ready_needs_the_module_and_the_sidecar(stage: Stage) -> None:
    stage.told.sidecars_connect = False
    async with stage.control() as target:
        await target.ensure(stage.spec(), 1)
        name = InstanceId("jede-1")
        with contextlib.suppress(AssertionError, TimeoutError):
            async with asyncio.timeout(0.3):
                await stage.until(lambda: stage.told.of(InstanceReady))
        assert stage.told.of(InstanceReady) == []
        target.sidecar_ready(name, True)
        await stage.until(ready(stage, 1))
        target.sidecar_ready(name, False)
        await stage.until(lambda: stage.told.states()[name] == "unready")
        assert "sidecar" in stage.told.of(InstanceUnready)[0].reason
        target.sidecar_ready(name, True)
        await stage.until(ready(stage, 1))
        target.sidecar_ready(InstanceId("nobody-1"), True)


async def test_readiness_goes_and_comes(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 1)
        for _ in range(3):
            await stage.until(ready(stage, 1))
            stage.answer("jede-1", False)
            await stage.until(lambda: stage.told.states()["jede-1"] == "unready")
            assert stage.told.of(InstanceUnready)[-1].reason == "/ready answered 503"
            stage.answer("jede-1", True)
        await stage.until(ready(stage, 1))
        assert stage.told.of(InstanceDied) == []


async def test_one_that_never_gets_ready_fails_at_its_deadline(stage: Stage) -> None:
    spec = stage.spec(**stage.never_ready("jede"))
    spec = replace(spec, readiness=replace(spec.readiness, deadline_s=0.4))
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(lambda: stage.told.of(InstanceFailed))
        assert stage.told.states() == {"jede-1": "failed"}
        assert "not ready within 0.4s" in stage.told.of(InstanceFailed)[0].reason
        assert stage.told.of(RevisionDegraded)[0].reason
        await target.remove(spec.module, spec.revision)
        assert stage.told.instances() == {}
        assert stage.told.of(RevisionDegraded)[-1].reason == ""


async def test_a_crash_loop_is_told(stage: Stage) -> None:
    spec = stage.spec(**stage.crashing("jede"))
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(lambda: stage.told.of(InstanceFailed))
        assert "in a row" in stage.told.of(InstanceFailed)[0].reason
        degraded = stage.told.of(RevisionDegraded)
        assert (degraded[0].module, degraded[0].revision) == (spec.module, spec.revision)
        await target.remove(spec.module, spec.revision)
        assert stage.told.instances() == {}


async def test_what_failed_is_tried_again_in_its_place(stage: Stage) -> None:
    spec = stage.spec(**stage.crashing("jede"))
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(lambda: stage.told.of(InstanceFailed))
        before = stage.told.instances()[InstanceId("jede-1")]
        stage.mend("jede")
        await target.retry(spec.module, spec.revision)
        assert stage.told.states() == {"jede-1": "starting"}, "a wait for it must not fail at once"
        await stage.until(ready(stage))
        now = stage.told.instances()[InstanceId("jede-1")]
        assert (now.ports, now.mesh) == (before.ports, before.mesh)
        assert stage.retired == []
        assert stage.told.of(RevisionDegraded)[-1].reason == ""
        told = len(stage.told.events)
        await target.retry(spec.module, spec.revision)
        assert stage.told.names(since=told) == [], "what has not failed is left alone"


async def test_one_that_got_ready_too_late_is_tried_again(stage: Stage) -> None:
    spec = stage.spec(**stage.never_ready("jede"))
    spec = replace(spec, readiness=replace(spec.readiness, deadline_s=0.4))
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(lambda: stage.told.of(InstanceFailed))
        before = stage.told.instances()[InstanceId("jede-1")].pid
        await target.retry(spec.module, spec.revision)
        assert stage.told.states() == {"jede-1": "starting"}
        await stage.until(lambda: stage.told.instances()[InstanceId("jede-1")].pid not in (0, before))
        await stage.until(lambda: len(stage.told.of(InstanceFailed)) == 2)


async def test_what_cannot_be_started_raises(stage: Stage) -> None:
    spec = stage.spec(**stage.unstartable("jede"))
    async with stage.control() as target:
        for _ in range(2):
            with pytest.raises(PartError):
                await target.ensure(spec, 2)
            assert stage.told.instances() == {}
        await target.remove(spec.module, spec.revision)


async def test_two_revisions_side_by_side(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(revision="aaaaaaaa"), 1)
        await target.ensure(stage.spec(revision="bbbbbbbb"), 2)
        await stage.until(ready(stage, 3))
        by_revision = {one.id: one.revision for one in stage.told.instances().values()}
        assert by_revision == {"jede-1": "aaaaaaaa", "jede-2": "bbbbbbbb", "jede-3": "bbbbbbbb"}
        await target.ensure(stage.spec(revision="aaaaaaaa"), 0)
        assert set(stage.told.instances()) == {"jede-2", "jede-3"}
        await target.ensure(stage.spec(revision="bbbbbbbb"), 3)
        assert set(stage.told.instances()) == {"jede-1", "jede-2", "jede-3"}


async def test_modules_start_in_parallel(stage: Stage) -> None:
    async with stage.control() as target:
        async with asyncio.TaskGroup() as tasks:
            for module in ("jede", "cam", "dere"):
                tasks.create_task(target.ensure(stage.spec(module=module), 2))
        await stage.until(ready(stage, 6))
        assert len({port for one in stage.told.instances().values() for port in one.mesh.values()}) == 6


async def test_the_next_control_adopts(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 3)
        await stage.until(ready(stage, 3))
        stage.kill("jede-3")
        await stage.until(lambda: stage.told.of(InstanceDied))
        await stage.until(ready(stage, 3))
        before = stage.told.instances()
        await asyncio.sleep(0.1)  # the record follows the facts
    stage.kill_between("jede-2")
    stage.told.world = type(stage.told.world)()
    stage.told.events.clear()
    async with stage.control() as target:
        await target.adopt()
        assert isinstance(stage.told.events[0], RevisionEnsured)
        assert stage.told.events[0].count == 3
        assert [event.instance.id for event in stage.told.of(InstanceSeen)][:3] == [
            "jede-1",
            "jede-2",
            "jede-3",
        ]
        await stage.until(lambda: stage.told.of(InstanceDied))
        await stage.until(ready(stage, 3))
        after = stage.told.instances()
        assert [event.instance for event in stage.told.of(InstanceDied)] == ["jede-2"]
        for name, one in before.items():
            assert (after[name].ports, after[name].sidecar_pid) == (one.ports, one.sidecar_pid)
            assert (after[name].pid == one.pid) == (name != "jede-2")
        assert [after[InstanceId(f"jede-{slot}")].restarts for slot in (1, 2, 3)] == [0, 1, 1]
        told = len(stage.told.events)
        await target.ensure(stage.spec(), 3)
        assert stage.told.events[told:] == []


async def test_a_decided_end_is_carried_out_by_the_next_control(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 2)
        await stage.until(ready(stage, 2))
        stage.retiring.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.15):
                await target.ensure(stage.spec(), 1)
        assert stage.told.states()["jede-2"] == "stopping"
    stage.told.world = type(stage.told.world)()
    stage.retiring.set()
    async with stage.control() as target:
        await target.adopt()
        await stage.until(lambda: stage.told.states() == {"jede-1": "ready"})
        assert [one.id for one in stage.retired] == ["jede-2", "jede-2"]


async def test_last_lines_are_at_hand(stage: Stage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(environment={"HELLO": "one\ntwo\nthree"}), 1)
        async with asyncio.timeout(20):
            while not await target.tail(InstanceId("jede-1"), 3):  # noqa: ASYNC110 - its output tells nobody
                await asyncio.sleep(0.005)
        assert len(await target.tail(InstanceId("jede-1"), 2)) == 2
        assert await target.tail(InstanceId("nobody-1")) == []
