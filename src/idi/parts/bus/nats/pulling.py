"""Messages of a durable consumer, each as soon as it comes.

A pull request asks the broker for so many messages and lingers until it has had them or expires. The client library's
`fetch` hands over nothing before its batch is whole or the broker says that there is no more, and it does not say so
while there is more that nobody may have yet (`max_ack_pending`): one message that takes long would hold up all that
others have made room for. So requests are made here, and what comes is handed on at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Heard
from nats.errors import Error
from nats.js.client import JetStreamContext
from nats.js.errors import APIError

NEXT = "$JS.API.CONSUMER.MSG.NEXT"
OVER = ("404", "408")
"""There is nothing; the request has expired."""
LINGERS_S = 30.0
LATE_S = 5.0
"""After this time beyond its end the broker has forgotten the request, and is asked anew."""


class Pulling:
    """Everything that is pulled over one connection."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()

    def anew(self) -> None:
        """The connection was made anew: the broker has forgotten who waits, and does not say so."""
        for limit in self._waits:
            limit.reschedule(asyncio.get_running_loop().time())

    async def messages(self, client: Client, stream: str, consumer: str, most: int) -> AsyncGenerator[Msg]:
        """Without end; so many may be on their way at once. Raises what the library raises."""
        inbox = client.new_inbox()
        heard = await client.subscribe(f"{inbox}.*")
        request = json.dumps({"batch": most, "expires": int(LINGERS_S * 1e9)}).encode()
        number = to_come = 0
        try:
            while True:
                if to_come <= 0:
                    number += 1
                    await client.publish(f"{NEXT}.{stream}.{consumer}", request, reply=f"{inbox}.{number}")
                    to_come = most
                message = await self._next(heard)
                if message is None:
                    to_come = 0
                elif status := JetStreamContext.is_status_msg(message):
                    if message.subject != f"{inbox}.{number}":
                        continue  # of a request that was given up
                    if status not in OVER:
                        APIError.from_msg(message)
                    to_come = 0
                else:
                    to_come -= 1
                    yield message
        finally:
            await quietly(heard.unsubscribe())

    async def _next(self, heard: Heard) -> Msg | None:
        """None after a while, or when the connection was made anew."""
        try:
            async with asyncio.timeout(LINGERS_S + LATE_S) as limit:
                self._waits.add(limit)
                try:
                    return await heard.next_msg(timeout=None)
                finally:
                    self._waits.discard(limit)
        except TimeoutError:
            return None


async def quietly(call: Awaitable[object]) -> None:
    """At the end: a connection that is gone has no subscription left."""
    try:
        await call
    except (Error, OSError, TimeoutError):
        pass
