"""Between sidecars: who may call whom, by which certificate, and what happens when either changes."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest

from idi.parts.gateway.envoy import admin
from idi.parts.gateway.interface import Identity
from idi.traffic.types import GATEWAY, GatewayRoute
from tests.support.envoy import Authority, Instance, Mesh, identity_of, mesh, until
from tests.support.envoy_load import load
from tests.support.envoy_upstream import upstream

pytestmark = pytest.mark.requirement("G2", "S4", "T4")


@asynccontextmanager
async def callers() -> AsyncIterator[tuple[Mesh, Instance, httpx.AsyncClient]]:
    """cam, called by jede; rame is there and calls nothing."""
    async with mesh() as m, upstream("cam") as cam:
        m.module("cam")
        m.module("jede", calls=["cam"])
        m.module("rame")
        target = m.instance("cam", cam.port)
        m.instance("jede", 1)
        m.publish()
        for node in ("cam-1", "jede-1"):
            await m.proxy(node)
        async with httpx.AsyncClient() as client:
            yield m, target, client


def context(m: Mesh, identity: Identity | None, roots: bytes | None = None) -> ssl.SSLContext:
    """A client of one's own making, with a real certificate or none."""
    made = ssl.create_default_context(cadata=(roots or m.authority.roots).decode())
    made.check_hostname = False
    if identity is not None:
        pem = m.runtime / "client.pem"
        pem.write_bytes(identity.chain + identity.key)
        made.load_cert_chain(str(pem))
    return made


async def refused(client: httpx.AsyncClient, url: str) -> bool:
    """Whether no HTTP answer came at all."""
    try:
        await client.get(url)
    except (httpx.HTTPError, ssl.SSLError):
        return True
    return False


async def test_a_declared_call_passes_and_an_undeclared_one_is_403() -> None:
    async with callers() as (m, target, _):
        url = f"https://127.0.0.1:{target.mesh_port}/x"
        for module, status in (("jede", 200), ("rame", 403), ("gateway", 403), ("cam", 403)):
            async with httpx.AsyncClient(verify=context(m, m.authority.issue(identity_of(module)))) as client:
                answer = await client.get(url)
                assert answer.status_code == status, module
                if status == 403:
                    assert answer.json()["detail"].startswith("the caller has not declared this call")
                    assert answer.json()["reason"] == "RBAC: access denied"
        figures = await admin.figures(m.admin("cam-1"))
        assert figures.denied == 3
        assert figures.requests == 4


async def test_nothing_but_mutual_tls_gets_in() -> None:
    async with callers() as (m, target, client):
        good = identity_of("jede")
        stranger = Authority("other")
        plain = f"http://127.0.0.1:{target.mesh_port}/x"
        assert await refused(client, plain)
        clients = {
            "no certificate": None,
            "another authority": stranger.issue(good),
            "expired": m.authority.issue(good, timedelta(seconds=-1)),
            "another trust domain": m.authority.issue("spiffe://evil.idi/dev/jede"),
            "no spiffe id": m.authority.issue("https://test.idi/dev/jede"),
        }
        for name, identity in clients.items():
            async with httpx.AsyncClient(verify=context(m, identity)) as bad:
                assert await refused(bad, plain.replace("http:", "https:")), name
        old = context(m, m.authority.issue(good))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with httpx.AsyncClient(verify=old) as bad:
            assert await refused(bad, plain.replace("http:", "https:"))


async def test_a_caller_refuses_another_modules_certificate() -> None:
    """Whoever took over cam's address without its certificate gets no request."""
    async with mesh() as m, upstream("cam") as cam:
        m.module("cam")
        m.module("jede", calls=["cam"])
        m.instance("cam", cam.port)
        jede = m.instance("jede", 1)
        m.publish()
        await m.proxy("cam-1", identity=m.authority.issue(identity_of("rame")))
        await m.proxy("jede-1")
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{jede.url('cam')}/x")
        assert answer.status_code == 503
        assert cam.seen == []


async def test_revoking_a_call_takes_effect_on_open_connections_and_closes_none() -> None:
    async with callers() as (m, target, _):
        url = f"https://127.0.0.1:{target.mesh_port}/x"
        async with httpx.AsyncClient(verify=context(m, m.authority.issue(identity_of("jede")))) as client:
            assert (await client.get(url)).status_code == 200
            m.modules["jede"].calls = ()
            m.publish()
            assert (await m.plane.barrier(5)).lost == ()
            assert (await client.get(url)).status_code == 403
            m.modules["jede"].calls = ("cam",)
            m.publish()
            await m.plane.barrier(5)
            assert (await client.get(url)).status_code == 200
        seen = await admin.counters(m.admin("cam-1"), "in.*downstream_cx_total")
        assert sum(seen.values()) == 1


async def test_rotation_under_load_fails_nothing() -> None:
    async with mesh() as m, upstream("cam") as cam:
        m.module("cam")
        m.module("jede", calls=["cam"])
        m.certificate_life_s = 6.0
        gateway = m.edge([GatewayRoute("cam", "/cam/", "/", public=True)])
        m.instance("cam", cam.port)
        jede = m.instance("jede", 1)
        m.publish()
        nodes = {"cam-1": "cam", "jede-1": "jede", GATEWAY: "gateway"}
        for node in nodes:
            await m.proxy(node)
        async with load([f"http://127.0.0.1:{gateway.port}/cam/x", f"{jede.url('cam')}/x"]) as running:
            for _ in range(4):
                for node, module in nodes.items():
                    m.plane.set_identity(node, m.authority.issue(identity_of(module)))
                assert (await m.plane.barrier(5)).lost == ()
                await asyncio.sleep(1)
        assert running.failures == []
        assert running.sent > 30
        # Connections end before their certificate does: several of them in these four seconds.
        seen = await admin.counters(m.admin("cam-1"), "in.*downstream_cx_total")
        assert sum(seen.values()) >= 4
        assert all(m.plane.connected().values())
        assert m.events.count(("cam-1", False)) == 0


async def test_roots_rotate_in_three_steps() -> None:
    """Trust both, issue from the new one, forget the old one: nothing fails, and the old one is out."""
    async with mesh() as m, upstream("cam") as cam:
        m.module("cam")
        m.module("jede", calls=["cam"])
        target = m.instance("cam", cam.port)
        jede = m.instance("jede", 1)
        m.publish()
        nodes = {"cam-1": "cam", "jede-1": "jede"}
        for node in nodes:
            await m.proxy(node)
        old, new = m.authority, Authority("new")
        both = old.roots + new.roots
        async with load([f"{jede.url('cam')}/x"], workers=4) as running:
            for authority, roots in ((old, both), (new, both), (new, new.roots)):
                for node, module in nodes.items():
                    issued = authority.issue(identity_of(module))
                    identity = Identity(issued.spiffe_id, issued.chain, issued.key, roots, issued.not_after)
                    m.plane.set_identity(node, identity)
                assert (await m.plane.barrier(5)).lost == ()
                await asyncio.sleep(0.3)
        assert running.failures == []
        async with httpx.AsyncClient(verify=context(m, old.issue(identity_of("jede")), new.roots)) as client:
            assert await refused(client, f"https://127.0.0.1:{target.mesh_port}/x")


@pytest.mark.requirement("D1")
async def test_taking_out_and_bringing_back_under_load_fails_nothing() -> None:
    """Remove, barrier, drain, kill; start again, bring back. Any method, any number of times."""
    async with mesh() as m, upstream("cam-1") as one, upstream("cam-2") as two:
        m.module("cam")
        m.module("jede", calls=["cam"])
        gateway = m.edge([GatewayRoute("cam", "/cam/", "/", public=True)])
        ups = {"cam-1": one, "cam-2": two}
        m.instance("cam", one.port)
        m.instance("cam", two.port, slot=2)
        jede = m.instance("jede", 1)
        m.publish()
        for node in ("cam-1", "cam-2", "jede-1", GATEWAY):
            await m.proxy(node)
        urls = [f"http://127.0.0.1:{gateway.port}/cam/slow?s=0.2", f"{jede.url('cam')}/slow?s=0.2"]
        async with load(urls, method="POST") as running:
            for victim in ("cam-1", "cam-2", "cam-1"):
                await asyncio.sleep(0.3)
                m.out.add(victim)
                m.plane.publish_endpoints(m.assignment("cam"))
                assert (await m.plane.barrier(5)).lost == ()
                assert await admin.drain(m.admin(victim), 5)
                seen = len(ups[victim].seen)
                await ups[victim].stop()
                m.proxies[victim].kill()
                await asyncio.sleep(0.2)
                assert len(ups[victim].seen) == seen
                await ups[victim].start()
                await m.proxy(victim, ready=False)
                await until(lambda v=victim: m.events[-1] == (v, True))  # type: ignore[misc]
                m.out.discard(victim)
                m.plane.publish_endpoints(m.assignment("cam"))
        assert running.failures == []
        assert running.sent > 30
        assert set(running.names) == {"cam-1", "cam-2"}


@pytest.mark.requirement("D1", "T3")
async def test_kill_under_load_fails_no_idempotent_request() -> None:
    """kill -9 of one of two: the module's connections break in the middle of everything."""
    async with mesh() as m, upstream("cam-1") as one, upstream("cam-2") as two:
        m.module("cam")
        m.module("jede", calls=["cam"])
        gateway = m.edge([GatewayRoute("cam", "/cam/", "/", public=True)])
        m.instance("cam", one.port)
        m.instance("cam", two.port, slot=2)
        jede = m.instance("jede", 1)
        m.publish()
        for node in ("cam-1", "cam-2", "jede-1", GATEWAY):
            await m.proxy(node)
        urls = [f"http://127.0.0.1:{gateway.port}/cam/slow?s=0.02", f"{jede.url('cam')}/slow?s=0.02"]
        async with load(urls) as running:
            for _ in range(3):
                await asyncio.sleep(0.3)
                await one.stop()
                await asyncio.sleep(0.05)  # what discovery may take
                m.out.add("cam-1")
                m.plane.publish_endpoints(m.assignment("cam"))
                await m.plane.barrier(5)
                await one.start()
                m.out.discard("cam-1")
                m.plane.publish_endpoints(m.assignment("cam"))
        assert running.failures == []
        assert running.names["cam-1"]


async def test_shares_are_kept() -> None:
    """A canary with a tenth of the traffic, then all of it: assignments alone."""
    async with mesh() as m, upstream("cam-1") as one, upstream("cam-2") as two:
        m.module("cam")
        m.module("jede", calls=["cam"])
        m.instance("cam", one.port, revision="old")
        m.instance("cam", two.port, slot=2, revision="new")
        jede = m.instance("jede", 1)
        m.publish()
        for node in ("cam-1", "cam-2", "jede-1"):
            await m.proxy(node)
        async with httpx.AsyncClient() as client:
            for old, new in ((90, 10), (50, 50), (0, 100)):
                m.shares["cam"] = {"old": old, "new": new}
                m.plane.publish_endpoints(m.assignment("cam"))
                await m.plane.barrier(5)
                answers = [await client.get(f"{jede.url('cam')}/x") for _ in range(200)]
                share = sum(answer.json()["name"] == "cam-2" for answer in answers) / 200
                assert abs(share - new / 100) < 0.03
