"""A small HTTP/1.1 server on asyncio.Protocol.

Mechanism: each connection parses one request at a time out of its buffer. A handler that returns a Response at once
is answered inside data_received, without a task; only a handler that has to wait costs one. While a request is being
answered the next ones (pipelining) stay in the buffer, so answers keep their order.
Reason: nine modules with several instances each run on one laptop, so start time and memory count more than features,
and a web framework costs ten times both. Everything that a peer can make grow is bounded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, cast

from standins.python.messages import (
    MAX_BODY,
    MAX_HEAD,
    REASONS,
    Chunked,
    Problem,
    Request,
    Response,
    Stream,
    body_length,
    parse_headers,
    problem_response,
)

PIPELINE_BUFFER = 256 * 1024


class Upgrade:
    """After this head the connection's bytes belong to `start(connection)`'s result."""

    __slots__ = ("head", "start")

    def __init__(self, head: bytes, start: Callable[[Connection], Upgraded]) -> None:
        self.head = head
        self.start = start


class Upgraded:
    """What takes an upgraded connection's bytes."""

    def feed(self, data: bytes) -> None:
        raise NotImplementedError

    def going_away(self) -> None:
        raise NotImplementedError


Answer = Response | Stream | Upgrade
Handler = Callable[[Request], "Answer | Coroutine[Any, Any, Answer]"]
OnDone = Callable[[Request, int], None]


_date: tuple[int, str] = (0, "")


def _http_date() -> str:
    global _date
    now = int(time.time())
    if now != _date[0]:
        _date = (now, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)))
    return _date[1]


class Connections:
    """All open connections, and whether the process is on its way out."""

    def __init__(self, handler: Handler, on_done: OnDone | None) -> None:
        self.handler = handler
        self.on_done = on_done
        self.open: set[Connection] = set()
        self.draining = False

    def protocol(self) -> Connection:
        return Connection(self)

    async def drain(self, linger: float, grace: float) -> int:
        """Lets requests in flight finish; gives the number of those that were cut.

        Idle connections stay open for `linger` more: a request that is on its way right now is still answered, with
        Connection: close, instead of running into a reset.
        """
        self.draining = True
        began = time.monotonic()
        for connection in list(self.open):
            if connection.upgraded is not None:
                connection.upgraded.going_away()
        while self.open and time.monotonic() - began < grace:
            if time.monotonic() - began >= linger:
                for connection in list(self.open):
                    if not connection.busy and connection.upgraded is None:
                        connection.transport.close()
            await asyncio.sleep(0.01)
        cut = [connection for connection in self.open if connection.busy]
        for connection in list(self.open):
            connection.transport.abort()
        return len(cut)


class Connection(asyncio.Protocol):
    """One client's connection."""

    transport: asyncio.Transport

    def __init__(self, server: Connections) -> None:
        self.server = server
        self.buffer = bytearray()
        self.request: Request | None = None  # its head is here, its body is not
        self.chunked: Chunked | None = None
        self.busy = False
        self.closing = False
        self.half_closed = False
        self.task: asyncio.Task[None] | None = None
        self.upgraded: Upgraded | None = None
        self.writable: asyncio.Future[None] | None = None

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.server.open.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.closing = True
        self.server.open.discard(self)
        self.resume_writing()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        waiter, self.writable = self.writable, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def eof_received(self) -> bool:
        self.half_closed = True
        return self.busy  # a client that only shut its sending side still gets its answer

    def data_received(self, data: bytes) -> None:
        if self.upgraded is not None:
            self.upgraded.feed(data)
            return
        self.buffer += data
        if self.busy:
            if len(self.buffer) > PIPELINE_BUFFER:
                self.transport.pause_reading()
            return
        self._advance()

    # -- requests

    def _advance(self) -> None:
        while self.buffer and not self.busy and not self.closing and self.upgraded is None:
            try:
                request = self._parse()
            except Problem as problem:
                refused = self.request or Request("-", "-", [], True)
                refused.keep_alive = False  # where the next request begins is no longer known
                self._write(refused, problem_response(problem))
                return
            if request is None:
                return
            self._dispatch(request)

    def _parse(self) -> Request | None:
        request = self.request
        buffer = self.buffer
        if request is None:
            while buffer[:2] == b"\r\n":  # RFC 9112 section 2.2
                del buffer[:2]
            end = buffer.find(b"\r\n\r\n")
            if end < 0 or end > MAX_HEAD:
                if len(buffer) > MAX_HEAD:
                    raise Problem(431, f"a request's head may have {MAX_HEAD} bytes at most")
                return None
            lines = buffer[:end].decode("latin-1").split("\r\n")
            del buffer[: end + 4]
            words = lines[0].split(" ")
            if len(words) != 3 or not words[0].isalpha() or not words[1]:
                raise Problem(400, "the request line is not METHOD TARGET VERSION")
            if words[2] not in ("HTTP/1.1", "HTTP/1.0"):
                raise Problem(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
            del lines[0]
            target = words[1]
            if target.startswith("http://"):  # the absolute form
                target = "/" + target[7:].partition("/")[2]
            request = Request(words[0], target, parse_headers(lines), words[2] == "HTTP/1.1")
            connection = (request.header("connection") or "").lower()
            if request.http11:
                request.keep_alive = "close" not in connection
            else:
                request.keep_alive = "keep-alive" in connection
            request.length = body_length(request.headers, MAX_BODY)
            if request.length is None:
                self.chunked = Chunked(MAX_BODY)
            self.request = request
            if request.length != 0 and request.http11 and len(buffer) == 0:
                if (request.header("expect") or "").lower() == "100-continue":
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.chunked is not None:
            if not self.chunked.feed(buffer):
                return None
            request.body = bytes(self.chunked.body)
            self.chunked = None
        elif request.length:
            if len(buffer) < request.length:
                return None
            request.body = bytes(buffer[: request.length])
            del buffer[: request.length]
        self.request = None
        return request

    def _dispatch(self, request: Request) -> None:
        try:
            result = self.server.handler(request)
        except Problem as problem:
            result = problem_response(problem)
        if isinstance(result, Response):
            self._write(request, result)
            return
        self.busy = True
        self.task = asyncio.get_running_loop().create_task(self._answer(request, result))
        self.task.add_done_callback(self._answered)

    async def _answer(self, request: Request, result: Stream | Upgrade | Coroutine[Any, Any, Answer]) -> None:
        try:
            answer = result if isinstance(result, Stream | Upgrade) else await result
        except Problem as problem:
            answer = problem_response(problem)
        if isinstance(answer, Response):
            self._write(request, answer)
        elif isinstance(answer, Stream):
            await self._write_stream(request, answer)
        else:
            self.transport.write(answer.head)
            self.upgraded = answer.start(self)
            self._done(request, 101)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.busy = False
        self.task = None
        if task.cancelled():
            return  # the client has gone
        if (error := task.exception()) is not None:
            self.transport.abort()  # what has been sent may be half an answer: only a cut says so
            task.get_loop().call_exception_handler({"message": "a handler failed", "exception": error})
            return
        if self.closing:
            return
        self.transport.resume_reading()
        if self.upgraded is not None:
            rest = bytes(self.buffer)
            self.buffer.clear()
            if rest:
                self.upgraded.feed(rest)
            if self.server.draining:
                self.upgraded.going_away()
            return
        self._advance()
        if self.half_closed and not self.busy:
            self.transport.close()

    # -- answers

    def _head(
        self,
        request: Request,
        status: int,
        content_type: str,
        length: int | None,
        more: tuple[tuple[str, str], ...],
    ) -> bytes:
        if self.server.draining:
            request.keep_alive = False
        if length is None and not request.http11:
            request.keep_alive = False  # HTTP/1.0 knows no chunks: the end of the connection ends the answer
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\ndate: {_http_date()}"]
        if status != 204 and status != 304:
            lines.append(f"content-type: {content_type}")
            if length is not None:
                lines.append(f"content-length: {length}")
            elif request.http11:
                lines.append("transfer-encoding: chunked")
        for name, value in more:
            lines.append(f"{name}: {value}")
        if not request.keep_alive:
            lines.append("connection: close")
        elif not request.http11:
            lines.append("connection: keep-alive")
        lines.append("\r\n")
        return "\r\n".join(lines).encode("latin-1")

    def _write(self, request: Request, response: Response) -> None:
        head = self._head(
            request, response.status, response.content_type, len(response.body), response.headers
        )
        if request.method == "HEAD" or response.status == 204 or response.status == 304:
            self.transport.write(head)
        else:
            self.transport.write(head + response.body)
        self._done(request, response.status)

    async def _write_stream(self, request: Request, stream: Stream) -> None:
        self.transport.write(self._head(request, stream.status, stream.content_type, stream.length, ()))
        if request.method != "HEAD":
            chunked = stream.length is None and request.http11
            async for piece in stream.pieces:
                if not piece:
                    continue
                self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                if self.writable is not None:
                    await self.writable
                if self.closing:
                    return
            if chunked:
                self.transport.write(b"0\r\n\r\n")
        if self.server.draining:
            request.keep_alive = False
        self._done(request, stream.status)

    def _done(self, request: Request, status: int) -> None:
        if not request.keep_alive and status != 101:
            self.closing = True
            self.transport.close()
        if self.server.on_done is not None:
            self.server.on_done(request, status)
