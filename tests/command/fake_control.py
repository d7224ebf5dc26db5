"""A stand-in for control: the API's wire, a platform that exists only on paper, and a clock that one can hurry.

Runs in a thread for most tests, and as a process of its own (`python fake_control.py SOCKET SCENARIO`)
where a terminal is driven through a pty.
"""

from __future__ import annotations

import json
import os
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("pas", "rame", "jede", "dere", "vtl", "cti", "eat", "sfl", "cam")


def rfc3339(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"


def instance(module: str, slot: int, state: str, since: float, port: int, reason: str = "") -> dict[str, Any]:
    return {
        "id": f"{module}-{slot}",
        "address": f"127.0.0.1:{port}",
        "state": state,
        "since": rfc3339(since),
        "pid": 1000 + port % 1000,
        "sidecar_pid": 2000 + port % 1000,
        "revision": "1f3a5c7e",
        "restarts": 0,
        "reason": reason,
    }


def module(
    name: str,
    state: str = "ready",
    *,
    count: int = 1,
    ready: int | None = None,
    since: float = 0.0,
    reason: str = "",
    figures: tuple[float, float, float] | None = None,
    port: int = 20011,
) -> dict[str, Any]:
    number = (count if state == "ready" else 0) if ready is None else ready
    instances = [
        instance(
            name,
            slot,
            "ready" if slot <= number else state,
            since,
            port + slot - 1,
            "" if slot <= number else reason,
        )
        for slot in range(1, count + 1)
    ]
    found: dict[str, Any] = {
        "name": name,
        "version": "dev",
        "desired": count,
        "ready": number,
        "state": state,
        "since": rfc3339(since),
        "reason": reason,
        "instances": instances,
    }
    if figures:
        found["figures"] = {
            "window_s": 10.0,
            "requests_per_s": figures[0],
            "errors_ratio": figures[1],
            "p95_ms": figures[2],
            "denied": 0,
        }
    return found


def part(name: str, state: str = "ready", since: float = 0.0, reason: str = "") -> dict[str, Any]:
    return {"name": name, "state": state, "since": rfc3339(since), "pid": 7, "reason": reason, "restarts": 0}


def status(modules: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "platform": "junzi",
        "env": "dev",
        "target": "laptop",
        "control": {"pid": os.getpid(), "since": rfc3339(0), "version": "0.1.0"},
        "gateway": {"url": "http://127.0.0.1:8080"},
        "console": {"url": None},
        "changing": "",
        "parts": [part("openbao"), part("gateway")],
        "modules": modules,
        "rejections": [],
        "warnings": [],
    }
    return {**found, **changes}


def step(module_name: str, kind: str, symbol: str, text: str, reason: str = "") -> dict[str, Any]:
    return {"module": module_name, "kind": kind, "symbol": symbol, "text": text, "reason": reason}


class FakeControl:
    """What it answers. Tests set the fields; `requests` is what it was asked."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = status([module(name) for name in NAMES])
        self.changes: dict[str, list[dict[str, Any]]] = {}
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.streams: dict[tuple[str, str], list[Any]] = {}
        """What is answered in lines, and then ends."""
        self.requests: list[tuple[str, str, Any]] = []
        self.config: dict[str, Any] = {"modules": []}
        self.watchers = 0
        self.pause = 0.0
        self.slow_down = False
        self.version = 0
        self.ends_after_down = False
        self.ended = threading.Event()

    def answer(self, method: str, target: str, body: Any) -> Iterator[tuple[int, Any]] | tuple[int, Any]:
        self.requests.append((method, target, body))
        path = target.partition("?")[0]
        if (method, path) in self.answers:
            return self.answers[method, path]
        if (method, path) in self.streams:
            return ((200, item) for item in self.streams[method, path])
        if path == "/v1/status":
            return 200, self.status
        if path == "/v1/config":
            return 200, self.config
        if path == "/v1/watch":
            return self.watch()
        if path == "/v1/changes":
            return self.change(body)
        return 404, {"type": "about:blank", "title": "Not Found", "status": 404, "detail": f"No {path}."}

    def watch(self) -> Iterator[tuple[int, Any]]:
        self.watchers += 1
        while not self.ended.is_set():
            yield 200, self.status
            seen, until = self.version, time.monotonic() + 1.0
            while self.version == seen and time.monotonic() < until and not self.ended.is_set():
                time.sleep(0.01)

    def change(self, body: Any) -> Iterator[tuple[int, Any]]:
        action = body["action"]
        yield 200, {"type": "started", "change": 1}
        for item in self.changes.get(action, []):
            time.sleep(self.pause if action != "down" or self.slow_down else 0.01)
            self.apply(item)
            yield 200, item
        if not any(item["type"] == "done" for item in self.changes.get(action, [])):
            yield 200, {"type": "done", "ok": True}
        if action == "down" and self.ends_after_down:
            self.ended.set()

    def apply(self, item: dict[str, Any]) -> None:
        """What a step does to the status; a scenario overrides it."""

    def push(self, new: dict[str, Any]) -> None:
        self.status = new
        self.version += 1


class Starting(FakeControl):
    """Nine modules that come up one after the other; `broken` never does."""

    def __init__(self, pause: float = 0.05, broken: str = "", *, slow_down: bool = False) -> None:
        super().__init__()
        self.pause = pause
        self.slow_down = slow_down
        self.ends_after_down = True
        self.broken = broken
        self.states = dict.fromkeys(NAMES, "starting")
        up: list[dict[str, Any]] = []
        for name in ("openbao", "gateway"):
            up.append(
                {"type": "step", "state": "running", "step": step(name, "start-part", "+", f"start {name}")}
            )
            up.append({**up[-1], "state": "done", "seconds": 0.2})
        for name in NAMES:
            ready = step(name, "await-ready", ".", "wait until 1 of revision 1f3a5c7e ready (at most 60 s)")
            up.append({"type": "step", "state": "running", "step": ready})
            end: dict[str, Any] = {"type": "step", "state": "done", "step": ready, "seconds": 0.4}
            if name == broken:
                end |= {
                    "state": "failed",
                    "reason": f"{name}-1 failed: exit status 3.",
                    "lines": ["Traceback: boom", "KeyError: 'DATABASE'"],
                    "way_out": f"See idi logs {name}; mend it and run the command again.",
                }
            up.append(end)
        up.append({"type": "done", "ok": not broken, **({"reason": f"{broken} failed."} if broken else {})})
        self.changes = {"up": up, "down": [self.stop_step(name) for name in NAMES]}
        self.show()

    def stop_step(self, name: str) -> dict[str, Any]:
        gone = step(name, "remove", "-", "remove revision 1f3a5c7e (1 instance)")
        return {"type": "step", "state": "done", "step": gone, "seconds": 0.1}

    def apply(self, item: dict[str, Any]) -> None:
        if item["type"] == "step" and item["state"] != "running":
            name = item["step"]["module"]
            if item["step"]["kind"] == "remove":
                self.states.pop(name, None)
            elif name in self.states:
                self.states[name] = "failed" if item["state"] == "failed" else "ready"
        self.show()

    def show(self) -> None:
        now = time.time()
        reasons = {"starting": "waiting for /ready (3rd try: connection refused)", "failed": "exit status 3"}
        rows = [
            module(name, state, since=now - 3, reason=reasons.get(state, ""), port=20011 + 10 * at)
            for at, (name, state) in enumerate(self.states.items())
        ]
        self.push(status(rows, control={"pid": os.getpid(), "since": rfc3339(now), "version": "0.1.0"}))


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        line = self.rfile.readline().decode().split()
        if len(line) < 2:
            return
        length = 0
        while (header := self.rfile.readline().strip()) != b"":
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = json.loads(self.rfile.read(length)) if length else None
        answer = self.server.control.answer(line[0], line[1], body)
        try:
            if isinstance(answer, tuple):
                self.whole(*answer)
            else:
                self.lines(answer)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def whole(self, code: int, document: Any) -> None:
        data = json.dumps(document).encode()
        kind = "application/problem+json" if code >= 400 else "application/json"
        head = f"HTTP/1.1 {code} X\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n\r\n"
        self.wfile.write(head.encode() + data)

    def lines(self, items: Iterator[tuple[int, Any]]) -> None:
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/jsonl\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        watched = True
        for _, item in items:
            data = json.dumps(item).encode() + b"\n"
            try:
                if watched:
                    self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            except OSError:
                if "type" not in item:
                    return
                watched = False  # a change goes on without whoever asked for it
        if watched:
            self.wfile.write(b"0\r\n\r\n")


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: str, control: FakeControl) -> None:
        self.control = control
        super().__init__(path, Handler)


@contextmanager
def serving(path: Path, control: FakeControl) -> Iterator[FakeControl]:
    """Serve it in a thread until the end of the block."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with Server(str(path), control) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
        thread.start()
        try:
            yield control
        finally:
            control.ended.set()
            server.shutdown()
            thread.join(5)
            path.unlink(missing_ok=True)


class Refusing(FakeControl):
    """A start of which not even a part came to be."""

    def __init__(self) -> None:
        super().__init__()
        self.ends_after_down = True
        self.changes = {"up": [{"type": "done", "ok": False, "reason": "The issuer does not answer."}]}
        self.push(status([], parts=[]))


class Lost(FakeControl):
    """One module whose command is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.ends_after_down = True
        reason = "ended with exit code 127: pyhton was not found; 5 times in a row"
        ready = step("jede", "await-ready", ".", "wait until 1 of revision 1f3a5c7e ready (at most 60 s)")
        failed = {
            "type": "step",
            "state": "failed",
            "step": ready,
            "reason": f"jede-1 failed: {reason}.",
            "lines": ["/bin/sh: 1: exec: pyhton: not found"] * 5,
            "way_out": "Is pyhton spelt right?",
        }
        self.changes = {"up": [failed, {"type": "done", "ok": False, "reason": "jede failed."}], "down": []}
        self.push(status([module("jede", "failed", reason=reason)]))


SCENARIOS: dict[str, Callable[[], FakeControl]] = {
    "lost": Lost,
    "refusing": Refusing,
    "starting": lambda: Starting(pause=0.1),
    "slow": lambda: Starting(pause=0.4),
    "slow-down": lambda: Starting(pause=0.2, slow_down=True),
    "quick": lambda: Starting(pause=0.0),
    "broken": lambda: Starting(pause=0.05, broken="jede"),
}


def main() -> None:
    """As a process: serve until taken down, as control does."""
    path = Path(sys.argv[1])
    with serving(path, SCENARIOS[sys.argv[2]]()) as control:
        control.ended.wait(60)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
