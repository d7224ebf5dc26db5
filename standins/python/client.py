"""Calls to peers: HTTP/1.1 over a pool of keep-alive connections.

A peer's URL is its sidecar's port on loopback, so this speaks plain HTTP only. A kept connection may be closed by the
other side just as a request goes out on it; where nothing of an answer had come, an idempotent request is sent once
more on a new connection, as RFC 9110 section 9.2.2 allows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import cast

from standins.python.messages import MAX_BODY, MAX_HEAD, Chunked, Problem, parse_headers

MAX_IDLE = 64
IDEMPOTENT = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"))


class Unreachable(Exception):
    """No answer came; `stale`: a kept connection had ended, so sending again on a new one may help."""

    def __init__(self, detail: str, stale: bool = False) -> None:
        super().__init__(detail)
        self.stale = stale


def address_of(url: str) -> tuple[str, int, str]:
    """Host, port and path of `http://HOST:PORT/PATH`; ValueError for anything else."""
    scheme, _, address = url.partition("://")
    authority, _, path = address.partition("/")
    host, colon, port = authority.rpartition(":")
    if not colon:
        host, port = authority, "80"
    if scheme != "http" or not port.isdigit():
        raise ValueError(f"{scheme}://…: only http://HOST:PORT can be called")
    return host.strip("[]"), int(port), f"/{path}"


class Reply:
    """A peer's answer."""

    __slots__ = ("status", "headers", "body")

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class _Exchange(asyncio.Protocol):
    """One connection, one request at a time."""

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.buffer = bytearray()
        self.waiter: asyncio.Future[Reply] | None = None
        self.head_only = False
        self.used = False
        self.touched = False  # something of the present answer has come
        self.reusable = True
        self.lost = False
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.length: int | None = None
        self.chunked: Chunked | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, message: bytes, head_only: bool) -> asyncio.Future[Reply]:
        self.waiter = asyncio.get_running_loop().create_future()
        self.head_only = head_only
        self.touched = False
        self.status = 0
        self.transport.write(message)
        return self.waiter

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.pool.forget(self)
        waiter = self.waiter
        if waiter is None or waiter.done():
            return
        if self.status and self.length is None and self.chunked is None:
            self._finish(bytes(self.buffer))  # the end of the connection ends this body
            return
        what = "closed the connection" if exc is None else f"cut the connection ({exc})"
        waiter.set_exception(
            Unreachable(f"the peer {what} before its answer was complete", self.used and not self.touched)
        )

    def data_received(self, data: bytes) -> None:
        if self.waiter is None or self.waiter.done():
            self.reusable = False  # nobody asked for this
            self.transport.abort()
            return
        self.touched = True
        self.buffer += data
        try:
            self._advance()
        except (Problem, ValueError, IndexError) as error:
            self.waiter.set_exception(Unreachable(f"the peer's answer is not HTTP: {error}"))
            self.transport.abort()

    def _advance(self) -> None:
        while not self.status:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self.buffer) > MAX_HEAD:
                    raise Problem(502, "its head is too long")
                return
            lines = self.buffer[:end].decode("latin-1").split("\r\n")
            del self.buffer[: end + 4]
            status = int(lines[0].split(" ", 2)[1])
            if status < 200:
                continue
            self.headers = parse_headers(lines[1:])
            self._framing(status)
            self.status = status
        if self.chunked is not None:
            if self.chunked.feed(self.buffer):
                self._finish(bytes(self.chunked.body))
        elif self.length is not None:
            if len(self.buffer) >= self.length:
                body = bytes(self.buffer[: self.length])
                del self.buffer[: self.length]
                self._finish(body)
        elif len(self.buffer) > MAX_BODY:
            raise Problem(502, "its body is too long")

    def _framing(self, status: int) -> None:
        self.chunked = None
        self.length = None
        for name, value in self.headers:
            if name == "content-length":
                self.length = int(value)
                if self.length > MAX_BODY:
                    raise Problem(502, "its body is too long")
            elif name == "transfer-encoding" and "chunked" in value.lower():
                self.chunked = Chunked(MAX_BODY)
            elif name == "connection" and "close" in value.lower():
                self.reusable = False
        if self.chunked is not None:
            self.length = None
        if self.head_only or status == 204 or status == 304:
            self.chunked, self.length = None, 0
        if self.length is None and self.chunked is None:
            self.reusable = False

    def _finish(self, body: bytes) -> None:
        waiter = self.waiter
        self.used = True
        if self.buffer:
            self.reusable = False
        if waiter is not None and not waiter.done():
            waiter.set_result(Reply(self.status, self.headers, body))


class Pool:
    """Connections to any number of peers."""

    def __init__(self) -> None:
        self.idle: dict[tuple[str, int], deque[_Exchange]] = {}

    def forget(self, exchange: _Exchange) -> None:
        for kept in self.idle.values():
            if exchange in kept:
                kept.remove(exchange)

    async def request(
        self,
        host: str,
        port: int,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
        timeout: float,
    ) -> Reply:
        lines = [f"{method} {target} HTTP/1.1", f"host: {host}:{port}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body or method in ("POST", "PUT", "PATCH"):
            lines.append(f"content-length: {len(body)}")
        message = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
        try:
            async with asyncio.timeout(timeout):
                try:
                    return await self._exchange(host, port, method, message, fresh=False)
                except Unreachable as error:
                    if not error.stale or method not in IDEMPOTENT:
                        raise
                return await self._exchange(host, port, method, message, fresh=True)
        except TimeoutError:
            raise Unreachable(f"the peer gave no answer within {timeout:g} s") from None
        except OSError as error:
            raise Unreachable(f"{error.strerror or error}") from None

    async def _exchange(self, host: str, port: int, method: str, message: bytes, fresh: bool) -> Reply:
        kept = self.idle.setdefault((host, port), deque())
        if kept and not fresh:
            exchange = kept.pop()
        else:
            loop = asyncio.get_running_loop()
            _, exchange = await loop.create_connection(lambda: _Exchange(self), host, port)
        try:
            reply = await exchange.send(message, method == "HEAD")
        except BaseException:
            exchange.transport.abort()
            raise
        exchange.waiter = None
        if exchange.reusable and not exchange.lost and len(kept) < MAX_IDLE:
            kept.append(exchange)
        else:
            exchange.transport.close()
        return reply

    def close(self) -> None:
        for kept in self.idle.values():
            for exchange in list(kept):
                exchange.transport.close()
