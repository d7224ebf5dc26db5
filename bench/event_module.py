"""A module that notes when each event reached it and does nothing else: the receiving end of a latency.

PORT; `GET /urls` tells where it publishes, `GET /received` what it received since it was last asked: id to the
monotonic clock, which all processes of a machine share. With CONSUMES it takes that type from the broker by nats-py,
too. The platform starts it from a folder that has only this file.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time

RECEIVED: dict[str, float] = {}
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
ID = re.compile(rb"ce-id: *([^\r]+)", re.IGNORECASE)


class Handler(asyncio.Protocol):
    """As much of HTTP/1.1 as Envoy speaks to it."""

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        at = time.monotonic()
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            length = LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < whole:
                return
            self.buffer = self.buffer[whole:]
            if id := ID.search(head):
                RECEIVED.setdefault(id[1].decode(), at)
                self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                self.answer(head.split(b" ", 2)[1])

    def answer(self, path: bytes) -> None:
        body = b""
        if path == b"/urls":
            body = json.dumps({name: os.environ.get(name) for name in ("EVENTS_URL", "BUS_URL")}).encode()
        elif path == b"/received":
            body = json.dumps(RECEIVED).encode()
            RECEIVED.clear()
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


async def consume(topic: str) -> None:
    import nats
    import nats.errors

    bus = await nats.connect(os.environ["BUS_URL"], max_reconnect_attempts=-1, reconnect_time_wait=1)
    taken = await bus.jetstream().pull_subscribe_bind(
        consumer=os.environ["IDI_MODULE"], stream=topic.replace(".", "=")
    )
    while True:
        try:
            for message in await taken.fetch(64, timeout=5):
                RECEIVED.setdefault((message.headers or {}).get("ce-id", "?"), time.monotonic())
                await message.ack()
        except (TimeoutError, nats.errors.Error):
            await asyncio.sleep(0.01)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Handler, "127.0.0.1", int(os.environ["PORT"]))
    async with server, asyncio.TaskGroup() as tasks:
        if topic := os.environ.get("CONSUMES"):
            tasks.create_task(consume(topic))
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
