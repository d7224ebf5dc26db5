"""Handing events over: what is answered 2xx is done, all else is tried again, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import replace
from functools import partial

import pytest

from idi.parts.bus import cloudevents
from idi.parts.bus.cloudevents import to_headers
from idi.parts.bus.errors import BadEvent, BusFull
from idi.parts.bus.interface import Delivery, Receipt, Subscription, Topic
from idi.parts.bus.own import (
    DEAD,
    DEAD_ATTEMPTS,
    DEAD_MODULE,
    DEAD_REASON,
    DEAD_SEQUENCE,
    DEAD_TOPIC,
    DEAD_TRIES,
    TRIES,
    again_topic,
)
from idi.parts.bus.simulator import SimulatedBus, SimulatedDelivery
from idi.relay import delivering as delivering_module
from idi.relay import letters
from idi.relay.delivering import GIVE_UP, Delivering, asked_for, in_a_line
from idi.relay.settings import LONGEST_WAIT_S, Deliver
from tests.unit.relay.stage import BROKEN, OK, TYPE, Answer, Got, Stage, event, settings, staged, tries_of

pytestmark = pytest.mark.requirement("B1")


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as found:
        yield found


async def test_what_is_answered_2xx_is_done(stage: Stage) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = event("1", b'{"case":7}', subject="fall é", traceparent=trace)
    await stage.publish(sent)
    async with stage.relay():
        await stage.until_done()
    [got] = stage.module.got
    assert (got.path, got.data, got.attempt) == ("/events/decided", b'{"case":7}', 1)
    assert {name: got.headers[name] for name in to_headers(sent)} == to_headers(sent)
    assert got.headers["traceparent"] == trace
    assert await stage.letters() == []


async def test_data_without_a_type_arrives_without_one(stage: Stage) -> None:
    await stage.bus.publish(TYPE, "1", to_headers(event("1")) | {"content-type": ""}, b"\x00\xff")
    headers = {name: value for name, value in to_headers(event("2")).items() if name != "content-type"}
    await stage.bus.publish(TYPE, "2", headers, b"\x00\xff")
    async with stage.relay():
        await stage.until_done()
    assert [got.headers.get("content-type") for got in stage.module.got] == [None, None]
    assert {got.data for got in stage.module.got} == {b"\x00\xff"}


async def test_what_failed_comes_again_after_its_pause(stage: Stage) -> None:
    stage.module.answers = {"1": [BROKEN, BROKEN, BROKEN, OK]}
    await stage.publish(event("1"))
    async with stage.relay():
        await stage.until_done()
    assert [got.attempt for got in stage.module.got] == [1, 2, 3, 4]
    at = [got.at for got in stage.module.got]
    pauses = [later - earlier for earlier, later in itertools.pairwise(at)]
    assert all(pause >= wanted for pause, wanted in zip(pauses, (0.045, 0.095, 0.095), strict=True))
    assert await stage.letters() == []
    assert [one async for one in stage.bus.read(TRIES, follow=False) if b"key" in one.payload] == []


def test_a_pause_is_twice_the_one_before_up_to_the_longest() -> None:
    one = Deliver(TYPE, "cam", "/", 1000, 0.5, 60.0)
    assert [one.pause_s(attempt) for attempt in range(1, 10)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert one.pause_s(1000) == 60.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("", 0.0),
        ("-1", 0.0),
        ("1.5", 0.0),
        ("999999", LONGEST_WAIT_S),
        ("9" * 400, 0.0),
        ("٣", 0.0),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_nothing(value: str, seconds: float) -> None:
    assert asked_for({"retry-after": value}) == seconds


async def test_a_module_that_asks_to_be_left_alone_is(stage: Stage) -> None:
    stage.module.answers = {"1": [(503, "", {"retry-after": "1"}), OK]}
    await stage.publish(event("1"))
    async with stage.relay():
        await stage.until_done()
    first, second = stage.module.got
    assert second.at - first.at >= 0.95


async def test_a_module_that_gives_up_is_not_asked_again(stage: Stage) -> None:
    stage.module.answers = {"1": [BROKEN, (422, "no such order", {GIVE_UP: "1", "retry-after": "60"}), OK]}
    await stage.publish(event("1"))
    async with stage.relay():
        await stage.until_done()
    [letter] = await stage.letters()
    assert [got.attempt for got in stage.module.got] == [1, 2]
    assert tries_of(letter) == ["answered 500: boom", "answered 422: no such order"]


async def test_no_answer_in_time_is_a_try(stage: Stage) -> None:
    async def slow(got: Got) -> Answer:
        await asyncio.sleep(5 if got.attempt == 1 else 0)
        return OK

    stage.module.answer = slow
    stage.settings = replace(stage.settings, timeout_s=0.2)
    await stage.publish(event("1"))
    async with stage.relay():
        await stage.until_done()
    assert [got.attempt for got in stage.module.got] == [1, 2]


async def test_after_the_last_attempt_it_is_a_dead_letter_with_all_tries(stage: Stage) -> None:
    said: list[Answer] = [(500, f"for the {n}th\ttime\n\x1b[31m", {}) for n in range(1, 5)]
    stage.module.answers = {"1": said}
    sent = event("1", b'{"case":7}')
    await stage.publish(sent)
    async with stage.relay():
        await stage.until_done()
    [letter] = await stage.letters()
    assert letter.payload == b'{"case":7}'
    assert to_headers(sent).items() <= dict(letter.headers).items()
    assert letter.headers[DEAD_TOPIC] == TYPE
    assert letter.headers[DEAD_MODULE] == "cam"
    assert letter.headers[DEAD_SEQUENCE] == "1"
    assert letter.headers[DEAD_ATTEMPTS] == "4"
    assert tries_of(letter) == [f"answered 500: for the {n}th time [31m" for n in range(1, 5)]
    assert json.loads(letter.headers[DEAD_REASON]) == "answered 500: for the 4th time [31m"
    at = [one["at"] for one in json.loads(letter.headers[DEAD_TRIES])]
    assert at == sorted(at)


async def test_one_that_is_not_there_is_tried_as_often() -> None:
    async with staged(attempts=2) as stage:
        stage.settings = replace(stage.settings, urls={"cam": "http://127.0.0.1:1"})
        await stage.publish(event("1"))
        async with stage.relay():
            await stage.until_done()
        [letter] = await stage.letters()
        assert len(tries_of(letter)) == 2
        assert tries_of(letter)[0].startswith("no answer: Cannot connect")


async def test_a_redirect_is_no_delivery(stage: Stage) -> None:
    stage.module.answers = {"1": [(307, "", {"location": "http://127.0.0.1:1/elsewhere"}), OK]}
    await stage.publish(event("1"))
    async with stage.relay():
        await stage.until_done()
    assert [got.path for got in stage.module.got] == ["/events/decided"] * 2


async def test_what_a_module_handles_no_longer_is_dead_at_once(stage: Stage) -> None:
    await stage.publish(event("1"))
    subscriptions = stage.subscriptions()
    stage.settings = replace(stage.settings, deliveries={})
    stage.subscriptions = lambda: subscriptions  # type: ignore[method-assign]
    async with stage.relay():
        await stage.until_done()
    [letter] = await stage.letters()
    assert json.loads(letter.headers[DEAD_REASON]) == f"cam handles {TYPE} no longer"
    assert (letter.headers[DEAD_ATTEMPTS], stage.module.got) == ("0", [])


@pytest.mark.parametrize(
    ("headers", "payload", "reason"),
    [
        ({}, b"plain", "it is no CloudEvent: the event has no id."),
        (
            {"ce-id": "1", "CE-Source": "/", "ce-type": TYPE},
            b"",
            "it is no CloudEvent: the event has no specversion.",
        ),
        (
            to_headers(event("1")) | {"ce-time": "noon"},
            b"",
            "it is no CloudEvent: time of the event is not a time",
        ),
        (
            to_headers(event("1")) | {"ce-x": "%ff"},
            b"",
            "it is no CloudEvent: ce-x has percent-encoded bytes",
        ),
        ({"content-type": "application/cloudevents+json"}, b"{", "it is no CloudEvent: The body is not JSON"),
        (to_headers(event("1")) | {"ce-type": "other.type"}, b"", "it says that its type is 'other.type'"),
    ],
)
async def test_what_a_module_put_there_and_is_no_event_is_dead_at_once(
    stage: Stage, headers: Mapping[str, str], payload: bytes, reason: str
) -> None:
    await stage.bus.publish(TYPE, "1", headers, payload)
    async with stage.relay():
        await stage.until_done()
    [letter] = await stage.letters()
    assert json.loads(letter.headers[DEAD_REASON]).startswith(reason)
    assert (letter.payload, stage.module.got) == (payload, [])


async def test_an_event_in_structured_form_on_the_bus_is_one(stage: Stage) -> None:
    document = {"specversion": "1.0", "id": "1", "source": "/jede", "type": TYPE, "data": {"case": 7}}
    headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
    await stage.bus.publish(TYPE, "1", headers, json.dumps(document).encode())
    async with stage.relay():
        await stage.until_done()
    [got] = stage.module.got
    assert (got.id, got.data, got.headers["content-type"]) == ("1", b'{"case":7}', "application/json")


async def test_headers_of_ours_from_anybody_else_are_not_believed(stage: Stage) -> None:
    """A module that publishes by itself cannot send an event to another path, nor make tries up."""
    forged = {DEAD_TOPIC: "cam.secret", DEAD_TRIES: "nonsense", DEAD_ATTEMPTS: "x", letters.CUT: "true"}
    other = Deliver("cam.secret", "cam", "/events/secret", 4, 0.05, 0.1)
    stage.settings = replace(
        stage.settings,
        topics={TYPE: Topic(TYPE), "cam.secret": Topic("cam.secret")},
        deliveries={**stage.settings.deliveries, ("cam.secret", "cam"): other},
    )
    await stage.shape()
    await stage.bus.publish(TYPE, "1", to_headers(event("1")) | forged, b"{}")
    stage.module.answers = {"1": [BROKEN]}
    async with stage.relay():
        await stage.until_done()
    assert {got.path for got in stage.module.got} == {"/events/decided"}
    [letter] = await stage.letters()
    assert (letter.headers[DEAD_TOPIC], len(tries_of(letter))) == (TYPE, 4)
    assert letters.CUT not in letter.headers


async def test_a_replayed_letter_goes_to_its_module_only_and_keeps_its_tries() -> None:
    async with staged(attempts=2) as stage:
        pas = Deliver(TYPE, "pas", "/pas", 2, 0.05, 0.1)
        stage.settings = replace(
            stage.settings,
            deliveries={**stage.settings.deliveries, (TYPE, "pas"): pas},
            urls={**stage.settings.urls, "pas": stage.module.url},
        )
        await stage.shape()

        async def answer(got: Got) -> Answer:
            return OK if got.path == "/pas" else BROKEN

        stage.module.answer = answer
        await stage.publish(event("1", b"[1]"))
        async with stage.relay():
            await stage.until_done()
            [letter] = await stage.letters()
            before = len(stage.module.got)
            await stage.bus.publish(again_topic("cam"), "again 1", letter.headers, letter.payload)
            await stage.bus.drop(DEAD, letter.sequence)
            await stage.until(lambda: len(stage.module.got) >= before + 2)
            await stage.until_done()
        again = stage.module.got[before:]
        assert [(got.path, got.attempt, got.data) for got in again] == [
            ("/events/decided", 1, b"[1]"),
            ("/events/decided", 2, b"[1]"),
        ]
        assert not any(name.startswith("idi-") for got in again for name in got.headers)
        [letter] = await stage.letters()
        assert letter.headers[DEAD_TOPIC] == TYPE
        assert (letter.headers[DEAD_ATTEMPTS], len(tries_of(letter))) == ("4", 4)


async def test_a_restart_goes_on_with_the_tries_that_were(stage: Stage) -> None:
    stage.module.answers = {"1": [BROKEN]}
    await stage.publish(event("1"))
    async with stage.relay():
        await stage.until(lambda: len(stage.module.got) == 2)
        await stage.until(lambda: len(stage.kept.events[TRIES]) >= 3)
    async with stage.relay():
        await stage.until_done()
    [letter] = await stage.letters()
    assert len(tries_of(letter)) == 4
    assert [got.attempt for got in stage.module.got] == [1, 2, 3, 4]


def posted(stage: Stage, number: int) -> bool:
    return len(stage.module.got) >= number or bool(stage.module.taken)


async def test_being_handed_out_is_no_try(stage: Stage) -> None:
    """What a relay that was killed had in hand had no attempt of which anything is known."""

    async def hangs(_: Got) -> Answer:
        await asyncio.sleep(30)
        return OK

    stage.module.answer = hangs
    stage.answer_s = 0.1
    await stage.shape()
    await stage.publish(event("1"))
    for number in range(1, 7):
        async with stage.relay():
            await stage.until(partial(posted, stage, number))
    stage.module.answer = None
    async with stage.relay():
        await stage.until_done()
    assert stage.module.got[-1].attempt == 1
    assert await stage.letters() == []


async def test_what_takes_long_is_not_handed_out_twice(stage: Stage) -> None:
    async def slow(_: Got) -> Answer:
        await asyncio.sleep(1.0)
        return OK

    stage.module.answer, stage.answer_s = slow, 0.3
    await stage.shape()
    await stage.publish(*(event(str(number)) for number in range(40)))
    async with stage.relay():
        await stage.until_done()
    assert sorted(stage.module.ids()) == sorted(map(str, range(40)))
    assert stage.module.most_at_once <= delivering_module.AT_ONCE


async def test_what_comes_again_sooner_than_its_answer_got_through_is_taken_all_the_same(
    stage: Stage,
) -> None:
    """The pause may be shorter than the way to the broker and back."""

    class Late(SimulatedDelivery):
        async def again(self, after_s: float) -> None:
            await super().again(0.0)
            await asyncio.sleep(0.1)

    class LateBus(SimulatedBus):
        async def take(self, subscription: Subscription) -> AsyncGenerator[Delivery]:
            async for one in super().take(subscription):
                assert isinstance(one, SimulatedDelivery)
                yield Late(one.bus, one.place, one.event, one.attempt)

    stage.module.answers = {"1": [BROKEN, BROKEN, OK]}
    stage.answer_s = 30.0
    await stage.shape()
    await stage.publish(event("1"))
    async with stage.relay(LateBus(stage.kept)):
        await stage.until_done(3)
    assert [got.attempt for got in stage.module.got] == [1, 2, 3]


async def test_one_that_hangs_holds_no_other_up(stage: Stage) -> None:
    async def answer(got: Got) -> Answer:
        await asyncio.sleep(30 if got.id == "slow" else 0)
        return OK

    stage.module.answer = answer
    await stage.publish(event("slow"), *(event(str(number)) for number in range(100)))
    async with stage.relay():
        await stage.until(lambda: len(stage.module.taken) == 100)


async def test_what_is_in_hand_is_bounded_by_bytes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering_module, "HELD_BYTES", 3000)
    release = asyncio.Event()

    async def answer(_: Got) -> Answer:
        await release.wait()
        return OK

    stage.module.answer = answer
    await stage.publish(*(event(str(number), b"1" * 1000) for number in range(12)))
    async with stage.relay() as [first, _]:
        await stage.until(lambda: len(stage.module.got) == 3)
        await asyncio.sleep(0.2)
        assert len(stage.module.got) == 3
        assert len(first) <= 4
        release.set()
        await stage.until_done()
    assert set(stage.module.taken) == set(map(str, range(12)))


async def test_a_bug_ends_no_other_delivery_and_the_event_is_dead_in_the_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Delivering._post

    async def post(self: Delivering, deliver: Deliver, sent: object, attempt: int) -> tuple[str, float]:
        if sent.attributes["id"] == "bad":  # type: ignore[attr-defined]
            raise TypeError("nobody thought of this")
        return await real(self, deliver, sent, attempt)  # type: ignore[arg-type]

    monkeypatch.setattr(Delivering, "_post", post)
    await stage.publish(event("bad"), event("good"))
    async with stage.relay():
        await stage.until_done()
    assert stage.module.ids() == ["good"]
    [letter] = await stage.letters()
    assert tries_of(letter) == ["the relay could not send it: TypeError"] * 4


async def test_a_bug_anywhere_else_leaves_the_event_to_the_broker(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = 0
    real = cloudevents.from_headers

    def from_headers(headers: Mapping[str, str], payload: bytes) -> object:
        nonlocal failed
        if headers["ce-id"] == "bad" and failed < 2:
            failed += 1
            raise KeyError("nobody thought of this")
        return real(headers, payload)

    monkeypatch.setattr(delivering_module, "from_headers", from_headers)
    stage.answer_s = 0.2
    await stage.shape()
    await stage.publish(event("bad"), event("good"))
    async with stage.relay():
        await stage.until_done()
    assert sorted(stage.module.taken) == ["bad", "good"]
    assert failed == 2


class Narrow(SimulatedBus):
    """A broker that takes no event larger than `most`, headers and all; and a full topic of dead letters."""

    most = 1 << 20
    full = False

    async def publish(self, topic: str, id: str, headers: Mapping[str, str], payload: bytes) -> Receipt:
        if self.full and topic == DEAD:
            raise BusFull("full")
        if len(payload) + sum(len(name) + len(value) for name, value in headers.items()) > self.most:
            raise BadEvent("too large")
        return await super().publish(topic, id, headers, payload)


async def test_a_letter_that_has_no_room_for_its_data_is_kept_and_can_be_replayed() -> None:
    async with staged(attempts=2) as stage:
        bus = Narrow(stage.kept)
        bus.most = 2000
        data = b"1" * 1800
        stage.module.answers = {"1": [(500, "x" * 400, {})]}
        await bus.publish(TYPE, "1", to_headers(event("1")), data)
        async with stage.relay(bus):
            await stage.until_done()
            [letter] = await stage.letters()
            assert letter.payload == b""
            assert letter.headers["ce-id"] == "1"
            assert len(tries_of(letter)) == 2
            stage.module.answers = {}
            await bus.publish(again_topic("cam"), "again", letter.headers, letter.payload)
            await stage.until(lambda: stage.module.taken)
            await stage.until_done()
        assert stage.module.got[-1].data == data
        assert stage.module.got[-1].headers["content-type"] == "application/json"


async def test_such_a_letter_whose_event_is_kept_no_longer_is_dead_again() -> None:
    async with staged() as stage:
        headers = {DEAD_TOPIC: TYPE, DEAD_SEQUENCE: "7", DEAD_MODULE: "cam", letters.CUT: "true"}
        await stage.bus.publish(again_topic("cam"), "again", to_headers(event("1")) | headers, b"")
        async with stage.relay():
            await stage.until_done()
        [letter] = await stage.letters()
        assert "does not keep it any longer" in json.loads(letter.headers[DEAD_REASON])


async def test_while_dead_letters_have_no_room_the_event_stays_and_is_not_posted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivering_module, "AGAIN_S", 0.05)
    async with staged(attempts=2) as stage:
        bus = Narrow(stage.kept)
        bus.full = True
        stage.module.answers = {"1": [BROKEN]}
        await stage.publish(event("1"))
        async with stage.relay(bus):
            await stage.until(lambda: len(stage.module.got) == 2)
            await asyncio.sleep(0.5)
            assert (len(stage.module.got), await stage.waiting()) == (2, 1)
            bus.full = False
            await stage.until_done()
        [letter] = await stage.letters()
        assert len(tries_of(letter)) == 2
        assert len(stage.module.got) == 2


async def test_a_broker_that_goes_away_meanwhile_delays_only(stage: Stage) -> None:
    stage.answer_s = 0.2
    await stage.shape()

    async def answer(got: Got) -> Answer:
        stage.kept.down = True
        return OK if got.attempt > 1 else BROKEN

    stage.module.answer = answer
    await stage.publish(event("1"))
    async with stage.relay():
        for number in range(1, 4):
            await stage.until(partial(posted, stage, number))
            await asyncio.sleep(0.1)
            stage.kept.down = False
        stage.module.answer = None
        await stage.until_done()
    assert await stage.letters() == []
    assert "1" in stage.module.taken


def test_what_a_module_says_is_one_line_that_no_terminal_obeys() -> None:
    assert in_a_line("a\r\n\tb\x1b]0;title\x07 \u202ec\u200b") == "a b ]0;title c"
    assert len(in_a_line("x" * 2000)) == delivering_module.REASON_CHARS


def test_tries_in_a_letter_are_bounded() -> None:
    tries: list[object] = [{"at": float(number), "reason": "\U0001f600" * 500} for number in range(1000)]
    text = letters.bounded(tries)
    assert len(text) <= letters.MOST_TRIES_BYTES
    assert json.loads(text)[-1]["at"] == 999.0
    assert len(json.loads(text)) > 10
    assert json.loads(letters.bounded([{"reason": "x" * (1 << 20)}]))


def test_a_password_is_in_no_repr() -> None:
    assert "secret" not in repr(settings())
