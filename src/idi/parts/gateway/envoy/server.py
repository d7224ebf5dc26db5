"""The incremental xDS server: one stream per proxy, on a Unix socket or on a port with TLS.

The stream's own coroutine reads, a sibling in the same task group writes; both work on one sans-I/O session.
Nothing is queued: a change wakes the writer, which asks the session what to send now, so a slow proxy costs
one response per type and no more. Messages are raw bytes on both sides (identity serializers).

A stream has to prove which node it is before anything is sent: its bearer credential names the node, and
the node id in its first request must be that one. Bounds: streams, the time until the first request, message
size, and grpc's own limit of requests waiting to be accepted, which would cancel part of a crowd that reconnects
at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio

from idi.parts.gateway.envoy import listening
from idi.parts.gateway.envoy.listening import Listen
from idi.parts.gateway.envoy.proving import Proving, Unproved, Verify
from idi.parts.gateway.envoy.session import Session
from idi.parts.gateway.envoy.wire import Malformed, decode_request, encode_response

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD = "DeltaAggregatedResources"

MAX_STREAMS = 4096
MAX_REQUEST_BYTES = 4 * 1024 * 1024
FIRST_S = 10.0
"""For the first request of who has proved itself; Envoy sends it with the stream."""

STOP_S = 1.0


class Stream:
    """One open stream; `wake` makes the writer look at the session again."""

    def __init__(self, node: str, session: Session) -> None:
        self.node = node
        self.session = session
        self.closed = False
        self.since = time.monotonic()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        self._wake.set()

    def close(self) -> None:
        self.closed = True
        self._wake.set()

    async def woken(self) -> None:
        await self._wake.wait()
        self._wake.clear()


class Owner(Protocol):
    """Who makes sessions and hears of what they learned (the plane)."""

    def opened(self, node: str) -> Stream: ...

    def progressed(self, stream: Stream) -> None: ...

    def closed(self, stream: Stream) -> None: ...


class AdsServer:
    """Async context manager: inside it the socket or port is open."""

    def __init__(
        self,
        where: Listen,
        verify: Verify,
        owner: Owner,
        max_streams: int = MAX_STREAMS,
        also: Sequence[Any] = (),
    ) -> None:
        """`also`: handlers of other services on the same port."""
        self._where = where
        self._also = tuple(also)
        self._proving = Proving(verify)
        self._owner = owner
        self._max_streams = max_streams
        self._streams = 0
        self._open: set[Stream] = set()
        self._server: Any = None

    async def __aenter__(self) -> AdsServer:
        server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.server.max_pending_requests", self._max_streams),
                ("grpc.server.max_pending_requests_hard_limit", 2 * self._max_streams),
                ("grpc.so_reuseport", 0),
                *listening.options(self._where),
            )
        )
        handler: Any = grpc.stream_stream_rpc_method_handler(self._serve)
        ours = grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler})
        server.add_generic_rpc_handlers((ours, *self._also))
        listening.listen(server, self._where)
        await server.start()
        listening.protect(self._where)
        self._server = server
        return self

    async def __aexit__(self, *_: object) -> None:
        for stream in self._open:
            stream.close()
        await self._server.stop(grace=STOP_S)
        listening.clear(self._where)

    async def _serve(self, _requests: Any, context: Any) -> None:
        try:
            node = await self._proving.node_of(authorization(context))
        except Unproved as error:
            await context.abort(error.code, error.words)
            return
        if self._streams >= self._max_streams:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams")
            return
        self._streams += 1
        try:
            # Node and type are in the first request; before it nothing can be said.
            async with asyncio.timeout(FIRST_S):
                first = await context.read()
            if first is grpc.aio.EOF:
                return
            if decode_request(first)[0] != node:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the credential is another node's")
                return
            await self._converse(node, first, context)
        except Malformed as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no request")
        finally:
            self._streams -= 1

    async def _converse(self, node: str, first: bytes, context: Any) -> None:
        stream = self._owner.opened(node)
        self._open.add(stream)
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(self._read(stream, first, context.read))
                writer = tasks.create_task(_write(stream, context.write))
                await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
                stream.close()
                reader.cancel()
                writer.cancel()
        except* (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError, asyncio.InvalidStateError):
            pass  # the other side went away in the middle; closing is all that is left
        finally:
            stream.close()
            self._open.discard(stream)
            self._owner.closed(stream)

    async def _read(self, stream: Stream, first: bytes, read: Callable[[], Awaitable[Any]]) -> None:
        message: Any = first
        while message is not grpc.aio.EOF and not stream.closed:
            try:
                _, request = decode_request(message)
            except Malformed:
                return
            if request is not None:
                stream.session.receive(request)
                if stream.session.has_marks():
                    stream.wake()
                self._owner.progressed(stream)
            message = await read()


def authorization(context: Any) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return str(value)
    return None


async def _write(stream: Stream, write: Callable[[bytes], Awaitable[None]]) -> None:
    while not stream.closed:
        await stream.woken()
        while not stream.closed and (responses := stream.session.responses()):
            for response in responses:
                await write(encode_response(response))
