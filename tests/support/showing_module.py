"""A module that shows what it was given: its environment, its arguments, and what its peers answer.

HTTP on the first argument's port: `/ready`, `/environment` (JSON), `/arguments` (JSON), `/get/NAME` (what the URL in
that variable answers), `/echo/NAME` (what HOST:PORT in that variable says to `hello`), `/slow/250` (answers after
that many milliseconds), any method. A further argument `--tcp PORT` makes it echo there. It knows nothing of signals:
SIGTERM ends it at once, whatever it is doing. Standard library only; `python showing_module.py PORT`.
"""

import json
import os
import socket
import socketserver
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def fetched(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return str(answer.read().decode())


def echoed(address: str) -> str:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"hello\n")
        return connection.makefile("rb").readline().decode().strip()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        what, _, name = self.path[1:].partition("/")
        status, body = 200, ""
        try:
            if what == "environment":
                body = json.dumps(dict(os.environ))
            elif what == "arguments":
                body = json.dumps(sys.argv[1:])
            elif what == "get":
                body = fetched(os.environ[name] + "/ready")
            elif what == "echo":
                body = echoed(os.environ[name])
            elif what == "slow":
                time.sleep(int(name) / 1000)
            elif what == "ready":
                body = f"ready {os.environ.get('IDI_INSTANCE')}"
            else:
                status = 404
        except (OSError, KeyError) as error:
            status, body = 502, repr(error)
        self.send_response(status)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)
            self.wfile.flush()


class Http(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


class Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    if "--tcp" in sys.argv:
        tcp = Tcp(("127.0.0.1", int(sys.argv[sys.argv.index("--tcp") + 1])), Echo)
        threading.Thread(target=tcp.serve_forever, daemon=True).start()
    Http(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
