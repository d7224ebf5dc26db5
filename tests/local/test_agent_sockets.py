"""How the agent hears that nobody listens any more, and the places that it has for those who ask."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from idi.agent import listening, server
from idi.agent.listening import until_nobody_listens
from idi.agent.server import Server
from tests.support.envoy import free_port

pytestmark = pytest.mark.requirement("K1", "D1")


class Listening:
    """A module that accepts; how often, is counted."""

    def __init__(self, port: int = 0, address: str = "127.0.0.1", reuse: bool = False) -> None:
        self.port = port or free_port()
        self.accepted = 0
        self._address = address
        self._reuse = reuse
        self._listener: asyncio.Server | None = None

    async def open(self) -> None:
        if self._address == "::":  # one socket for both, as most servers have it
            both = socket.create_server(("::", self.port), family=socket.AF_INET6, dualstack_ipv6=True)
            self._listener = await asyncio.start_server(self._serve, sock=both)
        else:
            self._listener = await asyncio.start_server(
                self._serve, self._address, self.port, reuse_port=self._reuse
            )

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        await reader.read()
        writer.close()


@asynccontextmanager
async def watched(*modules: Listening) -> AsyncIterator[asyncio.Task[None]]:
    for module in modules:
        await module.open()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(until_nobody_listens(modules[0].port))
        await asyncio.sleep(0.05)
        yield task
        task.cancel()
        for module in modules:
            await module.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])
async def test_where_nobody_listens_any_more_it_ends_at_once(address: str) -> None:
    module, loop = Listening(address=address), asyncio.get_running_loop()
    async with watched(module) as watching:
        assert not watching.done()
        await module.close()
        began = loop.time()
        await watching
        assert loop.time() - began < 0.5


async def test_another_listener_of_the_port_is_enough() -> None:
    one = Listening(reuse=True)
    two = Listening(one.port, reuse=True)
    async with watched(one, two) as watching:
        await one.close()
        await asyncio.sleep(0.1)
        assert not watching.done()
        await two.close()
        await asyncio.wait_for(watching, 0.5)


async def test_traffic_wakes_nobody_and_no_connection_is_held() -> None:
    module = Listening()
    other = Listening()
    async with watched(module, other) as watching:
        assert module.accepted == 1
        for _ in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", module.port)
            writer.transport.abort()
        await other.close()
        await asyncio.sleep(0.1)
        assert module.accepted == 201  # nothing was a reason to try
        assert not watching.done()


async def test_where_the_kernel_does_not_tell_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(port: int) -> socket.socket:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr(listening, "destroyed_listeners", refuse)
    monkeypatch.setattr(listening, "TRY_EVERY_S", 0.1)
    module = Listening()
    async with watched(module) as watching:
        await asyncio.sleep(0.3)
        assert not watching.done()
        await module.close()
        await asyncio.wait_for(watching, 1)


@asynccontextmanager
async def asked(reason: str = "") -> AsyncIterator[tuple[Server, int]]:
    async def stopping() -> str:
        await asyncio.sleep(10)
        return ""

    made, port = Server(lambda: Path("/nowhere"), lambda: reason, stopping), free_port()
    await made.start("127.0.0.1", port)
    yield made, port
    made.close()
    await asyncio.sleep(0.01)


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET /live HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK"),
        (b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 503 Service Unavailable"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.1 503 Service Unavailable"),
        (b"GET /ready/x HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"GET //ready HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"POST /stopping HTTP/1.1\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"nonsense\r\n\r\n", b"HTTP/1.1 404 Not Found"),
        (b"GET /live HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", b"HTTP/1.1 431 "),
    ],
)
async def test_what_is_answered(request_: bytes, answer: bytes) -> None:
    async with asked("waiting for Envoy") as (_, port):
        assert (await ask(port, request_)).startswith(answer)


async def test_who_says_nothing_is_shown_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.1)
    async with asked() as (_, port):
        async with asyncio.timeout(1):
            assert await ask(port, b"GET /live HTTP/1.1\r\n") == b""


async def test_many_who_say_nothing_do_not_shut_the_kubelet_out() -> None:
    async with asked() as (made, port):
        silent = [
            await asyncio.open_connection("127.0.0.1", port) for _ in range(server.MAX_CONNECTIONS + 20)
        ]
        await asyncio.sleep(0.05)
        assert len(made._open) == server.MAX_CONNECTIONS
        assert (await ask(port, b"GET /ready HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        assert await silent[0][0].read() == b""
        for _, writer in silent:
            writer.transport.abort()
