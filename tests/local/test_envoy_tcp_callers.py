"""Who may come to a tcp port, changed while connections are open, on real Envoys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from idi.parts.gateway.envoy import start
from tests.support.envoy import Mesh, identity_of, mesh

pytestmark = pytest.mark.requirement("S4", "B1")

DRAIN_S = 1
NODES = ("store-1", "jede-1", "rame-1")


@asynccontextmanager
async def shop(monkeypatch: pytest.MonkeyPatch, *, snapshot: bool = False) -> AsyncIterator[Mesh]:
    """`store` speaks first, as a broker does; jede may call it, rame has the port for it and may not yet."""
    monkeypatch.setattr(start, "SIDECAR_DRAIN_S", DRAIN_S)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        while data := await reader.read(1000):
            writer.write(b"echo " + data)
            await writer.drain()
        writer.close()

    async with mesh(snapshot) as m, await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        m.module("store", protocol="tcp")
        m.module("jede", calls=["store"])
        m.module("rame", calls=["store"])
        m.instance("store", server.sockets[0].getsockname()[1])
        m.instance("jede", 1)
        m.instance("rame", 1)
        m.modules["rame"].calls = ()
        m.publish()
        for node in NODES:
            await m.proxy(node)
        yield m


class Talk:
    """One connection from a module to the store."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, m: Mesh, node: str) -> Talk | None:
        """None where nobody greets."""
        made = cls(*await asyncio.open_connection("127.0.0.1", m.instances[node].outbound["store"]))
        return made if await made.heard() == b"hello" else None

    async def heard(self) -> bytes:
        try:
            async with asyncio.timeout(5):
                return await self.reader.read(1000)
        except ConnectionError:
            return b""

    async def says(self) -> bytes:
        self.writer.write(b"you")
        return await self.heard()


async def greeted(m: Mesh, node: str) -> bool:
    return await Talk.of(m, node) is not None


async def changed(m: Mesh, module: str, *calls: str) -> None:
    m.modules[module].calls = calls
    m.publish()
    assert not (await m.plane.barrier(5)).rejected


async def test_a_caller_more_ends_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with shop(monkeypatch) as m:
        talk = await Talk.of(m, "jede-1")
        assert talk is not None
        assert not await greeted(m, "rame-1")
        await changed(m, "rame", "store")
        assert await greeted(m, "rame-1")
        await asyncio.sleep(DRAIN_S + 1)
        assert await talk.says() == b"echo you"


async def test_a_caller_less_is_out_at_once_and_ends_with_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own proxy, which would not lead it there any more, has no part in this."""
    async with shop(monkeypatch) as m:
        await changed(m, "rame", "store")
        mine, theirs = await Talk.of(m, "jede-1"), await Talk.of(m, "rame-1")
        assert mine is not None
        assert theirs is not None
        await changed(m, "rame")
        assert not await greeted(m, "rame-1")
        assert await greeted(m, "jede-1")
        assert await theirs.heard() == b""
        # And once more: the count goes on.
        await changed(m, "rame", "store")
        again = await Talk.of(m, "rame-1")
        assert again is not None
        await changed(m, "rame")
        assert await again.heard() == b""
        assert await greeted(m, "jede-1")


async def test_another_life_of_the_plane_ends_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with shop(monkeypatch, snapshot=True) as m:
        await changed(m, "rame", "store")
        await changed(m, "rame")
        talk = await Talk.of(m, "jede-1")
        assert talk is not None
        await m.close_plane()
        await m.open_plane()
        for node in NODES:
            m.plane.set_identity(node, m.authority.issue(identity_of(m.instances[node].module)))
        m.publish()
        await m.ready(*NODES)
        await asyncio.sleep(DRAIN_S + 1)
        assert await talk.says() == b"echo you"
        assert not await greeted(m, "rame-1")
        await changed(m, "rame", "store")
        assert await greeted(m, "rame-1")
        assert await talk.says() == b"echo you"
