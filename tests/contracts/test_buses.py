"""What every bus must do: NATS from its wheel, and the simulator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from idi.parts.bus.errors import BadEvent, BusDown, BusFull
from idi.parts.bus.interface import Bus, Delivery, Event, GivenUp, Held, Shape, Subscription, Topic
from idi.parts.errors import Refused
from tests.support.buses import BusStage, NatsStage, SimulatedBusStage

pytestmark = pytest.mark.requirement("B1")

DECIDED, CHANGED = "jede.decided", "cam.changed-at_home"
CAM = Subscription(DECIDED, "cam", answer_s=1.0, in_flight=8)
SHAPE = Shape(
    {DECIDED: Topic(DECIDED), CHANGED: Topic(CHANGED)},
    (CAM, Subscription(DECIDED, "pas"), Subscription(CHANGED, "pas")),
)


@pytest.fixture(params=["nats", "simulator"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BusStage]:
    made: BusStage = NatsStage(tmp_path) if request.param == "nats" else SimulatedBusStage()
    async with made:
        yield made


@asynccontextmanager
async def shaped(stage: BusStage, shape: Shape = SHAPE) -> AsyncIterator[Bus]:
    async with stage.bus() as bus:
        await bus.shape(shape)
        yield bus


async def taken(bus: Bus, count: int, subscription: Subscription = CAM) -> list[Delivery]:
    """The next deliveries, not answered."""
    found: list[Delivery] = []
    async with asyncio.timeout(10), aclosing(bus.take(subscription)) as stream:
        async for delivery in stream:
            found.append(delivery)
            if len(found) == count:
                break
    return found


async def published(bus: Bus, count: int, topic: str = DECIDED, payload: bytes = b"x") -> None:
    for number in range(count):
        await bus.publish(topic, f"{topic}-{number}", {"ce-id": str(number)}, payload)


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(delivery.event.headers["ce-id"]) for delivery in deliveries]


async def test_shaping_again_changes_nothing(stage: BusStage) -> None:
    async with stage.bus() as bus:
        assert len(await bus.shape(SHAPE)) == 5
        assert await bus.shape(SHAPE) == []


async def test_what_is_published_comes_once_to_each_subscription_and_in_order(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        await published(bus, 8)
        for subscription in (CAM, Subscription(DECIDED, "pas")):
            came = await taken(bus, 8, subscription)
            assert numbers(came) == list(range(8))
            assert [one.attempt for one in came] == [1] * 8
            for one in came:
                await one.done()
            assert await bus.waiting(subscription) == 0


async def test_payload_and_headers_arrive_as_they_were(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        headers = {"ce-id": "é ü", "ce-type": DECIDED, "traceparent": "00-1-2-03"}
        await bus.publish(DECIDED, "1", headers, bytes(range(256)))
        [one] = await taken(bus, 1)
        assert one.event.payload == bytes(range(256))
        assert dict(one.event.headers) == headers


async def test_a_header_that_looks_like_the_brokers_word_keeps_no_event_back(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        for number, header in enumerate(
            ({}, {"Status": "shipped"}, {"Status": "404"}, {"Description": "x"}, {})
        ):
            await bus.publish(DECIDED, f"{number}", {"ce-id": f"{number}", **header}, b"x")
        assert numbers(await taken(bus, 5)) == list(range(5))


async def test_who_only_looks_on_has_no_place(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        await published(bus, 1)
        async with aclosing(bus.read(DECIDED)) as reading:
            await anext(reading)
            [held] = [one for one in await bus.held() if one.topic == DECIDED]
            assert set(held.waiting) == {"cam", "pas"}


async def test_what_is_for_one_subscription_comes_to_no_other_and_is_read_by_nobody(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        await published(bus, 1)
        again = await bus.publish_to(CAM, "again", {"ce-id": "7"}, b"again")
        await bus.publish(DECIDED, "last", {"ce-id": "8"}, b"x")
        pas = Subscription(DECIDED, "pas")
        assert (await bus.waiting(CAM), await bus.waiting(pas)) == (3, 2)
        assert numbers(await taken(bus, 3)) == [0, 7, 8]
        assert numbers(await taken(bus, 2, pas)) == [0, 8]
        read = [event.sequence async for event in bus.read(DECIDED, follow=False)]
        assert read == [again.sequence - 1, again.sequence + 1]


async def test_one_event_is_had_by_its_sequence(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        headers = {"ce-id": "é ü", "ce-type": DECIDED, "x": "a: b"}
        first = await bus.publish(DECIDED, "1", headers, bytes(range(256)))
        again = await bus.publish_to(CAM, "2", headers, b"")
        one = await bus.event(DECIDED, first.sequence)
        assert one is not None
        assert (one.topic, one.sequence, dict(one.headers), one.payload) == (
            DECIDED,
            first.sequence,
            headers,
            bytes(range(256)),
        )
        [same] = [event async for event in bus.read(DECIDED, follow=False)]
        assert replace(same, at=one.at) == one
        assert same.at == pytest.approx(one.at, abs=1e-3)
        other = await bus.event(DECIDED, again.sequence)
        assert other is not None
        assert other.payload == b""
        await bus.drop(DECIDED, first.sequence)
        assert await bus.event(DECIDED, first.sequence) is None
        assert await bus.event(DECIDED, 99) is None


async def test_an_id_is_taken_once(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        first = await bus.publish(DECIDED, "same", {}, b"1")
        again = await bus.publish(DECIDED, "same", {}, b"2")
        assert (first.duplicate, again.duplicate) == (False, True)
        assert again.sequence == first.sequence
        assert await bus.waiting(CAM) == 1


def batch(name: str, *sizes: int) -> list[tuple[str, dict[str, str], bytes]]:
    return [(f"{name}-{n}", {"ce-id": f"{name}{n}"}, b"x" * size) for n, size in enumerate(sizes)]


async def ids(bus: Bus) -> list[str]:
    return [event.headers["ce-id"] async for event in bus.read(DECIDED, follow=False)]


async def test_many_at_once_get_their_own_receipts(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        each = [bus.publish(DECIDED, str(n), {"ce-id": str(n)}, b"x") for n in range(300)]
        receipts = await asyncio.gather(*each)
        kept = {event.sequence: event.headers["ce-id"] async for event in bus.read(DECIDED, follow=False)}
        assert [kept[one.sequence] for one in receipts] == [str(n) for n in range(300)]


async def test_a_batch_is_kept_in_its_order_and_once(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        many = batch("a", *[10] * 100)
        await bus.publish_all(DECIDED, many[:40])
        await bus.publish(DECIDED, "between", {"ce-id": "between"}, b"")
        await bus.publish_all(DECIDED, many)
        names = [f"a{n}" for n in range(100)]
        assert await ids(bus) == [*names[:40], "between", *names[40:]]


async def test_batches_of_several_publishers_keep_each_its_order(stage: BusStage) -> None:
    async with shaped(stage) as bus, stage.bus() as other, stage.bus() as third:
        each = [batch(name, *[10] * 100) for name in "abc"]
        busses = (bus, other, third)
        await asyncio.gather(
            *(one.publish_all(DECIDED, many) for one, many in zip(busses, each, strict=True))
        )
        found = await ids(bus)
        assert len(found) == 300
        for name in "abc":
            assert [id for id in found if id[0] == name] == [f"{name}{n}" for n in range(100)]


async def test_of_a_batch_that_fails_those_before_are_kept_and_none_after(stage: BusStage) -> None:
    small = Shape({DECIDED: Topic(DECIDED, most_bytes=20_000)}, (CAM,))
    async with shaped(stage, small) as bus:
        many = batch("a", 10, 10, 19_900, 10, 10)
        with pytest.raises(BusFull):
            await bus.publish_all(DECIDED, many)
        assert await ids(bus) == ["a0", "a1"]
        await bus.shape(replace(small, topics={DECIDED: Topic(DECIDED, most_bytes=40_000)}))
        await bus.publish_all(DECIDED, many)
        assert await ids(bus) == [f"a{n}" for n in range(5)]
        with pytest.raises(BadEvent):
            await bus.publish_all(DECIDED, batch("b", 10, 5 << 20, 10))
        assert await ids(bus) == [*(f"a{n}" for n in range(5)), "b0"]


async def test_what_is_not_answered_comes_again(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        await published(bus, 1)
        await taken(bus, 1)
        [again] = await taken(bus, 1)
        assert again.attempt == 2
        await again.done()
        assert await bus.waiting(CAM) == 0


async def test_again_waits_as_long_as_it_was_told(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        await published(bus, 1)
        [one] = await taken(bus, 1)
        loop = asyncio.get_running_loop()
        asked = loop.time()
        await one.again(0.5)
        [again] = await taken(bus, 1)
        assert again.attempt == 2
        assert loop.time() - asked >= 0.45


async def test_working_gives_time(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        await published(bus, 1)
        [one] = await taken(bus, 1)
        for _ in range(4):
            await asyncio.sleep(0.4)
            await one.working()
        await one.done()
        assert await bus.waiting(CAM) == 0
        assert one.attempt == 1


async def test_after_its_attempts_an_event_is_given_up_and_that_is_told_until_it_is_done_with(
    stage: BusStage,
) -> None:
    thrice = replace(CAM, attempts=3, answer_s=0.5)
    async with shaped(stage, Shape({DECIDED: Topic(DECIDED)}, (thrice,))) as bus:
        await published(bus, 2)
        for attempt in (1, 2, 3):
            bad, good = await taken(bus, 2, thrice) if attempt == 1 else (*await taken(bus, 1, thrice), None)
            assert bad is not None
            assert (bad.event.sequence, bad.attempt) == (1, attempt)
            if good is not None:
                await good.done()

        async def told() -> GivenUp:
            async with asyncio.timeout(15), aclosing(bus.given_up()) as found:
                async with asyncio.TaskGroup() as tasks:
                    # A broker notices when it would hand it out once more.
                    waiting = tasks.create_task(nothing_comes(bus, thrice))
                    one = await anext(found)
                    waiting.cancel()
                return one

        one = await told()
        assert (one.topic, one.module, one.sequence, one.attempts) == (DECIDED, "cam", 1, 3)
        await one.delivery.done()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await told()


async def nothing_comes(bus: Bus, subscription: Subscription) -> None:
    async with aclosing(bus.take(subscription)) as found:
        async for delivery in found:
            raise AssertionError(f"attempt {delivery.attempt}")


async def test_no_more_are_out_than_may_be(stage: BusStage) -> None:
    patient = replace(CAM, answer_s=30.0)  # none comes again meanwhile, however busy the machine is
    async with shaped(stage, replace(SHAPE, subscriptions=(patient,))) as bus:
        await published(bus, 20)
        out = await taken(bus, 8, patient)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await taken(bus, 1, patient)
        await out[0].done()
        [next_one] = await taken(bus, 1, patient)
        assert numbers([next_one]) == [8]


async def test_one_that_takes_long_holds_up_nobody_else(stage: BusStage) -> None:
    """Whoever is done makes room for the next, whatever the others do."""
    patient = replace(CAM, answer_s=60.0)
    async with shaped(stage, replace(SHAPE, subscriptions=(patient,))) as bus:
        await published(bus, 20)
        came: list[Delivery] = []
        async with asyncio.timeout(5), aclosing(bus.take(patient)) as stream:
            async for delivery in stream:
                came.append(delivery)
                if len(came) > 1:
                    await delivery.done()  # and never the first one
                if len(came) == 20:
                    break
        assert numbers(came) == [*range(20)]


async def test_everything_survives_a_broker_that_is_killed(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        await published(bus, 5)
        [one] = await taken(bus, 1)
        await one.done()
        await stage.kill()
        with pytest.raises(BusDown):
            await bus.publish(DECIDED, "late", {}, b"")
        await stage.start()
        receipt = await stage.patiently(lambda: bus.publish(DECIDED, "late", {"ce-id": "5"}, b""))
        assert not receipt.duplicate
        came: set[int] = set()
        while not came >= {1, 2, 3, 4, 5}:  # what was done with may come again after a crash
            for one in await taken(bus, 1):
                came.add(*numbers([one]))
                await one.done()
        assert came <= {0, 1, 2, 3, 4, 5}


async def test_taking_goes_on_after_the_broker_was_away(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(taken(bus, 1))
            await asyncio.sleep(0.1)
            await stage.kill()
            await stage.start()
            await stage.patiently(lambda: bus.publish(DECIDED, "1", {"ce-id": "0"}, b""))
        assert numbers(waiting.result()) == [0]


async def test_a_full_topic_refuses_and_loses_nothing(stage: BusStage) -> None:
    small = Shape({DECIDED: Topic(DECIDED, most_bytes=20_000)}, (replace(CAM, in_flight=100),))
    async with shaped(stage, small) as bus:
        kept = 0
        with contextlib.suppress(BusFull):
            for number in range(100):
                await bus.publish(DECIDED, str(number), {"ce-id": str(number)}, b"x" * 1000)
                kept += 1
        assert 5 < kept < 25
        assert numbers(await taken(bus, kept)) == list(range(kept))
        roomier = replace(small, topics={DECIDED: Topic(DECIDED, most_bytes=40_000)})
        assert await bus.shape(roomier) == [f"topic {DECIDED} changed"]
        await bus.publish(DECIDED, "more", {}, b"x" * 1000)


async def test_a_full_topic_that_may_drops_the_oldest(stage: BusStage) -> None:
    small = Shape(
        {DECIDED: Topic(DECIDED, most_bytes=20_000, drop_oldest=True)}, (replace(CAM, in_flight=100),)
    )
    async with shaped(stage, small) as bus:
        for number in range(40):
            await bus.publish(DECIDED, str(number), {"ce-id": str(number)}, b"x" * 1000)
        waiting = await bus.waiting(CAM)
        assert 5 < waiting < 25
        assert numbers(await taken(bus, waiting)) == list(range(40 - waiting, 40))


async def test_as_many_events_are_kept_as_there_may_be(stage: BusStage) -> None:
    few = Shape({DECIDED: Topic(DECIDED, most_events=3)}, (CAM,))
    async with shaped(stage, few) as bus:
        await published(bus, 3)
        with pytest.raises(BusFull):
            await bus.publish(DECIDED, "more", {"ce-id": "3"}, b"")
        fewer = Shape({DECIDED: Topic(DECIDED, most_events=2, drop_oldest=True)})
        with pytest.raises(Refused):
            await bus.shape(fewer)
        await bus.shape(Shape({DECIDED: Topic(DECIDED, most_events=3, drop_oldest=True)}))
        await bus.publish(DECIDED, "more", {"ce-id": "3"}, b"")
        assert numbers(await taken(bus, 3)) == [1, 2, 3]


async def test_an_id_is_taken_once_for_so_long(stage: BusStage) -> None:
    async with shaped(stage, Shape({DECIDED: Topic(DECIDED, same_s=0.3)}, (CAM,))) as bus:
        assert not (await bus.publish(DECIDED, "same", {}, b"")).duplicate
        assert (await bus.publish(DECIDED, "same", {}, b"")).duplicate
        await asyncio.sleep(0.6)
        assert not (await bus.publish(DECIDED, "same", {}, b"")).duplicate


async def test_what_is_too_large_is_refused(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        with pytest.raises(BadEvent):
            await bus.publish(DECIDED, "1", {}, b"x" * (5 << 20))
        await published(bus, 1)


async def test_what_is_too_old_is_gone(stage: BusStage) -> None:
    short = Shape({DECIDED: Topic(DECIDED, keep_s=1.0)}, (CAM,))
    async with shaped(stage, short) as bus:
        await published(bus, 3)
        await asyncio.sleep(1.6)
        await bus.publish(DECIDED, "new", {"ce-id": "9"}, b"")
        assert numbers(await taken(bus, 1)) == [9]


async def test_a_topic_cannot_move_between_disk_and_memory(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        await published(bus, 1)
        with pytest.raises(Refused):
            await bus.shape(replace(SHAPE, topics={DECIDED: Topic(DECIDED, durable=False)}))
        assert await bus.waiting(CAM) == 1


async def test_what_is_wanted_no_longer_stays_until_it_is_forgotten(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        await published(bus, 2)
        await bus.shape(Shape())
        assert await bus.waiting(CAM) == 2
        await bus.forget(Shape({DECIDED: Topic(DECIDED)}, (CAM,)))
        await bus.forget(Shape({DECIDED: Topic(DECIDED)}, (CAM,)))
        assert len(await bus.shape(SHAPE)) == 3
        assert await bus.waiting(CAM) == 0


async def test_what_there_is_is_told(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        await published(bus, 3)
        [one, *_] = await taken(bus, 2)
        await one.done()
        there = {one.topic: one for one in await bus.held() if not one.topic.startswith("idi.")}
        assert there == {
            DECIDED: Held(DECIDED, 3, {"cam": 2, "pas": 3}),
            CHANGED: Held(CHANGED, 0, {"pas": 0}),
        }


async def test_a_shorter_life_waits_for_what_somebody_is_not_done_with(stage: BusStage) -> None:
    short = Shape({DECIDED: Topic(DECIDED, keep_s=1.5)})
    async with shaped(stage, Shape({DECIDED: Topic(DECIDED)}, (CAM,))) as bus:
        await published(bus, 2)
        assert await bus.refusals(short) == []
        await asyncio.sleep(1.7)
        first, second = await taken(bus, 2)
        await first.done()
        [why] = await bus.refusals(short)
        assert DECIDED in why
        with pytest.raises(Refused):
            await bus.shape(short)
        assert len([event async for event in bus.read(DECIDED, follow=False)]) == 2
        await second.done()
        assert await bus.refusals(short) == []
        assert await bus.shape(short) == [f"topic {DECIDED} changed"]


async def test_dropping_the_oldest_waits_for_what_somebody_is_not_done_with(stage: BusStage) -> None:
    dropping = Shape({DECIDED: Topic(DECIDED, most_bytes=5_000, drop_oldest=True)})
    async with shaped(stage, Shape({DECIDED: Topic(DECIDED)}, (CAM,))) as bus:
        await published(bus, 8, payload=b"x" * 1000)
        with pytest.raises(Refused):
            await bus.shape(dropping)
        for one in await taken(bus, 8):
            await one.done()
        assert await bus.shape(dropping) == [f"topic {DECIDED} changed"]


async def test_limits_that_lose_nothing_change_at_once(stage: BusStage) -> None:
    async with shaped(stage, Shape({DECIDED: Topic(DECIDED)}, (CAM,))) as bus:
        await published(bus, 8, payload=b"x" * 1000)
        for topic in (
            Topic(DECIDED, keep_s=3600.0),
            Topic(DECIDED, keep_s=30 * 86400.0),
            Topic(DECIDED, most_bytes=5_000),  # full until something goes, and loses nothing
            Topic(DECIDED, same_s=1.0),
            Topic(DECIDED, drop_oldest=True),
        ):
            assert await bus.shape(Shape({DECIDED: topic})) == [f"topic {DECIDED} changed"], topic
            assert await bus.waiting(CAM) == 8
            if topic.most_bytes == 5_000:
                with pytest.raises(BusFull):
                    await bus.publish(DECIDED, "one more", {}, b"x" * 1000)
        for attempts in (0, 3, 9):
            await bus.shape(Shape({}, (replace(CAM, attempts=attempts),)))
            assert await bus.waiting(CAM) == 8


async def test_reading_changes_nothing_for_anybody(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        await published(bus, 4)
        seen: list[Event] = []
        async with asyncio.timeout(10):
            async for event in bus.read(DECIDED, since=2):
                seen.append(event)
                if len(seen) == 3:
                    await bus.publish(DECIDED, "new", {"ce-id": "4"}, b"")
                if len(seen) == 4:
                    break
        assert [event.sequence for event in seen] == [2, 3, 4, 5]
        assert numbers(await taken(bus, 5)) == [0, 1, 2, 3, 4]


async def test_nothing_on_its_way_is_said_to_be_kept_when_the_broker_is_killed(stage: BusStage) -> None:
    async with shaped(stage) as bus:
        kept: list[str] = []
        some = asyncio.Event()

        async def publish(number: int) -> None:
            with contextlib.suppress(BusDown):
                await bus.publish(DECIDED, str(number), {"ce-id": str(number)}, b"")
                kept.append(str(number))
                if len(kept) == 20:
                    some.set()

        async with asyncio.TaskGroup() as tasks:
            for number in range(200):
                tasks.create_task(publish(number))
            await some.wait()
            await stage.kill()
        await stage.start()
        await stage.patiently(lambda: bus.publish(DECIDED, "late", {"ce-id": "late"}, b""))
        await stage.patiently(lambda: bus.last(DECIDED))
        found = await ids(bus)
        assert set(kept) <= set(found)
        assert len(found) == len(set(found))


async def test_a_broker_that_is_not_there_is_said_to_be_down(stage: BusStage) -> None:
    await stage.kill()
    with pytest.raises(BusDown):
        async with stage.bus():
            pass
