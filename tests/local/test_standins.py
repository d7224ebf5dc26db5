"""One interface, three languages: each stand-in is held to the same contract for modules."""

import asyncio
import contextlib
import functools
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.load import LoadPlan, run_load
from tests.support.scale import need_part, scale

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("python", "node", "go")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
JSON = dict[str, Any]


def program(name: str, *version: str) -> str | None:
    """The path of a program that is new enough (its first number pair compared), or None."""
    path = shutil.which(name)
    if path is None:
        return None
    text = subprocess.run([path, *version[:-1]], capture_output=True, text=True, timeout=30).stdout
    found = re.search(r"(\d+)\.(\d+)", text)
    wanted = tuple(map(int, version[-1].split(".")))
    return path if found and tuple(map(int, found.groups())) >= wanted else None


@functools.cache
def go_binary() -> Path:
    """Built once for each content of the source, outside the checkout."""
    go = program("go", "version", "1.21")
    need_part("Go 1.21", go, "https://go.dev/dl/")
    folder = ROOT / "standins" / "go"
    digest = hashlib.sha256()
    for name in ("go.mod", "main.go"):
        digest.update((folder / name).read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "idi-tests" / "standins"
    binary = cache / f"go-{digest.hexdigest()[:16]}"
    if not binary.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            built = Path(scratch) / "standin"
            command = [str(go), "build", "-o", str(built), "."]
            env = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            built.replace(binary)
    return binary


def command(language: str) -> list[str]:
    if language == "python":
        return [sys.executable, "-m", "standins.python"]
    if language == "node":
        node = program("node", "--version", "18.3")
        need_part("Node 18.3", node, "https://nodejs.org/")
        return [str(node), str(ROOT / "standins" / "node" / "server.js")]
    return [str(go_binary())]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def nowhere() -> Iterator[str]:
    """HOST:PORT where nobody listens, and nobody can: a port that is only free may be the next stand-in's own."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> JSON:
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


def ask(connection: http.client.HTTPConnection, path: str, method: str = "GET", **more: Any) -> Answer:
    connection.request(method, path, **more)
    reply = connection.getresponse()
    headers = {name.lower(): value for name, value in reply.getheaders()}
    return Answer(reply.status, headers, reply.read())


class StandIn:
    """A stand-in's process."""

    def __init__(self, language: str, env: dict[str, str], wait: bool) -> None:
        self.port = int(env.get("PORT") or free_port())
        plain = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        ours = {
            "PORT": str(self.port),
            "IDI_MODULE": "jede",
            "IDI_VERSION": "1.2.3",
            "IDI_INSTANCE": "jede-1",
        }
        self.process = subprocess.Popen(
            command(language),
            cwd=ROOT,
            env=plain | ours | {"IDI_ENV": "dev"} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if wait:
            self.started = json.loads(self.line())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def line(self) -> str:
        """The next line of its log."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr and self.process.stderr.read()
        return line

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)

    def ask(self, path: str, method: str = "GET", **more: Any) -> Answer:
        with contextlib.closing(self.connection()) as connection:
            return ask(connection, path, method, **more)

    def raw(self, data: bytes, wait: float = 5) -> bytes:
        """Everything that comes back until the other side closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as one:
            one.sendall(data)
            received = b""
            while piece := one.recv(65536):
                received += piece
        return received

    def term(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self, seconds: float = 10) -> int:
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate(timeout=10)

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024


Start = Callable[..., StandIn]


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    command(name)  # skips where its part is missing
    return name


@pytest.fixture
def start(language: str) -> Iterator[Start]:
    """Starts stand-ins of the language under test; all have ended afterwards."""
    running: list[StandIn] = []

    def begin(wait: bool = True, **env: str) -> StandIn:
        running.append(StandIn(language, env, wait))
        return running[-1]

    yield begin
    for one in running:
        one.close()


def problem(answer: Answer, status: int) -> JSON:
    assert answer.status == status
    assert answer.headers["content-type"].startswith("application/problem+json")
    value = answer.json
    assert value["status"] == status
    assert value["title"]
    return value


WHO = {"module": "jede", "instance": "jede-1", "version": "1.2.3"}


def is_from_it(value: JSON) -> bool:
    return {name: value[name] for name in WHO} == WHO


# -- what it says of itself and of a request


def test_it_says_who_it_is(start: Start) -> None:
    one = start(
        CAM_URL="http://127.0.0.1:1", DATA_LAKE_URL="http://127.0.0.1:2", GATEWAY_URL="http://127.0.0.1:3"
    )
    assert one.ask("/").json == WHO | {"env": "dev", "peers": ["cam", "data-lake"]}
    assert one.started["msg"] == "started"
    assert one.started["level"] == "info"
    assert one.started["port"] == one.port
    assert is_from_it(one.started)


def test_echo_gives_back_what_came(start: Start) -> None:
    one = start()
    answer = one.ask("/echo/a%20b/c?x=1&y=%C3%A4", "PUT", body="grüß".encode(), headers={"X-Thing": "1"})
    value = answer.json
    assert answer.headers["content-type"] == "application/json"
    assert (value["method"], value["path"], value["query"]) == ("PUT", "/echo/a%20b/c", "x=1&y=%C3%A4")
    assert value["body"] == "grüß"
    assert value["headers"]["x-thing"] == "1"
    assert value["headers"]["host"] == f"127.0.0.1:{one.port}"
    assert is_from_it(value)
    binary = one.ask("/echo", "POST", body=b"\xff\x00").json
    assert (binary["body"], binary["body_base64"]) == (None, "/wA=")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_any_method(start: Start, method: str) -> None:
    assert start().ask("/echo", method).json["method"] == method


def test_head_has_no_body(start: Start) -> None:
    one = start()
    with contextlib.closing(one.connection()) as connection:
        answer = ask(connection, "/big?bytes=200000", "HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-length"] == "200000"
        assert ask(connection, "/ready").status == 200  # the connection is still in step


def test_repeated_headers(start: Start) -> None:
    text = start().raw(b"GET /headers HTTP/1.1\r\nhost: x\r\nX-A: 1\r\nx-a: 2\r\nconnection: close\r\n\r\n")
    assert json.loads(text.partition(b"\r\n\r\n")[2])["headers"]["x-a"] == ["1", "2"]


def test_an_unknown_path(start: Start) -> None:
    one = start()
    for path in ("/nothing", "/ready/more", "/constructor", "//"):
        assert path in problem(one.ask(path), 404)["detail"]


# -- HTTP


def test_chunked_bodies_and_pipelining(start: Start) -> None:
    chunked = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;q\r\nde\r\n0\r\n\r\n"
    slow = b"GET /slow?for=200ms HTTP/1.1\r\nhost: x\r\n\r\n"
    last = b"GET /echo?last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    text = start().raw(chunked + slow + last)
    bodies = [json.loads(line) for line in re.findall(rb"^\{.*\}", text, re.MULTILINE)]
    assert text.count(b"HTTP/1.1 200 OK") == 3
    assert bodies[0]["body"] == "abcde"
    assert bodies[1]["slept"] == 0.2
    assert bodies[2]["query"] == "last"
    assert text.lower().count(b"connection: close") == 1


def test_old_clients_get_a_closed_connection(start: Start) -> None:
    text = start().raw(b"GET /sse?count=2&every=1ms HTTP/1.0\r\n\r\n")
    assert text.count(b"event: tick") == 2
    assert b"chunked" not in text


def test_a_body_is_bounded(start: Start) -> None:
    one = start()
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", one.port), timeout=5) as connection:
        connection.sendall(head)
        assert b" 413 " in connection.recv(1000)


def test_nonsense_is_refused(start: Start) -> None:
    one = start()
    assert b" 400 " in one.raw(b"NONSENSE\r\n\r\n")
    assert b" 400 " in one.raw(b"GET /echo HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n")
    assert one.ask("/ready").status == 200


@pytest.mark.parametrize("language", ["python"], indirect=True)
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"content-length: 3\r\ntransfer-encoding: chunked\r\n", 400),
        (b"content-length: 3\r\ncontent-length: 4\r\n", 400),
        (b"content-length: +3\r\n", 400),
        (b"transfer-encoding: gzip, chunked\r\n", 501),
        (b"content-length : 3\r\n", 400),
        (b" folded\r\n", 400),
        (b"a: " + b"x" * 70_000 + b"\r\n", 431),
    ],
)
def test_doubtful_framing_is_refused(start: Start, head: bytes, status: int) -> None:
    """Node and Go bring rules of their own; this server's are its own work."""
    text = start().raw(b"POST /echo HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n3\r\nabc\r\n0\r\n\r\n")
    assert text.startswith(b"HTTP/1.1 %d " % status)
    assert text.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("language", ["python"], indirect=True)
def test_a_client_is_told_to_go_on(start: Start) -> None:
    one = start()
    with socket.create_connection(("127.0.0.1", one.port), timeout=5) as connection:
        connection.sendall(
            b"POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
        )
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"ok")
        assert b'"body":"ok"' in connection.recv(10_000)


def test_streams(start: Start) -> None:
    one = start()
    answer = one.ask("/sse?count=3&every=10ms")
    assert answer.headers["content-type"] == "text/event-stream"
    events = answer.body.decode().strip().split("\n\n")
    assert [event.split("\n")[:2] for event in events] == [[f"id: {n}", "event: tick"] for n in (1, 2, 3)]
    assert [json.loads(event.partition("data: ")[2])["n"] for event in events] == [1, 2, 3]
    for size in (0, 10, 100_000, 5_000_000):
        assert one.ask(f"/big?bytes={size}").body == b"x" * size


def test_web_sockets(start: Start) -> None:
    one = start()
    with connect(f"ws://127.0.0.1:{one.port}/ws", compression=None, open_timeout=5, close_timeout=5) as web:
        for message in ("hello", "", "ü" * 300, b"\x00\xff", b"x" * 200_000):
            web.send(message)
            assert web.recv(timeout=5) == message
        web.send(["in ", "three ", "frames"])
        assert web.recv(timeout=5) == "in three frames"
        assert web.ping(b"there?").wait(5)
    assert (web.close_code, web.close_reason) == (1000, "")
    with connect(f"ws://127.0.0.1:{one.port}/ws", compression=None, max_size=None) as web:
        with contextlib.suppress(ConnectionClosed):  # it may close before all is sent
            web.send(b"x" * 2_000_000)
        with pytest.raises(ConnectionClosed):
            web.recv(timeout=5)
        assert web.close_code == 1009
    assert one.ask("/ws").status == 426


# -- calls to peers


def test_it_calls_a_peer_and_hands_the_trace_on(start: Start) -> None:
    peer = start(IDI_MODULE="cam", IDI_INSTANCE="cam-7")
    one = start(CAM_URL=peer.url)
    sent = {
        "traceparent": TRACE,
        "tracestate": "a=b",
        "baggage": "c=d",
        "x-request-id": "r1",
        "cookie": "secret",
    }
    value = one.ask("/call/cam", "POST", body=b"hello", headers=sent).json
    assert (value["module"], value["instance"], value["peer_status"]) == ("jede", "jede-1", 200)
    told = value["peer"]
    assert (told["module"], told["instance"], told["method"]) == ("cam", "cam-7", "POST")
    assert (told["path"], told["body"]) == ("/echo", "hello")
    assert {name: told["headers"].get(name) for name in sent} == sent | {"cookie": None}
    value = one.ask("/call/cam/slow?for=1ms").json
    assert value["peer"]["slept"] == 0.001
    value = one.ask("/call/cam/fail?status=418").json
    assert (value["peer_status"], value["peer"]["detail"]) == (418, "failed as asked")
    assert one.ask("/call/cam/big?bytes=5").json["peer"] == "xxxxx"


def test_calls_go_on_through_peers(start: Start) -> None:
    last = start(IDI_MODULE="dere")
    middle = start(IDI_MODULE="cam", DERE_URL=last.url)
    value = start(CAM_URL=middle.url).ask("/call/cam/call/dere").json
    assert [value["module"], value["peer"]["module"], value["peer"]["peer"]["module"]] == [
        "jede",
        "cam",
        "dere",
    ]


def test_a_peer_that_is_not_there(start: Start, nowhere: str) -> None:
    one = start(
        CAM_URL=f"http://{nowhere}",
        BUS_URL="nats://127.0.0.1:4222",
        STANDIN_CALL_TIMEOUT="300ms",
    )
    assert "DERE_URL" in problem(one.ask("/call/dere"), 404)["detail"]
    told = problem(one.ask("/call/cam"), 502)
    assert told["detail"].startswith("cam can't be reached")
    assert is_from_it(told)
    assert "nats" in problem(one.ask("/call/bus"), 502)["detail"]


def test_a_peer_that_is_silent(start: Start) -> None:
    peer = start()
    one = start(CAM_URL=peer.url, STANDIN_CALL_TIMEOUT="200ms")
    began = time.monotonic()
    problem(one.ask("/call/cam/slow?for=5s"), 502)
    assert time.monotonic() - began < 3


def test_a_peer_that_was_restarted_is_reached_again(start: Start) -> None:
    """The kept connection to it has ended."""
    peer = start()
    one = start(CAM_URL=peer.url)
    assert one.ask("/call/cam").status == 200
    peer.close()
    again = start(PORT=str(peer.port), IDI_INSTANCE="jede-2")
    assert one.ask("/call/cam").json["peer"]["instance"] == "jede-2"
    assert again.ask("/ready").status == 200


# -- events


class Inbox:
    """What EVENTS_URL leads to: keeps what is posted, answers as told."""

    def __init__(self) -> None:
        self.came: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, bytes]] = []
        """The next ones; afterwards everything is kept."""
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                inbox.came.append((self.path, headers, body))
                status, answer = inbox.answers.pop(0) if inbox.answers else (200, b'{"kept": 1}')
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/events"

    def attributes(self, number: int = -1) -> dict[str, str]:
        headers = self.came[number][1]
        return {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with contextlib.closing(Inbox()) as one:
        yield one


def hand_over(one: StandIn, id: str, body: bytes = b"{}", **more: str) -> Answer:
    """An event as the platform posts it; `more` are further headers, with _ for each -."""
    headers = {"ce-specversion": "1.0", "ce-id": id, "ce-source": "/cam", "ce-type": "cam.changed"}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    headers.setdefault("content-type", "application/json")
    return one.ask("/events/cam-changed", "POST", body=body, headers=headers)


def test_it_publishes(start: Start, inbox: Inbox) -> None:
    one = start(EVENTS_URL=inbox.url)
    sent = {"content-type": "text/plain", "traceparent": TRACE, "tracestate": "a=b", "cookie": "secret"}
    answer = one.ask("/publish/jede.decided?id=d-1&subject=case-7", "POST", body=b"yes", headers=sent)
    assert answer.status == 200
    assert answer.json == WHO | {"id": "d-1", "status": 200, "answer": {"kept": 1}}
    [(path, headers, body)] = inbox.came
    assert (path, body) == ("/events", b"yes")
    assert inbox.attributes() == {
        "specversion": "1.0",
        "id": "d-1",
        "source": "/jede",
        "type": "jede.decided",
        "subject": "case-7",
    }
    assert {name: headers.get(name) for name in sent} == sent | {"cookie": None}
    assert one.ask("/").json["peers"] == []


def test_without_an_id_each_event_gets_its_own(start: Start, inbox: Inbox) -> None:
    one = start(EVENTS_URL=inbox.url)
    ids = [one.ask("/publish/jede.decided", "POST").json["id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert [inbox.attributes(number)["id"] for number in range(3)] == ids
    assert inbox.came[0][1]["content-type"] == "application/json"
    assert "subject" not in inbox.attributes()
    problem(one.ask("/publish", "POST"), 400)


def test_attributes_are_percent_encoded_in_headers(start: Start, inbox: Inbox) -> None:
    """As CloudEvents' HTTP binding says: spaces, quotes, percent signs and what is not ASCII, nothing else."""
    one = start(EVENTS_URL=inbox.url)
    answer = one.ask(
        "/publish/jede.decided?id=%C3%A4+1%0D%0Ax:y&subject=Gr%C3%BC%C3%9Fe/%E2%82%AC%F0%9F%98%80+%22a%25~'!",
        "POST",
    )
    assert answer.json["id"] == "ä 1\r\nx:y"
    attributes = inbox.attributes()
    assert attributes["id"] == "%C3%A4%201%0D%0Ax:y"
    assert attributes["subject"] == "Gr%C3%BC%C3%9Fe/%E2%82%AC%F0%9F%98%80%20%22a%25~'!"
    assert "x" not in inbox.came[0][1]


def test_what_the_platform_answers_is_passed_on(start: Start, inbox: Inbox) -> None:
    one = start(EVENTS_URL=inbox.url)
    inbox.answers = [(403, b'{"detail": "not declared"}'), (503, b"full")]
    answer = one.ask("/publish/pas.done?id=1", "POST")
    assert (answer.status, answer.json["status"]) == (403, 403)
    assert answer.json["answer"] == {"detail": "not declared"}
    answer = one.ask("/publish/jede.decided?id=1", "POST")
    assert (answer.status, answer.json["answer"]) == (503, "full")
    assert len(inbox.came) == 2


def test_without_events_nothing_is_published(start: Start) -> None:
    told = problem(start().ask("/publish/jede.decided", "POST"), 404)
    assert told["detail"] == "there is no EVENTS_URL: the module declares no events"
    assert is_from_it(told)
    one = start(EVENTS_URL="nats://127.0.0.1:4222")
    told = problem(one.ask("/publish/jede.decided", "POST"), 502)
    assert told["detail"] == "EVENTS_URL is nats://…: only http://HOST:PORT can be called"


def test_events_that_reach_nobody(start: Start, nowhere: str) -> None:
    answer = start(EVENTS_URL=f"http://{nowhere}/events").ask("/publish/jede.decided?id=1", "POST")
    assert (answer.status, answer.json["id"], answer.json["status"]) == (503, "1", 503)
    assert answer.json["answer"], "why"
    silent = start()
    one = start(EVENTS_URL=f"{silent.url}/slow?for=5s", STANDIN_CALL_TIMEOUT="200ms")
    began = time.monotonic()
    assert one.ask("/publish/jede.decided", "POST").status == 503
    assert time.monotonic() - began < 3


def test_publishing_goes_on_after_the_other_side_was_away(start: Start, inbox: Inbox) -> None:
    """The kept connection to it has ended."""
    peer = start()
    one = start(EVENTS_URL=f"{peer.url}/echo")
    assert one.ask("/publish/a.b?id=1", "POST").status == 200
    peer.close()
    start(PORT=str(peer.port))
    assert one.ask("/publish/a.b?id=1", "POST").status == 200


def test_an_event_is_handled_once(start: Start) -> None:
    one = start()
    assert one.ask("/events").json == WHO | {"handled": {}, "repeated": 0, "last": [], "traces": []}
    answer = hand_over(one, "e-1", traceparent=TRACE)
    assert (answer.status, answer.json) == (200, WHO | {"handled": "e-1"})
    answer = hand_over(one, "e-1", x_idi_attempt="2")
    assert (answer.status, answer.json) == (200, WHO | {"repeated": True})
    assert hand_over(one, "e-1", ce_source="/other", ce_type="other.thing").json["handled"] == "e-1"
    assert hand_over(one, "e-2", b"\xff no json", content_type="text/plain").status == 200
    assert one.ask("/events").json == WHO | {
        "handled": {"cam.changed": 2, "other.thing": 1},
        "repeated": 1,
        "last": ["e-1", "e-1", "e-2"],
        "traces": [TRACE, None, None],
    }


def test_what_is_no_event_is_refused(start: Start) -> None:
    one = start()
    told = problem(one.ask("/events/x", "POST", body=b"{}"), 400)
    assert told["detail"] == "no event: there is no ce-id or no ce-type"
    assert "more than 2048" in problem(hand_over(one, "x" * 2100), 400)["detail"]
    told = problem(hand_over(one, "1", x_idi_attempt="many"), 400)
    assert told["detail"] == "x-idi-attempt: 'many' is not a whole number from 1 to 1000000"
    assert one.ask("/events").json["handled"] == {}


def test_attempts_fail_as_the_data_asks(start: Start) -> None:
    one = start()
    for attempt in ("1", "2"):
        told = problem(hand_over(one, "1", b'{"fail_attempts": 2}', x_idi_attempt=attempt), 503)
        assert told["detail"] == f"attempt {attempt} failed as asked"
        assert is_from_it(told)
    assert hand_over(one, "1", b'{"fail_attempts": 2}', x_idi_attempt="3").json["handled"] == "1"
    told = problem(hand_over(one, "2", b'{"fail_attempts": 1}'), 503)
    assert told["detail"] == "attempt 1 failed as asked"
    harmless = (
        b"[1]",
        b"null",
        b"3",
        b'"x"',
        b"",
        b'{"fail_attempts": "2"}',
        b'{"fail_attempts": true}',
        b"[" * 9999,
    )
    for number, data in enumerate(harmless):
        assert hand_over(one, f"h-{number}", data).status == 200, data


def test_an_event_may_have_a_follower(start: Start, inbox: Inbox) -> None:
    one = start(EVENTS_URL=inbox.url, STANDIN_ON_EVENT="dere.learned", IDI_MODULE="dere")
    subject = "Gr%C3%BC%C3%9Fe"
    assert hand_over(one, "e-1", ce_subject=subject, traceparent=TRACE, tracestate="a=b").status == 200
    [(_, headers, body)] = inbox.came
    assert json.loads(body) == {"follows": {"type": "cam.changed", "id": "e-1"}}
    assert inbox.attributes() == {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/dere",
        "type": "dere.learned",
        "subject": "Gr%C3%BC%C3%9Fe",
    }
    assert (headers["content-type"], headers["traceparent"]) == ("application/json", TRACE)
    assert headers["tracestate"] == "a=b"
    assert hand_over(one, "e-1").json["repeated"]
    assert hand_over(one, "e-2", b'{"fail_attempts": 1}').status == 503
    assert len(inbox.came) == 1, "neither a repeated nor a failed event has one"


def test_an_event_whose_follower_is_not_kept_comes_again(start: Start, inbox: Inbox, nowhere: str) -> None:
    one = start(EVENTS_URL=inbox.url, STANDIN_ON_EVENT="dere.learned")
    inbox.answers = [(503, b'{"detail": "full"}\n')]
    told = problem(hand_over(one, "1"), 503)
    assert told["detail"] == 'dere.learned was not kept: 503 {"detail": "full"}'
    assert one.ask("/events").json["handled"] == {}
    assert hand_over(one, "1", x_idi_attempt="2").json["handled"] == "1"
    assert [inbox.attributes(number)["id"] for number in range(2)] == ["1", "1"]
    away = start(EVENTS_URL=f"http://{nowhere}/", STANDIN_ON_EVENT="dere.learned")
    assert problem(hand_over(away, "1"), 503)["detail"].startswith("dere.learned was not kept: 503 ")
    assert problem(hand_over(start(STANDIN_ON_EVENT="dere.learned"), "1"), 404)


def test_what_is_remembered_of_events_is_bounded(start: Start) -> None:
    one = start(STANDIN_REMEMBER="3")
    with contextlib.closing(one.connection()) as connection:

        def hand(id: str, kind: str) -> JSON:
            headers = {"ce-id": id, "ce-source": "/cam", "ce-type": kind}
            return ask(connection, "/events/x", "POST", headers=headers).json

        for number in range(150):
            assert hand(f"e-{number}", f"type.{number}")["handled"]
        assert hand("e-147", "type.0") == WHO | {"repeated": True}
        assert hand("e-146", "type.0")["handled"], "the oldest are forgotten first"
        assert hand("e-147", "type.0")["handled"]
        listed = ask(connection, "/events").json
    assert listed["last"] == [*(f"e-{number}" for number in range(52, 150)), "e-146", "e-147"]
    assert len(listed["traces"]) == 100
    assert len(listed["handled"]) == 101
    assert (listed["handled"]["type.0"], listed["handled"]["others"]) == (3, 50)


# -- misbehaving on demand


def test_readiness(start: Start) -> None:
    one = start(STANDIN_READY_AFTER="1500ms")
    problem(one.ask("/ready"), 503)
    assert one.ask("/echo").status == 200
    time.sleep(1.6)
    assert one.ask("/ready").json == WHO | {"ready": True}
    assert one.ask("/unready?for=1s", "POST").json["unready_for"] == 1
    problem(one.ask("/ready"), 503)
    time.sleep(1.1)
    assert one.ask("/ready").status == 200


def test_slowness(start: Start) -> None:
    one = start(STANDIN_SLOW="600ms")
    for path, least in (("/echo", 0.6), ("/slow?for=150ms", 0.75)):
        began = time.monotonic()
        assert one.ask(path).status == 200
        assert time.monotonic() - began >= least - 0.01
    began = time.monotonic()
    assert one.ask("/ready").status == 200
    assert time.monotonic() - began < 0.55


def pattern(seed: int, rate: float, count: int) -> list[bool]:
    """Which requests fail, as standins/python/app.py tells it."""
    return [(seed + n) * 2654435769 % 2**32 < rate * 2**32 for n in range(1, count + 1)]


def test_failures_are_the_same_in_every_run_and_language(start: Start) -> None:
    one = start(STANDIN_SEED="7")
    with contextlib.closing(one.connection()) as connection:
        seen = [ask(connection, "/fail?status=503&rate=0.2").status for _ in range(50)]
    assert [status == 503 for status in seen] == pattern(7, 0.2, 50)
    assert seen.count(503) in (9, 10, 11)
    assert seen.count(200) == 50 - seen.count(503)
    assert problem(one.ask("/fail"), 500)["detail"] == "failed as asked"
    assert is_from_it(one.ask("/fail").json)
    assert one.ask("/fail?rate=0").status == 200


def test_failures_of_all_requests(start: Start) -> None:
    one = start(STANDIN_FAIL_RATE="0.3", STANDIN_FAIL_STATUS="502")
    with contextlib.closing(one.connection()) as connection:
        seen = [ask(connection, "/echo").status == 502 for _ in range(30)]
        assert seen == pattern(1, 0.3, 30)
        assert [ask(connection, "/ready").status for _ in range(10)] == [200] * 10


@pytest.mark.parametrize(
    "path",
    [
        "/slow?for=x",
        "/slow?for=2h",
        "/fail?rate=2",
        "/fail?status=200",
        "/crash?code=-1",
        "/memory?mb=x",
        "/sse?count=-1",
        "/big?bytes=1e9",
        "/cpu?for=",
        "/unready?for=3x",
    ],
)
def test_wrong_parameters_are_refused(start: Start, path: str) -> None:
    assert problem(start().ask(path), 400)["detail"].startswith("'")


def test_it_crashes(start: Start) -> None:
    one = start()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        one.ask("/crash?code=3")
    assert one.ended() == 3


def test_it_crashes_later(start: Start) -> None:
    assert start(STANDIN_CRASH_AFTER="300ms", STANDIN_CRASH_CODE="4").ended() == 4


@pytest.mark.parametrize(
    ("env", "code", "says"),
    [
        ({"STANDIN_EXIT_AT_START": "5"}, 5, "STANDIN_EXIT_AT_START"),
        ({"STANDIN_EXIT_AT_START": "0"}, 0, "STANDIN_EXIT_AT_START"),
        ({"STANDIN_SLOW": "fast"}, 2, "STANDIN_SLOW: 'fast' is not a duration"),
        ({"STANDIN_FAIL_RATE": "2"}, 2, "STANDIN_FAIL_RATE"),
        ({"STANDIN_REMEMBER": "0"}, 2, "STANDIN_REMEMBER: '0' is not a whole number from 1 to 1000000"),
    ],
)
def test_it_ends_at_start(start: Start, env: dict[str, str], code: int, says: str) -> None:
    one = start(wait=False, **env)
    assert one.ended() == code
    assert one.process.stderr is not None
    lines = one.process.stderr.read().splitlines()
    assert len(lines) == 1
    assert says in lines[0]


def test_it_needs_a_port_that_is_free(start: Start, language: str) -> None:
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command(language), env=env, cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (2, "standin: PORT is not set\n")
    one = start()
    second = start(wait=False, PORT=str(one.port))
    assert second.ended() == 1
    assert second.process.stderr is not None
    assert f"can't listen on 127.0.0.1:{one.port}" in second.process.stderr.read()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_and_processor_time(start: Start) -> None:
    one = start(STANDIN_MEMORY_MB="30")
    before = one.rss_mib()
    assert before > 30
    assert one.ask("/memory?mb=60&for=500ms").json["held_mb"] in (60, 90)
    assert one.rss_mib() > before + 50
    deadline = time.monotonic() + 5
    while one.rss_mib() > before + 30 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert one.rss_mib() < before + 30
    used = one.cpu()
    with contextlib.closing(one.connection()) as burning:
        burning.request("GET", "/cpu?for=500ms")
        assert one.ask("/echo").status == 200  # others are still answered
        assert burning.getresponse().status == 200
    assert one.cpu() - used > 0.05  # a busy machine gives less than all of it


# -- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_is_finished(start: Start, number: int) -> None:
    one = start(STANDIN_LINGER="3s")
    with contextlib.closing(one.connection()) as kept, contextlib.closing(one.connection()) as busy:
        with contextlib.closing(one.connection()) as other:
            assert ask(kept, "/echo").status == 200
            assert ask(other, "/echo").status == 200
            busy.request("GET", "/slow?for=1s")
            time.sleep(0.1)
            one.process.send_signal(number)
            time.sleep(0.15)
            with pytest.raises(ConnectionRefusedError):
                one.ask("/echo")
            answer = ask(kept, "/echo")
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            problem(ask(other, "/ready"), 503)
            reply = busy.getresponse()
            assert (reply.status, reply.getheader("connection")) == (200, "close")
            assert json.loads(reply.read())["slept"] == 1
        assert one.ended() == 0
    assert json.loads(one.line())["msg"] == "stopped"


def test_idle_connections_do_not_hold_it_up(start: Start) -> None:
    one = start()
    with contextlib.closing(one.connection()) as kept, socket.create_connection(("127.0.0.1", one.port)):
        assert ask(kept, "/echo").status == 200
        with connect(f"ws://127.0.0.1:{one.port}/ws") as web:
            began = time.monotonic()
            one.term()
            with pytest.raises(ConnectionClosed):
                web.recv(timeout=5)
            assert web.close_code == 1001
        assert one.ended() == 0
    assert 0.2 < time.monotonic() - began < 5  # well before the grace ends


def test_the_grace_has_an_end(start: Start) -> None:
    one = start(STANDIN_GRACE="500ms", STANDIN_LINGER="100ms")
    with contextlib.closing(one.connection()) as busy:
        busy.request("GET", "/slow?for=1m")
        time.sleep(0.1)
        one.term()
        assert one.ended(5) == 0
    assert json.loads(one.line())["cut"] == 1


def test_it_can_ignore_the_signal(start: Start) -> None:
    one = start(STANDIN_IGNORE_TERM="1")
    one.term()
    assert "ignored" in json.loads(one.line())["msg"]
    one.term()
    time.sleep(0.3)
    assert one.process.poll() is None
    assert one.ask("/ready").status == 200


def test_logs_are_one_json_line_for_each_request_where_wanted(start: Start) -> None:
    one = start(STANDIN_LOG="requests")
    one.ask("/echo/x?secret=1", headers={"traceparent": TRACE, "x-request-id": "r1"})
    line = json.loads(one.line())
    assert (line["level"], line["msg"], line["status"], line["path"]) == ("info", "request", 200, "/echo/x")
    assert (line["trace_id"], line["span_id"]) == tuple(TRACE.split("-")[1:3])
    assert line["request_id"] == "r1"
    assert "secret" not in json.dumps(line)
    one.ask("/fail")
    assert json.loads(one.line())["level"] == "error"
    one.term()
    assert json.loads(one.line())["msg"] == "stopped"


# -- enough of it


def test_it_carries_load(start: Start) -> None:
    """Without one failure; how fast is a matter for a bench on a quiet machine."""
    peer = start(IDI_MODULE="cam")
    one = start(CAM_URL=peer.url)
    for path, rate in (("/call/cam", 50), ("/echo", 400), ("/call/cam", 150)):
        plan = LoadPlan("127.0.0.1", one.port, path, rate=rate, seconds=scale(1.0, 20.0))
        result = asyncio.run(run_load(plan))
        assert result.failed == 0, result
        assert result.answered == result.planned


def test_requests_before_and_after_the_signal_are_all_answered(start: Start) -> None:
    """Under load, SIGTERM may refuse new connections but cut none that it took."""
    one = start()

    async def load() -> list[str]:
        plan = LoadPlan("127.0.0.1", one.port, "/slow?for=20ms", rate=300, seconds=1.2, connections=32)
        asyncio.get_running_loop().call_later(0.6, one.term)
        result = await run_load(plan)
        assert result.answered > 150, result
        return [failure.error for failure in result.failures]

    errors = asyncio.run(load())
    assert {error for error in errors if not error.startswith("connect: ")} == set()
    assert one.ended() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("language", ["python"], indirect=True)
def test_it_is_small_and_quick(start: Start) -> None:
    """Dozens of them run on one laptop. The time is generous: other tests run beside this one."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        one = start()
        assert one.ask("/ready").status == 200
        times.append(time.monotonic() - began)
        assert one.rss_mib() < 20
    assert min(times) < 1.5
