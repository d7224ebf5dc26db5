"""What goes over the loopback interface in plain: every TCP payload, by port. Needs CAP_NET_RAW."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import Self

ETH_P_ALL = 3
OUTGOING = 4
KEPT_BYTES = 4 * 1024 * 1024


def possible() -> bool:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(ETH_P_ALL)).close()
    except (OSError, AttributeError):
        return False
    return True


class Sniffer:
    """A context manager; `seen[port]` are the payloads of all packets to or from that port."""

    def __init__(self) -> None:
        self.seen: dict[int, bytearray] = defaultdict(bytearray)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(ETH_P_ALL))
        self._socket.bind(("lo", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024 * 1024)
        self._socket.settimeout(0.1)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        time.sleep(0.2)  # the last packets
        self._end.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                packet, address = self._socket.recvfrom(65600)
            except TimeoutError:
                continue
            if address[2] != OUTGOING:  # on loopback each packet is seen going out and coming in
                self._take(packet[14:])

    def _take(self, packet: bytes) -> None:
        if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
            return
        segment = packet[(packet[0] & 15) * 4 :]
        source, target = struct.unpack("!HH", segment[:4])
        payload = segment[(segment[12] >> 4) * 4 :]
        for port in (source, target):
            if payload and len(self.seen[port]) < KEPT_BYTES:
                self.seen[port] += payload
