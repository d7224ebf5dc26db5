"""The example that `idi init` writes: two modules in plain Python, which run on any machine that runs IDI."""

from __future__ import annotations

_PLATFORM = """\
# yaml-language-server: $schema=./platform.schema.json
#
# Two modules: `hello` answers, with a greeting that it gets from `greeter`. Start them with `idi up`, then
#     idi call hello /
# Everything not written here has a default; `idi plan` says where each value comes from.
platform: example

gateway:
  clients:                             # who may ask for tokens, and for which scopes
    pilot: {scopes: [hello.read]}

modules:
  hello:
    run: python hello.py               # from this folder; PORT says where to listen
    calls: [greeter]                   # GREETER_URL says where it is; all else is refused
    routes:                            # ways from outside; a module without the key gets /v1/MODULE/
      - {path: /v1/hello/, scopes: [hello.read], timeout: 5s}

  greeter:
    run: python greeter.py
    instances: 2                       # requests are shared out, and retried where one has died
    routes: []                         # none: only other modules reach it
    config: {GREETING: Hello}          # environment variables

# environments:                        # the same file for a cluster: an environment only overrides
#   production:
#     target: {kubernetes: {context: production}}
#     modules:
#       greeter: {instances: 4}
"""

_SERVE = """

def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    # SIGTERM: take no more requests, finish those that run, end
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.daemon_threads = False
    server.serve_forever(poll_interval=0.1)
    server.server_close()


if __name__ == "__main__":
    main()
"""

_HELLO = (
    '''"""Answers with a greeting from `greeter`."""

import os
import signal
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GREETER = os.environ["GREETER_URL"]  # a port on this machine; mutual TLS and retries happen behind it


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/ready":
            self.answer(200, "ready\\n")
            return
        # passing `traceparent` on is what joins both calls in one trace
        trace = self.headers.get("traceparent")
        request = urllib.request.Request(GREETER + "/", headers={"traceparent": trace} if trace else {})
        try:
            with urllib.request.urlopen(request, timeout=4) as greeting:
                self.answer(200, f"{greeting.read().decode().strip()} from hello.\\n")
        except OSError as error:
            self.answer(502, f"greeter does not answer: {error}\\n")

    def answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
'''
    + _SERVE
)

_GREETER = (
    '''"""Knows a greeting. Its readiness is GET /ready, which every module has unless it declares another."""

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GREETING = os.environ.get("GREETING", "Hello")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        text = "ready\\n" if self.path == "/ready" else f"{GREETING}, world\\n"
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
'''
    + _SERVE
)


def example() -> dict[str, str]:
    """File name to text."""
    return {"platform.yaml": _PLATFORM, "hello.py": _HELLO, "greeter.py": _GREETER}
