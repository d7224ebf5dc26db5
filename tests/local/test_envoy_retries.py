"""What a caller notices of an instance that dies: nothing, where it need not.

The plane is told nothing in these tests: the dead instance stays in the assignment, which is the worst case.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from idi.parts.gateway.envoy import admin
from idi.traffic.types import GATEWAY, GatewayRoute
from tests.support.envoy import Mesh, mesh
from tests.support.envoy_upstream import Upstream, upstream

pytestmark = pytest.mark.requirement("G1", "G2", "T3")


class Pair:
    """Two instances of cam, reached through the gateway and through the sidecar of jede."""

    def __init__(
        self, m: Mesh, one: Upstream, two: Upstream, client: httpx.AsyncClient, doors: list[str]
    ) -> None:
        self.m, self.one, self.two, self.client, self.doors = m, one, two, client, doors

    async def many(self, method: str, path: str, count: int = 30, body: bytes = b"") -> list[httpx.Response]:
        urls = [f"{door}{path}" for door in self.doors for _ in range(count)]
        return list(await asyncio.gather(*(self.client.request(method, url, content=body) for url in urls)))


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    async with mesh() as m, upstream("cam-1") as one, upstream("cam-2") as two:
        m.module("cam")
        m.module("jede", calls=["cam"])
        gateway = m.edge([GatewayRoute("cam", "/v1/cam/", "/", public=True, timeout_s=5)])
        m.instance("cam", one.port)
        m.instance("cam", two.port, slot=2)
        jede = m.instance("jede", 1)
        m.publish()
        for node in ("cam-1", "cam-2", "jede-1", GATEWAY):
            await m.proxy(node)
        doors = [f"http://127.0.0.1:{gateway.port}/v1/cam", jede.url("cam")]
        async with httpx.AsyncClient(timeout=20) as client:
            yield Pair(m, one, two, client, doors)


def statuses(answers: list[httpx.Response]) -> set[int]:
    return {answer.status_code for answer in answers}


async def test_a_dead_module_behind_a_living_sidecar() -> None:
    """The sidecar refuses with the mark `not sent`; any method goes elsewhere, with its body."""
    async with pair() as p:
        await p.one.stop()
        for method in ("GET", "POST", "PATCH", "DELETE"):
            answers = await p.many(method, "/x", body=b"x" * 1000 if method != "GET" else b"")
            assert statuses(answers) == {200}, [
                answer.text for answer in answers if answer.status_code != 200
            ][:3]
            assert {answer.json()["name"] for answer in answers} == {"cam-2"}
            assert not [name for answer in answers for name in answer.headers if name.startswith("x-idi")]


async def test_a_dead_sidecar_and_module() -> None:
    """Nothing listens there any more: the connection is refused before anything was sent."""
    async with pair() as p:
        await p.one.stop()
        p.m.proxies["cam-1"].kill()
        for method in ("GET", "POST"):
            answers = await p.many(method, "/x")
            assert statuses(answers) == {200}, [
                answer.text for answer in answers if answer.status_code != 200
            ][:3]


@pytest.mark.parametrize(("method", "wanted"), [("GET", {200}), ("PUT", {200}), ("POST", {200, 503})])
async def test_died_after_it_was_sent(method: str, wanted: set[int]) -> None:
    """Idempotent methods go elsewhere; others must not, for the module may have acted."""
    async with pair() as p:
        p.two.hold.set()
        waiting = asyncio.gather(
            *(p.client.request(method, f"{door}/hold") for door in p.doors for _ in range(10))
        )
        # Each has arrived somewhere: one that is on its way when the module dies is lost and was never seen.
        await until_active(lambda: p.one.active + len(p.two.seen), 10 * len(p.doors))
        assert p.one.active
        await p.one.stop()
        answers = await waiting
        assert statuses(answers) == wanted, [answer.status_code for answer in answers]
        lost = [answer for answer in answers if answer.status_code == 503]
        assert len(lost) == (len(p.one.seen) if method == "POST" else 0)
        for answer in lost:
            assert answer.headers["content-type"] == "application/problem+json"
            assert "x-idi-lost" not in answer.headers


async def test_a_hanging_up_module_is_not_called_twice_for_post() -> None:
    async with pair() as p:
        answers = [await p.client.post(f"{door}/hang-up") for door in p.doors]
        assert statuses(answers) == {503}
        assert len(p.one.seen) + len(p.two.seen) == len(p.doors)
        answers = [await p.client.get(f"{door}/hang-up") for door in p.doors]
        assert statuses(answers) == {503}
        assert len(p.one.seen) + len(p.two.seen) > 2 * len(p.doors)


async def test_a_modules_own_answers_are_never_tried_again() -> None:
    async with pair() as p:
        for status in (500, 502, 503, 504):
            for method in ("GET", "POST"):
                before = len(p.one.seen) + len(p.two.seen)
                mark = '{"x-idi-not-sent":"1","x-idi-lost":"1"}'
                for door in p.doors:
                    answer = await p.client.request(
                        method, f"{door}/x", params={"status": status, "headers": mark}
                    )
                    assert answer.status_code == status
                assert len(p.one.seen) + len(p.two.seen) == before + len(p.doors)


async def test_all_dead() -> None:
    """A quick, honest 503 with Retry-After; nobody waits for a timeout."""
    async with pair() as p:
        await p.one.stop()
        await p.two.stop()
        started = asyncio.get_running_loop().time()
        answers = await p.many("GET", "/x", count=3)
        assert statuses(answers) == {503}
        for answer in answers:
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["content-type"] == "application/problem+json"
            assert "x-idi-not-sent" not in answer.headers
        assert asyncio.get_running_loop().time() - started < 3


async def test_a_failing_instance_is_left_out_for_a_while_but_never_all() -> None:
    """Until the platform takes it out, a caller does not go on trying it first each time."""
    async with pair() as p:
        await p.one.stop()
        for node in (GATEWAY, "jede-1"):
            await until_left_out(p, node)
        await p.two.stop()
        await p.many("GET", "/x", count=20)
        for node in (GATEWAY, "jede-1"):
            await until_left_out(p, node)
        # And it is taken back soon after it is well.
        await p.one.start()
        await p.two.start()
        assert statuses(await p.many("GET", "/x", count=20)) == {200}


async def until_left_out(p: Pair, node: str) -> None:
    """Which instance a request tries first is chance, and being left out lasts two seconds: asked until it is seen.
    One of two stays in whatever happens."""
    seen = set[int]()
    for _ in range(20):
        await p.many("GET", "/x", count=10)
        seen = set((await admin.counters(p.m.admin(node), r"cluster\.cam\.membership_healthy")).values())
        assert seen <= {1, 2}, node
        if seen == {1}:
            return
    raise AssertionError(f"{node} still tries both: {seen}")


async def test_a_large_body_goes_elsewhere_too() -> None:
    async with pair() as p:
        await p.one.stop()
        answers = await p.many("POST", "/x", count=5, body=b"x" * 900_000)
        assert statuses(answers) == {200}
        assert {answer.json()["bytes"] for answer in answers} == {900_000}
        # Too large to keep for another try: it may fail, but it must not be cut.
        answers = await p.many("POST", "/x", count=5, body=b"x" * 3_000_000)
        assert statuses(answers) <= {200, 503}
        for answer in answers:
            if answer.status_code == 200:
                assert answer.json()["bytes"] == 3_000_000
            else:
                assert answer.headers["retry-after"] == "1"


async def until_active(active: Callable[[], int], least: int) -> None:
    for _ in range(400):
        if active() >= least:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"only {active()} requests arrived")
