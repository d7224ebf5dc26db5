"""An Envoy's admin socket: drain it, count what it does, let it reopen its log.

A request a connection, HTTP/1.1 by hand over the Unix socket: three calls of one server on this machine
need no client library. Every call has a time limit; an Envoy that does not answer is a `PartError`.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from idi.parts.errors import PartError

TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
EVERY_S = 0.02


@dataclass(frozen=True, slots=True)
class Figures:
    """Since the proxy started: requests that ended, those answered 5xx, those refused by policy; and the
    quantiles of their time over its life (0 where there is none)."""

    requests: int = 0
    failed: int = 0
    denied: int = 0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(document: Any) -> Figures:
        """Out of what `document` made. Raises `ValueError` for anything else."""
        try:
            counts = (int(document[name]) for name in ("requests", "failed", "denied"))
            return Figures(*counts, *(float(document[name]) for name in ("p50_ms", "p95_ms", "p99_ms")))
        except (KeyError, TypeError) as error:
            raise ValueError("no figures") from error


async def ask(socket: Path, method: str, path: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """One request; the body of a 200."""
    try:
        async with asyncio.timeout(timeout_s):
            status, body = await _exchange(socket, method, path)
    except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
        raise PartError(f"The Envoy at {socket} does not answer {path}: {error or 'in time'}.") from error
    if status != 200:
        raise PartError(f"The Envoy at {socket} answers {status} to {path}.")
    return body


async def _exchange(socket: Path, method: str, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=MAX_ANSWER_BYTES)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(head.split(" ", 2)[1])
        if "transfer-encoding: chunked" in head.lower():
            return status, await _chunks(reader)
        return status, await reader.read(MAX_ANSWER_BYTES)
    finally:
        writer.close()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts, total = [], 0
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        total += size
        if total > MAX_ANSWER_BYTES:
            raise ValueError("the answer is too large")
        parts.append((await reader.readexactly(size + 2))[:-2])
    return b"".join(parts)


async def counters(socket: Path, pattern: str) -> dict[str, int]:
    """Counters and gauges whose name matches the expression."""
    body = await ask(socket, "GET", f"/stats?format=json&filter={quote(pattern)}")
    return {each["name"]: each["value"] for each in json.loads(body)["stats"] if "value" in each}


async def drain(socket: Path, grace_s: float, prefix: str = "in") -> bool:
    """Ask whoever is connected to go elsewhere, without closing the door; wait until no request is left.

    `/healthcheck/fail` does both: answers carry `Connection: close` or GOAWAY, new connections are still
    served; unlike `/drain_listeners` it can be taken back. The module's way out is not touched (outbound
    listeners drain when they are modified, not by this). Connections of plain tcp don't count: only the
    module knows when it is done with one, and it is told by SIGTERM.

    True when no request is left; False at the end of the grace period.
    """
    await ask(socket, "POST", "/healthcheck/fail")
    end = asyncio.get_running_loop().time() + grace_s
    while await active_requests(socket, prefix) > 0:
        if asyncio.get_running_loop().time() >= end:
            return False
        await asyncio.sleep(EVERY_S)
    return True


async def undrain(socket: Path) -> None:
    """Take a drain back."""
    await ask(socket, "POST", "/healthcheck/ok")


async def active_requests(socket: Path, prefix: str = "in") -> int:
    """Requests that came by listeners whose name begins so and are inside right now; an open WebSocket is one."""
    return sum((await counters(socket, rf"^http\.{prefix}\.(.*\.)?downstream_rq_active$")).values())


async def figures(socket: Path, prefix: str = "in") -> Figures:
    """What came in by listeners whose name begins so (`in` of a sidecar, `gateway`)."""
    counted = (
        r"downstream_rq_completed|downstream_rq_5xx|rbac\.denied|downstream_rq_time|ssl\.fail_verify_san"
    )
    pattern = rf"^(http|listener)\.{prefix}\.(.*\.)?({counted})$"
    body = await ask(socket, "GET", f"/stats?format=json&filter={quote(pattern)}")
    sums = {"downstream_rq_completed": 0, "downstream_rq_5xx": 0, "denied": 0, "fail_verify_san": 0}
    quantiles: dict[float, float] = {}
    for each in json.loads(body)["stats"]:
        if "value" in each:
            sums[each["name"].rsplit(".", 1)[-1]] += each["value"]
        else:
            quantiles = _quantiles(each["histograms"])
    return Figures(
        sums["downstream_rq_completed"],
        sums["downstream_rq_5xx"],
        sums["denied"] + sums["fail_verify_san"],
        quantiles.get(50.0, 0.0),
        quantiles.get(95.0, 0.0),
        quantiles.get(99.0, 0.0),
    )


def _quantiles(document: dict[str, Any]) -> dict[float, float]:
    """The slowest of the listeners: an instance is as slow as its slowest port."""
    worst: dict[float, float] = {}
    for histogram in document.get("computed_quantiles", ()):
        for quantile, value in zip(document["supported_quantiles"], histogram["values"], strict=True):
            worst[quantile] = max(worst.get(quantile, 0.0), value.get("cumulative") or 0.0)
    return worst


async def rotate_log(socket: Path, log: Path, max_bytes: int) -> bool:
    """Bound the access log: past `max_bytes` it becomes `<name>.1` (the one before is dropped) and Envoy opens
    a new one. No line is lost: until it does, it writes to the renamed file. True if it was rotated."""
    try:
        if os.stat(log).st_size <= max_bytes:
            return False
    except FileNotFoundError:
        return False
    os.replace(log, f"{log}.1")
    await ask(socket, "POST", "/reopen_logs")
    return True
