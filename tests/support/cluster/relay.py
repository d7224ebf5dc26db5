"""127.0.0.1:PORT of this machine, into a cluster: the only way in for a client out here.

The outgoing socket is made inside the cluster's network, so nothing is ever dialled from the machine's own one.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from concurrent.futures import Future

from tests.support.cluster.group import START_S, ClusterError, Group

CONNECT_S = 5.0
CHUNK = 65_536


class Relay:
    """Its loop runs in a thread of its own; several addresses behind it, each with a port of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()

    def serve(self, group: Group, host: str, port: int) -> int:
        """The port on 127.0.0.1 that leads to this address of the group's network."""
        ended: Future[int] = asyncio.run_coroutine_threadsafe(self._serve(group, host, port), self._loop)
        return ended.result(timeout=START_S)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout=START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=START_S)
        self._loop.close()

    async def _serve(self, group: Group, host: str, port: int) -> int:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._open.add(task)
            try:
                await self._carry(group, host, port, reader, writer)
            except asyncio.CancelledError:
                pass  # the relay is closed, and the stream's own callback would report it
            finally:
                self._open.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _carry(
        self, group: Group, host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            inner = await asyncio.to_thread(group.socket)
        except (ClusterError, OSError):
            writer.close()
            return
        try:
            inner.setblocking(False)
            inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(CONNECT_S):
                await self._loop.sock_connect(inner, (host, port))
            far_reader, far_writer = await asyncio.open_connection(sock=inner)
        except (OSError, TimeoutError):
            # Whoever asked sees a closed connection, as with any address that nobody serves.
            inner.close()
            writer.close()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._copy(reader, far_writer))
                both.create_task(self._copy(far_reader, writer))
        finally:
            far_writer.close()
            writer.close()

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(CHUNK):
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()
        except OSError:
            writer.close()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        waiting = list(self._open)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
