"""Tokens at the gateway: who gets in, who is told 401, who 403, and what a module learns of it."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import joserfc.jwk
import joserfc.jwt
import pytest
import pytest_asyncio
import websockets
from aiohttp import web

from idi.declaration.types import ExternalIssuer
from idi.traffic.types import GATEWAY, EmbeddedKeys, GatewayRoute
from tests.support.envoy import AUDIENCE, ISSUER, Mesh, Tokens, free_port, mesh
from tests.support.envoy_load import load
from tests.support.envoy_upstream import upstream

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.requirement("G1", "S3", "T4")]

ROUTES = (
    GatewayRoute("cam", "/read/", "/", scopes=("cam.read",)),
    GatewayRoute("cam", "/both/", "/", scopes=("cam.read", "cam.write")),
    GatewayRoute("cam", "/any/", "/"),
    GatewayRoute("cam", "/open/", "/", public=True),
)


class Edge:
    def __init__(self, m: Mesh, client: httpx.AsyncClient) -> None:
        self.m, self.tokens, self.client = m, m.tokens, client

    async def get(self, path: str, token: str | None = None, scheme: str = "Bearer") -> httpx.Response:
        headers = {} if token is None else {"authorization": f"{scheme} {token}".strip()}
        return await self.client.get(path, headers=headers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edge() -> AsyncIterator[Edge]:
    async with mesh() as m, upstream("cam") as cam:
        m.module("cam")
        gateway = m.edge(ROUTES)
        m.instance("cam", cam.port)
        m.publish()
        for node in ("cam-1", GATEWAY):
            await m.proxy(node)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
            yield Edge(m, client)


def unsigned(claims: dict[str, Any], header: dict[str, Any]) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part(header)}.{part(claims)}."


def forged_with_public_key(tokens: Tokens) -> str:
    """HS256 keyed by the public key: a verifier that lets the token choose the algorithm falls for it."""
    public = json.loads(tokens.jwks)["keys"][0]
    key = joserfc.jwk.OctKey.import_key(base64.urlsafe_b64decode(public["x"] + "=="))
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": 9999999999, "scope": "cam.read"}
    return joserfc.jwt.encode({"alg": "HS256", "kid": "k1"}, claims, key)


async def test_a_good_token_passes(edge: Edge) -> None:
    answer = await edge.get("/read/x", edge.tokens.token())
    assert answer.status_code == 200, answer.text
    seen = answer.json()["headers"]
    assert seen["x-idi-subject"] == "pilot"
    assert "authorization" not in seen


async def bad_tokens(tokens: Tokens) -> dict[str, str | None]:
    good = tokens.token()
    head, body, signature = good.split(".")
    other = Tokens()
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": 9999999999, "scope": "cam.read"}
    return {
        "none": None,
        "empty": "",
        "garbage": "garbage",
        "dots": "a.b.c",
        "expired": tokens.token(life_s=-120),
        "no expiry": tokens.token(exp=None),
        "not yet": tokens.token(nbf=9999999999),
        "wrong issuer": tokens.token(iss="https://evil.test"),
        "wrong audience": tokens.token(aud="other"),
        "no audience": tokens.token(aud=None),
        "other key": other.token(),
        "no signature": f"{head}.{body}.",
        "changed": f"{head}.{unsigned(claims | {'scope': 'all'}, {}).split('.')[1]}.{signature}",
        "alg none": unsigned(claims, {"alg": "none"}),
        "alg None": unsigned(claims, {"alg": "None", "kid": "k1"}),
        "hs256 by public key": forged_with_public_key(tokens),
    }


async def test_bad_tokens_are_401(edge: Edge) -> None:
    for name, token in (await bad_tokens(edge.tokens)).items():
        answer = await edge.get("/read/x", token)
        assert answer.status_code == 401, f"{name}: {answer.status_code} {answer.text}"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer"), name
        assert answer.json()["title"] == "Unauthorized"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]


async def test_a_token_elsewhere_does_not_count(edge: Edge) -> None:
    token = edge.tokens.token()
    assert (await edge.client.get(f"/read/x?access_token={token}")).status_code == 401
    assert (await edge.client.get("/read/x", headers={"cookie": f"token={token}"})).status_code == 401
    assert (await edge.get("/read/x", token, scheme="Basic")).status_code == 401


async def test_scopes(edge: Edge) -> None:
    cases = [
        ("/read/x", "cam.read", 200),
        ("/read/x", "dere.read cam.read", 200),
        ("/read/x", "cam.read dere.read", 200),
        ("/read/x", "dere.read cam.read rame.read", 200),
        ("/read/x", "cam.readx", 403),
        ("/read/x", "xcam.read", 403),
        ("/read/x", "cam.readx dere.read", 403),
        ("/read/x", "dere.read xcam.read", 403),
        ("/read/x", "dere.read cam.readx rame.read", 403),
        ("/read/x", "camxread", 403),
        ("/read/x", "CAM.READ", 403),
        ("/read/x", "cam", 403),
        ("/read/x", "", 403),
        ("/read/x", None, 403),
        ("/both/x", "cam.read", 403),
        ("/both/x", "cam.write cam.read", 200),
        ("/any/x", None, 200),
    ]
    for path, scope, status in cases:
        answer = await edge.get(path, edge.tokens.token(scope=scope))
        assert answer.status_code == status, f"{path} {scope}: {answer.text}"
        if status == 403:
            assert answer.json()["title"] == "Forbidden"
            assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert (await edge.get("/any/x")).status_code == 401


async def test_what_a_client_says_of_itself_gives_no_scope(edge: Edge) -> None:
    """Scopes are looked for in a header that the token's check sets: nobody else may have set it."""
    poor = edge.tokens.header(scope="dere.read")
    for name in ("x-idi-scope", "X-IDI-Scope", "X-Idi-scope"):
        for value in ("cam.read", "cam.read dere.read"):
            assert (await edge.client.get("/read/x", headers=poor | {name: value})).status_code == 403
            twice = [*poor.items(), (name, value), (name, value)]
            assert (await edge.client.get("/read/x", headers=twice)).status_code == 403
            assert (await edge.client.get("/read/x", headers={name: value})).status_code == 401
    named = poor | {"connection": "x-idi-scope", "x-idi-scope": "cam.read"}
    assert (await edge.client.get("/read/x", headers=named)).status_code == 403
    answer = await edge.client.get("/any/x", headers=poor | {"x-idi-subject": "root", "x-idi-scope": "all"})
    seen = answer.json()["headers"]
    assert (seen["x-idi-subject"], seen["x-idi-scope"]) == ("pilot", "dere.read")


async def test_public_routes_need_none_and_say_nothing(edge: Edge) -> None:
    answer = await edge.client.get("/open/x", headers={"x-idi-subject": "root"})
    assert answer.status_code == 200
    assert "x-idi-subject" not in answer.json()["headers"]
    assert (await edge.get("/healthz")).status_code == 200


async def test_scopes_cannot_be_escaped_by_path(edge: Edge) -> None:
    bearer = {"authorization": f"Bearer {edge.tokens.token(scope='cam.read')}"}
    for path in ("/open/..;/both/x", "/read/../both/x", "//both/x", "/both%2fx", "/open/%2e%2e/both/x"):
        answer = await edge.client.get(path, headers=bearer)
        passed_as_open = answer.status_code == 200 and answer.json()["path"].startswith("/..;/")
        assert answer.status_code in (307, 403, 404) or passed_as_open, (path, answer.text)
    assert (await edge.get("/open/../both/x")).status_code == 401


async def test_new_keys_under_load_fail_nothing_and_cut_no_stream(edge: Edge) -> None:
    """The issuer rotates its key: both are published for a while, then the new one alone."""
    old, new = edge.tokens, Tokens()
    both = json.dumps(
        {"keys": [json.loads(old.jwks)["keys"][0], json.loads(new.jwks)["keys"][0] | {"kid": "k2"}]}
    )
    gateway = edge.m.gateway
    assert gateway is not None
    assert isinstance(gateway.issuer, EmbeddedKeys)
    url = f"http://127.0.0.1:{gateway.port}"
    async with (
        websockets.connect(
            f"{url}/any/socket".replace("http:", "ws:"), additional_headers=old.header()
        ) as socket,
        load([f"{url}/open/x"], workers=4) as running,
    ):
        for keys in (both, new.jwks):
            edge.m.change_gateway(issuer=replace(gateway.issuer, jwks=keys))
            assert (await edge.m.plane.barrier(5)).rejected == ()
            await asyncio.sleep(0.3)
            await socket.send("still")
            assert await socket.recv() == "cam: still"
    assert running.failures == []
    assert (await edge.get("/any/x", new.token())).status_code == 200
    assert (await edge.get("/any/x", old.token())).status_code == 401
    edge.m.change_gateway(issuer=gateway.issuer)
    await edge.m.plane.barrier(5)
    assert (await edge.get("/any/x", old.token())).status_code == 200


LISTS: tuple[tuple[Any, int], ...] = (
    (["dere.read", "cam.read"], 200),
    ("dere.read cam.read", 200),
    (["dere.read", "cam.readx"], 403),
    (["cam"], 403),
    ([], 403),
    ("dere.read", 403),
    (None, 403),
)
"""Somebody else's issuer may write its scopes as a list."""


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_an_external_issuer(algorithm: str) -> None:
    tokens = Tokens(algorithm)
    fetched = 0

    async def keys(_: web.Request) -> web.Response:
        nonlocal fetched
        fetched += 1
        return web.json_response(json.loads(tokens.jwks))

    app = web.Application()
    app.router.add_get("/keys", keys)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with mesh() as m, upstream("cam") as cam:
            m.module("cam")
            issuer = ExternalIssuer(ISSUER, AUDIENCE, f"http://127.0.0.1:{port}/keys")
            gateway = m.edge(ROUTES, issuer=issuer)
            m.instance("cam", cam.port)
            m.publish()
            for node in ("cam-1", GATEWAY):
                await m.proxy(node)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}") as client:
                for _ in range(5):
                    answer = await client.get("/read/x", headers=tokens.header())
                    assert answer.status_code == 200, answer.text
                assert (await client.get("/read/x", headers=m.tokens.header())).status_code == 401
                for scope, status in LISTS:
                    answer = await client.get("/read/x", headers=tokens.header(scope=scope))
                    assert answer.status_code == status, (scope, answer.text)
                assert (await client.get("/.well-known/x")).status_code == 404
            assert fetched <= 2
    finally:
        await runner.cleanup()
