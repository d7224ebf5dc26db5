"""Proxies as in pods, real Envoys: the plane by name and port with TLS, a token that changes while they run."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc.aio
import httpx
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from idi.parts.errors import PartError
from idi.parts.gateway.envoy.listening import TlsPort
from idi.parts.gateway.envoy.resources import TYPE_URL, Kind
from idi.parts.gateway.envoy.server import METHOD, SERVICE
from idi.traffic.types import EmbeddedKeys, GatewayRoute, TlsServer
from tests.support.envoy import AUDIENCE, ISSUER, Authority, Mesh, identity_of, until
from tests.support.envoy_load import load
from tests.support.envoy_pods import NAME, Pods, pods
from tests.support.envoy_upstream import Upstream, upstream

pytestmark = pytest.mark.requirement("G1", "T4")


class Judge:
    """Who says whose token it is; what it was asked is remembered."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.others: dict[str, str] = {}

    async def __call__(self, token: str) -> str | None:
        self.asked.append(token)
        return self.others.get(token) or await Mesh.verify(token)


def judged_by(judge: Callable[[str], Awaitable[str | None]]) -> Callable[[Mesh], None]:
    def change(m: Mesh) -> None:
        m.verify = judge  # type: ignore[method-assign, assignment]

    return change


def inotify_instances(pid: int) -> int:
    links = [os.readlink(each.path) for each in os.scandir(f"/proc/{pid}/fd")]
    return links.count("anon_inode:inotify")


def cam_and_jede(m: Mesh, cam: Upstream) -> None:
    m.module("cam")
    m.module("jede", calls=["cam"])
    m.instance("cam", cam.port)
    m.instance("jede", 1)
    m.publish()


async def test_a_reconnect_carries_the_token_as_it_is_then() -> None:
    judge = Judge()
    async with pods(judged_by(judge)) as (m, p), upstream("cam") as cam:
        cam_and_jede(m, cam)
        for node in ("cam-1", "jede-1"):
            proxy = await p.start(node)
            # A node has 128 for all pods of ours, unless somebody raised that.
            assert inotify_instances(proxy.process.pid) == 2
        assert "credential-of-jede-1" in judge.asked
        url = f"{m.instances['jede-1'].url('cam')}/x"
        async with load([url]) as running:
            judge.others["fresh"] = "jede-1"
            p.token("jede-1", "fresh")
            await asyncio.sleep(0.2)
            judge.asked.clear()
            await m.close_plane()
            await m.open_plane()
            m.publish()
            await m.ready("jede-1", "cam-1")
            assert set(judge.asked) == {"fresh", "credential-of-cam-1"}
            assert set((await m.plane.barrier(5)).acknowledged) == {"cam-1", "jede-1"}
        assert running.failures == []


async def test_who_has_the_wrong_root_token_name_or_node_gets_nothing() -> None:
    judge = Judge()
    async with pods(judged_by(judge)) as (m, p), upstream("cam") as cam:
        cam_and_jede(m, cam)
        identity = m.authority.issue(identity_of("jede"))
        m.plane.set_identity("jede-1", identity)
        # Roots of somebody else: the proxy refuses the server before it says its token.
        p.roots("jede-1", Authority("other").roots)
        proxy = p.launch("jede-1")
        await until(lambda: "CERTIFICATE_VERIFY_FAILED" in proxy.text())
        assert judge.asked == []
        # The right roots come, as a ConfigMap changes: watched, it needs no new start.
        p.token("jede-1", "wrong")
        p.roots("jede-1", p.edge.roots)
        await until(lambda: "wrong" in judge.asked)
        assert not m.plane.connected()["jede-1"]
        # And the right token.
        p.token("jede-1", "credential-of-jede-1")
        await m.ready("jede-1")
        proxy.kill()
        # Another node's name with this one's token.
        judge.asked.clear()
        proxy = p.launch("jede-1", claims="cam-1")
        await until(lambda: "the credential is another node's" in proxy.text())
        assert not m.plane.connected()["cam-1"]
        proxy.kill()
        # A server of the right roots under another name than it has.
        judge.asked.clear()
        proxy = p.launch("jede-1", host="127.0.0.1")
        await until(lambda: "CERTIFICATE_VERIFY_FAILED" in proxy.text())
        await asyncio.sleep(0.5)
        assert judge.asked == []


async def test_the_servers_certificate_is_replaced_while_it_runs() -> None:
    async with pods() as (m, p), upstream("cam") as cam:
        cam_and_jede(m, cam)
        await p.start("cam-1")
        assert isinstance(m.where, TlsPort)
        other = Authority("next")
        made = other.issue("spiffe://edge/xds", dns=NAME)
        with pytest.raises(PartError, match="pair"):
            m.where.certificate.replace(made.chain, other.issue("spiffe://x").key)
        with pytest.raises(PartError, match="cannot be read"):
            m.where.certificate.replace(b"nothing", made.key)
        m.where.certificate.replace(made.chain, made.key)
        # Who trusts the next roots comes in, and who was in stays.
        p.edge = other
        await p.start("jede-1")
        assert (await m.plane.barrier(5)).acknowledged == ("cam-1", "jede-1")


async def answer_to(p: Pods, token: str, node: str = "cam-1") -> tuple[grpc.StatusCode, str]:
    credentials = grpc.ssl_channel_credentials(p.edge.roots)
    async with grpc.aio.secure_channel(f"{NAME}:{p.port}", credentials) as channel:
        metadata = (("authorization", f"Bearer {token}"),)
        call: Any = channel.stream_stream(f"/{SERVICE}/{METHOD}")(metadata=metadata, timeout=10)
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=TYPE_URL[Kind.CLUSTER])
        request.node.id = node
        try:
            await call.write(request.SerializeToString())
            await call.read()
            return grpc.StatusCode.OK, ""
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return await call.code(), await call.details()


async def test_a_judge_that_fails_or_hangs_is_not_the_proxys_fault() -> None:
    hanging = asyncio.Event()

    async def judge(token: str) -> str | None:
        if token == "fail":
            raise OSError("the judge is away")
        if token == "hang":
            await hanging.wait()
        return await Mesh.verify(token)

    async with pods(judged_by(judge)) as (m, p), upstream("cam") as cam:
        cam_and_jede(m, cam)
        assert await answer_to(p, "credential-of-cam-1") == (grpc.StatusCode.OK, "")
        assert (await answer_to(p, "nobody's"))[0] is grpc.StatusCode.UNAUTHENTICATED
        code, words = await answer_to(p, "fail")
        assert code is grpc.StatusCode.UNAVAILABLE
        assert words == "the token could not be verified"
        started = asyncio.get_running_loop().time()
        code, words = await answer_to(p, "hang")
        assert code is grpc.StatusCode.UNAVAILABLE
        assert 4.5 < asyncio.get_running_loop().time() - started < 7


async def test_several_gateways_serve_alike_and_forward_to_an_issuer_elsewhere() -> None:
    """They share a port here; the issuer is reached by name, with TLS, by a file of roots."""
    async with pods() as (m, p), upstream("cam") as cam, upstream("issuer") as issuer:
        m.module("cam")
        m.instance("cam", cam.port)
        made = p.edge.issue("spiffe://edge/control", dns=NAME)
        port = await issuer.listen_with_tls(made.chain, made.key)
        roots = m.runtime / "roots" / "ca.crt"
        roots.parent.mkdir()
        roots.write_bytes(p.edge.roots)
        gateway = m.edge([GatewayRoute("cam", "/cam/", "/", public=True)], address="127.0.0.1")
        where = TlsServer(NAME, port, str(roots))
        m.gateway = replace(gateway, issuer=EmbeddedKeys(ISSUER, AUDIENCE, m.tokens.jwks, where))
        traffic = replace(m.traffic(), gateways=("gateway-a", "gateway-b"))
        m.plane.publish(traffic)
        assert set(m.plane.connected()) == {"cam-1", "gateway-a", "gateway-b"}
        for node in ("cam-1", "gateway-a", "gateway-b"):
            await p.start(node)
        assert {("gateway-a", True), ("gateway-b", True)} <= set(m.events)
        assert set((await m.plane.barrier(5)).acknowledged) == {"cam-1", "gateway-a", "gateway-b"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
            for path, name in (("/cam/x", "cam"), ("/oauth2/token", "issuer")):
                answer = await client.get(path)
                assert (answer.status_code, answer.json()["name"]) == (200, name), answer.text
        # Another root: its certificate is refused, and the gateway says that it cannot reach it.
        roots.with_name("new").write_bytes(Authority("other").roots)
        roots.with_name("new").replace(roots)
        # (a connection that is open stays; it is given up after a second and a half)
        await asyncio.sleep(2)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
            assert (await client.get("/oauth2/token")).status_code == 503
