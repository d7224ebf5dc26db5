"""A port of this machine that leads to a port in a cluster, for as long as one holds it.

`kubectl port-forward` is bound to one pod and ends with it, with its API server and with any break of the way there.
So a thread watches over it: when it ends, it is started again, for the same port here, with a growing wait. A
connection that is open at that moment breaks, and whoever uses the port connects again, as with any server that
restarts. It listens on 127.0.0.1 alone, where every user of this machine can connect: what is behind the port has to
ask who comes.

It works for `with` and for `async with`. However the process that holds it ends, the forwarding ends too (leash.py).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from idi.api import leash
from idi.api.kubectl import Unreachable, english, words
from idi.parts.errors import IdiError

START_S = 30.0
END_S = 5.0
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 5.0
LAST_LINES = 8
MOST_LINE = 4096
_LISTENS = re.compile(r"^Forwarding from 127\.0\.0\.1:(\d+) -> ")
_CARRIES = "Handling connection for "


class Forward:
    """`command` is kubectl's without the ports; `port` is the local one, once it is entered."""

    def __init__(self, command: Sequence[str], remote: int, explain: Callable[[str], IdiError]) -> None:
        self.port = 0
        self.restarts = 0
        self.trouble: IdiError | None = None
        """Why it does not lead there just now."""
        self._command = command
        self._remote = remote
        self._explain = explain
        self._settled = threading.Event()
        self._leaving = threading.Event()
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="port-forward", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._settled.wait(START_S):
            self._end()
            raise Unreachable(f"The way to port {self._remote} was not there within {START_S:g} s.")
        if not self.port:
            self._end()
            raise self.trouble or Unreachable(f"There is no way to port {self._remote}.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    async def __aenter__(self) -> Self:
        import asyncio

        entering = asyncio.get_running_loop().run_in_executor(None, self.__enter__)
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:
            self._end()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        with self._starting:
            self._leaving.set()
            process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
        if self._thread.is_alive():
            self._thread.join(END_S)

    def _keep(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._leaving.is_set():
            last = self._carry()
            if self._leaving.is_set():
                return
            if self.trouble is None:
                wait_s = FIRST_WAIT_S  # it led there until a moment ago
            self.trouble = self._explain(words("\n".join(last)))
            if not self.port:
                self._settled.set()
                return
            self._leaving.wait(wait_s)
            wait_s = min(LONGEST_WAIT_S, wait_s * 2)
            self.restarts += 1

    def _carry(self) -> list[str]:
        """One life of kubectl; the last that it said of what went wrong."""
        last: deque[str] = deque(maxlen=LAST_LINES)
        ports = f"{self.port or ''}:{self._remote}"
        with self._starting:
            if self._leaving.is_set():
                return []
            try:
                process = self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(leash.__file__)), *self._command, ports],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=english(os.environ),
                    # Ctrl-C is for the command, which ends this in its own time.
                    start_new_session=True,
                )
            except OSError as error:
                return [f"kubectl does not run: {error.strerror}"]
        with process:
            assert process.stdout is not None
            while raw := process.stdout.readline(MOST_LINE):
                line = raw.decode("utf-8", "replace").strip()
                if listens := _LISTENS.match(line):
                    self.port = int(listens[1])
                    self.trouble = None
                    self._settled.set()
                elif line and not line.startswith((_CARRIES, "Forwarding from")):
                    last.append(line)
        return list(last)
