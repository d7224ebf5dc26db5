"""Readiness probes against real sockets, also those of servers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from idi.parts.targets.http_probe import HttpProbe
from idi.parts.targets.readiness import TcpProbe

pytestmark = pytest.mark.requirement("D1")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request with these bytes; counts connections and requests."""

    def __init__(self, *answers: bytes, close: bool = False) -> None:
        self.port = 0
        self.connections = 0
        self.requests: list[bytes] = []
        self._answers = answers
        self._close = close
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self._answers[min(len(self.requests), len(self._answers)) - 1])
                if self._close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[Server]:
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        server.hang_up()
        listener.close()
        await asyncio.sleep(0.01)


GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    ("answer", "says", "reused"),
    [
        (GOOD, "", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "", True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "", False),
        (b"HTTP/1.0 200 OK\r\n\r\nok", "", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 70_000, "", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD, "", True),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nwait", "/ready answered 503", True),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "/ready answered 302", True),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the answer is not HTTP/1.1", False),
        (b"HTTP/1.1 abc\r\n\r\n", "the answer is not HTTP/1.1", False),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, "the head of the answer is too long", False),
    ],
)
async def test_http(answer: bytes, says: str, reused: bool) -> None:
    async with serving(Server(answer)) as server:
        probe = HttpProbe(server.port, "/ready", 2)
        assert [await probe.ask() for _ in range(3)] == [says] * 3
        assert server.connections == (1 if reused else 3)
        assert server.requests[0].startswith(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1:")
        probe.close()


async def test_an_answer_in_pieces() -> None:
    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in GOOD:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async with await asyncio.start_server(slowly, "127.0.0.1", 0) as listener:
        probe = HttpProbe(listener.sockets[0].getsockname()[1], "/ready", 2)
        assert await probe.ask() == ""
        probe.close()


async def test_no_answer() -> None:
    async with serving(Server(b"")) as server:
        probe = HttpProbe(server.port, "/ready", 0.1)
        assert await probe.ask() == "no answer within 0.1s"
        assert await probe.ask() == "no answer within 0.1s"
        assert server.connections == 2


async def test_a_body_that_does_not_end_in_time() -> None:
    async with serving(Server(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")) as server:
        probe = HttpProbe(server.port, "/ready", 0.1)
        assert await probe.ask() == "no answer within 0.1s"


async def test_a_connection_closed_while_idle_is_no_failure() -> None:
    async with serving(Server(GOOD)) as server:
        probe = HttpProbe(server.port, "/ready", 2)
        assert await probe.ask() == ""
        server.hang_up()
        assert await probe.ask() == ""
        assert server.connections == 2
        probe.close()


async def test_a_connection_closed_instead_of_an_answer() -> None:
    async with serving(Server(b"", close=True)) as server:
        assert await HttpProbe(server.port, "/ready", 2).ask() == "connection reset"


async def test_nobody_listens() -> None:
    async with serving(Server(GOOD)) as server:
        port = server.port
    assert await HttpProbe(port, "/ready", 2).ask() == "connection refused"
    assert await TcpProbe(port, 2).ask() == "connection refused"


async def test_tcp() -> None:
    async with serving(Server(GOOD)) as server:
        assert await TcpProbe(server.port, 2).ask() == ""
