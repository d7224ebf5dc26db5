"""The load generator's side of HTTP/1.1: one keep-alive connection, one request at a time.

Only as much of an answer is understood as telling its end and keeping an excerpt needs; everything else would take
processor time from what is being measured.
"""

import asyncio
from typing import Protocol, cast

MAX_HEAD = 64 * 1024


class Shot:
    """One request of the schedule."""

    __slots__ = ("done", "due", "link", "message", "retried", "sent")

    def __init__(self, due: float, message: bytes) -> None:
        self.due = due
        self.message = message
        self.sent = False
        self.retried = False
        self.done = False
        self.link: Link | None = None


class Owner(Protocol):
    """Who hears what becomes of a shot and of its connection."""

    def answered(self, link: "Link", shot: Shot, status: int, head: bytes, body: bytes) -> None: ...

    def broken(self, link: "Link", shot: Shot | None, error: str, stale: bool) -> None: ...


class Link(asyncio.Protocol):
    """A connection. `stale` in `broken`: it had served before and nothing of the present answer has come."""

    transport: asyncio.Transport

    def __init__(self, owner: Owner, head_only: bool, keep: int) -> None:
        self.owner = owner
        self.head_only = head_only
        self.keep = keep  # so many bytes of a body are kept
        self.shot: Shot | None = None
        self.served = 0
        self.buffer = b""
        self.status = 0  # of the answer whose head has come
        self.head = b""
        self.body = b""
        self.left = (
            0  # bytes to come: of the body, or of the present chunk with its line's end; -1: until closed
        )
        self.chunked = False
        self.trailers = False
        self.closes = False
        self.lost = False

    def usable(self) -> bool:
        return not self.lost and not self.closes and not self.transport.is_closing()

    def send(self, shot: Shot) -> None:
        self.shot = shot
        shot.link = self
        shot.sent = True
        self.transport.write(shot.message)

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        shot, self.shot = self.shot, None
        if shot is not None and self.status and self.left < 0:
            self.shot = shot
            self._end()
            return
        stale = self.served > 0 and not self.status and not self.buffer
        error = "closed before the answer was complete" if exc is None else f"{type(exc).__name__}: {exc}"
        self.owner.broken(self, shot, error, stale)

    def data_received(self, data: bytes) -> None:
        if self.shot is None:
            self._reject("bytes that nobody asked for")
            return
        if self.buffer:
            data = self.buffer + data
            self.buffer = b""
        try:
            if not self.status:
                data = self._take_head(data)
                if not self.status:
                    return
            if self.chunked:
                self._take_chunks(data)
            else:
                self._take_body(data)
        except (ValueError, IndexError) as error:
            self._reject(f"not HTTP: {error}")

    # -- the answer

    def _take_head(self, data: bytes) -> bytes:
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MAX_HEAD:
                    raise ValueError("the head has no end")
                self.buffer = data
                return b""
            head = data[:end]
            data = data[end + 4 :]
            if head[:7] != b"HTTP/1.":
                raise ValueError(f"{head[:40]!r}")
            status = int(head[9:12])
            if status >= 200:
                break
        lower = head.lower()
        self.head = head
        self.body = b""
        self.trailers = False
        self.chunked = b"\r\ntransfer-encoding:" in lower and b"chunked" in _value(
            lower, b"transfer-encoding"
        )
        self.closes = b"close" in _value(lower, b"connection") or head[:8] == b"HTTP/1.0"
        if self.head_only or status in (204, 304):
            self.chunked, self.left = False, 0
        elif self.chunked:
            self.left = 0
        elif length := _value(lower, b"content-length"):
            self.left = int(length)
        else:
            self.left = -1
            self.closes = True
        self.status = status
        return data

    def _take_body(self, data: bytes) -> None:
        if len(self.body) < self.keep:
            self.body += data[: self.keep - len(self.body)]
        if self.left < 0:
            return
        self.left -= len(data)
        if self.left < 0:
            raise ValueError("more bytes than its content-length says")
        if self.left == 0:
            self._end()

    def _take_chunks(self, data: bytes) -> None:
        at = 0
        while True:
            if self.left:
                taken = min(self.left, len(data) - at)
                payload = data[at : at + min(taken, max(0, self.left - 2))]
                if len(self.body) < self.keep:
                    self.body += payload[: self.keep - len(self.body)]
                self.left -= taken
                at += taken
                if self.left:
                    return
            end = data.find(b"\r\n", at)
            if end < 0:
                if len(data) - at > MAX_HEAD:
                    raise ValueError("a chunk's line has no end")
                self.buffer = data[at:]
                return
            line = data[at:end]
            at = end + 2
            if self.trailers:
                if not line:
                    if at != len(data):
                        raise ValueError("more bytes than its chunks say")
                    self._end()
                    return
            elif size := int(line.partition(b";")[0], 16):
                self.left = size + 2
            else:
                self.trailers = True

    def _end(self) -> None:
        shot, status = self.shot, self.status
        self.shot = None
        self.status = 0
        self.served += 1
        if shot is not None:
            shot.link = None
            self.owner.answered(self, shot, status, self.head, self.body)

    def _reject(self, error: str) -> None:
        shot, self.shot = self.shot, None
        self.closes = True
        self.transport.abort()
        if shot is not None:
            self.owner.broken(self, shot, error, False)


def _value(lower_head: bytes, name: bytes) -> bytes:
    start = lower_head.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    end = lower_head.find(b"\r\n", start)
    return lower_head[start : end if end >= 0 else len(lower_head)].strip()
