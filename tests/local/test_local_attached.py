"""Instances that somebody else runs: their sidecar is ours, their process is never touched."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from idi.declaration.types import Readiness
from idi.parts.targets.local.ports import port_is_free
from idi.world.events import InstanceDied, InstanceUnready, RevisionEnsured
from idi.world.types import InstanceId, PortSpec, RevisionId, RevisionSpec, World
from tests.support.targets import SMALL_MODULE, LocalStage, gone, hash8_of, local_stage, ready

pytestmark = pytest.mark.requirement("D1")

ONE = InstanceId("jede-1")


@pytest.fixture
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalStage]:
    async with local_stage(tmp_path / "platform", hash8_of(request.node.nodeid)) as made:
        yield made


@asynccontextmanager
async def somebodys_module(stage: LocalStage) -> AsyncIterator[tuple[int, int]]:
    """Port and pid of a small module that no target started."""
    port = next(port for port in range(31_000, 32_000) if port_is_free(port))
    env = {**os.environ, "PORT": str(port), "UNREADY": str(stage.folder / "unready-jede-1")}
    process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", str(SMALL_MODULE), env=env)
    try:
        yield port, process.pid
    finally:
        process.kill()
        await process.wait()


def registered(stage: LocalStage) -> RevisionSpec:
    return replace(stage.spec(), revision=RevisionId("registered"), command="")


async def test_it_is_there_like_every_other(stage: LocalStage) -> None:
    async with somebodys_module(stage) as (port, pid), stage.control() as target:
        await target.ensure(stage.spec(), 1)
        instance = await target.attach(registered(stage), port)
        assert instance.id == "jede-2"
        assert not instance.supervised
        assert instance.ports == {"http": port}
        await stage.until(ready(stage, 2))
        await target.ensure(stage.spec(), 2)
        await target.ensure(stage.spec(), 0)
        assert stage.told.states() == {"jede-2": "ready"}
        await target.detach(instance.id)
        await target.detach(instance.id)
        assert stage.told.states() == {}
        assert [one.id for one in stage.retired][-1] == "jede-2"
        assert not gone(pid)


async def test_its_readiness_is_asked(stage: LocalStage) -> None:
    async with somebodys_module(stage) as (port, pid), stage.control() as target:
        await target.attach(registered(stage), port)
        await stage.until(ready(stage))
        stage.answer("jede-1", False)
        await stage.until(lambda: stage.told.of(InstanceUnready))
        stage.answer("jede-1", True)
        await stage.until(ready(stage))
        stage.kill_sidecar("jede-1")
        await stage.until(lambda: stage.told.of(InstanceDied))
        await stage.until(ready(stage))
        assert not gone(pid)
        await target.detach(ONE)


async def test_one_that_never_answers_fails_and_is_left_alone(stage: LocalStage) -> None:
    spec = replace(registered(stage), readiness=Readiness(http="/ready", every_s=0.05, deadline_s=0.2))
    stage.answer("jede-1", False)
    async with somebodys_module(stage) as (port, pid), stage.control() as target:
        await target.attach(spec, port)
        await stage.until(lambda: stage.told.states() == {"jede-1": "failed"})
        await asyncio.sleep(
            0.5
        )  # longer than the longest backoff, after which a module of ours would be restarted
        assert stage.told.of(InstanceDied) == []
        stage.answer("jede-1", True)
        await stage.until(ready(stage))
        assert not gone(pid)
        await target.detach(ONE)


@pytest.mark.parametrize(
    "readiness", [Readiness(tcp=True, port="admin"), Readiness(command='test -n "$PATH"')]
)
async def test_what_is_unknown_of_it_stands_in_no_ones_way(stage: LocalStage, readiness: Readiness) -> None:
    """Only its default port is known: not its other ports, not its environment."""
    spec = replace(
        registered(stage),
        ports=(PortSpec("http", "http"), PortSpec("admin", "http")),
        environment={"ADMIN": "${port.admin}"},
        readiness=readiness,
    )
    async with somebodys_module(stage) as (port, _), stage.control() as target:
        await target.attach(spec, port)
        await stage.until(ready(stage))
        await target.detach(ONE)


async def test_the_next_control_keeps_it(stage: LocalStage) -> None:
    async with somebodys_module(stage) as (port, pid):
        async with stage.control() as target:
            await target.attach(registered(stage), port)
            await stage.until(ready(stage))
            await asyncio.sleep(0.1)
        before = stage.told.instances()
        stage.told.world = World()
        stage.told.events.clear()
        async with stage.control() as target:
            await target.adopt()
            assert stage.told.instances() == before
            assert target.attached() == [ONE]
            await asyncio.sleep(0.3)
            assert stage.told.of(RevisionEnsured) == []
            assert stage.told.instances() == before
            await target.detach(ONE)
            assert stage.told.instances() == {}
        assert not gone(pid)
