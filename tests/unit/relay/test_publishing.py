"""POST /events: each answer, and who may publish what."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from idi.parts.bus.cloudevents import MANY, MOST_EVENTS, ONE, to_headers
from idi.parts.bus.errors import BadEvent, BusFull
from idi.parts.bus.interface import Event, Receipt, Topic
from idi.parts.bus.simulator import Kept, SimulatedBus
from idi.relay import publishing
from idi.relay.publishing import BODY_BYTES, Publishing, traced
from idi.relay.serving import application
from tests.unit.relay.stage import TRUST, TYPE, event, settings

pytestmark = pytest.mark.requirement("B1")

JEDE = {"x-forwarded-client-cert": f"By={TRUST}relay;Hash=ab12;URI={TRUST}jede"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER_TRACE = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"

Client = TestClient[web.Request, web.Application]


class Bus(SimulatedBus):
    """One that fails when it is told."""

    error: BaseException | None = None
    fails_from = 0
    gate: asyncio.Event | None = None
    count = 0

    async def publish(self, topic: str, id: str, headers: Mapping[str, str], payload: bytes) -> Receipt:
        self.count += 1
        if self.gate:
            await self.gate.wait()
        if self.error and self.count > self.fails_from:
            raise self.error
        return await super().publish(topic, id, headers, payload)


@pytest.fixture
async def bus() -> Bus:
    found = Bus(Kept())
    await found.shape(settings(topics={TYPE: Topic(TYPE), "jede.other": Topic("jede.other")}).shape)
    return found


@asynccontextmanager
async def serving(bus: Bus) -> AsyncIterator[Client]:
    found = settings(publishers={"jede": frozenset({TYPE, "jede.other"}), "pas": frozenset()})
    begun = asyncio.Event()
    begun.set()
    async with TestClient(TestServer(application(found, bus, begun))) as client:
        yield client


@pytest.fixture
async def client(bus: Bus) -> AsyncIterator[Client]:
    async with serving(bus) as found:
        yield found


def document(id: str, **changes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": id, "source": "/jede", "type": TYPE, "data": {"n": id}, **changes}


async def answer_of(response: aiohttp.ClientResponse) -> tuple[int, Any]:
    body = await response.json(content_type=None)
    if response.status >= 400:
        assert response.content_type == "application/problem+json"
        assert (body["type"], body["status"]) == ("about:blank", response.status)
        assert body["title"]
        assert (response.headers.get("retry-after") is not None) == (response.status == 503)
        return response.status, body["detail"]
    return response.status, body


async def posted(
    client: Client, body: Any, form: str = ONE, headers: Mapping[str, str] = JEDE
) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client.post("/events", data=data, headers={**headers, "content-type": form}) as response:
        return await answer_of(response)


async def kept(bus: Bus, topic: str = TYPE) -> list[Event]:
    return [one async for one in bus.read(topic, follow=False)]


async def test_one_event(client: Client, bus: Bus) -> None:
    assert await posted(client, document("1")) == (200, {"kept": 1})
    [one] = await kept(bus)
    assert dict(one.headers) == to_headers(event("1"))
    assert one.payload == b'{"n":"1"}'


async def test_a_batch_in_its_order(client: Client, bus: Bus) -> None:
    ids = [str(number) for number in range(MOST_EVENTS)]
    assert await posted(client, [document(id) for id in ids], MANY) == (200, {"kept": 100})
    assert [one.headers["ce-id"] for one in await kept(bus)] == ids
    assert await posted(client, [], MANY) == (200, {"kept": 0})
    status, detail = await posted(client, [document(id) for id in [*ids, "x"]], MANY)
    assert (status, detail) == (422, "A batch has at most 100 events, this one has 101.")


async def test_a_binary_event_whatever_the_case_of_its_headers(client: Client, bus: Bus) -> None:
    headers = {
        "CE-ID": "1",
        "Ce-Source": "/jede",
        "cE-tyPe": TYPE,
        "ce-SpecVersion": "1.0",
        "ce-Subject": "a%20b",
    }
    assert await posted(client, b"\x00\xff", "image/png", {**JEDE, **headers}) == (200, {"kept": 1})
    [one] = await kept(bus)
    assert one.payload == b"\x00\xff"
    assert (one.headers["content-type"], one.headers["ce-subject"]) == ("image/png", "a%20b")


async def test_an_event_is_kept_once(client: Client, bus: Bus) -> None:
    for _ in range(3):
        assert await posted(client, document("1")) == (200, {"kept": 1})
    assert len(await kept(bus)) == 1
    for more in (document("b c", source="/a"), document("c", source="/a b")):
        assert (await posted(client, more))[0] == 200
    assert len(await kept(bus)) == 3


@pytest.mark.parametrize(
    ("body", "form", "status", "detail"),
    [
        (b"{", ONE, 400, "The body is not JSON"),
        (b"{}", ONE, 422, "the event has no id."),
        (b"{}", "application/json", 415, "This is no CloudEvent"),
        (b"{}", ONE + "; charset=latin-1", 415, "charset latin-1 is none that is read"),
        (b"<a/>", "application/cloudevents+xml", 415, "application/cloudevents+xml is none of"),
    ],
)
async def test_what_is_no_event_is_refused_and_not_kept(
    client: Client, bus: Bus, body: bytes, form: str, status: int, detail: str
) -> None:
    found = await posted(client, body, form)
    assert found[0] == status
    assert found[1].startswith(detail)
    assert bus.count == 0


async def test_what_is_too_large(client: Client, bus: Bus) -> None:
    room = BODY_BYTES - len(json.dumps(document("1", data="")))
    assert (await posted(client, document("1", data="x" * room)))[0] == 200
    for body in (
        json.dumps(document("2", data="x" * (room + 1))).encode(),
        b" " * (BODY_BYTES + 1),
    ):
        assert await posted(client, body) == (413, "A request has at most 1048576 bytes.")
    packed = gzip.compress(b" " * (20 * BODY_BYTES))
    assert (await posted(client, packed, ONE, {**JEDE, "content-encoding": "gzip"}))[0] == 413
    bus.error = BadEvent("The event is larger than 7 bytes.")
    assert await posted(client, document("3")) == (413, "The event is larger than 7 bytes.")


async def test_a_broker_that_is_down_or_full(client: Client, bus: Bus) -> None:
    bus.kept.down = True
    assert await posted(client, document("1")) == (503, "The simulated broker is down.")
    bus.kept.down = False
    bus.error = BusFull("jede.decided is full.")
    assert await posted(client, document("1")) == (503, "jede.decided is full.")
    bus.error = None
    assert await posted(client, document("1")) == (200, {"kept": 1})


async def test_a_batch_that_fails_in_the_middle_keeps_what_was_before_and_can_be_sent_again(
    client: Client, bus: Bus
) -> None:
    batch = [document(str(number)) for number in range(10)]
    bus.error, bus.fails_from = BusFull("full"), 4
    assert (await posted(client, batch, MANY))[0] == 503
    assert [one.headers["ce-id"] for one in await kept(bus)] == ["0", "1", "2", "3"]
    bus.error = None
    assert await posted(client, batch, MANY) == (200, {"kept": 10})
    assert [one.headers["ce-id"] for one in await kept(bus)] == [str(number) for number in range(10)]


async def test_a_type_that_is_not_declared(client: Client, bus: Bus) -> None:
    assert await posted(client, document("1", type="cam.changed")) == (
        403,
        "jede does not declare 'cam.changed'; it publishes jede.decided, jede.other.",
    )
    # One in the middle of a batch: none of it is kept.
    batch = [document("1"), document("2", type="cam.changed"), document("3")]
    assert (await posted(client, batch, MANY))[0] == 403
    pas = {"x-forwarded-client-cert": f"URI={TRUST}pas"}
    assert await posted(client, document("1"), headers=pas) == (
        403,
        "pas does not declare 'jede.decided'; it publishes nothing.",
    )
    assert bus.count == 0


@pytest.mark.requirement("S4")
@pytest.mark.parametrize(
    "certificates",
    [
        "",
        "nonsense",
        f"URI={TRUST}pas",
        f"URI={TRUST}jede,By=x;URI={TRUST}pas",
        f"URI={TRUST}jede,By=x;Hash=7",
        f"URI={TRUST}jede,",
        f"URI={TRUST}jede;URI={TRUST}pas",
        f"URI={TRUST}jede;URI={TRUST}jede",
        f'By=x;Subject="CN=a;URI={TRUST}jede"',
        f'By=x;Subject="CN=a,URI={TRUST}jede"',
        f'By=x;Subject="CN=a\\",URI={TRUST}jede',
        f'URI={TRUST}jede;Subject="CN=a',
        f'URI="{TRUST}jede"',
        f"xURI={TRUST}jede",
        f"DNS={TRUST}jede",
        f'URI={TRUST}jede;By="\\',
        "URI=spiffe://shop/prod/jede",
        "URI=jede",
        f"URI={TRUST}",
        f"URI={TRUST}jede/",
    ],
)
async def test_who_is_not_jede_does_not_publish_as_jede(client: Client, bus: Bus, certificates: str) -> None:
    status, _ = await posted(client, document("1"), headers={"x-forwarded-client-cert": certificates})
    assert (status, bus.count) == (403, 0)
    assert (await posted(client, document("1"), headers={}))[0] == 403


@pytest.mark.requirement("S4")
@pytest.mark.parametrize(
    "certificates",
    [
        f"URI={TRUST}jede",
        f"uri={TRUST}jede",
        f'By={TRUST}relay;Hash=ab;Subject="CN=a,b;URI={TRUST}pas\\"";URI={TRUST}jede;DNS=jede',
        f"URI={TRUST}pas, By=x; URI={TRUST}jede",
    ],
)
async def test_the_last_certificate_is_the_sidecars_word(client: Client, certificates: str) -> None:
    status, _ = await posted(client, document("1"), headers={"x-forwarded-client-cert": certificates})
    assert status == 200


def test_a_second_header_line_is_the_later_certificate() -> None:
    asked = Publishing(settings(), Bus(Kept()))
    assert asked.caller(",".join([f"URI={TRUST}jede", f"URI={TRUST}pas"])) == "pas"


def test_a_long_header_is_read_in_time() -> None:
    asked = Publishing(settings(), Bus(Kept()))
    assert asked.caller(f"By={'x' * 20_000};URI={TRUST}jede") == ""
    for text in ('"' * 60_000, "\\" * 60_000, '"\\' * 30_000, "a;" * 30_000, ',"' * 30_000):
        assert asked.caller(text) == ""


async def test_the_requests_trace_goes_along_unless_the_event_has_one(client: Client, bus: Bus) -> None:
    trace = {**JEDE, "traceparent": TRACE, "tracestate": "a=b"}
    await posted(client, document("1"), headers=trace)
    await posted(client, document("2", traceparent=OTHER_TRACE), headers=trace)
    await posted(client, document("3"))
    found = [(one.headers.get("ce-traceparent"), one.headers.get("ce-tracestate")) for one in await kept(bus)]
    assert found == [(TRACE, "a=b"), (OTHER_TRACE, None), (None, None)]


@pytest.mark.parametrize(
    "parent", ["", "x", TRACE + "\udcff", TRACE.upper(), "é" * 9000, TRACE + "-" + "x" * 9000]
)
def test_what_is_no_trace_is_left_out(parent: str) -> None:
    assert traced(event("1"), {"traceparent": parent, "tracestate": "a=b"}) == event("1")


def test_a_state_that_is_none_is_left_out() -> None:
    for state in ("\udcff", "x" * 600):
        found = traced(event("1"), {"traceparent": TRACE, "tracestate": state})
        assert found == event("1", traceparent=TRACE)
    own = event("1", tracestate="its=own")
    assert "tracestate" not in traced(own, {"traceparent": TRACE}).attributes


async def test_bytes_that_are_no_text_are_refused(client: Client) -> None:
    headers = {**JEDE, "ce-id": "1", "ce-source": "/", "ce-type": TYPE, "ce-specversion": "1.0"}
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    for bad in (b"ce-x: \xff", b"traceparent: \xff"):
        writer.write(b"POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n" + head + bad + b"\r\n\r\n")
        status = int((await reader.readuntil(b"\r\n\r\n")).split()[1])
        assert status == (422 if b"ce-x" in bad else 200)
        if status == 422:
            body = b""
            while not body.endswith(b"}"):
                body += await reader.read(4096)
            assert b"ce-x" not in body
    writer.close()
    await writer.wait_closed()


async def test_too_many_at_once_are_told_to_come_again(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "BUSY", 3)
    bus.gate = asyncio.Event()
    async with serving(bus) as client, asyncio.TaskGroup() as tasks:
        first = [tasks.create_task(posted(client, document(str(n)))) for n in range(3)]
        async with asyncio.timeout(5):
            while bus.count < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await posted(client, document("4")) == (503, "3 requests are being kept already.")
        bus.gate.set()
        assert [await one for one in first] == [(200, {"kept": 1})] * 3
        assert await posted(client, document("4")) == (200, {"kept": 1})


async def test_a_body_that_trickles_in_gives_its_place_back(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "BODY_S", 0.2)

    async def trickle() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(1)
        yield b"}"

    async with client.post("/events", data=trickle(), headers={**JEDE, "content-type": ONE}) as response:
        assert await answer_of(response) == (408, "The body did not come within 0.2 s.")


async def test_a_bug_is_a_500_in_our_words_that_tells_nothing(client: Client, bus: Bus) -> None:
    bus.error = KeyError("a secret")
    assert await posted(client, document("1")) == (500, "The relay could not answer; its log says more.")


async def test_there_is_nothing_else(client: Client) -> None:
    async with client.get("/events") as response:
        assert await answer_of(response) == (405, "Events are published by POST to /events.")
        assert response.headers["allow"] == "POST"
    async with client.post("/other") as response:
        assert (await answer_of(response))[0] == 404
    async with client.get("/ready") as response:
        assert (response.status, await response.text()) == (200, "ready\n")
