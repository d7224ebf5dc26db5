"""Which slots and ports an instance gets: the pure part, asking only `free(port)`.

A port is looked for from a place that platform, instance and purpose give, so an instance gets the same
numbers again after it was gone, without a memory of it, and platforms side by side rarely look in the same
place. The range lies below the one from which the kernel takes ports for outgoing connections (from 32768 on
Linux), so those never sit on a port of ours.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable
from hashlib import sha256

from idi.parts.errors import PartError

FIRST, LAST = 20_000, 29_999

Free = Callable[[int], bool]


def free_slots(count: int, taken: Collection[int]) -> list[int]:
    """The `count` lowest slots, from 1, that are not taken."""
    slots: list[int] = []
    slot = 1
    while len(slots) < count:
        if slot not in taken:
            slots.append(slot)
        slot += 1
    return slots


def choose_ports(
    platform_hash: str, instance: str, purposes: Iterable[str], taken: Collection[int], free: Free
) -> dict[str, int]:
    """A port for each purpose: none twice, none of `taken`, each of them free."""
    span = LAST - FIRST + 1
    chosen: dict[str, int] = {}
    used = set(taken)
    for purpose in purposes:
        place = int.from_bytes(sha256(f"{platform_hash}/{instance}/{purpose}".encode()).digest()[:8], "big")
        for step in range(span):
            port = FIRST + (place + step) % span
            if port not in used and free(port):
                chosen[purpose] = port
                used.add(port)
                break
        else:
            raise PartError(f"No port between {FIRST} and {LAST} is free.", "Stop what holds them.")
    return chosen


def port_is_free(port: int) -> bool:
    """Whether a server may listen on this port now, on loopback or on every address."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Connections of the last owner that linger (TIME_WAIT) are no obstacle to a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
