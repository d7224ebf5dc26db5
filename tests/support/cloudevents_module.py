"""A module that reads what it is handed with the official CloudEvents SDK, and writes down what that says."""

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

from cloudevents.core.bindings.http import HTTPMessage, from_http_event


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(200, json.dumps(dict(os.environ)).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        event = from_http_event(
            HTTPMessage({name.lower(): value for name, value in self.headers.items()}, body)
        )
        data = event.get_data()
        told = {
            "id": event.get_id(),
            "source": event.get_source(),
            "subject": event.get_subject(),
            "tenant": event.get_extension("tenant"),
            "data": data.decode() if isinstance(data, bytes) else data,
        }
        with open("received", "a") as file:
            file.write(json.dumps(told) + "\n")
        self.answer(204)

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
