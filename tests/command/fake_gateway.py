"""A stand-in for the gateway: tokens, request ids and problem documents, as far as a client sees them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "good.token.here"


class Handler(BaseHTTPRequestHandler):
    server: Gateway
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int, body: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("content-type", kind)
        if not self.server.without_request_id:
            self.send_header("x-request-id", "r-1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def problem(self, code: int, title: str, detail: str) -> None:
        document = {"type": "about:blank", "title": title, "status": code, "detail": detail}
        self.answer(code, json.dumps(document).encode(), "application/problem+json")

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        self.server.seen.append((self.command, self.path, dict(self.headers.items()), body))
        if self.server.limited > 0:
            self.server.limited -= 1
            self.send_response(429)
            self.send_header("retry-after", "0")
            self.send_header("content-length", "0")
            self.end_headers()
        elif self.path == "/healthz":
            self.answer(200, b"ok", "text/plain")
        elif not self.server.open and self.headers.get("authorization") != f"Bearer {TOKEN}":
            self.problem(401, "Unauthorized", "A token is needed.")
        elif self.path in self.server.answers:
            self.answer(*self.server.answers[self.path])
        elif self.path.startswith(("/v1/jede/", "/v1/cam/")):
            self.answer(
                200, json.dumps({"path": self.path, "body": body.decode()}).encode(), "application/json"
            )
        else:
            self.problem(404, "Not Found", "No route.")

    do_POST = do_PUT = do_DELETE = do_GET


class Gateway(ThreadingHTTPServer):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answers: dict[str, tuple[int, bytes, str]] = {}
        self.limited = 0
        self.open = False
        self.without_request_id = False
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def gateway() -> Iterator[Any]:
    with Gateway() as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(5)
