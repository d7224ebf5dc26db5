"""What is waited for, unless something else comes before."""

from __future__ import annotations

import asyncio

import pytest

from idi.control.unless import unless


async def test_the_work_counts_where_it_is_done_first() -> None:
    async def work() -> str:
        return "done"

    assert await unless(work(), asyncio.sleep(10)) == "done"


async def test_its_error_comes_as_it_is() -> None:
    async def work() -> str:
        raise KeyError("one")

    with pytest.raises(KeyError, match="one"):
        await unless(work(), asyncio.sleep(10))


async def test_what_is_in_vain_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def work() -> str:
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    assert await unless(work(), asyncio.sleep(0)) is None
    assert cancelled.is_set()
