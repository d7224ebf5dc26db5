"""The relay as a whole: it serves before the broker is there, and leaves in order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Self

import aiohttp
import pytest

from idi.parts.bus.interface import Delivery, Event, Shape, Subscription, Topic
from idi.parts.bus.own import DEAD, KEEP_DEAD_S, TRIES
from idi.parts.bus.simulator import SimulatedBus
from idi.parts.errors import Refused
from idi.relay import delivering as delivering_module
from idi.relay import serving
from idi.relay.serving import Relay
from idi.relay.settings import ANSWER_S, IN_FLIGHT, LONGEST_WAIT_S, from_environment
from tests.support.envoy import free_port
from tests.unit.relay.stage import (
    BROKEN,
    OK,
    TRUST,
    TYPE,
    Answer,
    Got,
    Module,
    Stage,
    delivering,
    event,
    settings,
)
from tests.unit.relay.stage import serving as module_serving

pytestmark = pytest.mark.requirement("B1")

JEDE = {"x-forwarded-client-cert": f"URI={TRUST}jede"}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    module = Module()
    async with module_serving(module):
        found = delivering(settings(module.url), order="subject")
        yield Stage(module, replace(found, port=free_port(), grace_s=2.0), answer_s=ANSWER_S)


@asynccontextmanager
async def running(
    stage: Stage, bus: SimulatedBus | None = None
) -> AsyncIterator[tuple[Relay, asyncio.Task[None]]]:
    relay = Relay(stage.settings, bus or stage.bus)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(relay.run())
        try:
            await ready(stage, reached=not isinstance(bus, Unreachable) and not stage.kept.down)
            yield relay, task
        finally:
            relay.stop()


async def asked(stage: Stage, method: str, path: str, body: object = None) -> tuple[int, str]:
    url = f"http://127.0.0.1:{stage.settings.port}{path}"
    headers = {**JEDE, "content-type": "application/cloudevents+json"}
    async with (
        aiohttp.ClientSession() as http,
        http.request(method, url, data=json.dumps(body), headers=headers) as answer,
    ):
        return answer.status, await answer.text()


async def ready(stage: Stage, reached: bool) -> None:
    """It answers; until the broker was reached once, that it is not ready."""
    async with asyncio.timeout(5):
        while True:
            try:
                status = (await asked(stage, "GET", "/ready"))[0]
                if status == (200 if reached else 503):
                    return
                await asyncio.sleep(0.01)
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)


async def shaped(stage: Stage) -> None:
    await stage.until(lambda: TRIES in stage.kept.topics and stage.kept.last.get(TRIES))


def document(id: str) -> dict[str, object]:
    return {"specversion": "1.0", "id": id, "source": "/jede", "type": TYPE}


async def test_it_answers_before_the_broker_is_there_and_delivers_when_it_is(stage: Stage) -> None:
    stage.kept.down = True
    async with running(stage):
        assert (await asked(stage, "POST", "/events", document("1")))[0] == 503
        stage.kept.down = False
        await shaped(stage)
        assert await asked(stage, "POST", "/events", document("1")) == (200, '{"kept": 1}')
        await stage.until(lambda: stage.module.taken == ["1"])


async def test_it_ends_what_is_under_way_and_hands_the_rest_back(stage: Stage) -> None:
    async def answer(got: Got) -> Answer:
        await asyncio.sleep(0.5)
        return OK

    stage.module.answer = answer
    async with running(stage) as (relay, task):
        await shaped(stage)
        await stage.publish(*(event(f"a{n}", subject="a") for n in range(5)), event("b"))
        await stage.until(lambda: len(stage.module.got) == 2)
        relay.stop()
        await asyncio.wait_for(task, 3)
    assert sorted(stage.module.taken) == sorted(stage.module.ids()) == ["a0", "b"]
    # They come again at once, in their order, and not only after ANSWER_S.
    stage.settings = replace(stage.settings, port=free_port())
    stage.module.answer = None
    began = time.monotonic()
    async with running(stage):
        await stage.until(lambda: len(stage.module.taken) == 6)
    assert time.monotonic() - began < 5
    assert stage.module.taken[2:] == ["a1", "a2", "a3", "a4"]


class Fetching(SimulatedBus):
    """One that takes what is there all at once, as a broker's client does."""

    async def take(self, subscription: Subscription) -> AsyncGenerator[Delivery]:
        place = self.kept.places[(subscription.topic, subscription.module)]
        while True:
            each = []
            while (one := self._next(place)) is not None:
                each.append(one)
            for one in each:
                yield one
            await self._change()


async def test_what_was_taken_and_had_no_room_yet_is_handed_back_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering_module, "HELD_BYTES", 2000)

    async def answer(_: Got) -> Answer:
        await asyncio.sleep(0.5)
        return OK

    stage.module.answer = answer
    bus = Fetching(stage.kept)
    await stage.shape()
    await stage.publish(*(event(str(n), b"x" * 1000) for n in range(8)))
    async with running(stage, bus) as (relay, task):
        await stage.until(lambda: len(stage.module.got) == 2)
        relay.stop()
        await asyncio.wait_for(task, 3)
    [place] = [place for (topic, _), place in stage.kept.places.items() if topic == TYPE]
    assert sorted(place.open) == [3, 4, 5, 6, 7, 8]
    assert all(due <= time.time() for due, _ in place.open.values()), "they come at once"


async def test_a_delivery_that_outlasts_the_grace_is_cut_and_handed_back(stage: Stage) -> None:
    stage.settings = replace(stage.settings, grace_s=0.6, timeout_s=30.0)

    async def hangs(_: Got) -> Answer:
        await asyncio.sleep(20)
        return OK

    stage.module.answer = hangs
    async with running(stage) as (relay, task):
        await shaped(stage)
        await stage.publish(event("1"))
        await stage.until(lambda: stage.module.got)
        began = time.monotonic()
        relay.stop()
        await asyncio.wait_for(task, 3)
        assert time.monotonic() - began < 1.2
    stage.module.answer = None
    stage.settings = replace(stage.settings, port=free_port())
    async with running(stage):
        await stage.until(lambda: stage.module.taken)
    assert stage.module.got[-1].attempt == 1


async def test_what_failed_and_waits_is_no_reason_to_stay(stage: Stage) -> None:
    stage.settings = delivering(stage.settings, first_s=60.0, last_s=60.0)
    stage.module.answers = {"a": [BROKEN, OK], "none": [BROKEN, OK]}
    async with running(stage) as (relay, task):
        await shaped(stage)
        await stage.publish(event("a", subject="a"), event("none"))
        await stage.until(lambda: len(stage.module.got) == 2)
        await stage.until(lambda: stage.kept.last[TRIES] >= 3)
        relay.stop()
        await asyncio.wait_for(task, 1)
    stage.settings = replace(stage.settings, port=free_port())
    async with running(stage):
        await stage.until(lambda: "a" in stage.module.taken)
    assert [got.attempt for got in stage.module.got if got.id == "a"] == [1, 2]


class Gated(SimulatedBus):
    """Publishing waits for `gate`."""

    gate = asyncio.Event()
    waiting_ = 0

    async def publish(self, topic: str, *rest: object) -> object:  # type: ignore[override]
        if topic == TYPE:
            self.waiting_ += 1
            await self.gate.wait()
        return await super().publish(topic, *rest)  # type: ignore[arg-type]


async def test_a_request_under_way_is_answered_and_no_other_is_taken(stage: Stage) -> None:
    bus = Gated(stage.kept)
    bus.gate = asyncio.Event()
    async with running(stage, bus) as (relay, task), asyncio.TaskGroup() as tasks:
        await shaped(stage)
        first = tasks.create_task(asked(stage, "POST", "/events", document("1")))
        await stage.until(lambda: bus.waiting_ == 1)
        relay.stop()
        await asyncio.sleep(0.1)
        with pytest.raises(aiohttp.ClientError):
            await asked(stage, "POST", "/events", document("2"))
        bus.gate.set()
        assert await first == (200, '{"kept": 1}')
        await asyncio.wait_for(task, 2)
    [kept] = [one async for one in stage.bus.read(TYPE, follow=False)]
    assert kept.headers["ce-id"] == "1"


async def test_it_leaves_although_the_broker_is_away(stage: Stage) -> None:
    async with running(stage) as (relay, task):
        await shaped(stage)
        stage.kept.down = True
        relay.stop()
        await asyncio.wait_for(task, 3)


class Unreachable(SimulatedBus):
    async def __aenter__(self) -> Self:
        await asyncio.sleep(60)
        return self


async def test_it_does_not_wait_for_a_connection_in_order_to_leave(stage: Stage) -> None:
    async with running(stage, Unreachable(stage.kept)) as (relay, task):
        relay.stop()
        await asyncio.wait_for(task, 1)


async def test_the_process_ends_by_itself_at_sigterm() -> None:
    port = free_port()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "idi.relay"),
        env={**os.environ, **environment(PORT=str(port), BUS_URL="nats://idi:secret@127.0.0.1:1")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(20), aiohttp.ClientSession() as http:
            while True:
                try:
                    async with http.get(f"http://127.0.0.1:{port}/ready") as answer:
                        assert answer.status == 503  # it answers, and there is no broker
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
        began = time.monotonic()
        child.send_signal(signal.SIGTERM)
        out, _ = await asyncio.wait_for(child.communicate(), 10)
    finally:
        if child.returncode is None:
            child.kill()
    assert child.returncode == 0, out.decode()
    assert time.monotonic() - began < 4
    assert b"secret" not in out
    assert b"Traceback" not in out


class Moved(SimulatedBus):
    async def shape(self, wanted: Shape) -> list[str]:
        if TYPE in wanted.topics:
            raise Refused("It is kept elsewhere, and what is kept cannot move.")
        return await super().shape(wanted)


async def test_a_topic_that_cannot_be_changed_is_no_reason_to_do_nothing(stage: Stage) -> None:
    await stage.bus.shape(Shape({TYPE: Topic(TYPE)}))
    async with running(stage, Moved(stage.kept)):
        await stage.publish(event("1"))
        await stage.until(lambda: stage.module.taken)


class Later(SimulatedBus):
    """What was refused is possible after a while."""

    possible = False
    refused = 0

    async def shape(self, wanted: Shape) -> list[str]:
        if TYPE in wanted.topics and not self.possible:
            self.refused += 1
            raise Refused("It would lose events.")
        return await super().shape(wanted)


async def test_a_topic_that_cannot_be_changed_yet_is_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "RESHAPE_S", 0.02)
    wanted = stage.settings.shape.topics[TYPE]
    await stage.bus.shape(Shape({TYPE: replace(wanted, keep_s=1000.0 + wanted.keep_s)}))
    bus = Later(stage.kept)
    async with running(stage, bus):
        await stage.until(lambda: bus.refused > 2)
        bus.possible = True
        await stage.until(lambda: stage.kept.topics[TYPE] == wanted)


class Failing(SimulatedBus):
    failed = 0

    async def read(self, topic: str, since: int = 0, *, follow: bool = True) -> AsyncIterator[Event]:  # type: ignore[override]
        if topic == TRIES and not self.failed:
            self.failed += 1
            raise ZeroDivisionError
        async for one in super().read(topic, since, follow=follow):
            yield one


async def test_a_bug_in_the_beginning_is_not_the_end(stage: Stage) -> None:
    bus = Failing(stage.kept)
    async with running(stage, bus):
        await shaped(stage)
        await stage.publish(event("1"))
        await stage.until(lambda: stage.module.taken)
    assert bus.failed == 1


async def test_modules_that_hang_do_not_use_up_the_connections_of_others() -> None:
    async with serving.connections() as http:
        assert http.connector is not None
        assert http.connector.limit == 0
        assert isinstance(http.cookie_jar, aiohttp.DummyCookieJar)


# --- what it is told -----------------------------------------------------------------------------------


def environment(**changes: str) -> dict[str, str]:
    told = {
        "trust": TRUST,
        "topics": {TYPE: {"keep_s": 60.0, "durable": False}},
        "publishers": {"jede": [TYPE]},
        "deliveries": [
            {"topic": TYPE, "module": "my-cam", "path": "/e", "attempts": 8, "first_s": 1.0, "last_s": 300.0},
            {
                "topic": TYPE,
                "module": "pas",
                "path": "/",
                "attempts": 1,
                "first_s": 1,
                "last_s": 1,
                "order": "subject",
            },
        ],
        "consumers": [[TYPE, "vtl", 3]],
    }
    return {
        "PORT": "7",
        "BUS_URL": "nats://idi:secret@127.0.0.1:4222",
        "IDI_RELAY": json.dumps(told),
        "MY_CAM_URL": "http://127.0.0.1:1",
        "PAS_URL": "http://127.0.0.1:2",
        **changes,
    }


def test_what_the_environment_says() -> None:
    found = from_environment(environment())
    assert (found.port, found.bus_url, found.user, found.password) == (
        7,
        "nats://127.0.0.1:4222",
        "idi",
        "secret",
    )
    assert found.urls == {"my-cam": "http://127.0.0.1:1", "pas": "http://127.0.0.1:2"}
    assert found.topics == {TYPE: Topic(TYPE, 60.0, False)}
    assert {key: one.order for key, one in found.deliveries.items()} == {
        (TYPE, "my-cam"): "",
        (TYPE, "pas"): "subject",
    }
    assert "secret" not in repr(found)


def test_the_shape_of_it() -> None:
    shape = from_environment(environment()).shape
    tries_s = 8 * (LONGEST_WAIT_S + ANSWER_S)
    assert shape.topics == {
        TYPE: Topic(TYPE, 60.0, False),
        DEAD: Topic(DEAD, KEEP_DEAD_S),
        TRIES: Topic(TRIES, max(tries_s, 86400.0)),
        "idi.again.my-cam": Topic("idi.again.my-cam", KEEP_DEAD_S),
        "idi.again.pas": Topic("idi.again.pas", KEEP_DEAD_S),
    }
    delivered = [(TYPE, "my-cam"), (TYPE, "pas"), ("idi.again.my-cam", "my-cam"), ("idi.again.pas", "pas")]
    assert list(shape.subscriptions) == [
        *(Subscription(topic, module, ANSWER_S, IN_FLIGHT) for topic, module in delivered),
        Subscription(TYPE, "vtl", attempts=3),
    ]
