"""Simulated sidecars: many incremental ADS streams in one process, each on a connection of its own.

Only as much HTTP/2 and gRPC as one stream needs, by hand: a real gRPC client costs more for a message than the
server that is measured. Each subscribes to what a sidecar subscribes to (clusters, listeners, the assignment of
`target`), acknowledges everything, and notes when the assignment came. Started by `propagation`:

    python -m bench.subscribers SOCKET FIRST COUNT   prints {"ready": true}; a line on stdin ends it with the times
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from functools import lru_cache
from typing import cast

from envoy.service.discovery.v3 import discovery_pb2

from bench.control_child import credential
from idi.parts.gateway.envoy.resources import TYPE_URL, Kind
from idi.parts.gateway.envoy.server import METHOD, SERVICE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
MOST = 2**31 - 1
ASSIGNMENT = TYPE_URL[Kind.ASSIGNMENT]
AT_ONCE = 100


class Times:
    """When the last of these streams got each assignment, by the number of its change."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}
        self.last: dict[str, float] = {}

    def got(self, nonce: str) -> None:
        self.count[nonce] = self.count.get(nonce, 0) + 1
        self.last[nonce] = time.monotonic()


class Subscriber(asyncio.Protocol):
    """One connection with one stream. Windows are opened so wide at the start that none has to be kept."""

    transport: asyncio.Transport

    def __init__(self, node: str, times: Times) -> None:
        self.node = node
        self.times = times
        self.pending = b""
        self.message = b""
        self.assigned = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(
            PREFACE
            + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, MOST))
            + frame(WINDOW, 0, 0, struct.pack(">I", MOST - 65535))
            + frame(HEADERS, END_HEADERS, 1, head(credential(self.node)))
            + message(subscription(Kind.CLUSTER, node=self.node))
            + message(subscription(Kind.LISTENER))
            + message(subscription(Kind.ASSIGNMENT, "target"))
        )

    def data_received(self, data: bytes) -> None:
        data = self.pending + data
        at = 0
        while len(data) - at >= 9:
            length = int.from_bytes(data[at : at + 3])
            if len(data) - at < 9 + length:
                break
            self.take(data[at + 3], data[at + 4], data[at + 9 : at + 9 + length])
            at += 9 + length
        self.pending = data[at:]

    def take(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == DATA:
            self.collect(payload)
        elif kind == SETTINGS and not flags & ACK:
            self.transport.write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self.transport.write(frame(PING, ACK, 0, payload))
        elif kind in (RST, GOAWAY) or (kind == HEADERS and flags & END_STREAM):
            print(f"{self.node}: the stream was ended: frame {kind} {payload!r}", file=sys.stderr)
            self.transport.close()

    def collect(self, payload: bytes) -> None:
        self.message += payload
        while len(self.message) >= 5:
            size = 5 + int.from_bytes(self.message[1:5])
            if len(self.message) < size:
                return
            response = discovery_pb2.DeltaDiscoveryResponse.FromString(self.message[5:size])
            self.message = self.message[size:]
            self.transport.write(acknowledgement(response.type_url, response.nonce))
            if response.type_url == ASSIGNMENT:
                self.times.got(response.nonce)
                self.assigned.set()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def message(body: bytes) -> bytes:
    """A gRPC message in a DATA frame."""
    return frame(DATA, 0, 1, b"\0" + len(body).to_bytes(4) + body)


@lru_cache(maxsize=64)
def acknowledgement(type_url: str, nonce: str) -> bytes:
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=nonce)
    return message(request.SerializeToString())


def subscription(kind: Kind, *names: str, node: str = "") -> bytes:
    request = discovery_pb2.DeltaDiscoveryRequest(
        type_url=TYPE_URL[kind], resource_names_subscribe=names, node={"id": node} if node else None
    )
    encoded: bytes = request.SerializeToString()
    return encoded


def head(token: str) -> bytes:
    """HPACK without tables and without Huffman: names by their static index, values as they are."""
    return (
        b"\x83\x86"  # POST, http
        + b"\x04"
        + text(f"/{SERVICE}/{METHOD}")
        + b"\x01"
        + text("control")
        + b"\x0f\x10"
        + text("application/grpc")
        + b"\x00"
        + text("te")
        + text("trailers")
        + b"\x0f\x08"
        + text(f"Bearer {token}")
    )


def text(value: str) -> bytes:
    assert len(value) < 127, value
    return bytes((len(value),)) + value.encode()


async def main(socket: str, first: int, count: int) -> None:
    loop = asyncio.get_running_loop()
    times = Times()
    everyone = [Subscriber(f"caller-{first + index}", times) for index in range(count)]
    for begin in range(0, count, AT_ONCE):
        some = everyone[begin : begin + AT_ONCE]
        for each in some:
            await loop.create_unix_connection(lambda each=each: each, socket)  # type: ignore[misc]
        await asyncio.gather(*(each.assigned.wait() for each in some))
    print(json.dumps({"ready": True}), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    print(json.dumps({"count": times.count, "last": times.last}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
