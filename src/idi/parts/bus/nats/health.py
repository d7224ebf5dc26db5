"""What the NATS server says of itself, asked in its own account.

It matters for one thing that no publisher can tell from a slow answer: a stream that could not be written once (the
disk was full) is not written to again, whatever room there is later, and publishers get no answer at all. The server
says so only when it is asked how it is; it takes events again after it was started anew.
"""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Self

from nats.aio.client import Client
from nats.errors import Error

from idi.parts.bus.errors import BusDown
from idi.parts.bus.nats.config import WATCHER

ASK = "$SYS.REQ.SERVER.PING.HEALTHZ"
ANSWER_S = 3.0


class NatsHealth:
    """Async context manager: inside it there is a connection, which does not come back by itself."""

    def __init__(self, url: str, password: str) -> None:
        self._url, self._password = url, password
        self._client = Client()

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._client.connect(
                    self._url,
                    user=WATCHER,
                    password=self._password,
                    name=WATCHER,
                    allow_reconnect=False,
                    error_cb=_nothing,
                )
        except (Error, OSError, TimeoutError) as error:
            raise BusDown(f"NATS does not answer at {self._url}.") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def faults(self) -> list[str]:
        """Why it keeps no more; nothing where it is well."""
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._client.request(ASK, b'{"details": true}', timeout=ANSWER_S)
        except (Error, OSError, TimeoutError) as error:
            raise BusDown("NATS does not say how it is.") from error
        told = json.loads(answer.data)["data"]
        return [one["error"] for one in told.get("errors", ())]


async def _nothing(error: Exception) -> None:
    """Whoever asks next hears of it."""
