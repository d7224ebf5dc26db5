"""A module of a few lines that takes one request after the other, so that at a breakpoint it answers nothing at all.

GET answers who it is and what it got; POST hears of an event and writes its id down (HEARD). `/environment` is
everything it finds there. ALONE: it refuses to start while another one has that file, as whoever owns storage would.
"""

import fcntl
import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/ready":
            self.answer({})
            return
        found = dict(os.environ) if self.path == "/environment" else {"who": os.environ.get("WHO", "ours")}
        self.answer(found)  # a breakpoint stands here

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        event = self.headers.get("ce-id", "")
        with open(os.environ.get("HEARD", "heard"), "a") as file:
            who = os.environ.get("WHO", "ours")  # and one here
            file.write(f"{event} {self.headers.get('x-idi-attempt')} {who}\n")
        self.answer({})

    def answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


def main() -> None:
    if alone := os.environ.get("ALONE"):
        held = open(alone, "w")  # noqa: SIM115
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit("two writers")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    HTTPServer.request_queue_size = 64
    HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


main()
