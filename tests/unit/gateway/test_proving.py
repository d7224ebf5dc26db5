"""Who judges tokens is asked a few times at once, and waited for so long."""

import asyncio

import grpc
import pytest

from idi.parts.gateway.envoy.proving import AT_ONCE, Proving, Unproved


async def code_of(proving: Proving, authorization: str | None) -> grpc.StatusCode | str:
    try:
        return await proving.node_of(authorization)
    except Unproved as error:
        return error.code


async def test_a_few_at_once_and_the_others_in_turn() -> None:
    running, most, gate = 0, 0, asyncio.Event()

    async def judge(token: str) -> str | None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return token

    proving = Proving(judge)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(code_of(proving, f"Bearer n{each}")) for each in range(3 * AT_ONCE)]
        await asyncio.sleep(0.01)
        assert most == AT_ONCE
        gate.set()
    assert [each.result() for each in asked] == [f"n{each}" for each in range(3 * AT_ONCE)]
    assert most == AT_ONCE


async def test_the_turn_counts_in_the_time_and_too_many_are_turned_away() -> None:
    gate = asyncio.Event()

    async def judge(_token: str) -> str | None:
        await gate.wait()
        return "never"

    proving = Proving(judge, within_s=0.1, waiting=AT_ONCE + 1)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(code_of(proving, "bearer x")) for _ in range(AT_ONCE + 3)]
    assert [each.result() for each in asked] == [grpc.StatusCode.UNAVAILABLE] * (AT_ONCE + 3)
    gate.set()
    assert await code_of(proving, "bearer x") == "never"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer  ", "Basic x", "x"])
async def test_without_a_bearer_token_nobody_is_asked(header: str | None) -> None:
    asked: list[str] = []

    async def judge(token: str) -> str | None:
        asked.append(token)
        return token

    assert await code_of(Proving(judge), header) is grpc.StatusCode.UNAUTHENTICATED
    assert asked == []
