"""One idle connection to the module: when its process is killed the kernel closes it, and that is seen at once.

A server may as well close it because it is idle, so an end proves nothing: another connection is tried. Where nobody
listens any more (refused) the module is gone, milliseconds after it died and without a question asked in between.
Where one is accepted it is simply held from there on; a server that closes it soon, again and again, is tried at
growing pauses, and what is asked regularly has to do then.
"""

from __future__ import annotations

import asyncio

STEADY_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 5.0
CONNECT_S = 2.0


async def until_refused(port: int) -> None:
    """Hold a connection to 127.0.0.1:port; return when nobody listens there."""
    loop = asyncio.get_running_loop()
    pause = 0.0
    while True:
        since = loop.time()
        try:
            async with asyncio.timeout(CONNECT_S):
                transport, held = await loop.create_connection(_Held, "127.0.0.1", port)
            try:
                await held.ended.wait()
            finally:
                transport.abort()
        except ConnectionRefusedError:
            return
        except (OSError, TimeoutError):
            pass  # alive, but full or stopped: that is for the regular questions to judge
        if loop.time() - since >= STEADY_S:
            pause = 0.0
        await asyncio.sleep(pause)
        pause = min(max(2 * pause, FIRST_PAUSE_S), LONGEST_PAUSE_S)


class _Held(asyncio.Protocol):
    """What a server says on it is dropped."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.ended.set()
