"""A real platform for a test: its own folder, home and ports, started and ended by the real command.

Everything goes through `idi` in a child process with a clean environment, as a user would have it. The
platform's processes are found by their marker and checked to be gone at the end; nothing is ended that
the platform did not start.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from idi.api.paths import Paths, paths_for
from tests.support.load_plan import LoadPlan

ROOT = Path(__file__).resolve().parents[2]
IDI = Path(sys.executable).with_name("idi")
NINE = (ROOT / "platform.yaml").read_text()

Found = TypeVar("Found")


def free_port() -> int:
    """Outside the ranges from which instances and outgoing connections get theirs, so that nothing takes it
    while whoever listens there is being restarted."""
    chance = random.SystemRandom()
    while True:
        port = chance.randrange(10_000, 20_000)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def until(
    found: Callable[[], Found],
    timeout_s: float = 20.0,
    why: Callable[[], str] = lambda: "",
    every_s: float = 0.05,
) -> Found:
    """What the function finds, as soon as that is anything true; fails the test when the time is over."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = found()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {why() or value}")
        time.sleep(every_s)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


@dataclass
class Platform:
    """A folder with a declaration, and the command run in it."""

    folder: Path
    home: Path
    gateway_port: int = field(default_factory=free_port)
    console_port: int = field(default_factory=free_port)
    exported: dict[str, str] = field(default_factory=dict)
    """What else is set in the terminal."""
    wrapper: tuple[str, ...] = ()
    """What every command is run by, such as one that enters a namespace."""

    @property
    def file(self) -> Path:
        return self.folder / "platform.yaml"

    @property
    def paths(self) -> Paths:
        real = paths_for(self.file, "dev")
        runtime = Path(f"/tmp/idi-{os.getuid()}-{real.hash8}")
        keys = self.home / ".local" / "share" / "idi" / real.hash8
        return Paths(real.file, real.environment, real.hash8, real.state, runtime, keys)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    def environment(self) -> dict[str, str]:
        path = f"{IDI.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", **self.exported}

    def command(self, *arguments: str) -> list[str]:
        return [*self.wrapper, str(IDI), *arguments]

    def run(
        self, *arguments: str, check: bool = True, timeout_s: float = 120.0, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `idi` in the folder; with `check` a code other than 0 fails the test with its output."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            input=stdin,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"idi {' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}\n"
                f"{self.control_log()}"
            )
        return done

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """Start `idi` in the folder and go on; the test ends it."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=more.pop("env", self.environment()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def write(self, declaration: str) -> None:
        """Another declaration; it holds from the next `up` on."""
        self.file.write_text(declaration)

    @property
    def ports(self) -> tuple[str, ...]:
        return ("--gateway-port", str(self.gateway_port), "--console-port", str(self.console_port))

    def up(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run("up", "--detach", *self.ports, *arguments, check=check)

    def down(self) -> subprocess.CompletedProcess[str]:
        return self.run("down")

    def status(self) -> dict[str, Any]:
        document = json.loads(self.run("status", "--json").stdout)
        assert isinstance(document, dict)
        return document

    def module(self, name: str) -> dict[str, Any]:
        [found] = [module for module in self.status()["modules"] if module["name"] == name]
        assert isinstance(found, dict)
        return found

    def instances(self, name: str) -> list[dict[str, Any]]:
        found = self.module(name)["instances"]
        assert isinstance(found, list)
        return found

    def token(self, *arguments: str) -> str:
        return self.run("token", *arguments).stdout.strip()

    def ask(
        self, path: str, token: str = "", *, method: str = "GET", timeout_s: float = 10.0, **more: Any
    ) -> httpx.Response:
        """One request to the gateway on a connection of its own; every answer has an x-request-id."""
        headers = dict(more.pop("headers", {}))
        if token:
            headers["authorization"] = f"Bearer {token}"
        answer = httpx.request(
            method, self.url + path, headers=headers, timeout=timeout_s, trust_env=False, verify=False, **more
        )
        assert answer.headers.get("x-request-id"), (
            f"{method} {path}: {answer.status_code} without x-request-id"
        )
        return answer

    def load(self, path: str | Sequence[str], tokens: Sequence[str], **more: Any) -> LoadPlan:
        """A load on the gateway whose requests take turns with the tokens."""
        headers: list[Mapping[str, str]] = [{"authorization": f"Bearer {token}"} for token in tokens] or [{}]
        return LoadPlan("127.0.0.1", self.gateway_port, path, headers=headers, **more)

    def pids(self) -> dict[str, int]:
        """Every process that status names: `control`, parts, instances and `<instance> sidecar`."""
        status = self.status()
        found = {"control": status["control"]["pid"]}
        found |= {part["name"]: part["pid"] for part in status["parts"]}
        for module in [*status["parts"], *status["modules"]]:
            for one in module.get("instances", ()):
                found |= {one["id"]: one["pid"], f"{one['id']} sidecar": one["sidecar_pid"]}
        return found

    def ready(self) -> bool:
        """Everything that should run is ready."""
        status = self.status()
        return all(
            module["ready"] == module["desired"] == len(module["instances"]) for module in status["modules"]
        ) and all(part["state"] == "ready" for part in status["parts"])

    def wait_ready(self, timeout_s: float = 40.0) -> None:
        until(self.ready, timeout_s, lambda: self.run("status").stdout + self.control_log())

    def journal(self) -> list[dict[str, Any]]:
        """Every entry of the audit log."""
        listed = self.run("audit", "list", "--json", "--limit", "100000").stdout
        return [json.loads(line) for line in listed.splitlines() if line.strip()]

    def audit(self) -> dict[str, Any]:
        """What `idi audit verify` says of the log; it holds."""
        document = json.loads(self.run("audit", "verify", "--json").stdout)
        assert document["holds"], document
        assert isinstance(document, dict)
        return document

    def control_log(self) -> str:
        try:
            return self.paths.log.read_text()[-4000:]
        except OSError:
            return ""

    def processes(self) -> list[int]:
        """Every living process that carries this platform's marker."""
        wanted = f"IDI_SEAT={self.paths.hash8}:".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                environ = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z" and any(item.startswith(wanted) for item in environ.split(b"\0")):
                found.append(int(entry.name))
        return found

    def control_pid(self) -> int:
        return int(self.status()["control"]["pid"])


@contextmanager
def platform(declaration: str, files: dict[str, str] | None = None) -> Iterator[Platform]:
    """A platform that is not up yet; taken down (and checked to leave nothing) at the end."""
    base = Path(tempfile.mkdtemp(prefix="idi-test-", dir="/tmp"))
    folder, home = base / "shop", base / "home"
    folder.mkdir()
    home.mkdir()
    one = Platform(folder, home)
    one.file.write_text(declaration)
    for name, content in (files or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    if re.search(r"standins\.", declaration) and not (folder / "standins").exists():
        (folder / "standins").symlink_to(ROOT / "standins")
    try:
        yield one
    finally:
        done = one.run("down", check=False)
        left = one.processes()
        log = one.control_log()
        for pid in left:
            os.kill(pid, 9)
        shutil.rmtree(one.paths.runtime, ignore_errors=True)
        shutil.rmtree(base, ignore_errors=True)
        assert done.returncode in (0, 3), f"down failed: {done.stdout}{done.stderr}\n{log}"
        assert not left, f"down left processes {left}\n{log}"
