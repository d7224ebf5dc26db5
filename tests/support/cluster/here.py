"""Processes of pods whose nodes are this machine: by their cgroup, which names pod and container."""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tests.support.cluster.cgroups import COMPONENTS, ROOT
from tests.support.cluster.group import CLONE_NEWNET

LIBC = ctypes.CDLL(None, use_errno=True)

NETLINK_SOCK_DIAG = 4
BY_FAMILY, DONE = 20, 3
REQUEST_ALL = 0x1 | 0x300
TCP, LISTEN = 6, 1 << 10
DIAG_S = 5.0


def pids(pod: Mapping[str, Any], container: str) -> list[int]:
    """Of one container, the first one first; none where it does not run, or its node is elsewhere."""
    status = pod.get("status", {})
    for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        if one["name"] == container and "running" in one.get("state", {}):
            made = one["containerID"].rpartition("/")[2]
            uid = pod["metadata"]["uid"]
            for branch in ("*/", ""):
                pattern = f"idi-test-*/*/kubepods/{branch}pod{uid}/{made}/cgroup.procs"
                for found in (ROOT / COMPONENTS).glob(pattern):
                    return sorted(map(int, found.read_text().split()))
    return []


def somebody(pod_uid: str) -> int:
    """A process of this pod, which is in its network; 0 while there is none."""
    for branch in ("*/", ""):
        for found in (ROOT / COMPONENTS).glob(f"idi-test-*/*/kubepods/{branch}pod{pod_uid}/*/cgroup.procs"):
            for pid in map(int, found.read_text().split()):
                # What becomes a container is in the node's network until it has gone in, as who made it is.
                maker = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
                if Path(f"/proc/{pid}/ns/net").readlink() != Path(f"/proc/{maker}/ns/net").readlink():
                    return pid
    return 0


class Listeners:
    """Asks the kernel which ports are listened on in the network of a process; nobody there notices."""

    def __init__(self, pid: int) -> None:
        self._socket = made_in(pid)
        self._socket.settimeout(DIAG_S)

    def has(self, port: int) -> bool:
        about = struct.pack("=BBBxI48x", socket.AF_INET, TCP, 0, LISTEN)
        self._socket.send(struct.pack("=IHHII", 16 + len(about), BY_FAMILY, REQUEST_ALL, 1, 0) + about)
        found = False
        while True:
            said, at = self._socket.recv(65536), 0
            while at < len(said):
                length, kind = struct.unpack_from("=IH", said, at)
                if kind != BY_FAMILY:
                    return found
                # After the head and four bytes there is the source port, as on the wire.
                found = found or struct.unpack_from("!H", said, at + 16 + 4)[0] == port
                at += length + 3 & ~3

    def close(self) -> None:
        self._socket.close()


def made_in(pid: int) -> socket.socket:
    """A socket of the kernel's diagnosis in the network of that process; made by a thread that has gone there."""
    made: Future[socket.socket] = Future()

    def make() -> None:
        try:
            with open(f"/proc/{pid}/ns/net", "rb") as namespace:
                if LIBC.setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"the network of process {pid} cannot be entered")
            made.set_result(socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG))
        except OSError as error:
            made.set_exception(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made.result()
