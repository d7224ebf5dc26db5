"""Starting control: folders, a process of its own session, and the wait until its socket answers.

Two of these may run at once: the control that gets the lock serves both, the other ends with 75 and its
starter attaches to the first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from idi.api.client import NotRunning, Unanswered
from idi.api.paths import Paths, UnsafeFolder, make_private, paths_for
from idi.cli.failure import FAILED, INTERRUPTED, Failure
from idi.cli.invocation import Invocation
from idi.cli.terminal.signals import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from idi.api.types import StatusView

MARKER = "IDI_SEAT"  # of a module that calls `idi`: control is not that module
LOCK_HELD = 75
GATEWAY_PORT, CONSOLE_PORT = 8080, 8800
WAIT_S = 30.0
POLL_S = 0.02
LOG_LINES = 15


class Launched:
    """`ours` says whether the control that answers is the one that was started here."""

    def __init__(self, status: StatusView, *, ours: bool) -> None:
        self.status = status
        self.ours = ours


class Ports:
    """Where gateway and console listen: as asked for; else, where an earlier control left things running,
    as that had it (they go on listening there); else the usual ones."""

    def __init__(self, invocation: Invocation, *, left: bool, gateway: int = 0, console: int = 0) -> None:
        before = self._read(invocation) if left else {}
        self.gateway = gateway or before.get("gateway", GATEWAY_PORT)
        self.console = console or before.get("console", CONSOLE_PORT)

    @staticmethod
    def _read(invocation: Invocation) -> dict[str, int]:
        try:
            text = file_of_ports(paths_for(invocation.file, invocation.env)).read_text(encoding="ascii")
            return {str(name): int(number) for name, number in json.loads(text).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def write(self, paths: Paths) -> None:
        try:
            text = json.dumps({"gateway": self.gateway, "console": self.console})
            file_of_ports(paths).write_text(text, encoding="ascii")
        except OSError:
            pass  # only the next start after a crash would miss it


def file_of_ports(paths: Paths) -> Path:
    return paths.state / "ports.json"


def launch(
    invocation: Invocation, signals: Signals, ports: Ports, tick: Callable[[], None] = lambda: None
) -> Launched:
    """Start control and wait for it; raises `Failure` with its own words when it does not start."""
    paths = paths_for(invocation.file, invocation.env)
    prepare(paths)
    process = spawn(paths, invocation, ports)
    client = invocation.client(timeout=5.0)
    deadline = time.monotonic() + WAIT_S
    ours = True
    while True:
        try:
            found = Launched(client.status(), ours=ours)
            if ours:
                ports.write(paths)
            return found
        except NotRunning:
            pass
        except Unanswered:
            if time.monotonic() > deadline:
                raise
        code = process.poll() if ours else None
        if code == LOCK_HELD:
            ours = False
        elif code is not None:
            raise start_failure(paths, code)
        if signals.stops:
            stop(process)
            raise Failure("Interrupted while control was starting; it was stopped.", code=INTERRUPTED)
        if time.monotonic() > deadline:
            if ours:
                stop(process)
            raise Failure(
                f"Control did not answer within {WAIT_S:.0f} s.",
                "Another control holds the lock of this platform." if not ours else "",
                f"Its log: {shown(paths.log)}",
                lines=last_lines(paths.log),
            )
        tick()
        signals.wait([], POLL_S)


def prepare(paths: Paths) -> None:
    try:
        for folder in (paths.state.parent, paths.state, paths.logs, paths.runtime):
            make_private(folder)
    except UnsafeFolder as error:
        raise Failure(str(error)) from error


def spawn(paths: Paths, invocation: Invocation, ports: Ports) -> subprocess.Popen[bytes]:
    command = [
        *(sys.executable, "-P", "-m", "idi.control"),  # -P: nothing in the user's folder is imported
        *("--file", str(paths.file)),
        *("--env", invocation.env),
        *("--gateway-port", str(ports.gateway)),
        *("--console-port", str(ports.console)),
        *("--directory", str(paths.file.parent)),
        *(("--ahead",) if invocation.name == "up" else ()),
    ]
    paths.start_error.unlink(missing_ok=True)
    with open(paths.log, "ab", opener=private) as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=paths.file.parent,
            env={name: value for name, value in os.environ.items() if name != MARKER},
            start_new_session=True,
        )


def private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a control that is not up yet; it cleans up on SIGTERM."""
    process.terminate()
    try:
        process.wait(15.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start_failure(paths: Paths, code: int) -> Failure:
    """Why control ended before it answered: its own document, else the end of its log."""
    try:
        found = json.loads(paths.start_error.read_text(encoding="utf-8"))
        return Failure(
            str(found["message"]),
            way_out=str(found.get("way_out", "")),
            code=int(found.get("exit", FAILED)) or FAILED,
        )
    except (OSError, ValueError, KeyError, TypeError):
        how = f"signal {-code}" if code < 0 else f"status {code}"
        return Failure(
            f"Control ended while it was starting ({how}).",
            way_out=f"Its log: {shown(paths.log)}",
            lines=last_lines(paths.log),
        )


def shown(path: os.PathLike[str]) -> str:
    """Relative to here where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def last_lines(path: os.PathLike[str], count: int = LOG_LINES) -> list[str]:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16 * 1024))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []
