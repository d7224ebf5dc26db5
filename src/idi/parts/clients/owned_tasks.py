"""Tasks that something long-lived owns from entering it to leaving it.

A `TaskGroup` waits for its tasks; what is left has to end them instead. The documented way to
end a group from within is to have one of its tasks raise.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class _Leave(Exception):
    """Raised inside the group to end it."""


class OwnedTasks:
    """An async context manager: a task group whose tasks are cancelled when it is left."""

    def __init__(self) -> None:
        self.group = asyncio.TaskGroup()

    async def __aenter__(self) -> asyncio.TaskGroup:
        return await self.group.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            # Cancelled from outside, or by the group because one of its tasks failed: it knows which.
            await self.group.__aexit__(kind, error, trace)
            return
        # An error of the body passes as it is; the group would wrap it in an ExceptionGroup.
        self.group.create_task(_leave())
        try:
            await self.group.__aexit__(None, None, None)
        except* _Leave:
            pass


async def _leave() -> None:
    raise _Leave
