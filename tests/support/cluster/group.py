"""A group: one tree of processes in network, mount and pid namespaces of its own, and the way into its network.

The namespaces have no names and no mounts: they live as long as their processes, so nothing of them can be left
behind. A group dies with its owner twice over: the kernel sends it a signal when the owner's thread ends (hence
it is started by the main thread), and its pid 1 ends when the pipe from the owner is closed. `nsenter` into a network
would do for a client, but costs a process; a socket belongs to the network in which it was made, so a thread that
has entered it makes sockets for everybody else.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from pathlib import Path

START_S = 20.0
STOP_S = 5.0
LOOK_S = 0.02
RUN_S = 60.0
CLONE_NEWNET = 0x40000000
INIT = Path(__file__).with_name("init.py")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
LOG_LINES = 15


class ClusterError(Exception):
    """The test cluster does not do what it should; with the last lines of the logs that may tell why."""


@dataclass(frozen=True)
class Kept:
    """One program that a group keeps running."""

    name: str
    argv: Sequence[str]
    after: str | None = None
    """The file that it waits for."""
    held: bool = False
    """It waits for its owner's word."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(ENVIRONMENT))


@dataclass(frozen=True)
class Spec:
    """What pid 1 of a group is told (init.py reads it as JSON)."""

    logs: str
    programs: Sequence[Kept]
    cgroups: Sequence[str] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Those of its network alone."""
    folders: Sequence[tuple[str, str]] = ()
    files: Sequence[tuple[str, str]] = ()
    stale: Sequence[str] = ()
    """What a life before may have left, and nobody may find."""


class Group:
    """Started, told, ended; `folder` keeps its specification and its logs."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Sockets | None = None

    @property
    def logs(self) -> Path:
        return self.folder / "log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process that waits for pid 1: it is in the group's network."""
        if self._process is None:
            raise ClusterError(f"{self.name} does not run")
        return self._process.pid

    @property
    def first(self) -> int:
        """Of its pid 1, as it is called out here."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])

    def launch(self, spec: Spec) -> None:
        """Start its pid 1, which then waits: the network can be laid before anything runs in it."""
        if threading.current_thread() is not threading.main_thread():
            raise ClusterError("a group that another thread starts dies with that thread")
        self.logs.mkdir(parents=True, exist_ok=True)
        file = self.folder / "init.json"
        file.write_text(json.dumps(asdict(spec), indent=1))
        unshare = [
            "unshare",
            "--net",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--mount-proc",
        ]
        with (self.logs / "init.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    *unshare,
                    "--kill-child",
                    sys.executable,
                    str(INIT),
                    str(file),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=ENVIRONMENT,
            )

    def await_up(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], START_S)[0] or process.stdout.readline() != b"up\n":
            raise ClusterError(f"{self.name}: its pid 1 did not come up\n{self.tail('init')}")
        process.stdout.close()
        self._sockets = Sockets(self.pid)

    def network(self, *commands: str) -> None:
        """Lay its network: lines for `ip -batch`."""
        enter = ["nsenter", "--target", str(self.pid), "--net"]
        done = subprocess.run(
            [*enter, "ip", "-batch", "-"],
            input="\n".join(commands),
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
            timeout=RUN_S,
        )
        if done.returncode:
            raise ClusterError(f"{self.name}: its network can't be laid: {done.stderr.strip()}")

    def run(self, *command: str, check: bool = True, timeout_s: float = RUN_S) -> str:
        """Run a command inside; its standard output."""
        enter = ["nsenter", "--target", str(self.first), "--net", "--mount", "--pid"]
        done = subprocess.run(
            [*enter, *command], capture_output=True, text=True, env=ENVIRONMENT, timeout=timeout_s
        )
        if check and done.returncode:
            raise ClusterError(f"{self.name}: {' '.join(command)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def tell(self, *words: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{' '.join(words)}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ClusterError(f"{self.name} is gone\n{self.tail('init')}") from error

    def stop(self, program: str) -> None:
        """Kill one of its programs and leave it so; returns when it has ended, or did not run."""
        log, said = self.logs / "init.log", f"{program} ended,"
        before = log.read_text().count(said)
        self.tell("stop", program)
        deadline = time.monotonic() + STOP_S
        while log.read_text().count(said) == before and time.monotonic() < deadline:
            time.sleep(LOOK_S)

    def kill(self) -> None:
        """End it as a power cut does; the kernel ends its whole tree."""
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def socket(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket of this group's network."""
        if self._sockets is None:
            raise ClusterError(f"{self.name} does not run")
        return self._sockets.make(kind)

    def tail(self, *names: str) -> str:
        """The last lines of the logs, of all where none is named."""
        texts = []
        for file in sorted(self.logs.glob("*.log")):
            if names and file.stem not in names:
                continue
            with file.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 16_384))
                lines = log.read().decode(errors="replace").splitlines()[-LOG_LINES:]
            texts.append("\n".join([f"--- {self.name} {file.stem}", *(line[:400] for line in lines)]))
        return "\n".join(texts)


class Sockets:
    """Makes sockets in the network of a process, in a thread that has entered it."""

    def __init__(self, pid: int) -> None:
        self._asked: queue.SimpleQueue[tuple[int, Future[socket.socket]] | None] = queue.SimpleQueue()
        entered: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(pid, entered), name="sockets", daemon=True)
        self._thread.start()
        entered.result(timeout=START_S)

    def make(self, kind: int) -> socket.socket:
        made: Future[socket.socket] = Future()
        self._asked.put((kind, made))
        return made.result(timeout=START_S)

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join(timeout=START_S)

    def _serve(self, pid: int, entered: Future[None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            with open(f"/proc/{pid}/ns/net", "rb") as namespace:
                if libc.setns(namespace.fileno(), CLONE_NEWNET):
                    code = ctypes.get_errno()
                    raise OSError(code, os.strerror(code))
        except OSError as error:
            entered.set_exception(error)
            return
        entered.set_result(None)
        while asked := self._asked.get():
            kind, made = asked
            try:
                made.set_result(socket.socket(socket.AF_INET, kind))
            except OSError as error:
                made.set_exception(error)
