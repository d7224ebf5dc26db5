"""Asks several addresses over and over until each answers with what is awaited, and says when the last one did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, cast

PAUSE_S = 0.005
WAIT_S = 10.0
REQUEST = b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n"


class Asker:
    """One keep-alive connection to each port."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._links: list[_Link] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for port in self._ports:
            _, link = await loop.create_connection(_Link, "127.0.0.1", port)
            self._links.append(link)
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for link in self._links:
            link.transport.abort()

    async def until(self, body: bytes) -> float:
        """The time at which the last of them had first been answered with this body. Answers other than 200 fail."""
        async with asyncio.timeout(WAIT_S):
            return max(await asyncio.gather(*(link.until(body) for link in self._links)))


class _Link(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self) -> None:
        self._body = b""
        self._data = b""
        self._found: asyncio.Future[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._found is not None and not self._found.done():
            self._found.set_exception(exc or ConnectionError("the connection was closed"))

    def until(self, body: bytes) -> asyncio.Future[float]:
        self._body = body
        self._found = asyncio.get_running_loop().create_future()
        self._ask()
        return self._found

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, gap, body = self._data.partition(b"\r\n\r\n")
        if not gap or len(body) < _length(head):
            return
        self._data = b""
        found = self._found
        if found is None or found.done():
            return
        if not head.startswith(b"HTTP/1.1 200"):
            found.set_exception(RuntimeError(f"a caller was answered {head[:60]!r}"))
        elif body == self._body:
            found.set_result(time.monotonic())
        else:
            asyncio.get_running_loop().call_later(PAUSE_S, self._ask)

    def _ask(self) -> None:
        self.transport.write(REQUEST)


def _length(head: bytes) -> int:
    at = head.find(b"content-length: ")
    return int(head[at + 16 :].partition(b"\r")[0]) if at >= 0 else 0
