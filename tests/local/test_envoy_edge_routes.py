"""The gateway's door: where requests go, what is refused, what every answer carries."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from idi.declaration.types import Cors, HeaderMatch
from idi.parts.gateway.envoy import admin
from idi.parts.gateway.envoy.render.access_log import FIELDS
from idi.traffic.types import GATEWAY, GatewayRoute
from tests.support.envoy import Mesh, mesh, until
from tests.support.envoy_upstream import Upstream, upstream

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.requirement("G1")]

ROUTES = (
    GatewayRoute("dere", "/v1/cam/admin/", "/", headers=(HeaderMatch("x-part", "admin"),), public=True),
    GatewayRoute("cam", "/v1/cam/read/", "/r/", methods=("GET", "HEAD"), public=True),
    GatewayRoute("cam", "/v1/cam/", "/", public=True),
    GatewayRoute("dere", "/v1/hosted/", "/", host="dere.test", public=True),
    GatewayRoute("cam", "/v1/hosted/", "/", public=True),
    GatewayRoute("cam", "/v1/quick/", "/", public=True, timeout_s=0.2),
    GatewayRoute("cam", "/kept/", "/kept/", public=True),
    GatewayRoute("rame", "/v1/rame/", "/", public=True),
    GatewayRoute("cam", "/v1/guarded/", "/"),
)


class Edge:
    def __init__(self, m: Mesh, cam: Upstream, client: httpx.AsyncClient) -> None:
        self.m, self.cam, self.client = m, cam, client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge() -> AsyncIterator[Edge]:
    async with mesh() as m, upstream("cam") as cam, upstream("dere") as dere, upstream("issuer") as issuer:
        for name in ("cam", "dere", "rame"):
            m.module(name)
        log = m.runtime / "access.log"
        gateway = m.edge(ROUTES, cors=Cors(("https://app.test",)), access_log=str(log))
        m.instance("cam", cam.port)
        m.instance("dere", dere.port)
        await issuer.listen_on(str(m.runtime / "issuer"))
        m.publish()
        for node in ("cam-1", "dere-1", GATEWAY):
            await m.proxy(node)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
            yield Edge(m, cam, client)


async def test_prefix_and_rewrite(edge: Edge) -> None:
    answer = (await edge.client.get("/v1/cam/some/thing?q=1")).json()
    assert (answer["name"], answer["path"]) == ("cam", "/some/thing?q=1")
    assert (await edge.client.get("/kept/x")).json()["path"] == "/kept/x"


async def test_method_header_and_host(edge: Edge) -> None:
    assert (await edge.client.get("/v1/cam/read/x")).json()["path"] == "/r/x"
    assert (await edge.client.post("/v1/cam/read/x")).json()["path"] == "/read/x"
    assert (await edge.client.get("/v1/cam/admin/x", headers={"x-part": "admin"})).json()["name"] == "dere"
    assert (await edge.client.get("/v1/cam/admin/x")).json()["name"] == "cam"
    assert (await edge.client.get("/v1/hosted/x", headers={"host": "dere.test"})).json()["name"] == "dere"
    assert (await edge.client.get("/v1/hosted/x", headers={"host": "dere.test:8080"})).json()[
        "name"
    ] == "dere"
    assert (await edge.client.get("/v1/hosted/x")).json()["name"] == "cam"
    assert (await edge.client.get("/v1/cam/x", headers={"host": "dere.test"})).json()["name"] == "cam"


async def test_unknown_is_404_in_problem_json(edge: Edge) -> None:
    for path in ("/", "/v1/", "/v1/nobody/", "/v1/camera/"):
        answer = await edge.client.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["title"] == "Not Found"
        assert problem["status"] == 404
        assert problem["request_id"] == answer.headers["x-request-id"]


async def test_own_paths(edge: Edge) -> None:
    health = await edge.client.get("/healthz")
    assert (health.status_code, health.text) == (200, "ok\n")
    assert health.headers["x-request-id"]
    for path in ("/oauth2/token", "/.well-known/openid-configuration"):
        answer = await edge.client.post(path)
        assert (answer.json()["name"], answer.json()["path"]) == ("issuer", path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/cam/../dere/x",
        "/v1/cam/%2e%2e/nobody/x",
        "/v1//cam/x",
        "/v1/cam/..%2f..%2fhealthz",
        "/v1/cam/%5c../x",
    ],
)
async def test_paths_are_normal_before_they_are_matched(edge: Edge, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.m.gateway.port)  # type: ignore[union-attr]
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    head = (await reader.read()).decode().splitlines()[0]
    writer.close()
    status = int(head.split()[1])
    assert status in (404, 307) if "dere" not in path and "//" not in path else status in (200, 404)
    assert all(".." not in seen and "%2f" not in seen for seen in edge.cam.seen)


async def test_what_a_client_may_not_say(edge: Edge) -> None:
    lies = {
        "x-request-id": "mine",
        "x-idi-subject": "root",
        "x-idi-scope": "all",
        "x-idi-anything": "1",
        "x-forwarded-for": "1.2.3.4",
        "x-real-ip": "1.2.3.4",
        "x-forwarded-host": "evil",
        "forwarded": "for=1.2.3.4",
        "x-forwarded-client-cert": "URI=spiffe://test.idi/dev/cam",
        "x-envoy-upstream-rq-timeout-ms": "1",
        "x-envoy-retry-on": "5xx",
        "x-forwarded-proto": "https",
    }
    trace = f"00-{'1' * 32}-{'2' * 16}-01"
    answer = await edge.client.get("/v1/cam/x", headers=lies | {"traceparent": trace})
    seen = answer.json()["headers"]
    assert answer.headers["x-request-id"] == seen["x-request-id"] != "mine"
    assert seen["traceparent"] == trace
    assert "1.2.3.4" not in seen["x-forwarded-for"]
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-forwarded-client-cert"].startswith("By=spiffe://test.idi/dev/cam;Hash=")
    assert seen["x-forwarded-client-cert"].endswith(";URI=spiffe://test.idi/dev/gateway")
    assert not [name for name in seen if name.startswith("x-idi")]
    for name in ("x-real-ip", "x-forwarded-host", "forwarded"):
        assert name not in seen
    envoys = {name for name in seen if name.startswith("x-envoy")}
    assert envoys <= {"x-envoy-original-path", "x-envoy-expected-rq-timeout-ms"}
    assert seen["x-envoy-original-path"] == "/v1/cam/x"


async def test_answers_tell_nothing_of_the_inside(edge: Edge) -> None:
    marks = {"x-idi-not-sent": "1", "x-idi-lost": "1", "x-powered-by": "x", "server": "module/1.0"}
    answer = await edge.client.get("/v1/cam/x", params={"headers": json.dumps(marks)})
    assert answer.status_code == 200
    assert answer.headers["server"] == "idi"
    assert not [n for n in answer.headers if n.startswith(("x-idi", "x-envoy", "x-powered"))]


async def test_a_timeout_is_504(edge: Edge) -> None:
    answer = await edge.client.get("/v1/quick/slow?s=1")
    assert answer.status_code == 504
    assert answer.json()["title"] == "Gateway Timeout"
    assert answer.headers["x-request-id"]


async def test_nowhere_to_go_is_503_with_retry_after(edge: Edge) -> None:
    answer = await edge.client.get("/v1/rame/x")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == "Service Unavailable"


async def test_a_modules_own_answer_passes_as_it_is(edge: Edge) -> None:
    before = len(edge.cam.seen)
    answer = await edge.client.get("/v1/cam/x?status=503")
    assert answer.status_code == 503
    assert answer.json()["name"] == "cam"
    assert len(edge.cam.seen) == before + 1


async def test_cors(edge: Edge) -> None:
    ask = {"origin": "https://app.test", "access-control-request-method": "PUT"}
    preflight = await edge.client.options("/v1/cam/x", headers=ask)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.test"
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert preflight.headers["access-control-max-age"] == "600"
    plain = await edge.client.get("/v1/cam/x", headers={"origin": "https://app.test"})
    assert plain.headers["access-control-allow-origin"] == "https://app.test"
    assert "x-request-id" in plain.headers["access-control-expose-headers"]
    other = await edge.client.options("/v1/cam/x", headers=ask | {"origin": "https://evil.test"})
    assert "access-control-allow-origin" not in other.headers
    failed = await edge.client.get("/v1/rame/x", headers={"origin": "https://app.test"})
    assert failed.status_code == 503
    assert failed.headers["access-control-allow-origin"] == "https://app.test"


async def test_access_log(edge: Edge) -> None:
    answer = await edge.client.get("/v1/cam/logged?secret=hush", headers={"traceparent": "00-abc"})
    log = edge.m.runtime / "access.log"
    wanted = answer.headers["x-request-id"]
    await until(lambda: log.exists() and wanted in log.read_text(), 15)
    text = log.read_text()
    assert "hush" not in text
    line = next(entry for entry in map(json.loads, text.splitlines()) if entry.get("request_id") == wanted)
    assert line["method"] == "GET"
    assert line["path"] == "/v1/cam/logged"
    assert line["status"] == 200
    assert line["service"] == "cam"
    assert line["address"] == "127.0.0.1"
    assert line["trace"] == "00-abc"
    assert line["tries"] == 1
    assert isinstance(line["duration_ms"], int)
    assert line["client"] is None


async def test_the_access_log_stays_json_and_names_the_client(edge: Edge) -> None:
    """Whatever a client sends stands in its own field."""
    nasty = 'x", "status": 999, "a": "\\u0000\\'
    token = edge.m.tokens.header('pi"lot\\')
    answer = await edge.client.get("/v1/guarded/x", headers=token | {"traceparent": nasty})
    wanted = answer.headers["x-request-id"]
    log = edge.m.runtime / "access.log"
    await until(lambda: log.exists() and wanted in log.read_text(), 15)
    line = next(
        entry for entry in map(json.loads, log.read_text().splitlines()) if entry["request_id"] == wanted
    )
    assert (line["client"], line["status"], line["trace"]) == ('pi"lot\\', 200, nasty)
    assert set(line) == set(FIELDS)


async def test_the_access_log_is_bounded_and_loses_nothing(edge: Edge) -> None:
    log, old = edge.m.runtime / "access.log", edge.m.runtime / "access.log.1"
    sent = []
    for turn in range(4):
        sent += [(await edge.client.get("/healthz")).headers["x-request-id"] for _ in range(20)]
        if turn == 1:
            assert not await admin.rotate_log(edge.m.admin(GATEWAY), log, 10_000_000)
            assert await admin.rotate_log(edge.m.admin(GATEWAY), log, 10)
    await until(lambda: old.exists() and log.exists() and sent[-1] in log.read_text(), 15)
    text = old.read_text() + log.read_text()
    assert [wanted for wanted in sent if wanted not in text] == []
    assert not await admin.rotate_log(edge.m.admin(GATEWAY), edge.m.runtime / "none", 1)
