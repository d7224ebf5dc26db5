"""A task group that ends what it owns when it is left: for tasks as long-lived as control."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class _Leave(Exception):
    """Cancels the group's tasks from within."""


async def _leave() -> None:
    raise _Leave


@asynccontextmanager
async def owned_tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks created in the group are cancelled when the block ends, and their errors are not lost."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
            tasks.create_task(_leave())
    except* _Leave:
        pass


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
