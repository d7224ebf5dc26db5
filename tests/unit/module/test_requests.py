"""What a module answers: typed JSON, problems, bounds, peers; each as its caller sees it."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, replace
from typing import Any, Unpack

import pytest
from aiohttp import web

from idi.module import (
    Answer,
    Call,
    Limits,
    Misconfigured,
    Module,
    PeerError,
    Problem,
    Request,
    testing,
    tracing,
)

pytestmark = pytest.mark.requirement("G2")

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
QUICK = Limits(linger_s=0.0)


@dataclass
class Order:
    item: str
    count: int = 1


def answering() -> Module[None]:
    app = Module(name="orders", limits=replace(QUICK, body_bytes=1000, answer_s=0.3))

    @app.get("/items/{item}")
    async def item(request: Request) -> object:
        return Order(request.params["item"], int(request.query.get("count", "1")))

    @app.post("/")
    async def order(request: Request) -> object:
        wanted = request.json(Order)
        return Answer(wanted, 201, {"location": f"/items/{wanted.item}"})

    @app.get("/text")
    async def text(_: Request) -> object:
        return "plain"

    @app.get("/nothing")
    async def nothing(_: Request) -> object:
        return None

    @app.get("/stream", answer_s=math.inf)
    async def stream(request: Request) -> object:
        found = web.StreamResponse()
        await found.prepare(request.raw)
        await asyncio.sleep(0.5)
        await found.write(b"late")
        return found

    @app.get("/gone")
    async def gone(_: Request) -> object:
        raise Problem(410, "sold out", headers={"x-more": "1"}, item="tea")

    @app.get("/bug")
    async def bug(_: Request) -> object:
        raise KeyError("s3cret")

    @app.get("/slow")
    async def slow(_: Request) -> object:
        await asyncio.sleep(5)
        return None

    @app.get("/trace")
    async def trace(_: Request) -> object:
        return {**tracing.carried(), "id": tracing.trace_id()}

    return app


async def test_typed_json_in_and_out() -> None:
    async with testing.client(answering()) as client:
        assert (await client.get("/items/tea?count=2")).json(Order) == Order("tea", 2)
        made = await client.post("/", {"item": "cake"})
        assert (made.status, made.headers["location"], made.json()) == (
            201,
            "/items/cake",
            {"item": "cake", "count": 1},
        )
        text = await client.get("/text")
        assert (text.text, text.headers["content-type"]) == ("plain", "text/plain; charset=utf-8")
        assert (await client.get("/nothing")).status == 204
        assert (await client.get("/stream")).body == b"late"
        head = await client.request("HEAD", "/items/tea")
        assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("GET", "/gone", b"", 410, "sold out"),
        ("GET", "/bug", b"", 500, "orders has a mistake of its own; its log says which."),
        ("GET", "/no", b"", 404, "orders has no /no."),
        ("PUT", "/text", b"", 405, "/text takes GET, HEAD."),
        ("POST", "/", b"x", 422, "body is not JSON."),
        ("POST", "/", b'{"item": 1}', 422, "body.item must be text, not 1."),
        ("POST", "/", b"x" * 1001, 413, "A request has at most 1000 bytes."),
        ("GET", "/slow", b"", 504, "orders has no answer within 0.3 s."),
    ],
)
async def test_every_mistake_is_a_problem_document(
    method: str, path: str, body: bytes, status: int, detail: str
) -> None:
    async with testing.client(answering()) as client:
        reply = await client.request(method, path, body=body)
    assert (reply.status, reply.json()["detail"], reply.json()["status"]) == (status, detail, status)
    assert reply.headers["content-type"] == "application/problem+json"


async def test_a_problem_may_say_more() -> None:
    async with testing.client(answering()) as client:
        reply = await client.get("/gone")
    assert reply.json() == {"title": "Gone", "status": 410, "detail": "sold out", "item": "tea"}
    assert reply.headers["x-more"] == "1"


async def test_so_many_at_once_and_no_more() -> None:
    app = Module(name="orders", limits=replace(QUICK, at_once=2))
    go = asyncio.Event()

    @app.get("/wait")
    async def wait(_: Request) -> object:
        await go.wait()
        return "done"

    async with testing.client(app) as client, asyncio.TaskGroup() as tasks:
        first = [tasks.create_task(client.get("/wait")) for _ in range(2)]
        refused = await until_refused(client)
        assert refused.json()["detail"] == "orders has 2 requests under way already."
        assert refused.headers["retry-after"] == "1"
        assert (await client.get("/ready")).status == 200, "a full module is not an unwell one"
        go.set()
    assert [one.result().status for one in first] == [200, 200]
    assert refused.status == 503


async def until_refused(client: testing.Client) -> Any:
    for _ in range(100):
        reply = await client.get("/no")
        if reply.status == 503:
            return reply
        await asyncio.sleep(0.01)
    raise AssertionError("it was never full")


# -- peers


def calling(**more: Unpack[Call]) -> Module[None]:
    app = Module(name="jede", limits=QUICK)

    @app.get("/{path:.*}")
    async def call(request: Request) -> object:
        reply = await app.peers.orders.get(f"/{request.params['path']}", **more)
        return reply.json()

    return app


@pytest.mark.parametrize("installed", [True, False])
async def test_a_call_carries_the_trace_and_the_requests_id(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    if not installed:
        monkeypatch.setattr(tracing, "opentelemetry", lambda: None)
    came = {"traceparent": TRACE, "tracestate": "a=b", "baggage": "user=1", "x-request-id": "r-1"}
    async with testing.client(calling(), peers={"orders": answering()}) as client:
        seen = (await client.get("/trace", headers={**came, "cookie": "c=1"})).json()
        assert seen == {**came, "id": "4bf92f3577b34da6a3ce929d0e0e4736"}
        assert (await client.get("/trace")).json() == {"id": ""}, "nothing stays from another request"


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/gone", 502, "orders answered 410 to GET /gone: sold out."),
        (
            "/bug",
            502,
            "orders answered 500 to GET /bug: orders has a mistake of its own; its log says which.",
        ),
        ("/text", 502, "the answer of orders is not JSON."),
    ],
)
async def test_what_a_peer_answers_is_told(path: str, status: int, detail: str) -> None:
    async with testing.client(calling(), peers={"orders": answering()}) as client:
        reply = await client.get(path)
    assert (reply.status, reply.json()["detail"], reply.json()["peer"]) == (status, detail, "orders")


async def test_a_peer_that_is_late() -> None:
    async with testing.client(calling(deadline_s=0.1), peers={"orders": answering()}) as client:
        reply = await client.get("/slow")
    assert (reply.status, reply.json()["detail"]) == (504, "orders did not answer within 0.1 s.")


async def test_a_peer_that_is_not_there() -> None:
    async with testing.client(calling(), {"ORDERS_URL": "http://127.0.0.1:1"}) as client:
        reply = await client.get("/text")
    assert (reply.status, reply.json()["detail"]) == (503, "orders cannot be reached.")
    assert reply.headers["retry-after"] == "1"


async def test_a_peer_error_can_be_handled() -> None:
    app = Module(name="jede", limits=QUICK)

    @app.get("/")
    async def call(_: Request) -> object:
        try:
            await app.peers["orders"].get("/gone")
        except PeerError as error:
            return {"answered": error.answered, "said": error.said}
        return None

    async with testing.client(app, peers={"orders": answering()}) as client:
        assert (await client.get("/")).json() == {
            "answered": 410,
            "said": {"title": "Gone", "status": 410, "detail": "sold out", "item": "tea"},
        }


async def test_a_call_that_is_not_declared_says_the_line_that_is_missing() -> None:
    async with testing.client(calling()) as client:
        assert (await client.get("/text")).json()["detail"] == (
            "This module does not declare that it calls orders (ORDERS_URL is not set): add `calls: [orders]` to it in "
            "platform.yaml."
        )


async def test_a_peer_that_was_named_before_the_start_is_looked_for_at_the_start() -> None:
    app = Module(name="jede", limits=QUICK)
    _ = app.peers["old-cam"], app.peers.lines
    with pytest.raises(Misconfigured) as error:
        async with testing.client(app, {"LINES_URL": "tcp://127.0.0.1:1"}):
            pass
    first, second = error.value.mistakes
    assert "calls old-cam (OLD_CAM_URL is not set): add `calls: [old-cam]`" in first
    assert (
        second == "LINES_URL is 'tcp://127.0.0.1:1': that peer does not speak HTTP; use its address yourself."
    )


async def test_who_calls_is_what_the_sidecar_says() -> None:
    app = Module(name="jede", limits=QUICK)

    @app.get("/")
    async def who(request: Request) -> object:
        return {"caller": request.caller, "subject": request.subject}

    async with testing.client(app) as client:
        seen = "By=spiffe://shop.idi/dev/jede;Hash=aa;URI=spiffe://shop.idi/dev/gateway"
        headers = {"x-forwarded-client-cert": seen, "x-idi-subject": "operator:ann"}
        assert (await client.get("/", headers=headers)).json() == {
            "caller": "gateway",
            "subject": "operator:ann",
        }
        assert (await client.get("/")).json() == {"caller": "", "subject": ""}


async def test_what_is_sent_uses_no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with testing.client(calling(), peers={"orders": answering()}) as client:
        assert (await client.get("/trace")).status == 200


async def test_a_bug_is_in_the_log_with_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        async with testing.client(answering()) as client:
            await client.get("/bug", headers={"traceparent": TRACE})
    [record] = caplog.records
    assert record.getMessage() == "GET /bug"
    assert record.exc_info is not None


async def test_without_running_there_is_nothing_to_ask() -> None:
    app = Module()
    for what in ("config", "events"):
        with pytest.raises(RuntimeError, match=f"{what} is there while the module runs"):
            getattr(app, what)
