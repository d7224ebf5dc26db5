"""A module of a few lines that hears of events: it writes down each one before it answers.

PORT, LOG (a file; a line per event: type, id, attempt). `bad` in the data is answered 500 until there is a file
`takes-everything`. With
BUS_URL and CONSUMES it also takes that type from the broker itself, by nats-py, and writes it down the same way; what
has the subject `never` it refuses until there is a file `takes-everything`.
"""

import asyncio
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOG = os.environ.get("LOG", "heard-nothing")
LOCK = threading.Lock()


def heard(kind: str, key: str, attempt: str) -> None:
    with LOCK, open(LOG, "a") as file:
        file.write(json.dumps([kind, key, attempt]) + "\n")
        file.flush()
        os.fsync(file.fileno())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        wanted = {"BUS_URL": os.environ.get("BUS_URL"), "EVENTS_URL": os.environ.get("EVENTS_URL")}
        self.answer(200, json.dumps(wanted).encode() if self.path == "/urls" else b"")

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        if b"bad" in data and "takes-everything" not in os.listdir():
            self.answer(500, b"as asked")
            return
        heard(self.headers["ce-type"], self.headers["ce-id"], self.headers["x-idi-attempt"])
        self.answer(204)

    def log_message(self, *_: object) -> None:
        return


async def consume() -> None:
    import nats
    import nats.errors

    topic = os.environ["CONSUMES"]
    while True:
        try:
            bus = await nats.connect(os.environ["BUS_URL"], max_reconnect_attempts=-1, reconnect_time_wait=1)
            break
        except Exception:
            await asyncio.sleep(0.2)
    taken = await bus.jetstream().pull_subscribe_bind(
        consumer=os.environ["IDI_MODULE"], stream=topic.replace(".", "=")
    )
    while True:
        try:
            for message in await taken.fetch(20, timeout=1):
                headers = message.headers or {}
                if headers.get("ce-subject") == "never" and "takes-everything" not in os.listdir():
                    await message.nak()
                    continue
                heard(topic, headers.get("ce-id", "?"), str(message.metadata.num_delivered))
                await message.ack()
        except (TimeoutError, nats.errors.Error):
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    if os.environ.get("CONSUMES"):
        threading.Thread(target=lambda: asyncio.run(consume()), daemon=True).start()
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
