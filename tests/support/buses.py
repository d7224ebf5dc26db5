"""Stages for the contract of buses: a broker that can be killed and started again, and connections to it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

from idi.parts.bus.errors import BusDown
from idi.parts.bus.interface import Bus
from idi.parts.bus.nats.binary import NATS
from idi.parts.bus.nats.bus import NatsBus
from idi.parts.bus.nats.config import Login, render
from idi.parts.bus.simulator import Kept, SimulatedBus
from tests.support.envoy import free_port

_T = TypeVar("_T")


class BusStage(Protocol):
    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def bus(self) -> AbstractAsyncContextManager[Bus]: ...

    async def start(self) -> None: ...

    async def kill(self) -> None: ...

    async def patiently(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """The call's answer as soon as the broker is there."""


class _Patient:
    async def patiently(self, call: Callable[[], Awaitable[_T]]) -> _T:
        async with asyncio.timeout(20):
            while True:
                try:
                    return await call()
                except BusDown:
                    await asyncio.sleep(0.05)


class SimulatedBusStage(_Patient):
    def __init__(self) -> None:
        self.kept = Kept()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def bus(self) -> AbstractAsyncContextManager[Bus]:
        return SimulatedBus(self.kept)

    async def start(self) -> None:
        self.kept.down = False

    async def kill(self) -> None:
        self.kept.down = True


class NatsStage(_Patient):
    """A real server in `folder`; `logins` are the modules that may speak to it directly (passwords in plain)."""

    def __init__(self, folder: Path, logins: dict[str, Login] | None = None) -> None:
        self.folder, self.logins = folder, logins or {}
        self.port = free_port()
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    def write(self) -> Path:
        file = self.folder / "nats.conf"
        file.write_text(render((("idi", "idi-password"),), "watch-password", self.logins))
        return file

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            str(NATS.find()),
            "-c",
            str(self.write()),
            *("-a", "127.0.0.1", "-p", str(self.port), "-sd", str(self.folder / "streams")),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=(self.folder / "log").open("ab"),
        )
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                except OSError:
                    await asyncio.sleep(0.02)

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def reload(self, logins: dict[str, Login]) -> None:
        assert self.process is not None
        self.logins = logins
        self.write()
        self.process.send_signal(signal.SIGHUP)

    def bus(self) -> AbstractAsyncContextManager[Bus]:
        return NatsBus(f"nats://127.0.0.1:{self.port}", "idi", "idi-password")
