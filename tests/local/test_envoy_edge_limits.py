"""The gateway's limits: of requests by address and by client, of bodies, headers and connections."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from idi.declaration.types import AddressLimit, EdgeLimits, RateLimit
from idi.parts.gateway.envoy import admin
from idi.traffic.types import GATEWAY, GatewayRoute
from tests.support.envoy import Mesh, mesh
from tests.support.envoy_upstream import Upstream, upstream

pytestmark = pytest.mark.requirement("G1", "T4")

ROUTES = (
    GatewayRoute("cam", "/cam/", "/", scopes=("cam.read",)),
    GatewayRoute("cam", "/open/", "/", public=True),
    GatewayRoute("cam", "/small/", "/", public=True, body_bytes=1000),
    GatewayRoute("cam", "/stream/", "/", public=True, timeout_s=0),
)


@asynccontextmanager
async def edge(**values: Any) -> AsyncIterator[tuple[Mesh, Upstream, httpx.AsyncClient]]:
    async with mesh() as m, upstream("cam") as cam:
        m.module("cam")
        gateway = m.edge(ROUTES, **values)
        m.instance("cam", cam.port)
        m.publish()
        for node in ("cam-1", GATEWAY):
            await m.proxy(node)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20) as client:
            yield m, cam, client


async def flood(
    client: httpx.AsyncClient, path: str, count: int, headers: dict[str, str]
) -> list[httpx.Response]:
    """One after the other in a few lanes: the order is loose, the number is not."""

    async def lane(number: int) -> list[httpx.Response]:
        return [await client.get(path, headers=headers) for _ in range(number)]

    lanes = await asyncio.gather(*(lane(count // 4) for _ in range(4)))
    return [answer for lane_ in lanes for answer in lane_]


def statuses(answers: list[httpx.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


async def test_one_client_floods_and_another_is_served() -> None:
    async with edge(rate_limit=RateLimit(requests=1, every_s=60, burst=9)) as (m, cam, client):
        answers = await flood(client, "/cam/x", 40, m.tokens.header("greedy"))
        assert statuses(answers) == {200: 10, 429: 30}
        assert len(cam.seen) == 10
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.headers["retry-after"] == "60"
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["title"] == "Too Many Requests"
        assert refused.headers["x-request-id"] == refused.json()["request_id"]
        assert refused.headers["x-ratelimit-remaining"] == "0"
        served = await client.get("/cam/x", headers=m.tokens.header("modest"))
        assert served.status_code == 200
        assert served.headers["x-ratelimit-limit"].split(",")[0] == "10"
        assert served.headers["x-ratelimit-remaining"] == "9"
        assert int(served.headers["x-ratelimit-reset"]) >= 0
        # The same client with another token is the same client.
        again = await client.get("/cam/x", headers=m.tokens.header("greedy", jti="2"))
        assert again.status_code == 429
        # And so it is under a name that it gives itself.
        renamed = await client.get("/cam/x", headers=m.tokens.header("greedy") | {"x-idi-subject": "other"})
        assert renamed.status_code == 429


async def test_a_changed_limit_holds_on_open_connections() -> None:
    async with edge(rate_limit=RateLimit(requests=1, every_s=60, burst=1000)) as (m, _, client):
        bearer = m.tokens.header()
        assert (await client.get("/cam/x", headers=bearer)).status_code == 200
        m.change_gateway(rate_limit=RateLimit(requests=1, every_s=60, burst=1))
        await m.plane.barrier(5)
        answers = [(await client.get("/cam/x", headers=bearer)).status_code for _ in range(4)]
        assert answers == [200, 200, 429, 429]
        seen = await admin.counters(m.admin(GATEWAY), r"http\.gateway\.downstream_cx_total")
        assert sum(seen.values()) == 1


async def test_the_rate_is_kept_over_time() -> None:
    async with edge(rate_limit=RateLimit(requests=20, every_s=1, burst=0)) as (m, _, client):
        bearer = m.tokens.header()
        loop = asyncio.get_running_loop()
        started, passed = loop.time(), 0
        while loop.time() - started < 2:
            passed += (await client.get("/cam/x", headers=bearer)).status_code == 200
        took = loop.time() - started
        assert 20 * took <= passed <= 20 * (took + 1) + 2


async def test_a_flood_without_tokens_leaves_clients_of_the_same_address_alone() -> None:
    limit = AddressLimit(requests=1000, every_s=60, burst=1000, anonymous_requests=5, anonymous_burst=5)
    async with edge(address_limit=limit) as (m, _, client):
        anonymous = await flood(client, "/cam/x", 40, {})
        assert statuses(anonymous) == {401: 10, 429: 30}
        refused = next(answer for answer in anonymous if answer.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["title"] == "Too Many Requests"
        # Guessing a client's secret is anonymous, too.
        basic = await client.post("/oauth2/token", headers={"authorization": "Basic eDp5"})
        assert basic.status_code == 429
        answers = await flood(client, "/cam/x", 40, m.tokens.header())
        assert statuses(answers) == {200: 40}


async def test_bad_tokens_are_limited_before_they_are_checked() -> None:
    limit = AddressLimit(requests=1, every_s=60, burst=19, anonymous_requests=1000, anonymous_burst=1000)
    async with edge(address_limit=limit) as (m, _, client):
        answers = await flood(
            client, "/cam/x", 60, {"authorization": "Bearer " + m.tokens.token()[:-4] + "AAAA"}
        )
        assert statuses(answers) == {401: 20, 429: 40}


async def test_health_answers_are_limited_too() -> None:
    limit = AddressLimit(requests=1000, every_s=60, burst=1000, anonymous_requests=5, anonymous_burst=5)
    async with edge(address_limit=limit) as (_, __, client):
        assert statuses(await flood(client, "/healthz", 20, {})) == {200: 10, 429: 10}


async def test_more_clients_than_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used bucket is dropped and comes back full: whoever stays busy keeps an empty one."""
    monkeypatch.setattr("idi.parts.gateway.envoy.render.limits.CLIENTS", 50)
    async with edge(rate_limit=RateLimit(requests=1, every_s=600, burst=4)) as (m, _, client):
        greedy = m.tokens.header("greedy")
        passed = sum(answer.status_code == 200 for answer in await flood(client, "/cam/x", 20, greedy))
        assert passed == 5
        for number in range(120):
            assert (
                await client.get("/cam/x", headers=m.tokens.header(f"client-{number}"))
            ).status_code == 200
            if number % 10 == 0:
                assert (await client.get("/cam/x", headers=greedy)).status_code == 429


async def test_a_body_that_says_it_is_too_large_is_refused_unread() -> None:
    async with edge(limits=EdgeLimits(body_bytes=10_000)) as (_, cam, client):
        for path, most in (("/open/x", 10_000), ("/small/x", 1000)):
            answer = await client.post(path, content=b"x" * most)
            assert (answer.status_code, answer.json()["bytes"]) == (200, most)
            seen = len(cam.seen)
            answer = await client.post(path, content=b"x" * (most + 1))
            assert answer.status_code == 413
            assert answer.json()["title"] == "Content Too Large"
            assert len(cam.seen) == seen


async def test_a_body_of_unannounced_length_is_collected_and_judged() -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"x" * 500

    async with edge(limits=EdgeLimits(body_bytes=10_000)) as (_, cam, client):
        answer = await client.post("/open/x", content=chunks(20))
        assert (answer.status_code, answer.json()["bytes"]) == (200, 10_000)
        answer = await client.post("/small/x", content=chunks(2))
        assert (answer.status_code, answer.json()["bytes"]) == (200, 1000)
        seen = len(cam.seen)
        for path, count in (("/open/x", 21), ("/small/x", 3)):
            answer = await client.post(path, content=chunks(count))
            assert answer.status_code == 413, answer.text
            assert answer.headers["content-type"] == "application/problem+json"
        assert len(cam.seen) == seen
        # A declared stream is one.
        answer = await client.post("/stream/x", content=chunks(100))
        assert (answer.status_code, answer.json()["bytes"]) == (200, 50_000)


async def test_headers_too_large_or_too_many() -> None:
    async with edge(limits=EdgeLimits(header_bytes=8 * 1024)) as (_, cam, client):
        assert (await client.get("/open/x", headers={"x-large": "x" * 4000})).status_code == 200
        seen = len(cam.seen)
        answer = await client.get("/open/x", headers={"x-large": "x" * 10_000})
        assert answer.status_code == 431
        answer = await client.get("/open/x", headers={f"x-{number}": "1" for number in range(200)})
        assert answer.status_code == 431
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        answer = await client.get("/open/x", headers={"x_under_score": "1"})
        assert answer.status_code == 400
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert len(cam.seen) == seen


async def test_connections() -> None:
    async with edge(limits=EdgeLimits(connections=20)) as (m, _, client):
        assert (await client.get("/open/x")).status_code == 200
        port = m.gateway.port if m.gateway else 0
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        await asyncio.sleep(0.2)
        closed = sum(reader.at_eof() for reader, _ in opened)
        assert closed >= 20
        # Who was there before is served all the time.
        assert (await client.get("/open/x")).status_code == 200
        for _, writer in opened:
            writer.close()
        await asyncio.sleep(0.3)
        async with httpx.AsyncClient() as another:
            assert (await another.get(f"http://127.0.0.1:{port}/open/x")).status_code == 200


async def test_requests_that_never_finish_their_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idi.parts.gateway.envoy.render.gateway.HEADERS_S", 1.0)
    async with edge() as (m, _, client):
        port = m.gateway.port if m.gateway else 0
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /open/x HTTP/1.1\r\nhost: x\r\n")
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"x-request-id: " in answer
        assert (await client.get("/open/x")).status_code == 200


async def test_slow_readers_stall_nobody_else() -> None:
    """They share a connection between the proxies; its window must not be theirs alone."""
    async with edge() as (m, _, client):
        port = m.gateway.port if m.gateway else 0
        slow = []
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(b"GET /stream/big HTTP/1.1\r\nhost: x\r\n\r\n")
            slow.append((reader, writer))
        await asyncio.sleep(1.5)
        for _ in range(20):
            async with asyncio.timeout(5):
                assert (await client.get("/open/x")).status_code == 200
        for _, writer in slow:
            writer.transport.abort()
