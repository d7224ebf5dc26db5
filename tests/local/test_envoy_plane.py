"""The plane against real Envoys: refusals in words, restarts of either side, barriers, cold starts."""

import asyncio
import base64
import json
import os
from dataclasses import replace
from typing import Any

import grpc.aio
import httpx
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from idi.parts.gateway.envoy import admin
from idi.parts.gateway.envoy.plane import EnvoyPlane
from idi.parts.gateway.envoy.resources import TYPE_URL, Kind, Store
from idi.parts.gateway.envoy.server import METHOD, SERVICE, AdsServer, Stream
from idi.parts.gateway.envoy.session import Session
from idi.parts.gateway.envoy.start import sidecar_start
from idi.traffic.types import GATEWAY, GatewayRoute
from tests.support.envoy import Mesh, identity_of, mesh, until
from tests.support.envoy_load import load
from tests.support.envoy_upstream import Upstream, upstream

pytestmark = pytest.mark.requirement("G1", "G2")


def edge_url(m: Mesh) -> str:
    assert m.gateway is not None
    return f"http://127.0.0.1:{m.gateway.port}"


def cam_and_jede(m: Mesh, cam: Upstream, routes: bool = True) -> None:
    m.module("cam")
    m.module("jede", calls=["cam"])
    if routes:
        m.edge([GatewayRoute("cam", "/cam/", "/", public=True)])
    m.instance("cam", cam.port)
    m.instance("jede", 1)


async def test_a_refusal_is_shown_in_short_words_and_the_good_ones_are_in_use() -> None:
    async with mesh() as m, upstream("cam") as cam:
        cam_and_jede(m, cam)
        m.publish()
        for node in ("cam-1", "jede-1", GATEWAY):
            await m.proxy(node)
        good = m.gateway
        assert good is not None
        # A listener on an address that this machine does not have, beside a new good route.
        m.change_gateway(
            address="203.0.113.77", routes=(*good.routes, GatewayRoute("cam", "/more/", "/", public=True))
        )
        result = await m.plane.barrier(5)
        assert result.lost == ()
        (rejection,) = result.rejected
        assert (rejection.node, rejection.resource) == (GATEWAY, "listener gateway")
        assert "203.0.113.77" in rejection.message
        assert len(rejection.message) <= 300
        assert m.plane.rejections() == (rejection,)
        async with httpx.AsyncClient(base_url=edge_url(replace_gateway(m, good))) as client:
            assert (await client.get("/cam/x")).status_code == 200
            assert (await client.get("/more/x")).status_code == 200
            m.gateway = good
            m.publish()
            await m.plane.barrier(5)
            assert m.plane.rejections() == ()
            assert (await client.get("/cam/x")).status_code == 200
            assert (await client.get("/more/x")).status_code == 404


def replace_gateway(m: Mesh, gateway: object) -> Mesh:
    m.gateway = gateway  # type: ignore[assignment]
    return m


async def test_control_goes_and_comes_back_and_nobody_notices() -> None:
    async with mesh() as m, upstream("cam") as cam:
        cam_and_jede(m, cam)
        for node, module in (("cam-1", "cam"), ("jede-1", "jede"), (GATEWAY, "gateway")):
            m.publish()
            await m.proxy(node)
            assert module
        identities = {node: m.authority.issue(identity_of(name)) for node, name in SIDECARS.items()}
        for node, identity in identities.items():
            m.plane.set_identity(node, identity)
        await m.plane.barrier(5)
        accepted = await updates(m)
        async with load([f"{edge_url(m)}/cam/x", f"{m.instances['jede-1'].url('cam')}/x"]) as running:
            await m.close_plane()
            await asyncio.sleep(0.3)
            await m.open_plane()
            m.publish()
            for node, identity in identities.items():
                m.plane.set_identity(node, identity)
            await m.ready(*SIDECARS)
            assert set((await m.plane.barrier(5)).acknowledged) == set(SIDECARS)
            # Nothing changed, so nothing was sent.
            assert await updates(m) == accepted
            await asyncio.sleep(0.2)
        assert running.failures == []


async def test_control_comes_back_with_another_view_under_load() -> None:
    """Every cluster changed, one service and its route are gone, an endpoint moved: what goes on is served."""
    async with mesh() as m, upstream("cam-1") as one, upstream("cam-2") as two:
        cam_and_jede(m, one)
        m.instance("cam", two.port, slot=2)
        m.module("old")
        m.instance("old", one.port)
        assert m.gateway is not None
        routes = m.gateway.routes
        m.edge((*routes, GatewayRoute("old", "/old/", "/", public=True)), port=m.gateway.port)
        m.publish()
        nodes = {"cam-1": "cam", "cam-2": "cam", "old-1": "old", "jede-1": "jede", GATEWAY: "gateway"}
        identities = {node: m.authority.issue(identity_of(name)) for node, name in nodes.items()}
        for node, identity in identities.items():
            await m.proxy(node, identity=identity)
        async with load([f"{edge_url(m)}/cam/x", f"{m.instances['jede-1'].url('cam')}/x"]) as running:
            await m.close_plane()
            await asyncio.sleep(0.2)
            await m.open_plane()
            m.certificate_life_s -= 100
            m.out.add("cam-1")
            del m.modules["old"], m.instances["old-1"]
            m.change_gateway(routes=routes)
            for node, identity in identities.items():
                m.plane.set_identity(node, identity)
            await m.ready("cam-1", "cam-2", "jede-1", GATEWAY)
            started = asyncio.get_running_loop().time()
            assert (await m.plane.barrier(10)).lost == ()
            assert asyncio.get_running_loop().time() - started < 5
            running.names.clear()
            await asyncio.sleep(0.5)
            assert set(running.names) == {"cam-2"}
        assert running.failures == []
        clusters = json.loads(await admin.ask(m.admin(GATEWAY), "GET", "/clusters?format=json"))[
            "cluster_statuses"
        ]
        assert sorted(each["name"] for each in clusters) == ["cam", "issuer", "xds"]


SIDECARS = {"cam-1": "cam", "jede-1": "jede", GATEWAY: "gateway"}


async def updates(m: Mesh) -> dict[str, int]:
    """Updates that each proxy took, over all types."""
    total = {}
    for node in SIDECARS:
        found = await admin.counters(
            m.admin(node), r"(cluster_manager|listener_manager)\..*(update_success|lds|cds)"
        )
        total[node] = sum(value for name, value in found.items() if name.endswith("update_success"))
    return total


async def test_a_cold_proxy_starts_from_the_snapshot() -> None:
    """Control came back and has published nothing yet; a proxy that starts now gets the last view."""
    async with mesh(snapshot=True) as m, upstream("cam") as cam:
        cam_and_jede(m, cam, routes=False)
        m.publish()
        for node in ("cam-1", "jede-1"):
            await m.proxy(node)
        snapshot = m.runtime / "snapshot"
        await until(snapshot.exists)
        m.out.add("cam-1")
        m.plane.publish_endpoints(m.assignment("cam"))
        m.out.clear()
        m.plane.publish_endpoints(m.assignment("cam"))
        await m.close_plane()
        text = snapshot.read_bytes()
        assert snapshot.stat().st_mode & 0o777 == 0o600
        assert b"PRIVATE" not in text
        assert base64.b64encode(b"PRIVATE KEY")[:9] not in text
        m.proxies["jede-1"].kill()
        await m.open_plane()
        await m.proxy("jede-1")
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{m.instances['jede-1'].url('cam')}/x")).status_code == 200


async def test_a_damaged_snapshot_is_none() -> None:
    async with mesh() as m:
        for content in (b"", b"x\ny", b"\xff" * 100, b"0" * 64 + b"\n{}"):
            (m.runtime / "bad").write_bytes(content)
            async with EnvoyPlane(m.runtime / "xds2", m.verify, m.runtime / "bad") as plane:
                assert plane.connected() == {}


async def test_barrier_counts_who_went_as_lost_and_is_quick_about_the_rest() -> None:
    async with mesh() as m, upstream("cam") as cam:
        cam_and_jede(m, cam, routes=False)
        m.publish()
        for node in ("cam-1", "jede-1"):
            await m.proxy(node)
        started = asyncio.get_running_loop().time()
        m.publish()
        assert (await m.plane.barrier(5)).acknowledged == ("cam-1", "jede-1")
        assert asyncio.get_running_loop().time() - started < 1
        m.proxies["jede-1"].kill()
        await asyncio.sleep(0.05)
        m.out.add("cam-1")
        m.plane.publish_endpoints(m.assignment("cam"))
        result = await m.plane.barrier(5)
        assert result.lost == ("jede-1",)
        assert result.acknowledged == ("cam-1",)
        await until(lambda: not m.plane.connected()["jede-1"])
        assert ("jede-1", False) in m.events
        assert (await m.plane.barrier(0)).lost == ("jede-1",)


async def test_a_stopped_proxy_is_lost_by_timeout() -> None:
    """It holds its stream and answers nothing."""
    async with mesh() as m, upstream("cam") as cam:
        cam_and_jede(m, cam, routes=False)
        m.publish()
        for node in ("cam-1", "jede-1"):
            await m.proxy(node)
        m.proxies["jede-1"].process.send_signal(19)
        try:
            m.out.add("cam-1")
            m.plane.publish_endpoints(m.assignment("cam"))
            result = await m.plane.barrier(0.5)
            assert result.lost == ("jede-1",)
            assert result.acknowledged == ("cam-1",)
        finally:
            m.proxies["jede-1"].process.send_signal(18)
        assert (await m.plane.barrier(5)).lost == ()


async def test_a_proxy_waits_for_its_certificate_and_no_barrier_for_it() -> None:
    async with mesh() as m, upstream("cam") as cam:
        cam_and_jede(m, cam, routes=False)
        m.publish()
        await m.proxy("cam-1")
        m.launch("jede-1", sidecar_start("jede-1", "credential-of-jede-1", m.runtime, m.xds_socket))
        await asyncio.sleep(0.7)
        assert not m.plane.connected()["jede-1"]
        m.publish()
        m.out.add("cam-1")
        m.plane.publish_endpoints(m.assignment("cam"))
        started = asyncio.get_running_loop().time()
        assert (await m.plane.barrier(5)).lost == ()
        assert asyncio.get_running_loop().time() - started < 1
        m.plane.set_identity("jede-1", m.authority.issue(identity_of("jede")))
        await m.ready("jede-1")


async def test_new_services_come_and_go_under_load() -> None:
    """A whole view with new clusters, listeners and routes; then without; requests never notice."""
    async with mesh() as m, upstream("cam") as cam:
        cam_and_jede(m, cam)
        m.publish()
        for node in ("cam-1", "jede-1", GATEWAY):
            await m.proxy(node)
        routes = m.gateway.routes if m.gateway else ()
        async with (
            httpx.AsyncClient(base_url=edge_url(m)) as client,
            load([f"{edge_url(m)}/cam/x"]) as running,
        ):
            for turn in range(4):
                name = f"new{turn}"
                m.module(name)
                m.instance(name, cam.port)
                m.publish()
                await m.proxy(f"{name}-1")
                m.change_gateway(routes=(*routes, GatewayRoute(name, f"/{name}/", "/", public=True)))
                assert (await m.plane.barrier(5)).lost == ()
                answer = await client.get(f"/{name}/x")
                assert answer.status_code == 200, answer.text
                m.certificate_life_s -= 1  # every cluster changes
                m.publish()
                assert (await m.plane.barrier(5)).lost == ()
                assert (await client.get(f"/{name}/x")).status_code == 200
                m.proxies.pop(f"{name}-1").kill()
                del m.modules[name], m.instances[f"{name}-1"]
                m.change_gateway(routes=routes)
                assert (await m.plane.barrier(5)).lost == ()
                assert (await client.get(f"/{name}/x")).status_code == 404
        assert running.failures == []
        config = json.loads(await admin.ask(m.admin(GATEWAY), "GET", "/clusters?format=json"))
        assert sorted(each["name"] for each in config["cluster_statuses"]) == ["cam", "issuer", "xds"]


async def stream_as(m: Mesh, token: str | None, node: str | None) -> grpc.StatusCode:
    """Open a stream by hand; how it ended, OK if it was answered. Without a node nothing is said: who is turned
    away at once may find the stream closed under its first word, which gRPC calls an internal error."""
    metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
    async with grpc.aio.insecure_channel(f"unix:{m.xds_socket}") as channel:
        call: Any = channel.stream_stream(f"/{SERVICE}/{METHOD}")(metadata=metadata, timeout=5)
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=TYPE_URL[Kind.CLUSTER])
        try:
            if node is not None:
                request.node.id = node
                await call.write(request.SerializeToString())
            answer = await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK if answer is not grpc.aio.EOF else await call.code()


@pytest.mark.requirement("T4")
async def test_a_stream_proves_which_node_it_is() -> None:
    async with mesh() as m, upstream("cam") as cam:
        cam_and_jede(m, cam, routes=False)
        m.publish()
        assert await stream_as(m, "credential-of-jede-1", "jede-1") is grpc.StatusCode.OK
        assert await stream_as(m, "credential-of-jede-1", "cam-1") is grpc.StatusCode.PERMISSION_DENIED
        assert await stream_as(m, "credential-of-jede-1", "") is grpc.StatusCode.PERMISSION_DENIED
        assert await stream_as(m, "wrong", None) is grpc.StatusCode.UNAUTHENTICATED
        assert await stream_as(m, "", None) is grpc.StatusCode.UNAUTHENTICATED
        assert await stream_as(m, None, None) is grpc.StatusCode.UNAUTHENTICATED
        assert m.xds_socket.stat().st_mode & 0o777 == 0o600


async def test_streams_are_bounded() -> None:
    """One more than there may be is refused by name, and the others don't notice."""

    opened = asyncio.Event()

    class Nobody:
        def opened(self, node: str) -> Stream:
            opened.set()
            return Stream(node, Session(Store().view(node)))

        def progressed(self, stream: Stream) -> None: ...

        def closed(self, stream: Stream) -> None: ...

    async with mesh() as m:
        m.xds_socket = m.runtime / "small"
        async with AdsServer(m.xds_socket, m.verify, Nobody(), max_streams=1):
            async with grpc.aio.insecure_channel(f"unix:{m.xds_socket}") as channel:
                metadata = (("authorization", "Bearer credential-of-a"),)
                first: Any = channel.stream_stream(f"/{SERVICE}/{METHOD}")(metadata=metadata)
                request = discovery_pb2.DeltaDiscoveryRequest(type_url=TYPE_URL[Kind.CLUSTER])
                request.node.id = "a"
                await first.write(request.SerializeToString())
                await opened.wait()
                assert await stream_as(m, "credential-of-b", "b") is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert not first.done()
                # Garbage ends its own stream.
                await first.write(b"\xff\xff\xff")
                async with asyncio.timeout(5):
                    assert await first.read() is grpc.aio.EOF


@pytest.mark.requirement("T4")
async def test_the_admin_socket_and_the_bootstrap_are_the_owners_alone() -> None:
    async with mesh() as m, upstream("cam") as cam:
        cam_and_jede(m, cam, routes=False)
        m.publish()
        proxy = await m.proxy("cam-1")
        assert m.admin("cam-1").stat().st_mode & 0o777 == 0o600
        for path in proxy.start.files:
            assert os.stat(path).st_mode & 0o777 == 0o600
        assert "credential-of-cam-1" not in " ".join(proxy.start.argv)
        assert replace(proxy.start, files={}).files == {}
