"""Pid 1 of a group: in namespaces of its own it keeps the group's programs running. Run as a script, by path.

When it ends, however that comes about, the kernel ends everything else in its pid namespace; so it ends when its
owner is gone (the pipe that it reads is closed). It binds private folders over the few places that components write to
whatever they are told, starts programs when their owner says so, starts again what crashed, and reaps what is left to
it (containerd's shims). Only the standard library: it runs before anything else is there.

Words on its standard input, a line each: `begin` starts every program that is not held, `start NAME`, `stop NAME`
(killed, and stays so) and `kill NAME` (killed, and comes back).
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Any

LOOK_S = 0.02
"""How often it looks whether the file has come that a program waits for."""
FIRST_BACKOFF_S = 0.2
LAST_BACKOFF_S = 5.0
CALM_S = 10.0
"""Who ran this long has its backoff forgotten."""

MS_BIND, MS_REC, MS_SHARED = 1 << 12, 1 << 14, 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, flags: int) -> None:
    if _libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None):
        code = ctypes.get_errno()
        raise OSError(code, f"mount {source} {target}: {os.strerror(code)}")


def prepare(spec: dict[str, Any]) -> None:
    """Make this mount namespace and this network the group's own."""
    for tree in spec["cgroups"]:
        with open(os.path.join(tree, "cgroup.procs"), "w") as file:
            file.write("0")
    for path, value in spec["sysctls"].items():
        with open(path, "w") as file:
            file.write(value)
    for source, target in spec["folders"]:
        os.makedirs(source, exist_ok=True)
        os.makedirs(target, exist_ok=True)
        mount(source, target, MS_BIND)
    for source, target in spec["files"]:
        mount(source, target, MS_BIND)
    # Volumes that kubelet mounts have to show up in containers that run already.
    mount("none", "/", MS_REC | MS_SHARED)
    for path in spec["stale"]:
        if os.path.lexists(path):
            os.unlink(path)


class Kept:
    """One program of the group."""

    def __init__(self, spec: dict[str, Any], logs: str) -> None:
        self.name: str = spec["name"]
        self.argv: list[str] = spec["argv"]
        self.environment: dict[str, str] = spec["environment"]
        self.after: str | None = spec["after"]
        self.held: bool = spec["held"]
        self.logs = logs
        self.pid = 0
        self.due: float | None = None
        self.wanted = False
        self.backoff = FIRST_BACKOFF_S
        self.began = 0.0

    def want(self) -> None:
        self.wanted = True
        if not self.pid:
            self.due = time.monotonic()

    def step(self, now: float) -> None:
        """Start it if its time has come, and what it waits for."""
        if self.due is None or self.due > now:
            return
        if self.after and not os.path.exists(self.after):
            self.due = now + LOOK_S
            return
        self.due = None
        with open(os.path.join(self.logs, f"{self.name}.log"), "ab") as log:
            process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self.environment,
            )
        self.pid, self.began = process.pid, now
        # Reaped below with all the others, not by this object.
        process.returncode = 0

    def ended(self, status: int) -> None:
        now = time.monotonic()
        print(f"{self.name} ended, status {status}", file=sys.stderr, flush=True)
        if now - self.began > CALM_S:
            self.backoff = FIRST_BACKOFF_S
        self.pid = 0
        if self.wanted:
            self.due = now + self.backoff
            self.backoff = min(2 * self.backoff, LAST_BACKOFF_S)

    def kill(self) -> None:
        self.due = time.monotonic() if self.wanted and not self.pid else None
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)


def obey(words: list[str], kept: dict[str, Kept]) -> None:
    match words:
        case ["begin"]:
            for program in kept.values():
                if not program.held:
                    program.want()
        case ["start", name]:
            kept[name].want()
        case ["stop", name]:
            kept[name].wanted = False
            kept[name].kill()
        case ["kill", name]:
            kept[name].kill()
        case _:
            print(f"not understood: {words}", file=sys.stderr, flush=True)


def reap(kept: dict[str, Kept]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        for program in kept.values():
            if program.pid == pid:
                program.ended(status)


def keep(kept: dict[str, Kept]) -> None:
    """Until the owner is gone."""
    waker, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(waker, selectors.EVENT_READ)
    heard = b""
    while True:
        for program in kept.values():
            program.step(time.monotonic())
        due = [program.due for program in kept.values() if program.due is not None]
        ready = selector.select(max(0.0, min(due) - time.monotonic()) if due else None)
        for key, _ in ready:
            text = os.read(key.fd, 4096)
            if key.fd == 0:
                if not text:
                    return
                *lines, heard = (heard + text).split(b"\n")
                for line in lines:
                    obey(line.decode().split(), kept)
        reap(kept)


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    prepare(spec)
    print("up", flush=True)
    keep({one["name"]: Kept(one, spec["logs"]) for one in spec["programs"]})


if __name__ == "__main__":
    main()
