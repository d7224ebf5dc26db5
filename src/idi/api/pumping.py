"""Two connections made one: what comes from either goes to the other, until one of them ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine

CHUNK = 64 * 1024


async def first_of(*ways: Coroutine[None, None, None]) -> None:
    """Until one of them ends, which ends the others. Raises what it raised."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(quietly(way)) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()


async def quietly(way: Coroutine[None, None, None]) -> None:
    """That a side is gone is how it ends, and no error."""
    with contextlib.suppress(OSError):
        await way


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
