"""A task group that ends what it owns when it is left: for tasks as long-lived as control."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


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
