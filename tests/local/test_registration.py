"""An instance that IDI did not start joins the mesh by registering, and leaves it when it is not heard of."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.platform import Platform, free_port, platform

DECLARATION = """
platform: shop
modules:
  hello:
    run: python hello.py
    calls: [greeter]
    readiness: {http: /ready, every: 200ms}
    routes:
      - {path: /v1/hello/, scopes: [hello.call]}
  greeter: {run: python hello.py}
"""

HELLO = """
import json, os, signal, sys, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        peer = os.environ.get("GREETER_URL") if self.path == "/peer" else None
        via = json.load(urllib.request.urlopen(peer + "/x"))["who"] if peer else ""
        body = json.dumps({"who": os.environ.get("WHO", "supervised"), "via": via}).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def shop() -> Iterator[Platform]:
    with platform(DECLARATION, {"hello.py": HELLO}) as one:
        one.up()
        yield one


def api(shop: Platform, method: str, path: str, body: object = None, credential: str = "") -> tuple[int, Any]:
    """One request to the control API by hand: what any language can do."""
    raw = json.dumps(body).encode() if body is not None else b""
    head = f"{method} {path} HTTP/1.1\r\nhost: control\r\nconnection: close\r\ncontent-length: {len(raw)}\r\n"
    if credential:
        head += f"authorization: Bearer {credential}\r\n"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(shop.paths.socket))
        sock.sendall(head.encode() + b"\r\n" + raw)
        answer = b""
        while part := sock.recv(65536):
            answer += part
    top, _, rest = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(rest) if rest.strip() else None


def answering(shop: Platform, token: str = "") -> set[str]:
    """Who answers a dozen calls through the gateway."""
    token = token or shop.token()
    answers = set()
    for _ in range(12):
        done = subprocess.run(
            ["curl", "-sS", "-H", f"authorization: Bearer {token}", f"{shop.url}/v1/hello/"],
            capture_output=True,
            check=True,
        )
        answers.add(json.loads(done.stdout).get("who", done.stdout.decode()))
    return answers


def until(shop: Platform, wanted: set[str], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while (found := answering(shop)) != wanted:
        assert time.monotonic() < end, (found, wanted, shop.control_log())
        time.sleep(0.1)


@pytest.fixture
def mine(shop: Platform) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, shop.folder / "hello.py"], env={"PORT": str(port), "WHO": "mine"}
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.requirement("D1", "G2")
def test_a_registered_instance_serves_until_it_is_taken_back(shop: Platform, mine: int) -> None:
    status, registered = api(
        shop, "POST", "/v1/registrations", {"module": "hello", "port": mine, "ttl_s": 60}
    )
    assert status == 201, registered
    assert registered["instance"] == "hello-2"
    until(shop, {"supervised", "mine"})
    path = f"/v1/registrations/{registered['instance']}"
    assert api(shop, "PUT", path, credential="wrong")[0] == 409
    assert api(shop, "PUT", path, credential=registered["credential"])[0] == 204
    assert api(shop, "DELETE", path, credential=registered["credential"])[0] == 204
    until(shop, {"supervised"})
    assert [i["id"] for i in shop.module("hello")["instances"]] == ["hello-1"]


@pytest.mark.requirement("D1")
def test_without_heartbeats_it_ends(shop: Platform, mine: int) -> None:
    status, _ = api(shop, "POST", "/v1/registrations", {"module": "hello", "port": mine, "ttl_s": 2})
    assert status == 201
    until(shop, {"supervised", "mine"})
    until(shop, {"supervised"})


@pytest.mark.requirement("D1")
def test_it_survives_a_restart_of_control_and_ends_with_the_platform(shop: Platform, mine: int) -> None:
    status, registered = api(
        shop, "POST", "/v1/registrations", {"module": "hello", "port": mine, "ttl_s": 60}
    )
    assert status == 201
    until(shop, {"supervised", "mine"})
    token = shop.token()
    os.kill(shop.control_pid(), signal.SIGKILL)
    assert answering(shop, token) == {"supervised", "mine"}  # traffic needs no control
    shop.up()
    until(shop, {"supervised", "mine"})
    path = f"/v1/registrations/{registered['instance']}"
    assert api(shop, "PUT", path, credential=registered["credential"])[0] == 204


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"module": "helo", "port": 1, "ttl_s": 5}, 409),
        ({"module": "hello", "port": 0, "ttl_s": 5}, 409),
        ({"module": "hello", "port": 80, "ttl_s": 0.1}, 409),
        ({"module": "hello", "port": "80", "ttl_s": 5}, 400),
    ],
)
def test_bad_registrations_are_refused(shop: Platform, body: object, status: int) -> None:
    answered, problem = api(shop, "POST", "/v1/registrations", body)
    assert (answered, problem["status"]) == (status, status)
