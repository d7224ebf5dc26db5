"""A closed-loop load: so many connections, each one request after the other. wrk or hey where one of them is
there, else processes of our own (this file as a program). Loopback only.
"""

from __future__ import annotations

import asyncio
import json
import re
import select
import shutil
import socket
import sys
import time
from dataclasses import dataclass

from bench.figure import ROOT

OWN_PROCESSES = 2


@dataclass(frozen=True)
class Load:
    """What was served: `bad` are answers other than 2xx and errors."""

    requests_per_s: float
    bad: int


def generator() -> str:
    return next((name for name in ("wrk", "hey") if shutil.which(name)), "own")


async def load(port: int, path: str, token: str, connections: int, seconds: float) -> Load:
    url, header = f"http://127.0.0.1:{port}{path}", f"authorization: Bearer {token}"
    match generator():
        case "wrk":
            said = await _run(
                "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "5s", "-H", header, url
            )
            errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
            others = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
            bad = sum(int(number) for found in (errors, others) if found for number in found.groups())
            return Load(_number(r"Requests/sec:\s+([\d.]+)", said), bad)
        case "hey":
            said = await _run(
                *("hey", "-z", f"{seconds:g}s", "-c", f"{connections}", "-cpus", "1", "-H", header, url)
            )
            statuses = {code: int(count) for code, count in re.findall(r"\[(\d+)\]\s+(\d+) responses", said)}
            bad = sum(count for code, count in statuses.items() if not code.startswith("2"))
            return Load(_number(r"Requests/sec:\s+([\d.]+)", said), bad)
    share = max(1, connections // OWN_PROCESSES)
    argv = (sys.executable, "-m", "bench.closed_loop", str(port), path, token, str(share), f"{seconds:g}")
    parts = [json.loads(said) for said in await asyncio.gather(*(_run(*argv) for _ in range(OWN_PROCESSES)))]
    return Load(sum(each["rate"] for each in parts), sum(each["bad"] for each in parts))


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"no figure in the generator's answer:\n{text}")
    return float(found[1])


async def _run(*argv: str) -> str:
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    said, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{argv[0]} ended with {process.returncode}")
    return said.decode()


# --- our own generator -----------------------------------------------------------------------------------


def drive(port: int, path: str, token: str, connections: int, seconds: float) -> dict[str, float]:
    """As little Python a request as there can be: an answer is complete when its length has come."""
    message = (
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n\r\n".encode()
    )
    poll = select.poll()
    links: dict[int, socket.socket] = {}
    for _ in range(connections):
        link = socket.create_connection(("127.0.0.1", port), 5.0)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        links[link.fileno()] = link
        poll.register(link, select.POLLIN)
        link.sendall(message)
    partial: dict[int, bytes] = {}
    served = bad = 0
    begin = time.monotonic()
    end = begin + seconds
    while time.monotonic() < end and links:
        for number, _ in poll.poll(1000):
            link = links[number]
            data = partial.pop(number, b"") + link.recv(65536)
            if not data:
                bad += 1
                poll.unregister(number)
                links.pop(number).close()
                continue
            if not _complete(data):
                partial[number] = data
                continue
            served += 1
            bad += not data.startswith(b"HTTP/1.1 2")
            link.sendall(message)
    return {"rate": served / (time.monotonic() - begin), "bad": bad}


def _complete(data: bytes) -> bool:
    head, gap, body = data.partition(b"\r\n\r\n")
    at = head.find(b"content-length: ")
    return bool(gap) and at >= 0 and len(body) >= int(head[at + 16 :].partition(b"\r")[0])


if __name__ == "__main__":
    print(json.dumps(drive(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))))
