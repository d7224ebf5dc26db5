"""Calls to control's door: HTTP/1.1 over TLS, one connection that stays open.

By hand, because a client library would weigh more than all the rest of the agent, and a report has to be on its way
in a millisecond: the connection is there already. The token is read at each request and the root at each connect,
since the kubelet and control replace both while we run. It is told when the connection is lost, so that control hears
again from everybody soon after it came back.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CONNECT_S = 2.0
LONGEST_HEAD = 8 * 1024
LONGEST_BODY = 64 * 1024
LONGEST_TOKEN = 16 * 1024


class Away(Exception):
    """Control did not answer as it should; the text is for people. `status` 0: it did not answer at all."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.status = status


class Door:
    """Not for concurrent use. `lost` is called when an idle connection ends."""

    def __init__(self, host: str, port: int, roots: Path, token: Path) -> None:
        self.lost: Callable[[], None] = lambda: None
        self._host = host
        self._port = port
        self._roots = roots
        self._token = token
        self._connection: _Connection | None = None

    async def post(
        self, path: str, body: Mapping[str, object], timeout_s: float, *, connect_s: float = CONNECT_S
    ) -> dict[str, Any]:
        """The answer's JSON; `Away` says why there is none."""
        try:
            request = self._request(path, json.dumps(body).encode())
            if self._connection is not None and self._connection.usable:
                try:
                    async with asyncio.timeout(timeout_s):
                        return _document(*await self._connection.ask(request))
                except ConnectionError:
                    pass  # closed by the server while idle, or it was another control: ask the one that is there
            self.close()
            async with asyncio.timeout(connect_s):
                self._connection = await self._connect()
            async with asyncio.timeout(timeout_s):
                return _document(*await self._connection.ask(request))
        except TimeoutError as error:
            self.close()
            raise Away("no answer in time") from error
        except ssl.SSLCertVerificationError as error:
            raise Away(f"its certificate is not to be trusted ({error.verify_message})") from error
        except OSError as error:
            self.close()
            raise Away((error.strerror or str(error) or type(error).__name__).lower()) from error
        except ValueError as error:
            self.close()
            raise Away(str(error)) from error
        except asyncio.CancelledError:
            self.close()  # an answer that nobody waits for must not meet the next question
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _connect(self) -> _Connection:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(self._roots)
        except ssl.SSLError as error:
            raise ValueError(f"{self._roots} holds no certificate") from error
        except OSError as error:
            raise ValueError(f"{self._roots} cannot be read: {error.strerror}") from error
        # Names as bytes: as text each would load half a megabyte of tables for names in other scripts.
        name: Any = self._host.encode("ascii")
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            None, lambda: socket.getaddrinfo(name, self._port, type=socket.SOCK_STREAM)
        )
        trouble: OSError = ConnectionRefusedError(111, "connection refused")
        for *_, address in found:
            try:
                _, connection = await loop.create_connection(
                    lambda: _Connection(self.lost),
                    str(address[0]),
                    self._port,
                    ssl=context,
                    server_hostname=name,
                )
                return connection
            except ssl.SSLError:
                raise
            except OSError as error:
                trouble = error
        raise trouble

    def _request(self, path: str, body: bytes) -> bytes:
        try:
            with open(self._token, "rb") as file:
                token = file.read(LONGEST_TOKEN).strip().decode("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"no token can be read from {self._token}") from error
        if not token.isprintable() or not token:
            raise ValueError(f"{self._token} holds no token")
        return (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body


class _Connection(asyncio.Protocol):
    def __init__(self, lost: Callable[[], None]) -> None:
        self.usable = False
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.usable = transport, True

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        assert self._transport is not None
        if not self.usable:
            raise ConnectionResetError(104, "connection reset")
        self._received.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    def close(self) -> None:
        self.usable = False
        self._lost = lambda: None
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.close()  # nobody asked
            return
        self._received += data
        try:
            whole = parse(bytes(self._received))
        except ValueError as error:
            self.usable = False
            self._answer.set_exception(error)
            return
        if whole is not None:
            status, body, self.usable = whole
            self._answer.set_result((status, body))

    def eof_received(self) -> bool:
        self.usable = False
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError(104, "connection reset"))
        elif self._answer is None:
            self._lost()
        del exc


def parse(received: bytes) -> tuple[int, bytes, bool] | None:
    """Status, body and whether the connection can be used again; None while more is to come."""
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        if len(head) > LONGEST_HEAD:
            raise ValueError("the head of its answer is too long")
        return None
    first, *lines = head.split(b"\r\n")
    version, _, status = first.partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not status[:3].isdigit():
        raise ValueError("its answer is not HTTP/1.1")
    fields = {
        name.strip().lower(): value.strip().lower()
        for name, _, value in (line.partition(b":") for line in lines)
    }
    length = fields.get(b"content-length", b"")
    if not length.isdigit() or len(length) > 9 or int(length) > LONGEST_BODY:
        raise ValueError("its answer does not say how long it is, or is too long")
    if len(body) < int(length):
        return None
    reuse = version == b"HTTP/1.1" and b"close" not in fields.get(b"connection", b"")
    return int(status[:3]), body[: int(length)], reuse and len(body) == int(length)


def _document(status: int, body: bytes) -> dict[str, Any]:
    if status != 200:
        raise Away(f"it answers {status}", status)
    document = json.loads(body or b"{}")
    if not isinstance(document, dict):
        raise ValueError("its answer is no object")
    return document
