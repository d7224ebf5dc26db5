"""Commands that ask the gateway as an outside client would: `call` and `test smoke`."""

import base64
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command.conftest import Run
from tests.command.fake_control import FakeControl, module, status
from tests.command.fake_gateway import TOKEN, Gateway, gateway


@pytest.fixture
def edge(control: FakeControl) -> Iterator[Gateway]:
    with gateway() as server:
        control.status = status([module("jede", count=2), module("cam")], gateway={"url": server.url})
        control.answers["POST", "/v1/tokens"] = (200, {"token": TOKEN})
        yield server


def test_call_prints_the_body_as_it_came(idi: Run, edge: Gateway) -> None:
    found = idi("call", "jede", "/echo?x=1")
    assert found.code == 0
    assert json.loads(found.out) == {"path": "/v1/jede/echo?x=1", "body": ""}
    assert found.err == ""
    assert edge.seen[-1][0] == "GET"


def test_call_sends_data_and_headers(
    idi: Run, edge: Gateway, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idi("call", "jede", "echo", "-d", '{"a":1}', "-H", "x-one: 1")
    method, path, headers, body = edge.seen[-1]
    assert (method, path, body) == ("POST", "/v1/jede/echo", b'{"a":1}')
    assert headers["content-type"] == "application/json"
    assert headers["x-one"] == "1"
    (folder / "body").write_bytes(b"\x00\xff")
    idi("call", "jede", "/", "-X", "put", "-d", "@body")
    assert edge.seen[-1][0] == "PUT"
    assert edge.seen[-1][3] == b"\x00\xff"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from stdin")))
    idi("call", "jede", "/", "-d", "-")
    assert edge.seen[-1][3] == b"from stdin"


def test_a_token_of_ones_own_goes_instead_of_the_operators(
    idi: Run, edge: Gateway, control: FakeControl
) -> None:
    found = idi("call", "jede", "/", "-H", "authorization: Bearer mine")
    assert found.code == 1
    assert edge.seen[-1][2]["authorization"] == "Bearer mine"
    assert all(target != "/v1/tokens" for _, target, _ in control.requests)


def test_an_error_of_the_module_is_1_with_its_words_and_the_request(idi: Run, edge: Gateway) -> None:
    problem = {"type": "about:blank", "title": "Teapot", "status": 418, "detail": "Short and stout.\x1b[2J"}
    edge.answers["/v1/jede/tea"] = (418, json.dumps(problem).encode(), "application/problem+json")
    found = idi("call", "jede", "/tea")
    assert (found.code, found.out) == (1, "")
    assert found.err == "418 Teapot\nShort and stout.\nRequest r-1.\n"
    document = idi("call", "jede", "/tea", "--json")
    assert document.code == 1
    assert document.document["status"] == 418
    assert document.document["body"]["title"] == "Teapot"
    assert document.document["headers"]["x-request-id"] == "r-1"
    edge.answers["/v1/jede/tea"] = (502, b"<html>\nbad", "text/html")
    assert "502\nRequest" in idi("call", "jede", "/tea").err.replace("  | <html>\n  | bad\n", "")


def token(**claims: object) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"authorization: Bearer e30.{middle}.x"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (token(exp=0), "A token is needed: the token that was given ended "),
        (token(exp=9e12), "A token is needed."),
        (token(), "A token is needed: what was given is no token with an end (a JWT with 'exp')."),
        ("authorization: Bearer mine", "A token is needed: what was given is no token with an end"),
        ("authorization: Basic eDp5", "A token is needed: it is sent as 'Bearer TOKEN'."),
    ],
)
def test_a_token_that_is_refused_says_what_can_be_seen_of_it(
    idi: Run, edge: Gateway, header: str, said: str
) -> None:
    found = idi("call", "jede", "/", "-H", header)
    assert found.code == 1
    what, why, way_out, request = found.err.splitlines()
    assert (what, request) == ("401 Unauthorized", "Request r-1.")
    assert why.startswith(said)
    assert way_out == "idi token makes one; without -H authorization, call takes one itself."


def test_where_others_issue_the_tokens_they_are_named(
    idi: Run, edge: Gateway, control: FakeControl, folder: Path
) -> None:
    with open(folder / "platform.yaml", "a") as file:
        file.write("gateway: {issuer: {url: 'https://login.test', audience: shop}}\n")
    assert "Tokens come from https://login.test." in idi("call", "jede", "/", "-H", token(exp=9e12)).err
    refusal = {"title": "Refused", "status": 409, "detail": "They come from there.", "way_out": "Ask there."}
    control.answers["POST", "/v1/tokens"] = (409, {"type": "about:blank", **refusal})
    found = idi("call", "jede", "/")
    assert (found.code, found.err) == (
        1,
        "They come from there.\nAsk there. Then: -H 'authorization: Bearer TOKEN'\n",
    )


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ("[]", "cam has no route in platform.yaml; only jede may call it, nobody from outside."),
        ("[{path: /pictures/}]", "cam is reached at /pictures/, not below /v1/cam/."),
        ("[{path: /v1/cam/x/}]", ""),
    ],
)
def test_a_module_that_is_not_reached_there_says_so(
    idi: Run, edge: Gateway, folder: Path, routes: str, said: str
) -> None:
    with open(folder / "platform.yaml", "a") as file:
        file.write(f"    routes: {routes}\n")
    edge.answers["/v1/cam/"] = (404, b'{"title": "Not Found"}', "application/problem+json")
    found = idi("call", "cam", "/")
    lines = ["404 Not Found", *([said] if said else []), "Request r-1."]
    assert (found.code, found.err.splitlines()) == (1, lines)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (
            module("cam", "failed", reason="ended with exit code 127: cam was not found; 5 times in a row"),
            [
                "none is there: cam is failed: ended with exit code 127: cam was not found; 5 times in a row.",
                "idi logs cam says more.",
            ],
        ),
        (module("cam", count=0), ["none is there: cam has 0 instances.", "idi scale cam=1 starts one."]),
        (module("cam"), ["none is there"]),
    ],
)
def test_a_module_that_cannot_answer_says_how_it_fares(
    idi: Run, edge: Gateway, control: FakeControl, one: dict[str, Any], said: list[str]
) -> None:
    control.status = status([one], gateway={"url": edge.url})
    body = b'{"title": "Service Unavailable", "detail": "none is there"}'
    edge.answers["/v1/cam/"] = (503, body, "application/problem+json")
    found = idi("call", "cam", "/")
    assert found.err.splitlines() == ["503 Service Unavailable", *said, "Request r-1."]


def test_a_gateway_that_is_gone_is_3(idi: Run, control: FakeControl) -> None:
    control.status = status([module("jede")], gateway={"url": "http://127.0.0.1:1"})
    control.answers["POST", "/v1/tokens"] = (200, {"token": TOKEN})
    found = idi("call", "jede", "/")
    assert found.code == 3
    assert "http://127.0.0.1:1 cannot be reached." in found.err


def test_smoke_passes_where_all_is_well(idi: Run, edge: Gateway) -> None:
    found = idi("test", "smoke")
    assert found.code == 0, found.out
    assert "jede  with a wrong token  401" in found.out
    assert found.out.splitlines()[-1].startswith("All 10 checks passed")
    document = idi("test", "smoke", "--json").document
    assert document["ok"] is True
    assert len(document["checks"]) == 10


def test_smoke_waits_where_a_limit_says_so(idi: Run, edge: Gateway) -> None:
    edge.limited = 3
    assert idi("test", "smoke").code == 0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("open", "cam  without a token  answered 200, expected 401"),
        ("no request id", "the answer has no x-request-id"),
        ("failing", "jede  with a token  answered 503 (No healthy upstream.)"),
        ("untyped", "jede  without a token  the error is text/plain, not application/problem+json"),
        ("not ready", "cam  is found  0 of 1 ready, failed: exit status 1"),
    ],
)
def test_smoke_fails_where_something_is_wrong(
    idi: Run, edge: Gateway, control: FakeControl, monkeypatch: pytest.MonkeyPatch, spoil: str, said: str
) -> None:
    if spoil == "open":
        edge.open = True
    elif spoil == "no request id":
        edge.without_request_id = True
    elif spoil == "failing":
        body = json.dumps({"detail": "No healthy upstream."}).encode()
        edge.answers["/v1/jede/"] = (503, body, "application/problem+json")
    elif spoil == "untyped":
        monkeypatch.setattr(
            "tests.command.fake_gateway.Handler.problem",
            lambda handler, code, *_: handler.answer(code, b"no", "text/plain"),
        )
    else:
        modules = [module("jede", count=2), module("cam", "failed", reason="exit status 1")]
        control.status = status(modules, gateway={"url": edge.url})
    found = idi("test", "smoke")
    assert found.code == 1
    assert said in found.out
    assert "checks failed" in found.out


def test_smoke_does_not_ask_a_module_without_routes(idi: Run, edge: Gateway, folder: Path) -> None:
    text = (folder / "platform.yaml").read_text() + "    routes: []\n"
    (folder / "platform.yaml").write_text(text)
    found = idi("test", "smoke")
    assert "cam  routes  none is declared: only other modules reach it" in found.out
    assert all("/v1/cam/" not in path for _, path, _, _ in edge.seen)
