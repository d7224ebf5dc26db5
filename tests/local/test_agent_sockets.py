"""The connection that the agent holds to a module, and the places that it has for those who ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from idi.agent import server
from idi.agent.held import until_refused
from idi.agent.server import Server
from tests.support.envoy import free_port

pytestmark = pytest.mark.requirement("K1", "D1")


class Counting:
    """Accepts; closes each connection at once, or holds it."""

    def __init__(self, *, closes: bool) -> None:
        self.closes = closes
        self.held: list[asyncio.StreamWriter] = []
        self.port = free_port()
        self._listener: asyncio.Server | None = None

    async def open(self) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.hang_up()
        await asyncio.sleep(0)

    def hang_up(self) -> None:
        for each in self.held:
            each.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.held.append(writer)
        if self.closes:
            writer.close()
        else:
            await reader.read()


@asynccontextmanager
async def held(server: Counting) -> AsyncIterator[asyncio.Task[None]]:
    await server.open()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(until_refused(server.port))
        await asyncio.sleep(0.05)
        yield task
        task.cancel()
        await server.close()


async def test_where_nobody_listens_any_more_it_ends_at_once() -> None:
    module, loop = Counting(closes=False), asyncio.get_running_loop()
    async with held(module) as holding:
        assert len(module.held) == 1
        await module.close()
        began = loop.time()
        await holding
        assert loop.time() - began < 0.05


async def test_a_connection_closed_by_one_who_lives_is_replaced() -> None:
    module = Counting(closes=False)
    async with held(module) as holding:
        for count in (1, 2, 3):
            assert len(module.held) == count
            module.hang_up()
            await asyncio.sleep(0.1)
        assert not holding.done()


async def test_one_who_closes_at_once_is_not_hammered() -> None:
    module = Counting(closes=True)
    async with held(module) as holding:
        await asyncio.sleep(1)
        assert 5 <= len(module.held) <= 12
        assert not holding.done()


@asynccontextmanager
async def asked(reason: str = "") -> AsyncIterator[tuple[Server, int]]:
    async def stopping() -> None:
        await asyncio.sleep(10)

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
