"""One process on this machine: start it, notice its end at once, end it with everything it started.

Each process leads a session of its own, so that a Ctrl-C in a terminal never reaches it and so that all
it starts can be found and ended with it. Its output is appended to a file that it holds itself: nothing
of ours has to live for it to go on. It carries a marker in its environment (`IDI_SEAT`), by which a
process whose record was lost is still known to be ours. `subprocess` uses vfork here, so a start costs
the same however large this process is. How it ended is said with what a shell wrote last where the exit
code is one of the shell's own: only then the end of that file is read.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from idi.parts.clients.machine import Machine, signal_name
from idi.parts.errors import PartError
from idi.parts.targets.exits import LINES, exited

MARKER = "IDI_SEAT"
DEFAULT_GRACE_S = 5.0
_LAST_WORDS = 4096
UNDYING_S = 5.0
"""How long to wait for what was killed: only a process stuck in the kernel takes longer."""

_COMPOUND = frozenset(";&|()`\n")
_SHELL_WORDS = frozenset(
    {
        ".", ":", "!", "[", "{", "alias", "break", "case", "cd", "command", "continue", "eval", "exec", "exit",
        "export", "for", "if", "local", "read", "readonly", "return", "set", "shift", "source", "times", "trap", "type",
        "ulimit", "umask", "unset", "until", "wait", "while",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """What to run. `name` and `role` say which seat it takes (`jede-1`, `module`)."""

    name: str
    role: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log: Path
    grace_s: float = DEFAULT_GRACE_S


def shell(line: str) -> tuple[str, ...]:
    """The argument vector that has the shell run a command line.

    Where the line is one simple command the shell is told to become it: then the pid is the program's own
    and no shell stands idle beside each instance. (Some shells do that by themselves, others do not.)
    """
    first = line.split(maxsplit=1)[0] if line.strip() else ""
    simple = first and "=" not in first and first not in _SHELL_WORDS and not _COMPOUND & set(line)
    return ("/bin/sh", "-c", f"exec {line}" if simple else line)


def marker(platform_hash: str, name: str, role: str) -> str:
    """The value of `IDI_SEAT`."""
    return f"{platform_hash}:{name}:{role}"


class Process:
    """A living process that is watched, or one that ended. Made by `spawn` and `adopt`."""

    def __init__(self, machine: Machine, pid: int, started: int, watch: int, log: Path | None = None) -> None:
        self.pid = pid
        self.started = started
        self.code: int | None = None
        self._machine = machine
        self._watch = watch
        self._log = log
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(watch, self._on_end)
        self._age_s, self._watched_at = machine.age_s(started), self._loop.time()

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    def up_s(self) -> float:
        """Seconds since it started; while the machine sleeps under our eyes it does not grow older."""
        return self._age_s + self._loop.time() - self._watched_at

    def ended(self) -> str:
        """How it ended, for people."""
        if self.code is None:
            return "ended (an earlier control started it, so the exit code is unknown)"
        if self.code < 0:
            return f"was killed by {signal_name(-self.code)}"
        return exited(self.code, _last_words(self._log))

    async def wait(self) -> None:
        await self._ended.wait()

    def forget(self) -> None:
        """Stop watching; the process goes on."""
        if self._watch >= 0:
            self._loop.remove_reader(self._watch)
            os.close(self._watch)
            self._watch = -1

    def send(self, number: signal.Signals) -> None:
        """A signal to it alone, and to nobody who got its pid since."""
        if self._watch >= 0:
            try:
                signal.pidfd_send_signal(self._watch, number)
            except ProcessLookupError:
                pass

    async def stop(self, grace_s: float) -> None:
        """SIGTERM to its group; what is left of its session after the grace period is killed."""
        deadline = self._loop.time() + grace_s
        if self.alive:
            _send(-self.pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(grace_s):
                    await self.wait()
            except TimeoutError:
                pass
        await self.clear(max(0.0, deadline - self._loop.time()))

    async def clear(self, grace_s: float) -> None:
        """End what is left of its session: SIGTERM first, SIGKILL after the grace period."""
        pause, deadline = 0.01, self._loop.time() + grace_s
        asked: set[int] = {self.pid}
        while left := (await self._machine.snapshot()).session(self.pid, self.started):
            now = self._loop.time()
            if now > deadline + UNDYING_S:
                raise PartError(f"Process {left[0].pid} does not end, not even by SIGKILL.")
            for seen in left:
                if now >= deadline:
                    _send(seen.pid, signal.SIGKILL)
                elif seen.pid not in asked:
                    _send(seen.pid, signal.SIGTERM)
                asked.add(seen.pid)
            await asyncio.sleep(pause if now < deadline else 0.005)
            pause = min(pause * 1.5, 0.1, max(0.0, deadline - now))

    def _on_end(self) -> None:
        self.code = self._machine.reap(self._watch)
        self.forget()
        self._ended.set()


def spawn(machine: Machine, spec: ProcessSpec, mark: str) -> Process:
    """Start a process; returns when it runs its program. Raises `PartError` when it cannot."""
    try:
        log = os.open(spec.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise PartError(f"{spec.name} cannot start: no log file {spec.log}: {error.strerror}.") from error
    try:
        child = subprocess.Popen(
            spec.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=spec.cwd,
            env={**spec.env, MARKER: mark},
            start_new_session=True,
            umask=0o077,
        )
    except (OSError, ValueError) as error:
        what = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise PartError(f"{spec.name} cannot start: {what}.", retryable=False) from error
    finally:
        os.close(log)
    # It is reaped through its pidfd; `subprocess` must not wait for it a second time.
    child.returncode = 0
    try:
        watch = machine.watch(child.pid)
        seen = machine.look(child.pid)
    except OSError as error:
        _send(-child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        raise PartError(f"{spec.name} cannot be watched: {error.strerror}.") from error
    if seen is None:
        raise PartError(f"{spec.name} cannot be watched: /proc/{child.pid} cannot be read.", retryable=False)
    return Process(machine, child.pid, seen.started, watch, spec.log)


def adopt(machine: Machine, pid: int, started: int, mark: str) -> Process | None:
    """Watch a process that somebody else started, if it is still the same one and alive.

    A program may have overwritten its environment (to set its title); only another marker speaks
    against it.
    """
    try:
        watch = machine.watch(pid)
    except OSError:
        return None
    # The pidfd is held, so from here on the pid cannot come to mean another process unnoticed.
    seen = machine.look(pid)
    if (
        seen is None
        or seen.zombie
        or seen.started != started
        or machine.variable(pid, MARKER) not in (None, mark)
    ):
        os.close(watch)
        return None
    return Process(machine, pid, started, watch)


def _last_words(log: Path | None) -> Iterator[str]:
    """The last lines that it printed; nothing is read before the first is asked for."""
    if log is None:
        return
    try:
        with open(log, "rb", buffering=0) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS))
            words = file.read(_LAST_WORDS)
    except OSError:
        return
    yield from words.decode(errors="replace").splitlines()[-LINES:]


def _send(pid: int, number: signal.Signals) -> None:
    """A signal to a process (a group if negative) that may just have gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
