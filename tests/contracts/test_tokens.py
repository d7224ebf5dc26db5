"""What every issuer of tokens must do, over HTTP as its clients see it: directly and through a real gateway.

The client is httpx, which shares nothing with the server; tokens are checked by joserfc against the
published keys, and by Envoy.
"""

import asyncio
import json
import socket
import ssl
import stat
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import KeySet

from idi.declaration.types import Client, ExternalIssuer
from idi.parts.errors import PartError
from idi.parts.tokens.embedded.http import BODY_LIMIT
from idi.parts.tokens.embedded.service import EmbeddedTokens
from idi.parts.tokens.external import discover
from idi.traffic.types import GATEWAY, EmbeddedKeys, GatewayRoute
from tests.support.envoy import Authority, free_port, mesh
from tests.support.envoy_upstream import upstream

pytestmark = pytest.mark.requirement("S3")

AUDIENCE = "shop"
CLIENTS = {"pilot": Client("pilot", ("cam.read", "cam.write")), "odd:+%": Client("odd:+%", ("cam.read",))}


@dataclass
class Face:
    """One way to the issuer."""

    tokens: EmbeddedTokens
    http: httpx.AsyncClient
    secret: str

    async def ask(self, **form: str) -> httpx.Response:
        values = {
            "grant_type": "client_credentials",
            "client_id": "pilot",
            "client_secret": self.secret,
        } | form
        return await self.http.post("/oauth2/token", data={k: v for k, v in values.items() if v != "-"})

    async def check(self, token: str) -> dict[str, Any]:
        keys = KeySet.import_key_set((await self.http.get("/oauth2/jwks.json")).json())
        claims = jwt.decode(token, keys, algorithms=["ES256"]).claims
        registry = jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": self.tokens.url},
            aud={"essential": True, "value": AUDIENCE},
            exp={"essential": True},
        )
        registry.validate(claims)
        return claims


@pytest.fixture(params=["socket", "gateway"])
async def face(request: pytest.FixtureRequest) -> AsyncIterator[Face]:
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(mesh())
        url = f"http://127.0.0.1:{free_port()}"
        tokens = await stack.enter_async_context(
            EmbeddedTokens(
                made.runtime / "keys",
                made.runtime / "issuer",
                url,
                AUDIENCE,
                clients=CLIENTS,
                token_life_s=300,
            )
        )
        if request.param == "socket":
            transport = httpx.AsyncHTTPTransport(uds=str(tokens.socket))
        else:
            transport = httpx.AsyncHTTPTransport()
            cam = await stack.enter_async_context(upstream("cam"))
            made.module("cam")
            made.instance("cam", cam.port)
            made.edge(
                [GatewayRoute("cam", "/v1/cam/", "/", scopes=("cam.read",))],
                port=int(url.rpartition(":")[2]),
                issuer=EmbeddedKeys(url, AUDIENCE, tokens.jwks(), str(tokens.socket)),
            )
            made.publish()
            await made.proxy("cam-1")
            await made.proxy(GATEWAY)
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=url, transport=transport, trust_env=False, timeout=10)
        )
        yield Face(tokens, http, tokens.new_secret("pilot"))


# --- getting a token ---


async def test_a_client_finds_the_issuer_and_gets_a_token(face: Face) -> None:
    for name in ("openid-configuration", "oauth-authorization-server"):
        found = await face.http.get(f"/.well-known/{name}")
        assert found.status_code == 200
        assert "max-age" in found.headers["cache-control"]
        about = found.json()
        assert about["issuer"] == face.tokens.url
        assert "client_credentials" in about["grant_types_supported"]
    answer = await face.http.post(
        about["token_endpoint"], data={"grant_type": "client_credentials"}, auth=("pilot", face.secret)
    )
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"].startswith("application/json")
    got = answer.json()
    assert got["token_type"] == "Bearer"
    assert got["expires_in"] == 300
    assert got["scope"] == "cam.read cam.write"
    claims = await face.check(got["access_token"])
    assert claims["sub"] == "pilot"
    assert claims["scope"] == got["scope"]
    assert claims["exp"] - time.time() == pytest.approx(300, abs=5)


async def test_keys_are_published_for_caching(face: Face) -> None:
    answer = await face.http.get("/oauth2/jwks.json")
    assert answer.text == face.tokens.jwks()
    assert "max-age" in answer.headers["cache-control"]
    for key in answer.json()["keys"]:
        assert key["alg"] == "ES256"
        assert "d" not in key


async def test_fewer_scopes_may_be_asked_for(face: Face) -> None:
    got = (await face.ask(scope="cam.read")).json()
    assert got["scope"] == "cam.read"
    assert (await face.check(got["access_token"]))["scope"] == "cam.read"


async def test_a_client_whose_name_needs_encoding(face: Face) -> None:
    """RFC 6749, 2.3.1: id and secret are form-encoded before Basic joins them with a colon."""
    secret = face.tokens.new_secret("odd:+%")
    answer = await face.http.post(
        "/oauth2/token",
        data={"grant_type": "client_credentials"},
        auth=(quote_plus("odd:+%"), quote_plus(secret)),
    )
    assert (await face.check(answer.json()["access_token"]))["sub"] == "odd:+%"


async def test_twenty_at_once(face: Face) -> None:
    answers = await asyncio.gather(*(face.ask() for _ in range(20)))
    ids = {(await face.check(answer.json()["access_token"]))["jti"] for answer in answers}
    assert len(ids) == 20


# --- being refused: RFC 6749, 5.2 ---


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "nobody"}, 401, "invalid_client"),
        ({"client_secret": "-"}, 401, "invalid_client"),
        ({"client_id": "-"}, 401, "invalid_client"),
        ({"scope": "cam.read sfl.write"}, 400, "invalid_scope"),
        ({"scope": 'cam"read'}, 400, "invalid_scope"),
        ({"grant_type": "-"}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": "authorization_code"}, 400, "unsupported_grant_type"),
    ],
)
async def test_a_wrong_request_gets_the_error_of_the_rfc(
    face: Face, form: dict[str, str], status: int, code: str
) -> None:
    answer = await face.ask(**form)
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert answer.headers["cache-control"] == "no-store"
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert face.secret not in answer.text


RAW = "grant_type=client_credentials"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (f"{RAW}&grant_type=client_credentials", {}, 400, "invalid_request"),
        (RAW, {"content-type": "application/json"}, 400, "invalid_request"),
        ("%%%", {}, 400, "invalid_request"),
        ("a" * 100, {}, 400, "invalid_request"),
        (b"grant_type=\xff\xfe", {}, 400, "invalid_request"),
        ("&".join(f"a{number}=1" for number in range(100)), {}, 400, "invalid_request"),
        (RAW, {"authorization": "Basic !!!"}, 401, "invalid_client"),
        (RAW, {"authorization": "Basic cGlsb3Q="}, 401, "invalid_client"),
        (RAW, {"authorization": "Basic"}, 401, "invalid_client"),
        (RAW, {"authorization": "Bearer abc"}, 401, "invalid_client"),
        (RAW + "&client_secret=x", {"authorization": "Basic cGlsb3Q6eA=="}, 400, "invalid_request"),
        (RAW + "&client_id=other", {"authorization": "Basic cGlsb3Q6eA=="}, 400, "invalid_request"),
    ],
)
async def test_a_malformed_request_is_refused(
    face: Face, body: str | bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await face.http.post(
        "/oauth2/token",
        content=body,
        headers={"content-type": "application/x-www-form-urlencoded"} | headers,
    )
    assert (answer.status_code, answer.json()["error"]) == (status, code)


async def test_a_body_is_bounded(face: Face) -> None:
    answer = await face.ask(padding="x" * BODY_LIMIT)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/oauth2/token", 405),
        ("DELETE", "/oauth2/jwks.json", 405),
        ("POST", "/.well-known/openid-configuration", 405),
        ("GET", "/oauth2/authorize", 404),
    ],
)
async def test_only_what_there_is(face: Face, method: str, path: str, status: int) -> None:
    answer = await face.http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("application/problem+json")


async def test_guessing_is_slowed_and_the_client_itself_is_not(face: Face) -> None:
    answers = [await face.ask(client_secret=f"guess-{number}") for number in range(30)]
    assert answers[0].status_code == 401
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert (await face.ask()).status_code == 200


# --- the gateway and the tokens ---


async def through(face: Face, token: str) -> int:
    answer = await face.http.get("/v1/cam/echo", headers={"authorization": f"Bearer {token}"})
    return answer.status_code


@pytest.mark.parametrize("face", ["gateway"], indirect=True)
async def test_the_gateway_takes_these_tokens_and_no_others(face: Face) -> None:
    good = (await face.ask()).json()["access_token"]
    assert await through(face, good) == 200
    assert await through(face, (await face.ask(scope="cam.write")).json()["access_token"]) == 403
    assert await through(face, face.tokens.mint("operator:ann", ["cam.read"], 60).access_token) == 200
    head, body, signature = good.split(".")
    assert await through(face, f"{head}.{body}.{'A' * len(signature)}") == 401
    assert await through(face, f"{head}.{body}.") == 401
    face.tokens.replace()
    assert await through(face, (await face.ask()).json()["access_token"]) == 401  # nobody told it yet


@pytest.mark.parametrize("face", ["gateway"], indirect=True)
async def test_the_gateway_says_when_the_issuer_is_down_and_old_tokens_go_on(face: Face) -> None:
    good = (await face.ask()).json()["access_token"]
    await face.tokens.__aexit__(None, None, None)
    assert (await face.ask()).status_code == 503
    assert await through(face, good) == 200


async def test_a_rotation_reaches_the_gateway_before_a_token_needs_it(tmp_path: Path) -> None:
    """The whole way: keys rotate, the gateway's proxy is told, tokens of both keys pass."""
    async with mesh() as made, upstream("cam") as cam:
        now = time.time()
        shift = 0.0
        url = f"http://127.0.0.1:{free_port()}"

        def told(jwks: str) -> None:
            assert made.gateway is not None
            assert isinstance(made.gateway.issuer, EmbeddedKeys)
            made.change_gateway(issuer=replace(made.gateway.issuer, jwks=jwks))

        async with EmbeddedTokens(
            tmp_path / "keys",
            made.runtime / "issuer",
            url,
            AUDIENCE,
            clients=CLIENTS,
            token_life_s=300,
            keys_changed=told,
            clock=lambda: now + shift,
        ) as tokens:
            made.module("cam")
            made.instance("cam", cam.port)
            made.edge(
                [GatewayRoute("cam", "/v1/cam/", "/", scopes=("cam.read",))],
                port=int(url.rpartition(":")[2]),
                issuer=EmbeddedKeys(url, AUDIENCE, tokens.jwks(), str(tokens.socket)),
            )
            made.publish()
            await made.proxy("cam-1")
            await made.proxy(GATEWAY)
            async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
                face = Face(tokens, http, "")
                old = tokens.mint("operator:ann", ["cam.read"], 3600).access_token
                begins = tokens.rotate()
                assert not (await made.plane.barrier(5)).lost
                # A token of the new key, dated now: the gateway's clock is not moved.
                key = json.loads((tmp_path / "keys" / "issuer-keys.json").read_text())["keys"][-1]
                new = jwt.encode(
                    {"alg": "ES256", "kid": key["kid"]},
                    {
                        "iss": url,
                        "aud": AUDIENCE,
                        "sub": "operator:ann",
                        "exp": int(now) + 60,
                        "scope": "cam.read",
                    },
                    KeySet.import_key_set({"keys": [{**key["jwk"], "kid": key["kid"]}]}),
                    algorithms=["ES256"],
                )
                assert [await through(face, old), await through(face, new)] == [200, 200]
                shift = begins + 3700 - now
                tokens.look()
                assert not (await made.plane.barrier(5)).lost
            # A new connection: one that is open keeps its listener's former keys until it is drained.
            async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
                face.http = http
                assert [await through(face, old), await through(face, new)] == [401, 200]


# --- secrets stay where they belong ---


@pytest.mark.requirement("T4")
async def test_no_secret_is_in_a_log_or_outside_its_file(
    face: Face, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    answer = await face.ask()
    await face.ask(client_secret=face.secret + "x")
    private = json.loads((face.tokens.socket.parent / "keys" / "issuer-keys.json").read_text())["keys"][0][
        "jwk"
    ]["d"]
    await asyncio.sleep(0.1)
    secrets = [face.secret, private, answer.json()["access_token"].rpartition(".")[2]]
    out = capfd.readouterr()
    assert not [secret for secret in secrets if secret in caplog.text + out.out + out.err]
    for path in face.tokens.socket.parent.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found = [secret for secret in secrets if secret.encode() in content]
            assert found == ([private] if path.name == "issuer-keys.json" else []), path
            if path.parent.name == "keys":
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(face.tokens.socket.stat().st_mode) == 0o600


@pytest.mark.parametrize("face", ["socket"], indirect=True)
async def test_a_slow_sender_is_cut_off(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idi.parts.tokens.embedded.http.READ_S", 0.2)
    reader, writer = await asyncio.open_unix_connection(str(face.tokens.socket))
    writer.write(
        b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 100\r\n\r\ngrant_type="
    )
    assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()


@pytest.mark.parametrize("face", ["socket"], indirect=True)
async def test_a_vanished_runtime_folder_is_served_again(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    face.tokens.socket.unlink()
    with pytest.raises(OSError):
        socket.socket(socket.AF_UNIX).connect(str(face.tokens.socket))
    await face.tokens.listen()
    assert (await face.http.get("/oauth2/jwks.json")).status_code == 200


# --- an issuer that somebody else runs ---


@pytest.fixture
async def elsewhere() -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """A discovery document and a key set on a port of loopback, both to be changed by a test."""
    documents: dict[str, Any] = {}

    async def answer(request: web.Request) -> web.StreamResponse:
        return (
            web.json_response(documents[request.path])
            if request.path in documents
            else web.Response(status=404)
        )

    app = web.Application()
    app.router.add_get("/{any:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    documents["/.well-known/openid-configuration"] = {"issuer": url, "jwks_uri": f"{url}/keys"}
    documents["/keys"] = {"keys": [{"kty": "EC"}]}
    yield url, documents
    await runner.cleanup()


async def test_an_issuer_is_asked_over_https_by_the_machines_own_authorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read when it is asked: control imports its client without them."""
    authority = Authority()
    identity = authority.issue("spiffe://elsewhere", dns="localhost")
    (tmp_path / "roots.pem").write_bytes(authority.roots)
    (tmp_path / "leaf.pem").write_bytes(identity.chain + identity.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "leaf.pem")
    app = web.Application()
    app.router.add_get("/keys", _keys)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://localhost:{runner.addresses[0][1]}"
        issuer = ExternalIssuer(url, "shop", jwks_url=f"{url}/keys")
        with pytest.raises(PartError, match="does not answer"):
            await discover(issuer)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "roots.pem"))
        assert await discover(issuer) == issuer
    finally:
        await runner.cleanup()


async def _keys(_: web.Request) -> web.Response:
    return web.json_response({"keys": [{"kty": "EC"}]})


async def test_an_external_issuer_is_discovered(elsewhere: tuple[str, dict[str, Any]]) -> None:
    url, documents = elsewhere
    found = await discover(ExternalIssuer(url, "shop"))
    assert found.jwks_url == f"{url}/keys"
    del documents["/.well-known/openid-configuration"]
    assert await discover(found) == found  # where it is declared, nothing else is asked


@pytest.mark.parametrize(
    ("path", "document", "message"),
    [
        (
            "/.well-known/openid-configuration",
            {"issuer": "https://evil.test", "jwks_uri": "http://x/"},
            "calls itself",
        ),
        ("/.well-known/openid-configuration", [], "no JSON object"),
        (
            "/.well-known/openid-configuration",
            {"issuer": "URL", "jwks_uri": "file:///etc/passwd"},
            "no key set",
        ),
        ("/keys", {"keys": []}, "is empty"),
        ("/keys", {"keys": ["x" * 300_000]}, "more than"),
    ],
)
async def test_an_external_issuer_that_is_not_what_was_declared(
    elsewhere: tuple[str, dict[str, Any]], path: str, document: Any, message: str
) -> None:
    url, documents = elsewhere
    if isinstance(document, dict) and document.get("issuer") == "URL":
        document = document | {"issuer": url}
    documents[path] = document
    with pytest.raises(PartError, match=message):
        await discover(ExternalIssuer(url, "shop"))


async def test_an_external_issuer_that_is_down_may_come_back() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(PartError) as caught:
        await discover(ExternalIssuer(url, "shop"))
    assert caught.value.message == (
        f"{url}/.well-known/openid-configuration does not answer: connection refused."
    )
    assert caught.value.retryable
