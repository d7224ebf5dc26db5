"""Events: published until they are kept or it is known why not; handled until the module says that it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from idi.module import Answer, Event, GiveUp, Limits, Module, NotPublished, Problem, Request, Retry, testing
from idi.module import events as events_module
from idi.parts.bus import cloudevents

pytestmark = pytest.mark.requirement("B1")

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
QUICK = Limits(linger_s=0.0)


@dataclass
class Placed:
    total: int


def publishing(publish: Callable[[Module[None]], Awaitable[object]]) -> Module[None]:
    app = Module(name="orders", limits=QUICK)

    @app.post("/")
    async def run(_: Request) -> object:
        return await publish(app)

    return app


async def test_an_event_is_published_with_all_that_it_says() -> None:
    async def publish(app: Module[None]) -> object:
        event = await app.events.publish(
            "order.placed", Placed(12), id="o-1", subject="Fälle/1 %", priority="high"
        )
        return event.id

    async with testing.client(publishing(publish)) as client:
        assert (await client.post("/", headers={"traceparent": TRACE})).text == "o-1"
    [event] = client.published
    assert (event.type, event.id, event.source, event.subject) == (
        "order.placed",
        "o-1",
        "/orders",
        "Fälle/1 %",
    )
    assert event.json(Placed) == Placed(12)
    assert event.more == {"priority": "high"}
    assert event.content_type == "application/json"


def test_its_binary_form_is_what_the_relay_reads() -> None:
    event = Event.of("order.placed", {"total": 1}, id="ü 1", subject='a "b" %', key2="x")
    read = cloudevents.read(event.headers("/orders"), event.data)[0]
    assert read.attributes == {
        "specversion": "1.0", "type": "order.placed", "id": "ü 1", "source": "/orders", "subject": 'a "b" %',
        "time": event.time, "key2": "x", "datacontenttype": "application/json",
    }  # fmt: skip
    back = events_module.received(cloudevents.to_headers(read), read.data)
    assert back == replace(event, source="/orders")


async def test_a_batch_goes_in_order_and_in_pieces_that_the_relay_takes() -> None:
    sent = [Event.of("order.placed", {"n": n}, id=str(n), subject="s") for n in range(250)]
    sent += [Event.of("order.placed", bytes(400_000), id=f"big-{n}") for n in range(3)]

    async def publish(app: Module[None]) -> object:
        await app.events.publish_all(sent)
        return None

    async with testing.client(publishing(publish)) as client:
        assert (await client.post("/")).status == 204
    assert [event.id for event in client.published] == [event.id for event in sent]
    assert client.published[:250] == [replace(event, source="/orders") for event in sent[:250]]
    assert client.published[-1].data == bytes(400_000)


Answers = list[object]


def relay(answers: Answers) -> tuple[Module[None], list[str]]:
    """Answers as it is told, the last one for ever; and the ids that came."""
    ids: list[str] = []
    app = Module(name="relay", limits=QUICK)

    @app.post("/events")
    async def keep(request: Request) -> object:
        ids.append(request.headers["ce-id"])
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    return app, ids


async def published(answers: Answers) -> tuple[int, str, list[str]]:
    async def publish(app: Module[None]) -> object:
        return (await app.events.publish("order.placed", {"total": 1})).id

    app, ids = relay(answers)
    async with testing._started(app, {"PORT": "0"}) as url:
        async with testing.client(publishing(publish), {"EVENTS_URL": f"{url}/events"}) as client:
            reply = await client.post("/")
            return reply.status, reply.text, ids


async def test_503_is_asked_again_with_the_same_id() -> None:
    away = Problem(503, "the broker is away", headers={"retry-after": "1"})
    begun = asyncio.get_running_loop().time()
    status, id, ids = await published([away, Answer({"kept": 1})])
    assert (status, ids) == (200, [id, id])
    assert asyncio.get_running_loop().time() - begun >= 1.0, "Retry-After is respected"


async def test_it_ends_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "WITHIN_S", 0.5)
    status, text, ids = await published([Problem(503, "the broker is away")])
    assert status == 503
    assert "order.placed is not published: the broker is away" in text
    assert len(ids) > 1
    assert len(set(ids)) == 1


@pytest.mark.parametrize("status", [400, 403, 413, 422])
async def test_what_is_refused_is_not_asked_again(status: int) -> None:
    refused = Problem(status, "orders does not declare 'order.placed'; it publishes nothing.")
    answered, text, ids = await published([refused])
    assert (answered, len(ids)) == (500, 1)
    assert f"order.placed is refused ({status}): orders does not declare" in text


async def test_a_relay_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "WITHIN_S", 0.3)

    async def publish(app: Module[None]) -> object:
        with pytest.raises(NotPublished, match=r"order.placed is not published: .*Connect"):
            await app.events.publish("order.placed")
        return None

    async with testing.client(publishing(publish), {"EVENTS_URL": "http://127.0.0.1:1/events"}) as client:
        assert (await client.post("/")).status == 204


async def test_without_the_declaration_it_says_the_line_that_is_missing() -> None:
    async def publish(app: Module[None]) -> object:
        return await app.events.publish("order.placed")

    async with testing.client(publishing(publish), {"EVENTS_URL": ""}) as client:
        assert (await client.post("/")).json()["detail"] == (
            "This module does not declare that it publishes (EVENTS_URL is not set): add `publishes: [order.placed]` "
            "to it in platform.yaml."
        )


# -- handling


def handling() -> tuple[Module[None], list[Event]]:
    app = Module(name="mail", limits=replace(QUICK, answer_s=0.2))
    seen: list[Event] = []

    @app.on("order.placed")
    async def placed(event: Event) -> None:
        seen.append(event)
        match event.json(Placed).total:
            case 1:
                raise Retry("not yet", after_s=90)
            case 2:
                raise GiveUp("no such order")
            case 3:
                raise KeyError("s3cret")
            case 4:
                await asyncio.sleep(5)

    @app.on("cam.changed", path="/cam")
    async def changed(event: Event) -> None:
        await app.events.publish("dere.learned", id=event.follower_id("dere.learned"))

    return app, seen


async def test_an_event_is_handed_over_with_its_key_and_attempt() -> None:
    app, seen = handling()
    async with testing.client(app) as client:
        reply = await client.event("order.placed", {"total": 7}, id="o 1", subject="s", attempt=3)
    assert (reply.status, reply.body) == (204, b"")
    [event] = seen
    assert (event.key, event.attempt, event.subject) == ("/test o 1", 3, "s")


@pytest.mark.parametrize(
    ("total", "status", "headers", "says"),
    [
        (1, 503, {"retry-after": "90"}, "not yet"),
        (2, 422, {"x-idi-give-up": "1"}, "no such order"),
        (3, 500, {}, "KeyError; the log of mail says more"),
        (4, 503, {}, "not handled within 0.2 s"),
        ("many", 422, {"x-idi-give-up": "1"}, 'data.total must be a whole number, not "many".'),
    ],
)
async def test_how_a_handler_says_what_is_to_become_of_it(
    total: object, status: int, headers: dict[str, str], says: str
) -> None:
    app, _ = handling()
    async with testing.client(app) as client:
        reply = await client.event("order.placed", {"total": total})
    assert (reply.status, reply.text) == (status, says)
    assert headers.items() <= dict(reply.headers).items()
    assert ("x-idi-give-up" in reply.headers) == ("x-idi-give-up" in headers)


async def test_an_event_at_another_path_is_told_where_it_is_handled() -> None:
    app, _ = handling()
    async with testing.client(app) as client:
        reply = await client.event("cam.changed", path="/events/cam-changed")
        assert (reply.status, reply.json()["detail"]) == (
            404, "cam.changed is handled at /cam: declare `handles: {cam.changed: /cam}`."
        )  # fmt: skip
        reply = await client.event("cam.other", path="/cam")
        assert reply.json()["detail"] == "At /cam cam.changed is handled, not cam.other."
        reply = await client.post("/cam", {"no": "event"})
        assert (reply.status, reply.json()["detail"]) == (
            415, "This is no event in the binary form of CloudEvents: it has no ce-id, no ce-source, no ce-type."
        )  # fmt: skip


async def test_an_event_comes_from_the_relay_and_from_nobody_else() -> None:
    """Whoever may call the module could tell it anything otherwise."""
    app, seen = handling()
    event = Event.of("order.placed", {"total": 9})
    async with testing.client(app) as client:
        for caller, status in (("gateway", 403), ("jede", 403), ("relay", 204)):
            cert = {"x-forwarded-client-cert": f"By=x;Hash=a;URI=spiffe://shop.idi/dev/{caller}"}
            headers = {**event.headers("/orders"), **cert}
            reply = await client.request("POST", "/events/order-placed", body=event.data, headers=headers)
            assert reply.status == status
    assert len(seen) == 1


async def test_a_follower_has_the_same_id_however_often_it_is_published() -> None:
    app, _ = handling()
    async with testing.client(app) as client:
        for attempt in (1, 2):
            await client.event("cam.changed", id="c-1", path="/cam", attempt=attempt)
        await client.event("cam.changed", id="c-2", path="/cam")
    first, again, other = client.published
    assert first.id == again.id != other.id
