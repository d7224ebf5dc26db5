"""The gateway by way of control's pod."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from idi.control.cluster import gateway_way
from idi.control.cluster.gateway_way import leading

pytestmark = pytest.mark.requirement("G1", "S6")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data.upper())
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[int]:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def said(port: int, words: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(words)
        return await asyncio.wait_for(reader.read(100), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_it_leads_there_and_back_and_ends_with_either_side() -> None:
    async with upstream() as far, leading("127.0.0.1", far, 0) as port:
        assert await said(port, b"hello") == b"HELLO"
        assert [await said(port, b"%d" % at) for at in range(5)] == [b"%d" % at for at in range(5)]


async def test_where_nobody_is_it_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with leading("127.0.0.1", 9, 0) as port:
        assert await said(port, b"hello") == b""
    monkeypatch.setattr(gateway_way, "MOST", 0)
    async with upstream() as far, leading("127.0.0.1", far, 0) as port:
        assert await said(port, b"hello") == b"", "a bound"
