"""What the operating system knows about processes, time and callers: one small interface, Linux first.

A pid alone is no identity, because numbers are used again: a process is named by its pid *and* its start
time. Its end is noticed through a pidfd, which works alike for children and for processes that an earlier
control started. A session or group number is not given away while a member lives, so "the pid now
belongs to a process with another start time" proves that the whole session is gone.

`suspended_s` is how long the machine has slept since boot: CLOCK_BOOTTIME runs through sleep,
CLOCK_MONOTONIC does not, so a growing difference is a wake-up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from idi.parts.errors import PartError

SHARED_LOOK_S = 0.003
"""Many processes end at about the same time; one look at /proc then serves all who ask about it."""
MOST_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Seen:
    """One process as the kernel shows it; `started` is in clock ticks since boot."""

    pid: int
    zombie: bool
    group: int
    session: int
    started: int


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a Unix socket."""

    pid: int
    uid: int
    gid: int


class Snapshot:
    """All processes at one moment."""

    def __init__(self, processes: Iterable[Seen]) -> None:
        self.processes = {seen.pid: seen for seen in processes}
        self._members: dict[int, list[Seen]] = {}
        for seen in self.processes.values():
            for number in {seen.session, seen.group}:
                self._members.setdefault(number, []).append(seen)

    def session(self, pid: int, started: int) -> list[Seen]:
        """Living members of the session (or group) that this process leads or led, itself included."""
        leader = self.processes.get(pid)
        if leader is not None and leader.started != started:
            return []
        return [seen for seen in self._members.get(pid, ()) if not seen.zombie]


class Machine(Protocol):
    def watch(self, pid: int) -> int:
        """A descriptor that becomes readable when the process ends; raises ProcessLookupError."""

    def reap(self, watch: int) -> int | None:
        """Collect an ended child: exit code, negative for a signal, None where it is not our child."""

    def look(self, pid: int) -> Seen | None:
        """The process with this pid, if there is one."""

    def processes(self) -> Iterator[Seen]:
        """Every process that can be seen."""

    async def snapshot(self) -> Snapshot:
        """Every process, looked at after the call; who asks within a few milliseconds shares one look."""

    def variable(self, pid: int, name: str) -> str | None:
        """One variable of a process's first environment; None if unset, overwritten or forbidden."""

    def variable_of(self, seen: Seen, name: str) -> str | None:
        """The same, remembered: a first environment does not change."""

    def age_s(self, started: int) -> float:
        """Seconds since a start time."""

    def boot(self) -> str:
        """Names this boot: start times of another boot say nothing."""

    def suspended_s(self) -> float:
        """Seconds that the machine has slept since boot."""

    def peer(self, connection: socket.socket) -> Peer:
        """The verified caller at the other end of a Unix socket."""


class Linux:
    """/proc, pidfd and SO_PEERCRED."""

    def __init__(self) -> None:
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._looking: asyncio.Future[Snapshot] | None = None
        self._variables: dict[tuple[int, int, str], str | None] = {}

    def watch(self, pid: int) -> int:
        return os.pidfd_open(pid)

    def reap(self, watch: int) -> int | None:
        try:
            ended = os.waitid(os.P_PIDFD, watch, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def look(self, pid: int) -> Seen | None:
        stat = _read(f"/proc/{pid}/stat")
        if not stat:
            return None
        # The second field is the name in parentheses and may hold anything, so count from its end.
        fields = stat[stat.rindex(b")") + 2 :].split(b" ", 20)
        return Seen(
            pid=pid,
            zombie=fields[0] in (b"Z", b"X"),
            group=int(fields[2]),
            session=int(fields[3]),
            started=int(fields[19]),
        )

    def processes(self) -> Iterator[Seen]:
        for name in os.listdir("/proc"):
            if name.isdecimal() and (seen := self.look(int(name))) is not None:
                yield seen

    async def snapshot(self) -> Snapshot:
        if self._looking is None:
            loop = asyncio.get_running_loop()
            self._looking = loop.create_future()
            loop.call_later(SHARED_LOOK_S, self._look_at_all, self._looking)
        return await asyncio.shield(self._looking)

    def _look_at_all(self, looking: asyncio.Future[Snapshot]) -> None:
        self._looking = None
        snapshot = Snapshot(self.processes())
        if len(self._variables) > MOST_REMEMBERED:
            alive = {(seen.pid, seen.started) for seen in snapshot.processes.values()}
            self._variables = {key: value for key, value in self._variables.items() if key[:2] in alive}
        looking.set_result(snapshot)

    def variable(self, pid: int, name: str) -> str | None:
        wanted = name.encode() + b"="
        for entry in _read(f"/proc/{pid}/environ").split(b"\0"):
            if entry.startswith(wanted):
                return entry[len(wanted) :].decode(errors="replace")
        return None

    def variable_of(self, seen: Seen, name: str) -> str | None:
        key = (seen.pid, seen.started, name)
        if key not in self._variables:
            self._variables[key] = self.variable(seen.pid, name)
        return self._variables[key]

    def age_s(self, started: int) -> float:
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started / self._ticks)

    def boot(self) -> str:
        return _read("/proc/sys/kernel/random/boot_id").decode().strip()

    def suspended_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)

    def peer(self, connection: socket.socket) -> Peer:
        size = struct.calcsize("3i")
        return Peer(*struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)))


def this_machine() -> Machine:
    """The machine that we run on."""
    if sys.platform != "linux":
        raise PartError(
            f"Processes cannot be watched on {sys.platform} yet.",
            "Use Linux, or Windows through WSL2.",
            retryable=False,
        )
    return Linux()


def signal_name(number: int) -> str:
    """`SIGKILL` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _read(path: str) -> bytes:
    """A file of /proc, empty where it is gone or forbidden: processes end while one looks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        read = chunk = os.read(descriptor, 65536)
        while len(chunk) == 65536:
            chunk = os.read(descriptor, 65536)
            read += chunk
        return read
    except OSError:
        return b""
    finally:
        os.close(descriptor)
