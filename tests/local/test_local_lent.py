"""Seats that are lent: whose process it is, until when it serves, and what ends with it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from idi.declaration.types import Readiness
from idi.parts.errors import Refused
from idi.world.events import InstanceFailed, InstanceUnready
from idi.world.types import InstanceId, RevisionId, RevisionSpec, World
from tests.support.targets import SMALL_MODULE, LocalStage, hash8_of, local_stage, ready

pytestmark = pytest.mark.requirement("D1")

TWO = InstanceId("jede-2")


@pytest.fixture
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalStage]:
    async with local_stage(tmp_path / "platform", hash8_of(request.node.nodeid)) as made:
        yield made


@asynccontextmanager
async def process(*argv: str, **environment: str) -> AsyncIterator[Process]:
    one = await asyncio.create_subprocess_exec(*argv, env={**os.environ, **environment})
    try:
        yield one
    finally:
        if one.returncode is None:
            one.kill()
        await one.wait()


def lent(stage: LocalStage) -> RevisionSpec:
    readiness = Readiness(http="/ready", every_s=0.05, timeout_s=0.1, deadline_s=0.3, failures=1)
    return replace(stage.spec(), revision=RevisionId("lent"), command="", readiness=readiness)


@asynccontextmanager
async def developing(stage: LocalStage) -> AsyncIterator[tuple[Process, Process]]:
    """Who holds the seat, and the module in it, ready."""
    target = stage.target
    assert target is not None
    await target.ensure(stage.spec(), 1)
    async with process("sleep", "600") as holder:
        instance = await target.lend(lent(stage), "ann", holder.pid)
        assert (instance.id, instance.by, instance.supervised) == (TWO, "ann", False)
        assert await target.lend(lent(stage), "ann", holder.pid) == instance, "there is one at most"
        port = str(instance.ports["http"])
        async with process(sys.executable, "-I", "-S", str(SMALL_MODULE), PORT=port) as module:
            target.take(TWO, module.pid, holder.pid)
            await stage.until(ready(stage, 2))
            yield holder, module


async def test_one_that_stands_still_goes_on_being_ready(stage: LocalStage) -> None:
    async with stage.control() as target, developing(stage) as (_, module):
        module.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.0)  # twenty times its period, ten times its timeout
        assert stage.told.states()[TWO] == "ready"
        assert target.over(TWO) == ""
        await target.detach(TWO)  # also what stands still hears that it is to end
        await asyncio.wait_for(module.wait(), 10)


async def test_it_is_over_when_the_module_ends(stage: LocalStage) -> None:
    async with stage.control() as target, developing(stage) as (_, module):
        module.kill()
        await stage.until(lambda: target.over(TWO))
        assert target.over(TWO) == "ann's command has ended"
        [unready] = stage.told.of(InstanceUnready)
        assert unready.instance == TWO
        await target.detach(TWO)
        assert stage.told.states() == {"jede-1": "ready"}


async def test_it_is_over_when_its_holder_ends_and_serves_until_it_is_let_go(stage: LocalStage) -> None:
    async with stage.control() as target, developing(stage) as (holder, module):
        holder.kill()
        await stage.until(lambda: target.over(TWO))
        assert stage.told.states()[TWO] == "ready"
        await target.detach(TWO)
        await asyncio.wait_for(module.wait(), 10)


async def test_without_a_listener_it_is_unready(stage: LocalStage) -> None:
    async with (
        stage.control() as target,
        process("sleep", "600") as holder,
        process("sleep", "600") as command,
    ):
        instance = await target.lend(lent(stage), "ann", holder.pid)
        target.take(instance.id, command.pid, holder.pid)
        await asyncio.sleep(0.6)
        assert stage.told.states() == {instance.id: "starting"}
        assert stage.told.of(InstanceFailed) == [], "it may stand at a breakpoint before it listens"
        port = str(instance.ports["http"])
        for _ in range(2):
            async with process(sys.executable, "-I", "-S", str(SMALL_MODULE), PORT=port):
                await stage.until(lambda: stage.told.states() == {instance.id: "ready"})
            await stage.until(lambda: stage.told.states() == {instance.id: "unready"})
        await target.detach(instance.id)


async def test_nobody_but_the_holder_says_what_was_started(stage: LocalStage) -> None:
    async with stage.control() as target, process("sleep", "600") as holder:
        instance = await target.lend(lent(stage), "ann", holder.pid)
        with pytest.raises(Refused):
            target.take(instance.id, os.getpid(), os.getpid())
        with pytest.raises(Refused):
            target.take(InstanceId("jede-9"), holder.pid, holder.pid)
        target.take(instance.id, 2**22, holder.pid)  # ended before it could be told
        assert target.over(instance.id) == "ann's command has ended"
        await target.detach(instance.id)


async def test_the_next_control_keeps_it(stage: LocalStage) -> None:
    async with AsyncExitStack() as theirs:
        async with stage.control():
            holder, module = await theirs.enter_async_context(developing(stage))
            await asyncio.sleep(0.1)
            before = stage.told.instances()
        stage.told.world = World()
        async with stage.control() as target:
            await target.adopt()
            assert stage.told.instances() == before
            assert target.attached() == [], "it needs no heartbeat"
            module.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.5)
            assert stage.told.states()[TWO] == "ready"
            holder.kill()
            await stage.until(lambda: target.over(TWO))
            await target.detach(TWO)
            await asyncio.wait_for(module.wait(), 10)


async def test_the_next_control_sees_what_ended_meanwhile(stage: LocalStage) -> None:
    async with stage.control(), developing(stage):
        await asyncio.sleep(0.1)
    stage.told.world = World()
    async with stage.control() as target:
        await target.adopt()
        assert stage.told.states()[TWO] != "ready"
        assert target.over(TWO)
        await target.detach(TWO)
