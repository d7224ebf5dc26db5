"""Who opens a stream: its bearer token is judged by whoever issued it, which takes time and may fail.

The judge is asked a few times at once and waited for a few seconds, so that one that hangs costs the crowd behind
it no more than a wait; Envoy tries again by itself. A token that is judged bad is refused as unauthenticated; one
that could not be judged as unavailable: that is nobody's fault who asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import grpc

log = logging.getLogger(__name__)

AT_ONCE = 64
WAITING = 4096
WITHIN_S = 5.0

Verify = Callable[[str], Awaitable[str | None]]
"""Maps a bearer token to the node that it belongs to; None where it is nobody's."""


class Unproved(Exception):
    """The stream is refused, with this code and these words."""

    def __init__(self, code: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class Proving:
    def __init__(self, verify: Verify, *, within_s: float = WITHIN_S, waiting: int = WAITING) -> None:
        self._verify = verify
        self._within_s = within_s
        self._most_waiting = waiting
        self._waiting = 0
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def node_of(self, authorization: str | None) -> str:
        """The node whose token this header carries; `Unproved` where it is nobody's, or nobody knows."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unproved(grpc.StatusCode.UNAUTHENTICATED, "a bearer token is needed")
        if self._waiting >= self._most_waiting:
            raise Unproved(grpc.StatusCode.UNAVAILABLE, "too many prove themselves at once")
        self._waiting += 1
        try:
            node = await self._judged(token.strip())
        finally:
            self._waiting -= 1
        if not node:
            raise Unproved(grpc.StatusCode.UNAUTHENTICATED, "unknown credential")
        return node

    async def _judged(self, token: str) -> str | None:
        try:
            async with asyncio.timeout(self._within_s), self._turns:
                return await self._verify(token)
        except TimeoutError:
            log.warning("a proxy's token could not be verified within %g s", self._within_s)
            raise Unproved(grpc.StatusCode.UNAVAILABLE, "the token could not be verified in time") from None
        except (
            Exception
        ) as error:  # whatever it is, it is not the proxy's fault, and the next one may be lucky
            log.warning("a proxy's token could not be verified: %s", error)
            raise Unproved(grpc.StatusCode.UNAVAILABLE, "the token could not be verified") from error
