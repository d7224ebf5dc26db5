"""Acknowledged publishing over a connection of its own: written at once, many on their way, answers matched by number.

What the general client does for one such publish (a queue and a task for what is written, another for what comes, two
timers) cost as much as all the rest of the relay, and it writes only when everything else that is ready has had its
turn, so that broker and relay waited for each other. Here an event is on its way before its publisher waits. The
connection is made when it is needed. One that is lost fails what is on its way, for nobody knows what became of that,
and the next publish makes another.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import ssl
from collections.abc import Awaitable, Iterable, Mapping
from typing import cast
from urllib.parse import urlsplit

CONNECT_S = 2.0
ANSWER_S = 5.0
MOST_LINE = 64 << 10
"""Of what the broker says; INFO is the longest."""

_BREAKS = re.compile(r"[\r\n]")


class Unanswered(Exception):
    """No connection, or it was lost, or no answer in time."""


class TooLarge(Exception):
    """More than the broker takes of one event, headers included."""


class Publisher:
    def __init__(self, url: str, user: str, password: str, tls: ssl.SSLContext | None = None) -> None:
        at = urlsplit(url)
        self._tls = tls
        self._host, self._port = at.hostname or "", at.port or 0
        self._user, self._password = user, password
        self._link: _Link | None = None
        self._connecting: asyncio.Future[_Link] | None = None

    async def publish(self, subject: str, headers: Mapping[str, str], payload: bytes) -> bytes:
        """The broker's answer, as it is."""
        return await (await self._usable()).send(subject, headers, payload)

    async def publish_all(
        self, subject: str, events: Iterable[tuple[Mapping[str, str], bytes]]
    ) -> list[bytes | BaseException]:
        """One after another without waiting in between: answers, or why there are none. After one that is too large
        nothing is sent."""
        link = await self._usable()
        answers: list[Awaitable[bytes]] = []
        refused: list[bytes | BaseException] = []
        for headers, payload in events:
            try:
                answers.append(link.send(subject, headers, payload))
            except (TooLarge, Unanswered) as error:
                refused.append(error)
                break
        return await asyncio.gather(*answers, return_exceptions=True) + refused

    async def _usable(self) -> _Link:
        link = self._link
        if link is None or link.lost:
            link = await self._connected()
        if not link.writable.is_set():
            async with asyncio.timeout(ANSWER_S):
                await link.writable.wait()
        return link

    def close(self) -> None:
        if self._link is not None:
            self._link.abort("closed")

    async def _connected(self) -> _Link:
        """One attempt for all who wait for it."""
        if self._connecting is not None:
            return await asyncio.shield(self._connecting)
        attempt = self._connecting = asyncio.get_running_loop().create_future()
        try:
            self._link = await self._connect()
            attempt.set_result(self._link)
            return self._link
        finally:
            self._connecting = None
            if not attempt.done():
                attempt.set_exception(Unanswered("no connection"))
                attempt.exception()  # nobody may be waiting

    async def _connect(self) -> _Link:
        try:
            async with asyncio.timeout(CONNECT_S):
                loop = asyncio.get_running_loop()
                name = self._host if self._tls else None
                _, link = await loop.create_connection(
                    _Link, self._host, self._port, ssl=self._tls, server_hostname=name
                )
                try:
                    await link.begin(self._user, self._password)
                except BaseException:
                    link.abort("no connection")
                    raise
        except OSError as error:  # TimeoutError is one
            raise Unanswered(str(error) or "no answer in time") from error
        return link


class _Link(asyncio.Protocol):
    """The broker's protocol, as much of it as this needs."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._number = 0
        self._waiting: dict[int, tuple[float, asyncio.Future[bytes]]] = {}
        """In the order in which they run out of time."""
        self._sweep: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._buffer = b""
        self._begun: asyncio.Future[None] = self._loop.create_future()
        self._most = 0
        self.writable = asyncio.Event()
        self.writable.set()
        self.lost = False

    async def begin(self, user: str, password: str) -> None:
        told = {
            "user": user,
            "pass": password,
            "name": user,
            "verbose": False,
            "pedantic": False,
            "headers": True,
            "no_responders": True,
            "echo": False,
            "lang": "python",
            "version": "1",
            "protocol": 1,
        }
        self.transport.write(f"CONNECT {json.dumps(told)}\r\nSUB {self._inbox}.* 1\r\nPING\r\n".encode())
        await self._begun

    def send(self, subject: str, headers: Mapping[str, str], payload: bytes) -> asyncio.Future[bytes]:
        head = head_of(headers) if headers else b""
        size = len(head) + len(payload)
        if size > self._most:
            raise TooLarge(f"{self._most}")
        if self.lost:
            raise Unanswered("the connection is lost")
        self._number += 1
        number, now = self._number, self._loop.time()
        answer = self._loop.create_future()
        self._waiting[number] = now + ANSWER_S, answer
        answer.add_done_callback(lambda _: self._waiting.pop(number, None))
        if self._sweep is None:
            self._sweep = self._loop.call_at(now + ANSWER_S, self._swept)
        line = f"{subject} {self._inbox}.{number} {f'{len(head)} ' if head else ''}{size}\r\n"
        verb = b"HPUB " if head else b"PUB "
        self.transport.write(b"".join((verb, line.encode(), head, payload, b"\r\n")))
        return answer

    def _swept(self) -> None:
        """Whoever waited too long hears so. Where the broker said nothing at all meanwhile, the connection is bad."""
        self._sweep, now = None, self._loop.time()
        for until, answer in [*self._waiting.values()]:
            if until > now:
                self._sweep = self._loop.call_at(until, self._swept)
                return
            if not answer.done():
                answer.set_exception(Unanswered("no answer in time"))
            if self._heard < until - ANSWER_S:
                self.abort("no answer in time")
                return

    def abort(self, why: str) -> None:
        self._end(why)
        self.transport.abort()

    def _end(self, why: str) -> None:
        self.lost = True
        if self._sweep is not None:
            self._sweep.cancel()
        if not self._begun.done():
            self._begun.set_exception(ConnectionError(why))
            self._begun.exception()  # nobody may be waiting
        for _, answer in [*self._waiting.values()]:
            if not answer.done():
                answer.set_exception(Unanswered(why))
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(f"the connection is lost{f': {error}' if error else ''}")

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        buffer = self._buffer + data if self._buffer else data
        at = 0
        while (end := buffer.find(b"\r\n", at)) >= 0:
            words = buffer[at:end].split(b" ")
            if words[0] in (b"MSG", b"HMSG"):
                size = int(words[-1])
                if len(buffer) < end + 4 + size:
                    break
                answer = self._waiting.get(int(words[1].rpartition(b".")[2]), (0.0, None))[1]
                if answer is not None and not answer.done():
                    if words[0] == b"MSG":
                        answer.set_result(buffer[end + 2 : end + 2 + size])
                    else:  # a status
                        answer.set_exception(Unanswered("nobody is there for it"))
                at = end + 4 + size
            else:
                self._said(words[0], buffer[at:end])
                at = end + 2
        self._buffer = buffer[at:]
        if len(self._buffer) > MOST_LINE:
            self.transport.abort()

    def _said(self, word: bytes, line: bytes) -> None:
        if word == b"PING":
            self.transport.write(b"PONG\r\n")
        elif word == b"INFO":
            self._most = int(json.loads(line[5:])["max_payload"])
        elif word == b"PONG":
            if not self._begun.done():
                self._begun.set_result(None)
        elif word == b"-ERR":
            self.abort(line[5:].decode(errors="replace").strip(" '"))


def head_of(headers: Mapping[str, str]) -> bytes:
    """A line each; what has a line break in it loses that."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\r") + text.count("\n") != 2 * len(headers):
        return head_of({_BREAKS.sub(" ", name): _BREAKS.sub(" ", value) for name, value in headers.items()})
    return f"NATS/1.0\r\n{text}\r\n".encode()
