"""A WebSocket echo (RFC 6455), the least of it: text, binary, fragments, ping, close; messages are bounded."""

from __future__ import annotations

import asyncio
import base64
import hashlib

from standins.python.http1 import Connection, Upgrade, Upgraded
from standins.python.messages import Problem, Request

MAX_MESSAGE = 1024 * 1024
DISCARD_S = 1.0
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1((key + GUID).encode(), usedforsecurity=False).digest()).decode()


def upgrade(request: Request) -> Upgrade:
    """The handshake of RFC 6455 section 4.2."""
    key = request.header("sec-websocket-key") or ""
    if request.method != "GET" or (request.header("upgrade") or "").lower() != "websocket":
        raise Problem(426, "this address speaks WebSocket: ask with Upgrade: websocket")
    if request.header("sec-websocket-version") != "13" or len(key) != 24:
        raise Problem(400, "the handshake needs sec-websocket-version 13 and a sec-websocket-key of 16 bytes")
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        f"sec-websocket-accept: {accept_key(key)}\r\n\r\n"
    )
    return Upgrade(head.encode(), Echo)


def frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked frame, as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, size)) + payload
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + payload


def unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


class _Fail(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


class Echo(Upgraded):
    """Sends every message back."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.buffer = bytearray()
        self.message = bytearray()
        self.kind = 0
        self.closed = False
        self.refused = False

    def feed(self, data: bytes) -> None:
        if self.closed:
            if data and not self.refused:
                self.connection.transport.close()
            return
        self.buffer += data
        try:
            while not self.closed and self._frame():
                pass
        except _Fail as fail:
            # What the client still sends is thrown away, for a while: closing on it would reset the connection, and the
            # client might never see the code.
            self.refused = True
            self.buffer.clear()
            self._close(fail.code)
            asyncio.get_running_loop().call_later(DISCARD_S, self.connection.transport.close)

    def going_away(self) -> None:
        self._close(1001)
        self.connection.transport.close()

    def _close(self, code: int) -> None:
        if not self.closed:
            self.closed = True
            self.connection.transport.write(frame(CLOSE, code.to_bytes(2, "big")))

    def _frame(self) -> bool:
        """Takes one frame off the buffer; False while it is incomplete."""
        buffer = self.buffer
        if len(buffer) < 2:
            return False
        final, opcode, size, at = buffer[0] & 0x80, buffer[0] & 15, buffer[1] & 127, 2
        if buffer[0] & 0x70 or not buffer[1] & 0x80:
            raise _Fail(1002)  # an extension that was not agreed, or a client's frame without a mask
        if opcode >= 8 and (size > 125 or not final):
            raise _Fail(1002)
        if size > 125:
            at = 4 if size == 126 else 10
            if len(buffer) < at:
                return False
            size = int.from_bytes(buffer[2:at], "big")
        if size + len(self.message) > MAX_MESSAGE:
            raise _Fail(1009)
        if len(buffer) < at + 4 + size:
            return False
        payload = unmask(bytes(buffer[at + 4 : at + 4 + size]), bytes(buffer[at : at + 4]))
        del buffer[: at + 4 + size]
        self._take(opcode, payload, bool(final))
        return True

    def _take(self, opcode: int, payload: bytes, final: bool) -> None:
        write = self.connection.transport.write
        if opcode == PING:
            write(frame(PONG, payload))
        elif opcode == CLOSE:
            self.closed = True
            write(frame(CLOSE, payload[:2]))
            self.connection.transport.close()
        elif opcode in (0, TEXT, BINARY):
            if (opcode == 0) != (self.kind != 0):
                raise _Fail(1002)  # a continuation of nothing, or a new message inside another
            self.kind = self.kind or opcode
            self.message += payload
            if final:
                message, kind = bytes(self.message), self.kind
                self.message.clear()
                self.kind = 0
                if kind == TEXT:
                    try:
                        message.decode()
                    except UnicodeDecodeError:
                        raise _Fail(1007) from None
                write(frame(kind, message))
        elif opcode != PONG:
            raise _Fail(1002)
