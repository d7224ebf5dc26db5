"""What the operating system says of processes, time and callers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from idi.parts.clients.machine import Seen, Snapshot, signal_name, this_machine

pytestmark = pytest.mark.requirement("D1")


@asynccontextmanager
async def sleeper(*argv: str, **more: object) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*(argv or ("/bin/sleep", "1000")), **more)  # type: ignore[arg-type]
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_process_as_the_kernel_shows_it(tmp_path: Path) -> None:
    machine = this_machine()
    program = tmp_path / "a) S 1 (b"  # a name that looks like the fields after it
    program.symlink_to("/bin/sleep")
    async with sleeper(str(program), "1000", start_new_session=True, env={"A": "1", "B": "x=y"}) as process:
        while machine.variable(process.pid, "A") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        seen = machine.look(process.pid)
        assert seen is not None
        assert (seen.pid, seen.group, seen.session) == (process.pid, process.pid, process.pid)
        assert not seen.zombie
        assert 0 <= machine.age_s(seen.started) < 5
        assert machine.variable(process.pid, "B") == "x=y"
        assert machine.variable(process.pid, "C") is None
        assert machine.variable_of(seen, "B") == "x=y"
        assert [one.pid for one in (await machine.snapshot()).session(process.pid, seen.started)] == [
            process.pid
        ]
        assert (await machine.snapshot()).session(process.pid, seen.started + 1) == []
    assert machine.look(2**22 + 1) is None
    assert machine.variable(2**22 + 1, "A") is None
    assert machine.boot()
    assert machine.suspended_s() >= -0.001


async def test_a_snapshot_is_shared_and_never_older_than_the_question() -> None:
    machine = this_machine()
    first, second = await asyncio.gather(machine.snapshot(), machine.snapshot())
    assert first is second
    async with sleeper() as process:
        assert process.pid in (await machine.snapshot()).processes
        asked = asyncio.gather(machine.snapshot())
        asked.cancel()  # one who gives up does not take it from the others
        assert process.pid in (await machine.snapshot()).processes
    assert os.getpid() in first.processes


def test_members_of_a_session() -> None:
    def seen(pid: int, group: int, session: int, *, zombie: bool = False, started: int = 1) -> Seen:
        return Seen(pid, zombie, group, session, started)

    processes = [
        seen(10, 10, 10),
        seen(11, 11, 10),
        seen(12, 12, 10, zombie=True),
        seen(13, 13, 13),
        seen(14, 10, 9),
    ]
    assert {one.pid for one in Snapshot(processes).session(10, 1)} == {10, 11, 14}
    assert {one.pid for one in Snapshot(processes[1:]).session(10, 1)} == {11, 14}
    assert Snapshot([seen(10, 10, 10, started=2), seen(11, 11, 10)]).session(10, 1) == []


async def test_ends_are_seen_and_collected_once() -> None:
    machine = this_machine()
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})  # noqa: ASYNC221
    watch = machine.watch(pid)
    try:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(watch, ended.set)
        async with asyncio.timeout(5):
            await ended.wait()
        asyncio.get_running_loop().remove_reader(watch)
        assert machine.reap(watch) == 3
        assert machine.reap(watch) is None  # collected
    finally:
        os.close(watch)
    with pytest.raises(ProcessLookupError):
        machine.watch(2**22 - 1)


def test_a_signal_as_exit_code() -> None:
    machine = this_machine()
    pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    watch = machine.watch(pid)
    try:
        assert machine.reap(watch) is None  # alive
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        code = None
        while code is None and time.monotonic() < deadline:
            code = machine.reap(watch)
        assert code == -signal.SIGTERM
    finally:
        os.close(watch)
    assert (signal_name(9), signal_name(200)) == ("SIGKILL", "signal 200")


def test_who_is_at_the_other_end() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        peer = this_machine().peer(one)
        assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())
