"""Lines out of a stream of bytes, none longer than a limit."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp

from idi.parts.errors import PartError


async def bounded_lines(
    content: aiohttp.StreamReader, limit: int, *, cut: bool = False
) -> AsyncGenerator[bytes, None]:
    """Each line without its end. A longer one is cut to `limit` bytes, or else an error."""
    line = bytearray()
    over = False
    async for chunk in content.iter_any():
        start = 0
        while start < len(chunk):
            end = chunk.find(b"\n", start)
            stop = len(chunk) if end < 0 else end
            room = limit - len(line)
            line += chunk[start : min(stop, start + max(0, room))]
            if stop - start > room:
                over = True
                if not cut:
                    raise PartError(f"Kubernetes sent a line of more than {limit} bytes.")
            start = stop + 1
            if end >= 0:
                yield bytes(line) + ("…".encode() if over else b"")
                line.clear()
                over = False
    if line:
        yield bytes(line) + ("…".encode() if over else b"")
