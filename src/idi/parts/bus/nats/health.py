"""What the NATS server says of itself and is told to do, in its own account.

How it is matters for one thing that no publisher can tell from a slow answer: a stream that could not be written once
(the disk was full) is not written to again, whatever room there is later, and publishers get no answer at all. The
server says so only when it is asked how it is; it takes events again after it was started anew.

Where nobody can send it a signal it is asked to read its configuration again. Which one it has then is among its tags
(`config.marked`).
"""

from __future__ import annotations

import asyncio
import json
import ssl
from types import TracebackType
from typing import Any, Self

from nats.aio.client import Client
from nats.errors import Error

from idi.parts.bus.errors import BusDown
from idi.parts.bus.nats.config import WATCHER

ASK = "$SYS.REQ.SERVER.PING.HEALTHZ"
RELOAD = "$SYS.REQ.SERVER.{}.RELOAD"
ANSWER_S = 3.0


class NatsHealth:
    """Async context manager: inside it there is a connection, which does not come back by itself."""

    def __init__(self, url: str, password: str, tls: ssl.SSLContext | None = None) -> None:
        self._url, self._password, self._tls = url, password, tls
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
                    connect_timeout=2,
                    tls=self._tls,
                    tls_handshake_first=self._tls is not None,
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
        told = (await self._asked(ASK, b'{"details": true}'))["data"]
        return [one["error"] for one in told.get("errors", ())]

    async def read_again(self) -> str:
        """Why it did not take its configuration as it lies there now; empty where it did."""
        answer = await self._asked(RELOAD.format((await self._server())["id"]))
        return str(answer.get("error", {}).get("description", ""))

    async def tags(self) -> list[str]:
        """Those of the configuration that it has."""
        return [*(await self._server()).get("tags", ())]

    async def _server(self) -> dict[str, Any]:
        told: dict[str, Any] = (await self._asked(ASK))["server"]
        return told

    async def _asked(self, subject: str, question: bytes = b"") -> dict[str, Any]:
        try:
            async with asyncio.timeout(ANSWER_S):
                answer = await self._client.request(subject, question, timeout=ANSWER_S)
        except (Error, OSError, TimeoutError) as error:
            raise BusDown("NATS does not say how it is.") from error
        told: dict[str, Any] = json.loads(answer.data)
        return told


async def _nothing(error: Exception) -> None:
    """Whoever asks next hears of it."""
