"""The thin vertical: two real Envoys on one plane, mutual TLS, an endpoint that goes, a barrier."""

import httpx
import pytest

from idi.traffic.types import GATEWAY, GatewayRoute
from tests.support.envoy import mesh, until
from tests.support.envoy_upstream import upstream


@pytest.mark.requirement("G1", "G2", "S4", "D1")
async def test_gateway_and_sidecar() -> None:
    async with mesh() as m, upstream("cam-1") as one, upstream("cam-2") as two:
        m.module("cam")
        m.module("jede", calls=["cam"])
        m.edge([GatewayRoute("cam", "/v1/cam/", "/", public=True)])
        m.instance("cam", one.port)
        m.instance("cam", two.port, slot=2)
        jede = m.instance("jede", 1)
        m.publish()
        for node in ("cam-1", "cam-2", "jede-1", GATEWAY):
            await m.proxy(node)
        assert m.gateway is not None
        edge = f"http://127.0.0.1:{m.gateway.port}"
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{edge}/healthz")).status_code == 200
            for url in (f"{edge}/v1/cam/x", f"{jede.url('cam')}/x"):
                answers = [await client.get(url) for _ in range(20)]
                assert [answer.status_code for answer in answers] == [200] * 20, answers[0].text
                assert {answer.json()["name"] for answer in answers} == {"cam-1", "cam-2"}
                assert answers[0].json()["path"] == "/x"
            m.out.add("cam-1")
            m.plane.publish_endpoints(m.assignment("cam"))
            result = await m.plane.barrier(5)
            assert (result.lost, result.rejected) == ((), ())
            assert set(result.acknowledged) == {"cam-1", "cam-2", "jede-1", GATEWAY}
            for url in (f"{edge}/v1/cam/x", f"{jede.url('cam')}/x"):
                names = {(await client.get(url)).json()["name"] for _ in range(20)}
                assert names == {"cam-2"}
        await until(lambda: m.events.count(("cam-1", True)) == 1)
