"""A real platform for a test: its own folder, home and ports, started and ended by the real command.

Everything goes through `idi` in a child process with a clean environment, as a user would have it. The
platform's processes are found by their marker and checked to be gone at the end; nothing is ended that
the platform did not start.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idi.api.paths import Paths, paths_for

ROOT = Path(__file__).resolve().parents[2]
IDI = Path(sys.executable).with_name("idi")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Platform:
    """A folder with a declaration, and the command run in it."""

    folder: Path
    home: Path
    gateway_port: int = field(default_factory=free_port)
    console_port: int = field(default_factory=free_port)

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
        return {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8"}

    def command(self, *arguments: str) -> list[str]:
        return [str(IDI), *arguments]

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

    def up(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        ports = ("--gateway-port", str(self.gateway_port), "--console-port", str(self.console_port))
        return self.run("up", "--detach", *ports, *arguments, check=check)

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

    def token(self, *arguments: str) -> str:
        return self.run("token", *arguments).stdout.strip()

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
