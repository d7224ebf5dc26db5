"""Hears from the kernel that nobody listens on the module's port any more: when its process is killed, at once.

The containers of a pod share one network, and the kernel tells whoever asks which TCP sockets of it are destroyed
(`sock_diag`, a multicast group that needs no privilege). A filter lets through only what listened on that port, so the
module's traffic wakes nobody. A listener's end proves nothing by itself (one of several workers, one of two
addresses): it is tried whether one can still connect.

An idle connection to the module would tell as soon, but not every server can afford to have one: a worker that serves
one connection at a time would wait on it and serve nobody. And a server that waits for all of its connections at
SIGTERM would wait for ours. So where the kernel does not tell (gVisor), it is tried once a second instead.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import socket
import struct

from idi.parts.targets.http_probe import REFUSED
from idi.parts.targets.readiness import TcpProbe

NETLINK_SOCK_DIAG = 4
DESTROYED_TCP = 1 << 0 | 1 << 2
"""The groups of IPv4 and IPv6."""
SO_ATTACH_FILTER = 26
PORTS_AT = 16 + 4
"""In a message: after its head, family and state there is the source port and behind it the destination's, which is 0
for one that listens."""
TRY_EVERY_S = 1.0
TIMEOUT_S = 2.0

_log = logging.getLogger(__name__)


async def until_nobody_listens(port: int) -> None:
    """Return when connections to 127.0.0.1:port are refused."""
    probe = TcpProbe(port, TIMEOUT_S)
    try:
        heard: socket.socket | None = destroyed_listeners(port)
    except OSError as error:
        _log.info("the kernel does not tell which sockets end (%s); port %d is tried", error.strerror, port)
        heard = None
    try:
        while await probe.ask() != REFUSED:
            await _something(heard)
    finally:
        if heard is not None:
            heard.close()


def destroyed_listeners(port: int) -> socket.socket:
    """Readable when a socket that listened on this port has ended; `OSError` where the kernel does not tell."""
    code = [  # load both ports; is it this one and none: take it, else drop it
        struct.pack("HBBI", 0x20, 0, 0, PORTS_AT),
        struct.pack("HBBI", 0x15, 0, 1, port << 16),
        struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF),
        struct.pack("HBBI", 0x06, 0, 0, 0),
    ]
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
    try:
        instructions = ctypes.create_string_buffer(b"".join(code))
        program = struct.pack("HL", len(code), ctypes.addressof(instructions))
        made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        made.bind((0, DESTROYED_TCP))
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


async def _something(heard: socket.socket | None) -> None:
    if heard is None:
        await asyncio.sleep(TRY_EVERY_S)
        return
    try:
        await asyncio.get_running_loop().sock_recv(heard, 4096)
    except OSError:
        pass  # more ended than there was room for: one of them may be the one
