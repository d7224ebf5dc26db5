"""An instance whose sidecar cannot be asked when it is idle gets the time of a drain all the same."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from idi.control.loop import Edge, Loop
from idi.control.retiring import Retiring
from idi.parts.errors import PartError
from tests.support.planes import RememberingPlane
from tests.support.worlds import instance

BLIND_S = 0.3


async def deaf(node: str, deadline_s: float) -> None:
    raise PartError(f"The Envoy of {node} does not answer.")


def retiring() -> Retiring:
    plane = RememberingPlane()
    edge = Edge("127.0.0.1", 8080, lambda platform: pytest.fail("nothing is declared"))
    return Retiring(Loop(plane, edge), plane, deaf, blind_s=BLIND_S)


async def spent(work: Retiring, sidecar_pid: int) -> float:
    begun = time.monotonic()
    await work.retire(replace(instance("cam", 1, "aaaa"), sidecar_pid=sidecar_pid))
    return time.monotonic() - begun


async def test_it_waits_where_a_sidecar_lives() -> None:
    assert await spent(retiring(), 7) >= BLIND_S


async def test_it_does_not_wait_for_a_dead_one() -> None:
    assert await spent(retiring(), 0) < BLIND_S


async def test_it_does_not_wait_when_everything_goes_down() -> None:
    work = retiring()
    work.blind_s = 60.0
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(spent(work, 7))
        await asyncio.sleep(0.05)
        work.hurry = True
    assert waiting.result() < 10.0
