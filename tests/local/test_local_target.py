"""The local target with real processes: deaths, ends, ports, environment, leaks."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from idi.declaration.types import Readiness
from idi.parts.clients.machine import this_machine
from idi.parts.errors import Bug, PartError
from idi.parts.targets.backoff import Policy
from idi.parts.targets.interface import SidecarSpec
from idi.parts.targets.local.ports import port_is_free
from idi.parts.targets.local.strays import marked
from idi.world.events import InstanceDied, InstanceFailed, InstanceReady, InstanceSeen, RevisionDegraded
from idi.world.types import InstanceId, PortSpec, RevisionSpec
from tests.support.scale import scale
from tests.support.targets import LocalStage, gone, hash8_of, local_stage, ready

pytestmark = pytest.mark.requirement("D1")

ONE = InstanceId("jede-1")


@pytest.fixture
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalStage]:
    async with local_stage(tmp_path / "platform", hash8_of(request.node.nodeid)) as made:
        yield made


async def get(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split()[0])
    body = await reader.readexactly(length)
    writer.close()
    return body.decode()


# --- deaths


async def test_a_kill_is_noticed_within_milliseconds(
    stage: LocalStage, record_property: Callable[[str, object], None]
) -> None:
    took = []
    async with stage.control() as target:
        await target.ensure(stage.spec(), 1)
        for _ in range(scale(5, 50)):
            await stage.until(ready(stage))
            heard, clock = len(stage.told.events), time.perf_counter()
            stage.kill("jede-1")
            while not stage.told.of(InstanceDied, since=heard):  # noqa: ASYNC110
                await asyncio.sleep(0)
            took.append((time.perf_counter() - clock) * 1000)
            await asyncio.sleep(0.02)
    record_property("death to event, ms, median", sorted(took)[len(took) // 2])
    print(f"kill -9 to InstanceDied: median {sorted(took)[len(took) // 2]:.2f} ms, most {max(took):.2f} ms")


async def test_a_crash_loop_ends_when_the_cause_is_gone(stage: LocalStage) -> None:
    cause = stage.folder / "cause"
    cause.touch()
    spec = stage.spec()
    spec = replace(spec, command=f"test ! -e {cause} && {spec.command}")
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(lambda: stage.told.of(InstanceFailed))
        assert stage.told.states() == {"jede-1": "failed"}
        assert stage.told.of(InstanceFailed)[0].reason == "ended with exit code 1; 4 times in a row"
        seen = len(stage.told.of(InstanceSeen))
        await stage.until(lambda: len(stage.told.of(InstanceSeen)) > seen + 1)
        assert stage.told.of(InstanceSeen)[-1].instance.state == "failed"  # still tried, and said to fail
        cause.unlink()
        await stage.until(ready(stage))
        await stage.until(lambda: len(stage.told.of(RevisionDegraded)) == 2)
        assert [bool(one.reason) for one in stage.told.of(RevisionDegraded)] == [True, False]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("pyhton -m jede", "ended with exit code 127: pyhton was not found"),
        ("echo not mine; cd . && ./jede.txt", "ended with exit code 126: ./jede.txt cannot be run"),
        ("exit 127", "ended with exit code 127: the command was not found"),
    ],
)
async def test_what_the_shell_could_not_run_is_in_the_reason(
    stage: LocalStage, command: str, reason: str
) -> None:
    """So that status, journal and API say it as well as the terminal does."""
    (stage.folder / "jede.txt").touch(mode=0o600)
    async with stage.control() as target:
        await target.ensure(replace(stage.spec(), command=command, directory=str(stage.folder)), 1)
        await stage.until(lambda: stage.told.of(InstanceFailed))
        assert {one.reason for one in stage.told.of(InstanceDied)} == {reason}
        assert stage.told.of(InstanceFailed)[0].reason == f"{reason}; 4 times in a row"


async def test_what_a_dead_module_leaves_behind_is_ended_first(stage: LocalStage) -> None:
    """A child in the module's session, and one in a session of its own that holds the port."""
    child, daemon = stage.folder / "child", stage.folder / "daemon"
    spec = stage.spec()
    spec = replace(
        spec,
        command=f"if test -e {child}; then {spec.command}; fi; "
        f"sleep 1000 & echo $! > {child}; "
        f'setsid python -I -S -c \'import os, socket, time; s = socket.create_server(("127.0.0.1", '
        f'int(os.environ["PORT"]))); open("{daemon}", "w").write(str(os.getpid())); time.sleep(1000)\' & '
        f"while ! test -s {daemon}; do sleep 0.02; done; exit 7",
    )
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(lambda: stage.told.of(InstanceDied))
        assert stage.told.of(InstanceDied)[0].reason == "ended with exit code 7"
        first = stage.told.instances()[ONE]
        await stage.until(ready(stage))
        assert stage.told.instances()[ONE].ports == first.ports
        assert gone(int(child.read_text()))
        assert gone(int(daemon.read_text()))


# --- ends


async def test_one_that_ignores_sigterm_is_killed_with_its_grandchild(stage: LocalStage) -> None:
    grandchild = stage.folder / "grandchild"
    spec = stage.spec(environment={"IGNORE_TERM": "1", "GRANDCHILD": str(grandchild)}, grace_s=0.3)
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(ready(stage))
        await stage.until(lambda: grandchild.exists() and grandchild.read_text())
        one, other = stage.told.instances()[ONE], int(grandchild.read_text())
        clock = time.monotonic()
        await target.remove(spec.module, spec.revision)
        took = time.monotonic() - clock
        assert 0.3 <= took < 3
        for pid in (one.pid, other, one.sidecar_pid):
            assert gone(pid)


async def test_the_module_ends_before_its_sidecar(stage: LocalStage) -> None:
    stage.sidecar = (
        "/bin/sh",
        "-c",
        "trap 'date +%s%N > sidecar-ended; exit' TERM; while :; do sleep 0.02; done",
    )
    spec = stage.spec()
    spec = replace(
        spec,
        command="trap 'sleep 0.2; date +%s%N > module-ended; exit' TERM; while :; do sleep 0.02; done",
        readiness=Readiness(command="true", every_s=0.1),
    )
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(ready(stage))
        await target.remove(spec.module, spec.revision)
    ended = int((stage.folder / "module-ended").read_text())
    assert ended < int((stage.folder / "run" / "sidecar-ended").read_text())


async def test_a_retirement_that_takes_too_long_does_not_hold_the_end_up(stage: LocalStage) -> None:
    stage.options["retire_deadline_s"] = 0.1
    async with stage.control() as target:
        await target.ensure(stage.spec(), 1)
        await stage.until(ready(stage))
        stage.retiring.clear()
        await target.remove(stage.spec().module, stage.spec().revision)
        assert stage.told.instances() == {}


async def test_processes_are_out_of_reach_of_the_terminal(stage: LocalStage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 1)
        await stage.until(ready(stage))
        one = stage.told.instances()[ONE]
        for pid in (one.pid, one.sidecar_pid):
            assert os.getsid(pid) == os.getpgid(pid) == pid
            fds = {os.readlink(f"/proc/{pid}/fd/{number}") for number in ("0", "1", "2")}
            assert not any(target.startswith("pipe:") for target in fds)


# --- readiness


async def test_a_missed_deadline_says_why_and_the_last_lines_are_there(stage: LocalStage) -> None:
    spec = stage.spec(**stage.never_ready("jede"))
    spec = replace(
        spec,
        environment={**spec.environment, "HELLO": "no database\nat that address"},
        readiness=Readiness(every_s=0.05, deadline_s=0.3),
    )
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(lambda: stage.told.of(InstanceFailed))
        (failed,) = stage.told.of(InstanceFailed)
        assert failed.reason.startswith("not ready within 0.3s: waiting for /ready (")
        assert failed.reason.endswith("try: /ready answered 503)")
        assert target.last_lines(ONE, 2) == ["no database", "at that address"]
        # Tried again after the longest backoff.
        await stage.until(lambda: stage.told.of(InstanceDied))
        await stage.until(lambda: stage.told.instances()[ONE].restarts == 1)
        assert stage.told.of(InstanceDied)[0].reason.startswith("was restarted: not ready within 0.3s")


async def test_last_lines_are_not_those_of_an_earlier_instance_of_the_same_name(stage: LocalStage) -> None:
    def saying(words: str) -> RevisionSpec:
        spec = stage.spec()
        return replace(spec, environment={**spec.environment, "HELLO": words})

    async with stage.control() as target:
        await target.ensure(saying("the old words"), 1)
        await stage.until(lambda: target.last_lines(ONE))
        await target.remove(saying("").module, saying("").revision)
        await target.ensure(saying("the new words"), 1)
        await stage.until(lambda: target.last_lines(ONE))
        assert target.last_lines(ONE) == ["the new words"]


@pytest.mark.parametrize(
    "readiness",
    [
        Readiness(tcp=True, every_s=0.1),
        Readiness(command="test -e $FLAG", every_s=0.1),
    ],
    ids=["tcp", "command"],
)
async def test_readiness_by(stage: LocalStage, readiness: Readiness) -> None:
    flag = stage.folder / "flag"
    spec = stage.spec(environment={"FLAG": str(flag)}, readiness=readiness)
    async with stage.control() as target:
        await target.ensure(spec, 1)
        if readiness.command:
            await stage.until(lambda: "try: it ended with exit code 1" in stage.told.instances()[ONE].reason)
            assert stage.told.instances()[ONE].reason.startswith("waiting for 'test -e $FLAG' (")
            flag.touch()
        await stage.until(ready(stage))


async def test_a_command_that_hangs_is_killed(stage: LocalStage) -> None:
    spec = stage.spec(readiness=Readiness(command="sleep 1001 & sleep 1002", timeout_s=0.2, every_s=0.1))
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(lambda: "not done within 0.2s" in stage.told.instances()[ONE].reason)
        await target.remove(spec.module, spec.revision)
        machine = this_machine()
        left = [one for one in marked(machine, stage.hash8) if one.role == "probe"]
        assert left == []


# --- ports


async def test_a_port_taken_meanwhile_is_replaced(stage: LocalStage) -> None:
    async with stage.control() as target:
        await target.ensure(stage.spec(), 1)
        await stage.until(ready(stage))
        old = stage.told.instances()[ONE]
    taken: set[int] = set()
    stage.options["free"] = lambda port: port not in taken and port_is_free(port)
    async with stage.control() as target:
        await target.adopt()
        taken.add(old.ports["http"])
        stage.kill("jede-1")
        await stage.until(lambda: stage.told.of(InstanceDied))
        await stage.until(ready(stage))
        new = stage.told.instances()[ONE]
        assert new.ports != old.ports
        assert (new.mesh, new.outbound, new.sidecar_pid) == (old.mesh, old.outbound, old.sidecar_pid)
        assert await get(new.ports["http"], "/PORT") == str(new.ports["http"])


async def test_when_an_outbound_port_is_taken_the_module_is_told(stage: LocalStage) -> None:
    spec = stage.spec(environment={"CAM_URL": "${peer.cam.url}"})
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(ready(stage))
        old = stage.told.instances()[ONE]
        assert await get(old.ports["http"], "/CAM_URL") == f"http://127.0.0.1:{old.outbound['cam']}"
        with socket.create_server(("127.0.0.1", old.outbound["cam"])):
            stage.kill_sidecar("jede-1")
            await stage.until(lambda: stage.told.instances()[ONE].outbound != old.outbound)
            await stage.until(lambda: stage.told.instances()[ONE].pid != old.pid)
            await stage.until(ready(stage))
        new = stage.told.instances()[ONE]
        assert (new.ports, new.mesh) == (old.ports, old.mesh)
        assert await get(new.ports["http"], "/CAM_URL") == f"http://127.0.0.1:{new.outbound['cam']}"


async def test_platforms_side_by_side(stage: LocalStage, tmp_path: Path) -> None:
    async with local_stage(tmp_path / "other", hash8_of(stage.hash8)) as other:
        async with stage.control() as one, other.control() as two:
            await asyncio.gather(one.ensure(stage.spec(), 3), two.ensure(other.spec(), 3))
            await stage.until(ready(stage, 3))
            await other.until(ready(other, 3))
            mine, theirs = stage.told.instances(), other.told.instances()
            ports = [each.ports["http"] for world in (mine, theirs) for each in world.values()]
            assert len(ports) == len(set(ports)) == 6
            await one.remove(stage.spec().module, stage.spec().revision)
        async with other.control() as two:
            await two.adopt()
            assert other.told.instances() == theirs


# --- what a process gets


async def test_a_module_gets_what_is_declared_and_nothing_else(stage: LocalStage) -> None:
    stage.options["own_environment"] = {
        "HOME": "/somewhere",
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/bin:/bin",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "PORT": "1",
        "PYTHONPATH": "/mine",
    }
    spec = stage.spec(
        environment={"A": "${port.admin}", "B": "${peer.cam.address}", "C": "$${port}", "D": "${data_dir}/x"},
        ports=(PortSpec("http", "http"), PortSpec("admin", "http")),
        storage=True,
    )
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(ready(stage))
        one = stage.told.instances()[ONE]

        async def value(name: str) -> str:
            return await get(one.ports["http"], f"/{name}")

        assert await value("A") == str(one.ports["admin"])
        assert await value("B") == f"127.0.0.1:{one.outbound['cam']}"
        assert await value("C") == "${port}"
        data = stage.folder / "state" / "data" / "jede"
        assert await value("D") == f"{data}/x"
        assert await value("IDI_DATA_DIR") == str(data)
        assert await value("IDI_INSTANCE") == "jede-1"
        assert await value("PORT") == str(one.ports["http"])
        assert await value("HOME") == "/somewhere"
        assert await value("LC_ALL") == "C.UTF-8"
        assert await value("PATH") == f"{Path(sys.executable).parent}:/usr/bin:/bin"
        assert await value("AWS_SECRET_ACCESS_KEY") == ""
        assert await value("PYTHONPATH") == ""
        assert os.readlink(f"/proc/{one.pid}/cwd") == os.path.realpath(stage.folder)  # noqa: ASYNC240
        assert stat.S_IMODE(data.stat().st_mode) == 0o700


async def test_only_this_user_can_read_what_is_written(stage: LocalStage) -> None:
    secret = stage.folder / "run" / "sidecar" / "token"
    stage.options["make_sidecar"] = lambda _: SidecarSpec(
        ("/bin/sh", "-c", 'cat "$TOKEN_FILE"; echo; exec sleep 1000'),
        files={str(secret): b"hush"},
        environment={"TOKEN_FILE": str(secret)},
    )
    spec = stage.spec()
    spec = replace(spec, command=f"touch made; {spec.command}")
    async with stage.control() as target:
        await target.ensure(spec, 1)
        await stage.until(ready(stage))
        await stage.until(lambda: target.logs.last_lines("jede-1.sidecar", 1) == ["hush"])
        files = [path for path in stage.folder.rglob("*") if path.is_file()]
        assert {path.name for path in files} >= {"token", "made", "jede-1.log", "jede-1.json"}
        for path in files:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        for folder in (stage.folder / "state", stage.folder / "run"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_spec_that_cannot_be_filled_is_the_callers_error(stage: LocalStage) -> None:
    spec = stage.spec()
    async with stage.control() as target:
        for bad in (
            replace(spec, command="run ${peer.nobody.url}"),
            replace(spec, environment={"X": "${prot}"}),
            replace(spec, readiness=Readiness(port="admin")),
        ):
            with pytest.raises(Bug):
                await target.ensure(bad, 1)
            assert stage.told.instances() == {}
        await target.remove(spec.module, spec.revision)
        await target.ensure(spec, 1)
        await stage.until(ready(stage))


# --- many


@pytest.mark.parametrize("sidecar", [("/bin/sleep", "1000"), None], ids=["with sidecars", "without"])
async def test_up_and_down_many_times_leaks_nothing(
    stage: LocalStage, seeded: random.Random, sidecar: tuple[str, ...] | None
) -> None:
    """The fixture looks for what is left: descriptors, zombies, processes."""
    stage.sidecar = sidecar
    steps = scale(40, 400)
    modules = ("jede", "cam", "dere")
    wanted: dict[str, int] = dict.fromkeys(modules, 0)

    async def one_module(target: object, module: str) -> None:
        ensure: Callable[..., Awaitable[None]] = target.ensure  # type: ignore[attr-defined]
        for _ in range(steps):
            wanted[module] = seeded.randrange(3)
            try:
                async with asyncio.timeout(seeded.choice([0.005, 0.05, 10])):
                    await ensure(stage.spec(module=module), wanted[module])
            except TimeoutError:
                pass
            living = [one for one in stage.told.instances().values() if one.module == module and one.pid]
            if living and seeded.random() < 0.2:
                try:
                    os.kill(seeded.choice(living).pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    async with stage.control() as target:
        await asyncio.gather(*(one_module(target, module) for module in modules))
        for module in modules:
            await target.ensure(stage.spec(module=module), wanted[module])
        await stage.until(ready(stage, sum(wanted.values())), timeout=60)
        for module in modules:
            await target.remove(stage.spec(module=module).module, stage.spec().revision)
        assert stage.told.world.modules == {}
        assert marked(this_machine(), stage.hash8) == []
        assert list((stage.folder / "state" / "seats").iterdir()) == []


async def test_an_error_inside_passes_as_it_is_and_ends_nothing(stage: LocalStage) -> None:
    async def body() -> None:
        async with stage.control() as target:
            await target.ensure(stage.spec(), 1)
            await stage.until(ready(stage))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    one = stage.told.instances()[ONE]
    assert not gone(one.pid)


async def test_a_full_disk_is_an_error_that_says_so(stage: LocalStage) -> None:
    async with stage.control() as target:
        seats = stage.folder / "state" / "seats"
        seats.rmdir()
        seats.touch()
        with pytest.raises(PartError, match=r"seats/jede-1.json cannot be written"):
            await target.ensure(stage.spec(), 1)
        assert stage.told.instances() == {}
        seats.unlink()
        seats.mkdir()
        await target.ensure(stage.spec(), 1)
        await stage.until(ready(stage))


async def test_forty_start_at_once(stage: LocalStage) -> None:
    stage.options["policy"] = Policy()
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(stage.control())
        clock = time.monotonic()
        await target.ensure(stage.spec(), scale(12, 40))
        started = time.monotonic() - clock
        await stage.until(ready(stage, scale(12, 40)))
        print(f"started in {started * 1000:.0f} ms, ready in {(time.monotonic() - clock) * 1000:.0f} ms")
        assert len(stage.told.of(InstanceReady)) == scale(12, 40)
