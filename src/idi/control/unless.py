"""Work that ends early where something else comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def unless(work: Awaitable[T], otherwise: Coroutine[Any, Any, object]) -> T | None:
    """What `work` gives or raises; None (and `work` is cancelled) where `otherwise` is done before."""
    raised: list[Exception] = []

    async def watched() -> T | None:
        try:
            return await work
        except Exception as error:  # noqa: BLE001 - not the group's, where it would come wrapped
            raised.append(error)
            return None

    async with asyncio.TaskGroup() as both:
        working, waiting = both.create_task(watched()), both.create_task(otherwise)
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        early = not working.done()
        working.cancel()
        waiting.cancel()
    if raised:
        raise raised[0]
    return None if early else working.result()
