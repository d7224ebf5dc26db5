"""The way to a control in a cluster, with a small control on TCP behind it."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from idi.api import bridge as module
from idi.api.bridge import Bridge, Way, address, listening, with_identity
from idi.api.paths import paths_for
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.errors import IdiError

pytestmark = pytest.mark.requirement("K1")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Way_:
    """A forward, as far as the bridge knows one."""

    port: int
    trouble: IdiError | None = None


@dataclass
class Minted:
    """Tokens, each another one."""

    count: int = 0
    fails: IdiError | None = None

    def token(self, role: str) -> str:
        if self.fails:
            raise self.fails
        self.count += 1
        return f"{role}-{self.count}"


@dataclass
class FakeControl:
    """Takes heads, answers as it is told, and knows how many connections it has."""

    heads: list[bytes] = field(default_factory=list)
    open: int = 0
    holds: bool = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            if self.holds:
                await reader.read()
        finally:
            self.open -= 1
            writer.close()


@dataclass
class Stage:
    bridge: Bridge
    control: FakeControl
    forward: Way_
    minted: Minted
    socket: Path

    async def ask(self, head: str = "GET /v1/status HTTP/1.1\r\n") -> bytes:
        reader, writer = await asyncio.open_unix_connection(self.socket)
        try:
            writer.write(head.encode() + b"\r\n")
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def staged(tmp_path: Path) -> AsyncIterator[Stage]:
    control, minted = FakeControl(), Minted()
    server = await asyncio.start_server(control.serve, "127.0.0.1", 0)
    forward = Way_(server.sockets[0].getsockname()[1])
    try:
        async with OwnedTasks() as tasks:
            bridge = Bridge(minted, "developer", forward, tasks)
            async with listening(bridge, tmp_path / "control"):
                yield Stage(bridge, control, forward, minted, tmp_path / "control")
    finally:
        server.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_request_is_led_on_with_who_asks_in_it_and_nothing_that_the_client_says_of_that(
    tmp_path: Path,
) -> None:
    async with staged(tmp_path) as stage:
        stage.bridge.gateway = Way_(4711)
        lie = "Authorization: Bearer mine\r\nX-IDI-Gateway-Url: http://evil\r\nAccept: */*\r\n"
        assert (await stage.ask(f"GET /v1/status HTTP/1.1\r\n{lie}")).endswith(b"\r\n\r\n{}")
        [head] = stage.control.heads
        assert b"authorization: Bearer developer-1" in head
        assert b"x-idi-gateway-url: http://127.0.0.1:4711" in head
        assert b"Accept: */*" in head
        assert b"mine" not in head
        assert b"evil" not in head
        await stage.ask()
        assert stage.minted.count == 1  # a token serves as long as enough of its life is left
        assert (tmp_path / "control").stat().st_mode & 0o777 == 0o600


async def test_a_client_that_goes_takes_its_connection_to_control_with_it(tmp_path: Path) -> None:
    """And its task lives until then, whatever the collector does: asyncio itself holds it by nothing once the client's
    side has ended."""
    async with staged(tmp_path) as stage:
        stage.control.holds = True
        reader, writer = await asyncio.open_unix_connection(stage.socket)
        writer.write(b"GET /v1/watch HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"{}")
        assert (stage.control.open, stage.bridge.open) == (1, 1)
        writer.close()
        await until(lambda: stage.bridge.open == 0 and stage.control.open == 0)


async def test_it_ends_in_order_while_connections_are_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    async with staged(tmp_path) as stage:
        stage.control.holds = True
        reader, writer = await asyncio.open_unix_connection(stage.socket)
        writer.write(b"GET /v1/watch HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"{}")
        writer.write_eof()
        gc.collect()
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    gc.collect()
    await asyncio.sleep(0)
    assert not caplog.records
    assert "GeneratorExit" not in capsys.readouterr().err
    writer.close()


async def test_while_the_way_is_mended_a_request_waits(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        stage.forward.trouble = IdiError("Lost.")
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(stage.ask())
            await asyncio.sleep(0.3)
            assert not asking.done()
            stage.forward.trouble = None
        assert asking.result().endswith(b"{}")


async def test_what_stays_broken_is_said_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEND_S", 0.2)
    async with staged(tmp_path) as stage:
        stage.forward.trouble = IdiError("The cluster does not answer.", "Look at kubectl get nodes.")
        head, _, body = (await stage.ask()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        problem = json.loads(body)
        assert (problem["detail"], problem["way_out"]) == (
            "The cluster does not answer.",
            "Look at kubectl get nodes.",
        )
        stage.forward.trouble = None
        stage.minted.fails = IdiError("Your login has ended.", "Log in again.")
        stage.bridge._since = -module.TOKEN_S * 2
        stage.bridge._token = ""
        assert b"Your login has ended." in await stage.ask()


async def test_more_than_it_takes_are_refused_and_the_others_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CONNECTIONS", 1)
    async with staged(tmp_path) as stage:
        stage.control.holds = True
        reader, writer = await asyncio.open_unix_connection(stage.socket)
        writer.write(b"GET /v1/watch HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"{}")
        assert b"503" in (await stage.ask()).split(b"\r\n")[0]
        writer.close()
        await until(lambda: stage.bridge.open == 0)
        stage.control.holds = False
        assert b"200" in (await stage.ask()).split(b"\r\n")[0]


def test_a_head_keeps_what_is_the_clients_own() -> None:
    head = with_identity(b"POST /v1/plan HTTP/1.1\r\nhost: control\r\ncontent-length: 3\r\n\r\n", "t", 0)
    assert head == (
        b"POST /v1/plan HTTP/1.1\r\nhost: control\r\ncontent-length: 3\r\n"
        b"authorization: Bearer t\r\nconnection: close\r\n\r\n"
    )


def test_the_way_is_kept_beside_the_state(tmp_path: Path) -> None:
    paths = paths_for(str(tmp_path / "platform.yaml"), "staging")
    assert Way.read(paths) is None
    way = Way("context", "shop-staging")
    way.write(paths)
    assert Way.read(paths) == way
    address(paths).write_text("{}", encoding="utf-8")
    assert Way.read(paths) is None
