"""Replicas of the plane, as processes, with real Envoys: either end dies, and traffic goes on."""

import asyncio
import time
from dataclasses import replace

import httpx
import pytest

from idi.world.types import InstanceId
from tests.support.envoy import Mesh, until
from tests.support.envoy_load import Load, load
from tests.support.envoy_upstream import Upstream, upstream
from tests.support.xds_platform import Platform, replicated

pytestmark = pytest.mark.requirement("G1", "G2", "T4")

NODES = ("cam-1", "cam-2", "jede-1")


def shop(m: Mesh, one: Upstream, two: Upstream) -> str:
    """jede calls cam, of which there are two."""
    m.module("cam")
    m.module("jede", calls=["cam"])
    m.instance("cam", one.port)
    m.instance("cam", two.port, slot=2)
    m.instance("jede", 1)
    m.publish()
    return f"{m.instances['jede-1'].url('cam')}/x"


def endpoints(p: Platform, *out: str) -> None:
    p.m.out = set(out)
    p.plane.publish_endpoints(p.m.assignment("cam"))


async def served(running: Load) -> set[str]:
    """By whom, from now on; what is under way may still be another's."""
    await asyncio.sleep(0.1)
    running.names.clear()
    await asyncio.sleep(0.2)
    return set(running.names)


async def answers(url: str) -> set[str]:
    async with httpx.AsyncClient() as client:
        return {(await client.get(url)).json()["name"] for _ in range(20)}


async def test_a_replica_dies_under_load_and_its_proxies_are_at_the_other() -> None:
    async with replicated() as p, upstream("one") as one, upstream("two") as two:
        url = shop(p.m, one, two)
        first, second = await p.replica("xds-1"), await p.replica("xds-2")
        for node, at in zip(NODES, ("xds-1", "xds-2", "xds-1"), strict=True):
            await p.proxy(node, at)
        assert first.port in p.service.taken
        assert second.port in p.service.taken
        async with load([url]) as running:
            endpoints(p, "cam-1")
            result = await p.plane.barrier(5)
            assert (set(result.acknowledged), result.lost) == (set(NODES), ())
            assert await served(running) == {"two"}
            p.service.taken.clear()
            first.kill()
            # A change right after: the barrier waits until the proxies are back and have it.
            endpoints(p, "cam-2")
            started = time.monotonic()
            result = await p.plane.barrier(10)
            print(f"acknowledged {time.monotonic() - started:.2f} s after a replica's death")
            assert (set(result.acknowledged), result.lost) == (set(NODES), ())
            assert set(p.service.taken) == {second.port}
            assert await served(running) == {"one"}
            assert p.plane.connected() == dict.fromkeys(NODES, True)
            assert set(p.plane.replicas()) == {"xds-2"}
        assert running.failures == []
        assert not [event for event in p.m.events if not event[1]]


async def test_a_replica_that_is_told_to_end_does_so_in_order() -> None:
    """As at every roll-out of the replicas: the next one is there, then this one goes."""
    async with replicated() as p, upstream("one") as one, upstream("two") as two:
        url = shop(p.m, one, two)
        first = await p.replica("xds-1")
        for node in NODES:
            await p.proxy(node)
        async with load([url]) as running:
            await p.replica("xds-2")
            started = time.monotonic()
            first.process.terminate()
            await until(lambda: first.process.poll() is not None, 5)
            assert first.process.returncode == 0, first.log.read_text()
            print(f"ended {time.monotonic() - started:.2f} s after it was told")
            endpoints(p, "cam-1")
            assert (await p.plane.barrier(5)).acknowledged == NODES
            assert await served(running) == {"two"}
        assert running.failures == []


async def test_control_dies_and_a_proxy_that_starts_meanwhile_has_the_last_view() -> None:
    async with replicated() as p, upstream("one") as one, upstream("two") as two:
        url = shop(p.m, one, two)
        await p.replica("xds-1")
        await p.replica("xds-2")
        for node in NODES:
            await p.proxy(node)
        async with load([url]) as running:
            endpoints(p, "cam-1")
            assert (await p.plane.barrier(5)).lost == ()
            await p.close_control()
            await asyncio.sleep(0.5)
            # A replica that comes now has nothing to serve: its port refuses, and the others are there.
            late = await p.replica("xds-3", ready=False)
            await asyncio.sleep(1.5)
            with pytest.raises(OSError, match="onnect"):
                await asyncio.open_connection("127.0.0.1", late.port)
            assert "serving" not in late.log.read_text()
            assert late.process.poll() is None
        assert running.failures == []
        p.m.proxies["jede-1"].kill()
        p.service.taken.clear()
        p.pods.launch("jede-1")
        await until(lambda: late.port not in p.service.taken and p.service.taken, 10)
        await until_served(url)
        assert await answers(url) == {"two"}
        # Control is back, and knows the proxies by what the replicas report; it sends what differs.
        async with load([url]) as running:
            await p.open_control()
            p.say_again()
            await p.serving("xds-1", "xds-2", "xds-3")
            await p.m.ready(*NODES)
            endpoints(p, "cam-2")
            result = await p.plane.barrier(5)
            assert (set(result.acknowledged), result.lost) == (set(NODES), ())
            assert await answers(url) == {"one"}
        assert running.failures == []


async def until_served(url: str) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(200):
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.05)
    raise AssertionError("not served")


async def test_a_control_that_knows_nothing_takes_nothing_from_its_replicas() -> None:
    """It started with an empty state: until it has published, the last view stays."""
    async with replicated() as p, upstream("one") as one, upstream("two") as two:
        url = shop(p.m, one, two)
        await p.replica("xds-1")
        for node in NODES:
            await p.proxy(node)
        await p.close_control()
        await p.open_control()
        await until(lambda: p.plane.replicas().get("xds-1"), 10)
        p.m.proxies["jede-1"].kill()
        p.pods.launch("jede-1")
        await until_served(url)
        assert p.plane.connected() == {}


async def test_proxies_go_from_control_itself_to_replicas_and_back() -> None:
    """The service led to control first; replicas were switched on later."""
    async with replicated() as p, upstream("one") as one, upstream("two") as two:
        url = shop(p.m, one, two)
        p.service.backends.append(p.control_port)
        for node in NODES:
            await p.proxy(node)
        assert (await p.plane.barrier(5)).acknowledged == NODES
        p.service.backends.clear()
        await p.replica("xds-1")
        async with load([url]) as running:
            await p.close_control()
            await p.open_control()
            p.say_again()
            await p.m.ready(*NODES)
            endpoints(p, "cam-1")
            assert (await p.plane.barrier(5)).acknowledged == NODES
            assert set(p.service.taken[-3:]) == {p.replicas["xds-1"].port}
            p.service.backends[:] = [p.control_port]
            p.replicas["xds-1"].kill()
            endpoints(p, "cam-2")
            assert (await p.plane.barrier(5)).acknowledged == NODES
        assert running.failures == []


async def test_only_replicas_attach_and_only_proxies_are_served() -> None:
    async with replicated() as p, upstream("one") as one, upstream("two") as two:
        shop(p.m, one, two)
        stranger = await p.replica("xds-9", ready=False, token="credential-of-cam-1")
        await until(lambda: "unknown credential" in stranger.log.read_text(), 10)
        assert dict(p.plane.replicas()) == {}
        stranger.kill()
        p.service.backends.clear()
        await p.replica("xds-1")
        p.plane.set_identity("cam-1", p.m.authority.issue("spiffe://test.idi/dev/cam"))
        # Its token is jede's.
        proxy = p.pods.launch("jede-1", claims="cam-1")
        await until(lambda: "the credential is another node's" in proxy.text(), 10)
        assert not p.plane.connected()["cam-1"]
        log = p.replicas["xds-1"].log.read_text()
        assert "credential-of" not in log
        assert "PRIVATE" not in log


async def test_what_a_proxy_refuses_is_shown_with_its_words() -> None:
    async with replicated() as p, upstream("one") as one, upstream("two") as two:
        shop(p.m, one, two)
        await p.replica("xds-1")
        for node in NODES:
            await p.proxy(node)
        good = p.m.traffic()
        jede = good.sidecars[InstanceId("jede-1")]
        # An address that this machine does not have.
        inbound = tuple(replace(each, mesh_address="203.0.113.77") for each in jede.inbound)
        bad = {**good.sidecars, jede.instance: replace(jede, inbound=inbound)}
        p.plane.publish(replace(good, sidecars=bad))
        result = await p.plane.barrier(5)
        assert (set(result.acknowledged), result.lost) == (set(NODES), ())
        (rejection,) = result.rejected
        assert (rejection.node, rejection.resource) == ("jede-1", "listener in.http")
        assert "203.0.113.77" in rejection.message
        assert p.plane.connected()["jede-1"]
        p.plane.publish(good)
        assert (await p.plane.barrier(5)).rejected == ()
