"""Keeps Envoy running as a child: starts it, starts it again when it dies, knows whether it is live, ends it.

The agent is the first process of its container: every child that ends, ours or an orphan's, is collected on SIGCHLD.
Envoy inherits our output, so nothing is copied. It must never be left behind: should the agent be killed, the kernel
kills it (PR_SET_PDEATHSIG), also where no container ends with its first process.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from idi.agent.settings import Settings
from idi.agent.token import Token
from idi.declaration.readiness import Readiness
from idi.parts.errors import PartError
from idi.parts.gateway.envoy import admin
from idi.parts.gateway.envoy.arguments import cluster_argv
from idi.parts.targets.backoff import Backoff, Policy
from idi.parts.targets.readiness import Verdict, watch

ASKED = Readiness(http="", every_s=2.0, failures=2)
POLICY = Policy()
KILLED_S = 2.0
GATEWAY_WORKERS = 2
LONGEST_BOOTSTRAP = 4 * 1024 * 1024
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)
_log = logging.getLogger(__name__)


class Envoy:
    """`tell(live, reason)` is called at each judgement. The admin socket is where the bootstrap says."""

    def __init__(self, program: Path, settings: Settings, tell: Callable[[bool, str], None]) -> None:
        self.admin_socket = Path("/run/idi/admin")
        self.pid = 0
        sidecar = settings.module is not None
        self._argv = cluster_argv(
            str(program),
            str(settings.bootstrap.parent),
            settings.node,
            gateway=not sidecar,
            workers=1 if sidecar else GATEWAY_WORKERS,
        )
        self._bootstrap = settings.bootstrap
        self._token = Token(settings.token)
        self._tell = tell
        self._ended = asyncio.Event()
        self._code = 0
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled or stopped; what runs then goes on."""
        loop, backoff = asyncio.get_running_loop(), Backoff(POLICY)
        while not self._stopped.is_set():
            await self._prepare()
            self._start()
            began = loop.time()
            async with asyncio.TaskGroup() as tasks:
                handing = tasks.create_task(self._token.keep(self.admin_socket.parent))
                asking = tasks.create_task(
                    watch(
                        ASKED,
                        "Envoy",
                        _Probe(self.admin_socket),
                        self._judged,
                        up_s=lambda began=began: loop.time() - began,  # type: ignore[misc]
                    )
                )
                await self._ended.wait()
                asking.cancel()
                handing.cancel()
            if self._stopped.is_set():
                return
            reason = f"Envoy {_ended(self._code)}"
            self._tell(False, reason)
            pause = backoff.died(loop.time() - began)
            _log.warning("%s; it is started again%s", reason, f" in {pause:g}s" if pause else "")
            await asyncio.sleep(pause)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace period; returns when it is gone."""
        self._stopped.set()
        for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILLED_S)):
            if not self.pid:
                return
            self.send(number)
            try:
                async with asyncio.timeout(wait_s):
                    await self._ended.wait()
            except TimeoutError:
                _log.warning("Envoy did not end on %s", number.name)

    def send(self, number: signal.Signals) -> None:
        """Only until it is collected its pid is its own, and we alone collect it."""
        if self.pid:
            os.kill(self.pid, number)

    def reap(self) -> None:
        """On SIGCHLD: collect whatever ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.pid:
                self.pid, self._code = 0, os.waitstatus_to_exitcode(status)
                self._ended.set()

    async def _prepare(self) -> None:
        """Wait for what control and the kubelet put there; an Envoy without it would only die. Then it gets its
        token."""
        pause, said = 0.02, ""
        while missing := self._missing():
            if missing != said:
                _log.info("Envoy waits: %s", missing)
                said = missing
                self._tell(False, missing)
            await asyncio.sleep(pause)
            pause = min(1.2 * pause, 1.0)
        self._token.hand_on(self.admin_socket.parent)

    def _missing(self) -> str:
        if not self._token.path.exists():
            return f"there is no {self._token.path} yet"
        try:
            with open(self._bootstrap, "rb") as file:
                document = json.loads(file.read(LONGEST_BOOTSTRAP))
            self.admin_socket = Path(document["admin"]["address"]["pipe"]["path"])
        except FileNotFoundError:
            return f"there is no {self._bootstrap} yet"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{self._bootstrap} is no bootstrap with an admin socket ({error or type(error).__name__})"
        return ""

    def _start(self) -> None:
        self._ended.clear()
        parent = os.getpid()

        def die_with_us() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        # An old socket file would be in the way of the new one.
        self.admin_socket.unlink(missing_ok=True)
        # Between fork and exec nothing is imported, opened or locked, so a thread of ours cannot be in the way.
        child = subprocess.Popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_us,  # noqa: PLW1509
        )
        self.pid = child.pid
        child.returncode = 0  # it is collected by `reap`; `subprocess` must not wait for it a second time

    def _judged(self, verdict: Verdict) -> None:
        if self.pid:
            self._tell(verdict.ready, verdict.reason)


class _Probe:
    """Whether Envoy has everything that it was to have before it serves."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def ask(self) -> str:
        try:
            await admin.ask(self._socket, "GET", "/ready")
        except PartError as error:
            return error.message
        return ""

    def close(self) -> None:
        """Nothing is kept open."""


def _ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
