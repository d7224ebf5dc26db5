"""Control's end of the streams from its replicas: one each, on the port where proxies may come, too.

A replica opens the stream, proves itself by its token, gets everything, then every change as one message at once,
and reports as long as it lives. What waits to be sent is bounded for each: one that takes nothing any more is cut
off, and begins with everything when it comes back; the others don't notice. Keepalives find those that died
without a word.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Iterable
from typing import Any, Protocol

import grpc
import grpc.aio

from idi.parts.gateway.envoy.proving import Proving, Unproved, Verify
from idi.parts.gateway.envoy.replicas.frames import (
    MAX_FRAME_BYTES,
    METHOD,
    SERVICE,
    Malformed,
    Report,
    decode_report,
)
from idi.parts.gateway.envoy.server import authorization

log = logging.getLogger(__name__)

MAX_REPLICAS = 64
MAX_WAITING_FRAMES = 1024
MAX_WAITING_BYTES = 2 * MAX_FRAME_BYTES


class Link:
    """What waits to be sent to one replica."""

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self.closed = asyncio.Event()
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()

    def send(self, frame: bytes) -> None:
        """At once, or never: with too much waiting the stream is given up."""
        if self.closed.is_set():
            return
        if len(self._frames) >= MAX_WAITING_FRAMES or self._bytes + len(frame) > MAX_WAITING_BYTES:
            log.warning("the replica %s takes no changes any more; it has to begin again", self.replica)
            self.close()
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        self._wake.set()

    def close(self) -> None:
        self.closed.set()
        self._frames.clear()
        self._wake.set()

    async def next(self) -> bytes | None:
        """None: it is closed."""
        while not self._frames:
            if self.closed.is_set():
                return None
            self._wake.clear()
            await self._wake.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        return frame


class LinkOwner(Protocol):
    """Who knows what a new replica has to get, and hears the reports."""

    def everything(self) -> Iterable[bytes]: ...

    def reported(self, replica: str, report: Report) -> None: ...

    def detached(self, replica: str) -> None: ...


class Links:
    """`handler` is to be served; `verify` maps a token to the replica's name."""

    def __init__(self, verify: Verify, owner: LinkOwner) -> None:
        self._proving = Proving(verify)
        self._owner = owner
        self._links: dict[str, Link] = {}

    def handler(self) -> Any:
        serve: Any = grpc.stream_stream_rpc_method_handler(self._serve)
        return grpc.method_handlers_generic_handler(SERVICE, {METHOD: serve})

    def close(self) -> None:
        for link in self._links.values():
            link.close()

    @property
    def any(self) -> bool:
        return bool(self._links)

    def names(self) -> Collection[str]:
        return self._links.keys()

    def send(self, frame: bytes) -> None:
        """To every replica that is here now."""
        for link in self._links.values():
            link.send(frame)

    async def _serve(self, _requests: Any, context: Any) -> None:
        try:
            replica = await self._proving.node_of(authorization(context))
        except Unproved as error:
            await context.abort(error.code, error.words)
            return
        if len(self._links) >= MAX_REPLICAS and replica not in self._links:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many replicas")
            return
        before = self._links.pop(replica, None)
        if before is not None:
            before.close()
            self._owner.detached(replica)
        link = self._links[replica] = Link(replica)
        for frame in self._owner.everything():
            link.send(frame)
        try:
            await self._converse(link, context)
        finally:
            link.close()
            if self._links.get(replica) is link:
                del self._links[replica]
                self._owner.detached(replica)

    async def _converse(self, link: Link, context: Any) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(link, context))
                writer = tasks.create_task(_write(link, context))
                await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
                reader.cancel()
                writer.cancel()
        except* (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError):
            pass  # the other side went away in the middle; closing is all that is left

    async def _read(self, link: Link, context: Any) -> None:
        while not link.closed.is_set() and (data := await context.read()) is not grpc.aio.EOF:
            try:
                report = decode_report(data)
            except Malformed as error:
                log.warning("the replica %s is cut off: %s", link.replica, error)
                return
            if self._links.get(link.replica) is link:
                self._owner.reported(link.replica, report)


async def _write(link: Link, context: Any) -> None:
    while (frame := await link.next()) is not None:
        await context.write(frame)
