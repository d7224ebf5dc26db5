"""Asks one path by HTTP/1.1 over one connection that stays open: a probe costs two small system calls.

Hand-written because it runs all the time for every instance: a general client costs several times as much
and a new connection each time would leave sockets in TIME_WAIT. Only what a probe needs is read: the
status, and the end of the body so that the connection can be used again. Where the end cannot be told,
or the body is large, the connection is closed and the next question opens another.
"""

from __future__ import annotations

import asyncio

REFUSED = "connection refused"
LONGEST_HEAD = 16 * 1024
LONGEST_BODY = 64 * 1024


class HttpProbe:
    """One connection to `127.0.0.1:port`; not for concurrent use."""

    def __init__(self, port: int, path: str, timeout_s: float) -> None:
        self._port = port
        self._path = path
        self._timeout_s = timeout_s
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: idi-readiness\r\nAccept: */*\r\n\r\n"
        ).encode()
        self._connection: _Connection | None = None

    async def ask(self) -> str:
        """Empty when the answer is 2xx, otherwise why not, for people."""
        try:
            async with asyncio.timeout(self._timeout_s):
                status = await self._status()
        except TimeoutError:
            self.close()
            return f"no answer within {self._timeout_s:g}s"
        except ConnectionRefusedError:
            return REFUSED
        except ValueError as error:
            self.close()
            return str(error)
        except OSError as error:
            self.close()
            return (error.strerror or str(error)).lower()
        return "" if 200 <= status < 300 else f"{self._path} answered {status}"

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _status(self) -> int:
        if self._connection is not None and self._connection.usable:
            try:
                return await self._connection.ask(self._request)
            except ConnectionResetError:
                pass  # closed by the server while idle; that says nothing
        self.close()
        loop = asyncio.get_running_loop()
        _, self._connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
        return await self._connection.ask(self._request)


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._received = b""
        self.usable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.usable = True

    async def ask(self, request: bytes) -> int:
        assert self._transport is not None
        self._received = b""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # nobody asked
            return
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            if len(head) > LONGEST_HEAD:
                self._fail(ValueError("the head of the answer is too long"))
            return
        try:
            version, status = head[:12].split(b" ", 1)
            if not version.startswith(b"HTTP/1."):
                raise ValueError
            code = int(status)
        except ValueError:
            self._fail(ValueError("the answer is not HTTP/1.1"))
            return
        if 100 <= code < 200:
            self._received = b""
            if body:
                self.data_received(body)
            return
        end = _whole(head, body, code)
        if end is None and len(body) < LONGEST_BODY:
            return
        if not end or version == b"HTTP/1.0":
            self.close()
        self._answer.set_result(code)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.usable = False
        if self._answer is None or self._answer.done():
            return
        head, separator, _ = self._received.partition(b"\r\n\r\n")
        if separator:  # a body that ends with the connection
            self._answer.set_result(int(head[9:12]))
        else:
            self._answer.set_exception(ConnectionResetError(104, "connection reset"))

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _whole(head: bytes, body: bytes, code: int) -> bool | None:
    """True: the answer is whole and the connection can be used again. False: whole as far as matters,
    but the connection has to be closed. None: more is to come."""
    headers = {
        name.strip().lower(): value.strip().lower()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    reuse = b"close" not in headers.get(b"connection", b"")
    if code in (204, 304):
        return reuse
    if b"chunked" in headers.get(b"transfer-encoding", b""):
        return reuse if body.endswith(b"0\r\n\r\n") else None
    length = headers.get(b"content-length", b"")
    if not length.isdigit():
        return False
    return reuse if len(body) >= int(length) else None
