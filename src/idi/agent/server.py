"""Answers the kubelet, control and whoever scrapes: /ready, /live, /figures, /metrics, /stopping, on the pod's own
address. /figures is what a status shows, summed up here: a line where /metrics has tens of thousands of bytes, and
control reads many pods.

One request a connection: who asks is the kubelet once in a while, and a connection that does not stay cannot be
hoarded. Everything is bounded: how many at once, how long a head may be and may take. When all places are taken the
connection that has been without a whole request for longest gives way, so that slow strangers cannot shut the kubelet
out.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from idi.parts.errors import PartError
from idi.parts.gateway.envoy import admin

MAX_CONNECTIONS = 64
LONGEST_HEAD = 8 * 1024
HEAD_S = 5.0
MAX_SCRAPES = 2
SCRAPE_S = 10.0
MAX_METRICS_BYTES = 16 * 1024 * 1024
PIECE = 16 * 1024

WORDS = {
    200: "OK",
    404: "Not Found",
    409: "Conflict",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class Server:
    """`waiting_for` says why it is not ready; `stopping` ends when the pod may be ended, or says why
    it may not. `prefix` is what the names of the listeners begin with whose figures are counted."""

    def __init__(
        self,
        admin_socket: Callable[[], Path],
        waiting_for: Callable[[], str],
        stopping: Callable[[], Awaitable[str]],
        prefix: str = "in",
    ) -> None:
        self._prefix = prefix
        self._admin = admin_socket
        self._waiting_for = waiting_for
        self._stopping = stopping
        self._open: dict[asyncio.StreamWriter, None] = {}
        self._without_request: dict[asyncio.StreamWriter, None] = {}
        self._scrapes = 0
        self._listener: asyncio.Server | None = None

    async def start(self, address: str, port: int) -> None:
        self._listener = await asyncio.start_server(
            self._serve, address, port, limit=LONGEST_HEAD, backlog=MAX_CONNECTIONS
        )

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            oldest = next(iter(self._without_request), writer)
            self._forget(oldest)
            oldest.transport.abort()
            if oldest is writer:
                return
        self._open[writer] = self._without_request[writer] = None
        try:
            async with asyncio.timeout(HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            self._without_request.pop(writer, None)
            await self._answer(head, writer)
            await writer.drain()
        except asyncio.LimitOverrunError:
            _say(writer, 431, "the head of the request is too long")
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            writer.transport.abort()
        finally:
            self._forget(writer)
            writer.close()

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        self._open.pop(writer, None)
        self._without_request.pop(writer, None)

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0] if method == b"GET" else b""
        if path == b"/ready":
            reason = self._waiting_for()
            _say(writer, 503 if reason else 200, reason or "ready")
        elif path == b"/live":
            _say(writer, 200, "live")
        elif path == b"/stopping":
            refused = await self._stopping()
            _say(writer, 409 if refused else 200, refused or "stopped")
        elif path == b"/metrics":
            await self._scrape(writer, self._pass_through)
        elif path == b"/figures":
            await self._scrape(writer, self._figures)
        else:
            _say(writer, 404, "there is /ready, /live, /figures, /metrics, /stopping")

    async def _scrape(
        self, writer: asyncio.StreamWriter, answer: Callable[[asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        if self._scrapes >= MAX_SCRAPES:
            _say(writer, 503, "others are scraping")
            return
        self._scrapes += 1
        try:
            async with asyncio.timeout(SCRAPE_S):
                await answer(writer)
        finally:
            self._scrapes -= 1

    async def _figures(self, writer: asyncio.StreamWriter) -> None:
        try:
            found = await admin.figures(self._admin(), self._prefix)
        except PartError:
            _say(writer, 503, "Envoy has no figures")
            return
        _say(writer, 200, json.dumps(found.document()), "application/json")

    async def _pass_through(self, writer: asyncio.StreamWriter) -> None:
        """Envoy's own answer, piece by piece and never whole in memory; one that is cut off shows as such, since its
        last chunk is missing."""
        try:
            source, to_envoy = await asyncio.open_unix_connection(str(self._admin()), limit=PIECE)
        except OSError:
            _say(writer, 503, "Envoy is down")
            return
        try:
            to_envoy.write(
                b"GET /stats/prometheus HTTP/1.1\r\nhost: admin\r\naccept: text/plain\r\nconnection: close\r\n\r\n"
            )
            first, *lines = (await source.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            if b" 200 " not in first + b" " or b"transfer-encoding: chunked" not in lines:
                _say(writer, 503, "Envoy has no figures")
                return
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"
                b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
            )
            left = MAX_METRICS_BYTES
            while left > 0 and (piece := await source.read(PIECE)):
                left -= len(piece)
                writer.write(piece)
                await writer.drain()
            if left <= 0:
                writer.transport.abort()
        finally:
            to_envoy.transport.abort()


def _say(
    writer: asyncio.StreamWriter, status: int, text: str, kind: str = "text/plain; charset=utf-8"
) -> None:
    body = text.encode() + b"\n"
    writer.write(
        f"HTTP/1.1 {status} {WORDS[status]}\r\ncontent-type: {kind}\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
        + body
    )
