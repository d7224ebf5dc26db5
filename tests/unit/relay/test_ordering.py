"""Where events have an order: those of one value one after another, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from idi.relay import delivering
from idi.relay.delivering import AT_ONCE
from idi.relay.lanes import Lanes
from tests.unit.relay.stage import BROKEN, OK, Answer, Got, Stage, cancelled, event, staged, tries_of

pytestmark = pytest.mark.requirement("B1")


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged(order="subject") as found:
        yield found


async def test_events_of_a_value_wait_for_one_that_is_being_retried(stage: Stage) -> None:
    stage.module.answers = {"a1": [BROKEN, BROKEN, OK], "a3": [BROKEN, OK]}
    await stage.publish(*(event(f"a{n}", subject="a") for n in range(1, 5)))
    async with stage.relay():
        await stage.until_done()
    assert stage.module.taken == ["a1", "a2", "a3", "a4"]
    assert stage.module.ids() == ["a1", "a1", "a1", "a2", "a3", "a3", "a4"]


async def test_others_are_not_held_up(stage: Stage) -> None:
    async def answer(got: Got) -> Answer:
        await asyncio.sleep(30 if got.id == "a1" else 0)
        return OK

    stage.module.answer = answer
    held = [event(f"a{n}", subject="a") for n in range(1, 2 * AT_ONCE)]
    others = [event(f"b{n}", subject=str(n)) for n in range(40)] + [event(f"none{n}") for n in range(40)]
    await stage.publish(*held, *others)
    async with stage.relay():
        await stage.until(lambda: len(stage.module.taken) == 80)
        assert {one.id for one in stage.module.got if one.id.startswith("a")} == {"a1"}


async def test_a_dead_one_lets_the_next_go(stage: Stage) -> None:
    stage.module.answers = {"a1": [BROKEN]}
    await stage.publish(event("a1", subject="a"), event("a2", subject="a"))
    async with stage.relay():
        await stage.until_done()
    assert stage.module.ids() == ["a1"] * 4 + ["a2"]
    assert [letter.headers["ce-id"] for letter in await stage.letters()] == ["a1"]


async def test_what_waits_is_not_handed_out_a_second_time(stage: Stage) -> None:
    stage.answer_s = 0.2
    await stage.shape()

    async def answer(_: Got) -> Answer:
        await asyncio.sleep(0.15)
        return OK

    stage.module.answer = answer
    await stage.publish(*(event(f"a{n}", subject="a") for n in range(6)))
    async with stage.relay():
        await stage.until_done()
    assert stage.module.ids() == [f"a{n}" for n in range(6)]


async def test_one_at_a_time_of_each_value(stage: Stage, seeded: random.Random) -> None:
    at_once: dict[str, int] = {}

    async def answer(got: Got) -> Answer:
        value = got.headers["ce-subject"]
        at_once[value] = at_once.get(value, 0) + 1
        assert at_once[value] == 1
        await asyncio.sleep(seeded.random() / 100)
        at_once[value] -= 1
        return OK if seeded.random() < 0.8 else BROKEN

    stage.module.answer = answer
    values = {str(n): seeded.choice("abcd") for n in range(60)}
    await stage.publish(*(event(id, subject=value) for id, value in values.items()))
    async with stage.relay() as [first, _]:
        await stage.until_done(30)
        assert len(first._lanes) == 0
    dead = {letter.headers["ce-id"] for letter in await stage.letters()}
    for value in "abcd":
        wanted = [id for id in values if values[id] == value and id not in dead]
        assert [id for id in stage.module.taken if values[id] == value] == wanted


async def test_a_broker_that_is_away_does_not_turn_the_order_round(stage: Stage) -> None:
    async def answer(got: Got) -> Answer:
        stage.kept.down = got.id == "a1" and got.attempt == 1 and not stage.module.taken
        return BROKEN if stage.kept.down else OK

    stage.module.answer = answer
    await stage.publish(*(event(f"a{n}", subject="a") for n in range(1, 4)))
    async with stage.relay():
        await stage.until(lambda: stage.kept.down)
        await asyncio.sleep(0.2)
        stage.module.answer = None
        stage.kept.down = False
        await stage.until_done()
    assert list(dict.fromkeys(stage.module.taken)) == ["a1", "a2", "a3"]


async def test_while_the_broker_is_away_a_module_is_not_asked_for_ever(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "AGAIN_S", 0.02)

    async def answer(_: Got) -> Answer:
        stage.kept.down = True
        return BROKEN

    stage.module.answer = answer
    await stage.publish(event("a1", subject="a"))
    async with stage.relay():
        await stage.until(lambda: len(stage.module.got) == 4)
        await asyncio.sleep(0.3)
        assert len(stage.module.got) == 4
        stage.kept.down = False
        await stage.until_done()
    [letter] = await stage.letters()
    assert len(tries_of(letter)) == 4


async def test_after_a_relay_that_was_killed_the_next_waits_for_what_was_out(stage: Stage) -> None:
    stage.module.answers = {"a1": [BROKEN, OK]}
    async with stage.relay() as [first, _]:
        await stage.publish(event("a1", subject="a"))
        await stage.until(lambda: len(first) == 1 and stage.module.got)
    await stage.publish(event("a2", subject="a"), event("none"))
    async with stage.relay():
        await stage.until_done()
    assert [id for id in stage.module.taken if id != "none"] == ["a1", "a2"]
    assert stage.module.taken[0] == "none"


async def test_before_the_beginning_everybody_waits_and_the_first_goes_first() -> None:
    lanes, order = Lanes(), list[str]()

    async def one(value: str, sequence: int) -> None:
        async with lanes.turn(value, sequence):
            order.append(f"{value}{sequence}")

    async with asyncio.TaskGroup() as tasks:
        gone = tasks.create_task(one("c", 1))
        for sequence in (5, 3, 4):
            tasks.create_task(one("a", sequence))
        tasks.create_task(one("b", 9))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        assert order == []
        lanes.begin()
    assert [name for name in order if name[0] == "a"] == ["a3", "a4", "a5"]
    assert "b9" in order
    assert len(lanes) == 0


async def test_lanes_go_by_sequence_and_are_gone_when_nobody_is_in_them() -> None:
    lanes, order = Lanes(), list[int]()
    lanes.begin()

    async def one(sequence: int) -> None:
        async with lanes.turn("a", sequence):
            order.append(sequence)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for sequence in (5, 9, 7, 6, 8):
            tasks.create_task(one(sequence))
    assert (order, len(lanes)) == ([5, 6, 7, 8, 9], 0)


async def test_a_lane_goes_on_whoever_is_cancelled_when(seeded: random.Random) -> None:
    for _ in range(50):
        lanes, inside = Lanes(), list[int]()
        lanes.begin()

        async def one(sequence: int, lanes: Lanes = lanes, inside: list[int] = inside) -> None:
            async with lanes.turn("a", sequence):
                inside.append(sequence)
                try:
                    await asyncio.sleep(0)
                finally:
                    inside.remove(sequence)

        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(one(sequence)) for sequence in range(8)]
            for _ in range(12):
                await asyncio.sleep(0)
                assert len(inside) <= 1
                victim = seeded.choice(made)
                if seeded.random() < 0.4:
                    victim.cancel()
        assert len(lanes) == 0


async def test_a_cancelled_turn_is_the_next_ones() -> None:
    lanes, release = Lanes(), asyncio.Event()
    lanes.begin()

    async def hold() -> None:
        async with lanes.turn("a", 1):
            await release.wait()

    async def wait(sequence: int) -> int:
        async with lanes.turn("a", sequence):
            return sequence

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hold())
        await asyncio.sleep(0)
        second, third = tasks.create_task(wait(2)), tasks.create_task(wait(3))
        await asyncio.sleep(0)
        release.set()
        await asyncio.sleep(0)  # the turn is the second's now, which does not know yet
        await cancelled(second)  # type: ignore[arg-type]
        assert await third == 3
    assert len(lanes) == 0
