"""Killing control takes nothing down; the next one adopts the same processes and changes nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from idi.parts.clients.machine import this_machine
from idi.parts.errors import PartError
from idi.parts.targets.local.process import MARKER, ProcessSpec
from idi.parts.targets.local.strays import marked
from idi.world.events import InstanceDied, InstanceReady, PartChanged, RevisionEnsured
from idi.world.types import InstanceId, World
from tests.support.scale import scale
from tests.support.targets import LocalStage, end_child, gone, hash8_of, local_stage, ready

pytestmark = pytest.mark.requirement("D1")

ONE, TWO = InstanceId("jede-1"), InstanceId("jede-2")
CONTROL = Path(__file__).parents[1] / "support" / "control_child.py"


@pytest.fixture
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalStage]:
    async with local_stage(tmp_path / "platform", hash8_of(request.node.nodeid)) as made:
        yield made


@asynccontextmanager
async def a_control(stage: LocalStage, count: int) -> AsyncIterator[asyncio.StreamReader]:
    """The output of a control of its own process, which is killed with -9 at the end."""
    control = await asyncio.create_subprocess_exec(
        sys.executable, str(CONTROL), str(stage.folder), stage.hash8, str(count), stdout=subprocess.PIPE
    )
    try:
        assert control.stdout is not None
        async with asyncio.timeout(60):
            assert await control.stdout.readline() == b"begin\n"
            yield control.stdout
    finally:
        control.send_signal(signal.SIGKILL)
        await control.wait()


@asynccontextmanager
async def killed_control(stage: LocalStage, count: int) -> AsyncIterator[dict[str, Any]]:
    """What a control of its own process had running when it was killed with -9."""
    async with a_control(stage, count) as output:
        left = json.loads(await output.readline())
    yield left


async def test_a_control_killed_at_any_moment_leaves_nothing_twice(
    stage: LocalStage, seeded: random.Random
) -> None:
    """After each kill the next control ends with exactly what was asked for, each process once."""
    for _ in range(scale(4, 60)):
        async with a_control(stage, 3):
            await asyncio.sleep(seeded.uniform(0, 0.4))
        async with killed_control(stage, 3) as left:
            wanted = [("vault", "part", left["part"])]
            for name, (module, sidecar, _) in left["instances"].items():
                wanted += [(name, "module", module), (name, "sidecar", sidecar)]
            there = [(one.name, one.role, one.seen.pid) for one in marked(this_machine(), stage.hash8)]
            assert sorted(there) == sorted(wanted)
        victim = seeded.choice(wanted)
        os.kill(victim[2], signal.SIGKILL)


async def test_the_same_pids_after_control_was_killed(stage: LocalStage) -> None:
    async with killed_control(stage, 3) as left, stage.control() as target:
        assert len(left["instances"]) == 3
        await target.adopt()
        # At once, before any question was asked: a healthy endpoint is not taken away.
        assert ready(stage, 3)()
        ensured = stage.told.of(RevisionEnsured)
        assert [(one.spec, one.count) for one in ensured] == [(stage.spec(), 3)]
        log = stage.folder / "state" / "logs" / "vault.log"
        part = await target.run_part(
            ProcessSpec("vault", "part", ("/bin/sleep", "1000"), {}, stage.folder, log)
        )
        assert part.pid == left["part"]
        await target.ensure(stage.spec(), 3)
        await asyncio.sleep(0.3)
        now = {one.id: [one.pid, one.sidecar_pid, one.ports["http"]] for one in stage.told.world.instances()}
        assert now == left["instances"]
        assert [type(event).__name__ for event in stage.told.events] == [
            "RevisionEnsured",
            *["InstanceSeen"] * 3,
            "PartChanged",
        ]


async def test_what_died_meanwhile_is_noticed_and_started_again(stage: LocalStage) -> None:
    async with killed_control(stage, 2) as left:
        os.kill(left["instances"]["jede-1"][0], signal.SIGKILL)
        os.kill(left["instances"]["jede-2"][1], signal.SIGKILL)
        os.kill(left["part"], signal.SIGKILL)
        await stage.until(lambda: gone(left["part"]))
        async with stage.control() as target:
            await target.adopt()
            await stage.until(lambda: len(stage.told.of(InstanceDied)) == 2)
            reasons = {one.instance: one.reason for one in stage.told.of(InstanceDied)}
            assert reasons["jede-1"] == "ended while control was not running"
            assert reasons["jede-2"] == "its sidecar ended while control was not running"
            await stage.until(ready(stage, 2))
            now = {
                one.id: [one.pid, one.sidecar_pid, one.ports["http"]] for one in stage.told.world.instances()
            }
            was = {InstanceId(name): pids for name, pids in left["instances"].items()}
            assert now[ONE][1:] == was[ONE][1:]
            assert now[TWO][0] == was[TWO][0]
            assert now[ONE][0] != was[ONE][0]
            assert now[TWO][1] != was[TWO][1]
            assert [one.restarts for one in stage.told.world.instances()] == [1, 1]


async def test_an_adopted_process_is_watched_and_ended_like_a_child(stage: LocalStage) -> None:
    async with killed_control(stage, 2) as left, stage.control() as target:
        await target.adopt()
        stage.kill("jede-1")
        await stage.until(lambda: stage.told.of(InstanceDied))
        assert "exit code is unknown" in stage.told.of(InstanceDied)[0].reason
        await stage.until(ready(stage, 2))
        await target.remove(stage.spec().module, stage.spec().revision)
        await target.stop_part("vault")
        pids = [left["part"], *left["instances"]["jede-1"][:2], *left["instances"]["jede-2"][:2]]
        assert [pid for pid in pids if not gone(pid)] == []


def edit(stage: LocalStage, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = stage.folder / "state" / "seats" / f"{name}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


async def started(stage: LocalStage, count: int = 1, **more: Any) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(**more), count)
        await stage.until(ready(stage, count))
        await asyncio.sleep(0.1)
    stage.told.events.clear()


async def test_a_process_whose_pid_was_never_written_is_found(stage: LocalStage) -> None:
    """Control died between starting a process and recording it."""
    await started(stage, 2)
    before = stage.told.instances()
    edit(stage, "jede-1", lambda seat: seat.update(module={"pid": 0, "started": 0, "pending": True}))
    stage.told.world = World()
    async with stage.control() as target:
        await target.adopt()
        assert {one.id: one.pid for one in stage.told.world.instances()} == {
            name: one.pid for name, one in before.items()
        }
        await asyncio.sleep(0.3)
        assert stage.told.of(InstanceDied) == []


async def test_a_start_that_never_came_about_is_made_up_for(stage: LocalStage) -> None:
    await started(stage)
    pid = stage.told.instances()[ONE].pid
    end_child(pid)
    edit(stage, "jede-1", lambda seat: seat["module"].update(pending=True))
    async with stage.control() as target:
        await target.adopt()
        await stage.until(lambda: stage.told.of(InstanceReady))
        assert stage.told.instances()[ONE].restarts == 1


async def test_a_process_that_no_record_names_is_ended(stage: LocalStage) -> None:
    await started(stage)
    one = stage.told.instances()[ONE]
    (stage.folder / "state" / "seats" / "jede-1.json").unlink()
    stage.told.world = World()
    async with stage.control() as target:
        await target.adopt()
        await stage.until(lambda: marked(this_machine(), stage.hash8) == [])
        assert stage.told.events == []
    assert gone(one.pid)
    assert gone(one.sidecar_pid)


async def test_what_a_module_started_in_its_own_session_is_left_alone(stage: LocalStage) -> None:
    daemon = stage.folder / "daemon"
    spec = stage.spec()
    spec = replace(spec, command=f"setsid sh -c 'echo $$ > {daemon}; exec sleep 1000' & {spec.command}")
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(ready(stage))
        await stage.until(lambda: daemon.exists() and daemon.read_text())
        await asyncio.sleep(0.1)
    async with stage.control() as target:
        await target.adopt()
        await asyncio.sleep(0.3)
        assert not gone(int(daemon.read_text()))


async def test_a_pid_that_now_means_another_process_is_not_touched(stage: LocalStage) -> None:
    await started(stage)
    pid = stage.told.instances()[ONE].pid
    end_child(pid)
    stranger = await asyncio.create_subprocess_exec("/bin/sleep", "1000")
    try:
        edit(stage, "jede-1", lambda seat: seat["module"].update(pid=stranger.pid))
        async with stage.control() as target:
            await target.adopt()
            await stage.until(lambda: stage.told.of(InstanceReady))
            assert stage.told.instances()[ONE].pid != stranger.pid
            await target.remove(stage.spec().module, stage.spec().revision)
        assert stranger.returncode is None
        assert not gone(stranger.pid)
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_process_with_anothers_marker_is_not_touched(stage: LocalStage) -> None:
    await started(stage)
    pid = stage.told.instances()[ONE].pid
    end_child(pid)
    stranger = await asyncio.create_subprocess_exec(
        "/bin/sleep", "1000", env={MARKER: "ffffffff:jede-1:module"}
    )
    try:
        seen = this_machine().look(stranger.pid)
        assert seen is not None
        edit(stage, "jede-1", lambda seat: seat["module"].update(pid=stranger.pid, started=seen.started))
        async with stage.control() as target:
            await target.adopt()
            await stage.until(lambda: stage.told.of(InstanceReady))
            await target.remove(stage.spec().module, stage.spec().revision)
        assert not gone(stranger.pid)
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_module_that_overwrote_its_environment_is_adopted(stage: LocalStage) -> None:
    """Programs that set their title write over the memory that /proc shows as their environment."""
    await started(stage)

    class Forgetful(type(this_machine())):  # type: ignore[misc]
        def variable(self, pid: int, name: str) -> str | None:
            return None

    stage.options["machine"] = Forgetful()
    async with stage.control() as target:
        await target.adopt()
        await asyncio.sleep(0.2)
        assert stage.told.of(InstanceDied) == []
    del stage.options["machine"]


async def test_after_a_reboot_nothing_is_taken_for_alive(stage: LocalStage) -> None:
    await started(stage)
    pid = stage.told.instances()[ONE].pid
    edit(stage, "jede-1", lambda seat: seat.update(boot="another"))

    async with stage.control() as target:
        # Without a reboot the old process is still there: nobody's, so it is ended and its port is free again.
        await target.adopt()
        await stage.until(lambda: stage.told.of(InstanceReady))
        now = stage.told.instances()[ONE]
        assert now.pid != pid
        assert now.restarts == 0
    await stage.until(lambda: gone(pid))


async def test_a_damaged_record_is_named_and_nothing_is_touched(stage: LocalStage) -> None:
    await started(stage, 2)
    before = stage.told.instances()
    path = stage.folder / "state" / "seats" / "jede-1.json"
    whole = path.read_text()
    for broken in (
        whole[: len(whole) // 2],
        "[]",
        '{"version": 1, "boot": "x"}',
        whole.replace('"ports"', '"prots"'),
    ):
        path.write_text(broken)
        async with stage.control() as target:
            with pytest.raises(PartError, match=r"seats/jede-1.json is damaged") as caught:
                await target.adopt()
            assert "Move it away" in caught.value.way_out
            assert not caught.value.retryable
    path.write_text(whole.replace('"version": 1', '"version": 7'))
    async with stage.control() as target:
        with pytest.raises(PartError, match=r"another version \(record 7, this one reads 1\)"):
            await target.adopt()
    path.write_text(whole)
    stage.told.world = World()
    async with stage.control() as target:
        await target.adopt()
        assert stage.told.instances() == before
    (stage.folder / "state" / "seats" / "jede-9.json").touch()  # what a power cut leaves
    async with stage.control() as target:
        await target.adopt()
        assert stage.told.instances() == before


async def test_the_data_plane_may_speak_before_adoption(stage: LocalStage) -> None:
    stage.told.sidecars_connect = False
    async with stage.control() as target:
        await target.ensure(stage.spec(), 1)
        await stage.until(lambda: stage.told.instances()[ONE].reason == "waiting for its sidecar")
        await asyncio.sleep(0.1)
    async with stage.control() as target:
        target.sidecar_ready(ONE, True)
        await target.adopt()
        await stage.until(ready(stage))


# --- IDI's own parts


def vault(stage: LocalStage, *argv: str, **more: Any) -> ProcessSpec:
    return ProcessSpec("vault", "part", argv, {}, stage.folder, stage.folder / "state/logs/vault.log", **more)


def states(stage: LocalStage) -> list[str]:
    return [event.state for event in stage.told.of(PartChanged)]


async def test_a_part_is_kept_running(stage: LocalStage) -> None:
    prepared: list[int] = []

    async def before() -> None:
        prepared.append(len(prepared))

    async with stage.control() as target:
        part = await target.run_part(vault(stage, "/bin/sleep", "1000"), before)
        first = part.pid
        os.kill(first, signal.SIGKILL)
        await stage.until(lambda: states(stage) == ["starting", "unready", "starting"])
        assert part.pid not in (0, first)
        assert stage.told.of(PartChanged)[1].reason == "was killed by SIGKILL"
        await part.restart("its configuration changed")
        await stage.until(lambda: states(stage)[3:] == ["unready", "starting"])
        assert len(prepared) == 3
        await target.stop_part("vault")
        assert states(stage)[-1] == "absent"
        assert target.recorded_parts() == []


async def test_a_part_that_crash_loops_is_told(stage: LocalStage) -> None:
    async with stage.control() as target:
        await target.run_part(vault(stage, "/bin/false"))
        await stage.until(lambda: "failed" in states(stage))
        assert "4 times in a row" in stage.told.of(PartChanged)[-1].reason


async def test_a_part_that_cannot_be_started_raises(stage: LocalStage) -> None:
    async with stage.control() as target:
        with pytest.raises(PartError, match="vault cannot start: /no/such/program"):
            await target.run_part(vault(stage, "/no/such/program"))
        await target.run_part(vault(stage, "/bin/sleep", "1000"))


async def test_a_recorded_part_that_nobody_runs_any_more_can_be_stopped(stage: LocalStage) -> None:
    async with stage.control() as target:
        pid = (await target.run_part(vault(stage, "/bin/sleep", "1000"))).pid
    async with stage.control() as target:
        await target.adopt()
        assert target.recorded_parts() == ["vault"]
        assert not gone(pid)
        await target.stop_part("vault")
        assert gone(pid)
        assert target.recorded_parts() == []
