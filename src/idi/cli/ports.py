"""Whether a port is free, and who holds it where it is not (from /proc, as far as one may look)."""

from __future__ import annotations

import os
import socket

LISTEN = "0A"
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the gateway binds: a connection that lingers from before is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def next_free(port: int) -> int:
    """A free port shortly after this one; 0 where none is."""
    return next((each for each in range(port + 1, min(port + 100, 65536)) if is_free(each)), 0)


def holder(port: int) -> tuple[int, str]:
    """Pid and name of who listens there; 0 and '' where it is another user's or cannot be told."""
    inodes = listening(port)
    if not inodes:
        return 0, ""
    for name in os.listdir("/proc"):
        if name.isdecimal() and holds(name, inodes):
            return int(name), program(name)
    return 0, ""


def listening(port: int) -> set[str]:
    """What /proc calls the sockets that listen on this port."""
    found = set()
    for table in TABLES:
        try:
            with open(table, encoding="ascii") as lines:
                next(lines)
                for line in lines:
                    fields = line.split()
                    if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                        found.add(f"socket:[{fields[9]}]")
        except (OSError, StopIteration, ValueError, IndexError):
            continue
    return found


def holds(pid: str, sockets: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        for descriptor in os.listdir(folder):
            try:
                if os.readlink(f"{folder}/{descriptor}") in sockets:
                    return True
            except OSError:
                continue
    except OSError:
        pass  # another user's, or gone
    return False


def program(pid: str) -> str:
    """The command as a person would recognise it, shortened."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [word.decode("utf-8", "replace") for word in file.read(4096).split(b"\0") if word]
    except OSError:
        return ""
    if not words:
        return ""
    said = " ".join([os.path.basename(words[0]), *words[1:]])
    return said if len(said) <= 60 else said[:59] + "…"
