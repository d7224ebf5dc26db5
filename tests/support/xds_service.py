"""A Kubernetes Service in small: one port in front of several, each connection to one of those that take it.

It forwards bytes and knows nothing of what they are. A backend that refuses is passed over, as kube-proxy's rules
do once the endpoint is out; connections that are open stay with theirs and end with it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Service:
    def __init__(self) -> None:
        self.backends: list[int] = []
        self.port = 0
        self.taken: list[int] = []
        self._next = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in range(len(self.backends)):
            self._next += 1
            port = self.backends[self._next % len(self.backends)]
            with suppress(OSError):
                found = await asyncio.open_connection("127.0.0.1", port)
                self.taken.append(port)
                return found
        return None

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await self._connect()
        if there is None:
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as tasks:
                ways = {
                    tasks.create_task(_pour(reader, there[1])),
                    tasks.create_task(_pour(there[0], writer)),
                }
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        finally:
            writer.transport.abort()
            there[1].transport.abort()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def service() -> AsyncIterator[Service]:
    made = Service()
    server = await asyncio.start_server(made.accept, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
