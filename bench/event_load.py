"""A closed loop of publishers as cheap as Python makes it: so many events on their way, each answered by the next one.

One process, blocking sockets and epoll, messages made beforehand but for their ids. By HTTP each event that is on
its way has a connection; to the broker all share one, as its clients do, and each has a reply subject of its own.
`events` in a request make it a batch. Loopback only.

    python -m bench.event_load < PLAN        # a JSON document; the result is one too
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

DATA = "x" * 1000
"""With its attributes an event is about 1.2 KB."""


@dataclass(frozen=True)
class Plan:
    """`url`: http://HOST:PORT/PATH, or nats://USER:PASSWORD@HOST:PORT. `run` makes ids unique."""

    url: str
    type: str
    run: str
    at_once: int = 1
    seconds: float = 2.0
    events: int = 1
    """In one request."""


@dataclass(frozen=True)
class Done:
    """`cpu_us` is what the generator itself used for one event."""

    events: int
    seconds: float
    cpu_us: float

    @property
    def rate(self) -> float:
        return self.events / self.seconds


def drive(plan: Plan) -> Done:
    connect, serve = (by_http(plan), http_loop) if plan.url.startswith("http") else (by_nats(plan), nats_loop)
    cpu, begun = time.process_time(), time.monotonic()
    requests = serve(plan, connect, begun + plan.seconds)
    seconds = time.monotonic() - begun
    events = requests * plan.events
    return Done(events, seconds, (time.process_time() - cpu) * 1e6 / max(1, events))


def event(plan: Plan, id: str) -> str:
    return (
        f'{{"specversion":"1.0","id":"{id}","source":"/bench","type":"{plan.type}",'
        f'"datacontenttype":"text/plain","data":"{DATA}"}}'
    )


def by_http(plan: Plan) -> Callable[[int], bytes]:
    """The message of a request. Ids are of one length, so the length of all is too."""
    url = urlsplit(plan.url)
    form = "application/cloudevents-batch+json" if plan.events > 1 else "application/cloudevents+json"

    def body(number: int) -> str:
        first = number * plan.events
        each = [event(plan, f"{plan.run}-{first + n:09d}") for n in range(plan.events)]
        return f"[{','.join(each)}]" if plan.events > 1 else each[0]

    head = (
        f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-type: {form}\r\n"
        f"content-length: {len(body(0))}\r\n\r\n"
    )
    return lambda number: (head + body(number)).encode()


def http_loop(plan: Plan, message: Callable[[int], bytes], end: float) -> int:
    url = urlsplit(plan.url)
    poll = select.epoll()
    links: dict[int, socket.socket] = {}
    sent = done = 0
    for _ in range(plan.at_once):
        link = connected(url.hostname or "", url.port or 0)
        links[link.fileno()] = link
        poll.register(link, select.EPOLLIN)
        link.sendall(message(sent))
        sent += 1
    partial: dict[int, bytes] = {}
    while done < sent:
        for number, _ in some(poll):
            answer = partial.pop(number, b"") + links[number].recv(65536)
            head, gap, body = answer.partition(b"\r\n\r\n")
            at = head.lower().find(b"content-length: ")
            if not gap or len(body) < int(head[at + 16 :].partition(b"\r")[0]):
                partial[number] = answer
                continue
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"not kept: {answer[:600].decode()}")
            done += 1
            if time.monotonic() < end:
                links[number].sendall(message(sent))
                sent += 1
    for link in links.values():
        link.close()
    return done


def by_nats(plan: Plan) -> Callable[[int], bytes]:
    """What the relay would have made of the same event: the same headers, an id that is taken once."""
    stream = plan.type.replace(".", "=")

    def message(number: int) -> bytes:
        id = f"{plan.run}-{number:09d}"
        head = (
            f"NATS/1.0\r\nce-specversion: 1.0\r\nce-id: {id}\r\nce-source: %2Fbench\r\nce-type: {plan.type}\r\n"
            f"content-type: text/plain\r\nNats-Msg-Id: {id}\r\nNats-Expected-Stream: {stream}\r\n\r\n"
        )
        sizes = f"{len(head)} {len(head) + len(DATA)}"
        return f"HPUB {plan.type} _INBOX.{plan.run}.{number} {sizes}\r\n{head}{DATA}\r\n".encode()

    return message


def nats_loop(plan: Plan, message: Callable[[int], bytes], end: float) -> int:
    url = urlsplit(plan.url)
    link = connected(url.hostname or "", url.port or 0)
    told: dict[str, object] = {
        "user": url.username,
        "pass": url.password,
        "verbose": False,
        "headers": True,
        "lang": "bench",
    }
    told |= {"no_responders": True, "version": "1", "protocol": 1}
    link.sendall(f"CONNECT {json.dumps(told)}\r\nSUB _INBOX.{plan.run}.* 1\r\nPING\r\n".encode())
    buffer = b""
    while b"PONG\r\n" not in buffer:
        buffer += received(link)
    buffer = b""
    sent = done = 0
    out = [message(number) for number in range(plan.at_once)]
    sent = len(out)
    link.sendall(b"".join(out))
    while done < sent:
        buffer += received(link)
        out = []
        while (line := buffer.find(b"\r\n")) >= 0:
            words = buffer[:line].split()
            if words[0] != b"MSG":
                if words[0] == b"PING":
                    out.append(b"PONG\r\n")
                elif words[0] != b"INFO":
                    raise RuntimeError(f"the broker says {buffer[:300].decode()}")
                buffer = buffer[line + 2 :]
                continue
            size = int(words[-1])
            if len(buffer) < line + 4 + size:
                break
            answer = buffer[line + 2 : line + 2 + size]
            buffer = buffer[line + 4 + size :]
            if b'"seq"' not in answer or b'"error"' in answer:
                raise RuntimeError(f"not kept: {answer.decode()}")
            done += 1
            if time.monotonic() < end:
                out.append(message(sent))
                sent += 1
        if out:
            link.sendall(b"".join(out))
    link.close()
    return done


def connected(host: str, port: int) -> socket.socket:
    link = socket.create_connection((host, port), 10.0)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def some(poll: select.epoll) -> list[tuple[int, int]]:
    found = poll.poll(10.0)
    if not found:
        raise RuntimeError("no answer within 10 s")
    return found


def received(link: socket.socket) -> bytes:
    data = link.recv(1 << 16)
    if not data:
        raise RuntimeError("the broker hung up")
    return data


if __name__ == "__main__":
    print(json.dumps(asdict(drive(Plan(**json.load(sys.stdin))))))
