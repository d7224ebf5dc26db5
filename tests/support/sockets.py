"""Which sockets a process listens on, as the kernel says."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

LISTEN = "0A"


def listening() -> dict[str, tuple[str, int]]:
    """Address and port of every listening TCP socket of this machine, by the socket's inode."""
    found = {}
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN:
                address, port = fields[1].split(":")
                found[fields[9]] = (readable(address, family), int(port, 16))
    return found


def readable(address: str, family: int) -> str:
    """The kernel writes an address as words of 32 bits in this machine's byte order."""
    words = (int(address[at : at + 8], 16) for at in range(0, len(address), 8))
    return socket.inet_ntop(family, b"".join(struct.pack("=I", word) for word in words))


def inodes(pid: int) -> set[str]:
    """Inodes of a process's sockets."""
    found = set()
    folder = f"/proc/{pid}/fd"
    for descriptor in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def tcp_of(pid: int) -> list[tuple[str, int]]:
    """Where a process listens with TCP; a port that several workers share counts once."""
    everything = listening()
    return sorted({everything[inode] for inode in inodes(pid) if inode in everything})


def unix_of(pid: int) -> list[str]:
    """Paths of the Unix sockets on which a process listens."""
    mine = inodes(pid)
    found = set()
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        # Flags 00010000: it accepts connections.
        if len(fields) == 8 and fields[6] in mine and int(fields[3], 16) & 0x10000:
            found.add(fields[7])
    return sorted(found)
