"""What a load consists of and what came of it; `tests.support.load` runs it.

Everything is bounded, and no address but this machine's is accepted: a load must never leave it by mistake.
"""

from __future__ import annotations

import ipaddress
import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

MAX_REQUESTS = 5_000_000

# The offset of its schedule, its status, its head, the first 64 KiB of its body.
OnReply = Callable[[float, int, bytes, bytes], None]


@dataclass(frozen=True)
class LoadPlan:
    """What to send. Every client's header set gets its turn (round robin), then the next path."""

    host: str
    port: int
    path: str | Sequence[str] = "/"
    rate: float = 100.0
    seconds: float = 1.0
    headers: Sequence[Mapping[str, str]] = ({},)
    method: str = "GET"
    body: bytes = b""
    timeout_s: float = 10.0
    connections: int = 64
    outstanding: int = 10_000
    warm: int = 0  # so many connections are opened before the first request is due
    max_failures: int = 200  # so many are described; all are counted
    ok: Callable[[int], bool] = lambda status: 200 <= status < 400
    on_reply: OnReply | None = None

    def __post_init__(self) -> None:
        if not is_this_machine(self.host):
            raise ValueError(f"load goes to 127.0.0.0/8 or ::1 only, not to {self.host!r}")
        for name, value, low, high in (
            ("port", self.port, 1, 65535),
            ("rate", self.rate, 0.001, 50_000),
            ("seconds", self.seconds, 0.001, 3600),
            ("count", self.count, 1, MAX_REQUESTS),
            ("timeout_s", self.timeout_s, 0.001, 120),
            ("connections", self.connections, 1, 4096),
            ("outstanding", self.outstanding, 1, 100_000),
            ("warm", self.warm, 0, self.connections),
            ("max_failures", self.max_failures, 0, 10_000),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, it has to be from {low} to {high}")
        if not self.paths or not self.headers:
            raise ValueError("at least one path and one header set (which may be empty)")
        if any("\r" in line or "\n" in line for line in self._lines()):
            raise ValueError("a header or path with a line break in it")

    @property
    def count(self) -> int:
        return max(1, round(self.rate * self.seconds))

    @property
    def paths(self) -> Sequence[str]:
        return (self.path,) if isinstance(self.path, str) else self.path

    def messages(self) -> list[bytes]:
        """All requests that differ, in the order of their turns."""
        authority = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        length = (
            f"content-length: {len(self.body)}\r\n"
            if self.body or self.method in ("POST", "PUT", "PATCH")
            else ""
        )
        result = []
        for path in self.paths:
            for fields in self.headers:
                host = "" if any(name.lower() == "host" for name in fields) else f"host: {authority}\r\n"
                more = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
                head = f"{self.method} {path} HTTP/1.1\r\n{host}{more}{length}\r\n"
                result.append(head.encode("latin-1") + self.body)
        return result

    def _lines(self) -> list[str]:
        return [
            self.method,
            *self.paths,
            *(f"{name}{value}" for fields in self.headers for name, value in fields.items()),
        ]


@dataclass(frozen=True)
class Failure:
    """A request without a good answer; `at` is its scheduled time in seconds from the start."""

    at: float
    error: str
    status: int | None = None
    body: str = ""


@dataclass(repr=False)
class LoadResult:
    """What came of it. Latencies: each complete answer's, of any status, and the wait of each timed-out request."""

    planned: int
    rate: float
    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    timeouts: int = 0
    not_sent: int = 0  # no connection, or more than `outstanding`, or stopped before their turn
    retries: int = 0
    connections_opened: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    latencies: array[float] = field(default_factory=lambda: array("d"))
    starts: array[float] = field(default_factory=lambda: array("d"))  # the schedule's offset for each latency
    slips: array[float] = field(default_factory=lambda: array("d"))
    _sorted: array[float] = field(default_factory=lambda: array("d"))

    def percentile(self, share: float) -> float:
        """By nearest rank, in seconds; NaN where nothing was measured."""
        if len(self._sorted) != len(self.latencies):
            self._sorted = array("d", sorted(self.latencies))
        return nearest_rank(self._sorted, share)

    @property
    def p50(self) -> float:
        return self.percentile(0.50)

    @property
    def p95(self) -> float:
        return self.percentile(0.95)

    @property
    def p99(self) -> float:
        return self.percentile(0.99)

    @property
    def max(self) -> float:
        return self.percentile(1.0)

    @property
    def slip_p99(self) -> float:
        return nearest_rank(array("d", sorted(self.slips)), 0.99)

    @property
    def slip_max(self) -> float:
        return max(self.slips, default=math.nan)

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    def between(self, begin: float, end: float) -> array[float]:
        """Sorted latencies of the requests that were due in a stretch of the run."""
        return array(
            "d", sorted(x for at, x in zip(self.starts, self.latencies, strict=True) if begin <= at < end)
        )

    def as_json(self) -> dict[str, object]:
        def ms(seconds: float) -> float | None:
            return None if math.isnan(seconds) else round(seconds * 1000, 3)

        return {
            "planned": self.planned,
            "sent": self.sent,
            "rate": self.rate,
            "seconds": round(self.seconds, 3),
            "statuses": {str(status): number for status, number in sorted(self.statuses.items())},
            "failed": self.failed,
            "timeouts": self.timeouts,
            "not_sent": self.not_sent,
            "retries": self.retries,
            "connections_opened": self.connections_opened,
            "latency_ms": {
                "p50": ms(self.p50),
                "p95": ms(self.p95),
                "p99": ms(self.p99),
                "max": ms(self.max),
            },
            "slip_ms": {"p99": ms(self.slip_p99), "max": ms(self.slip_max)},
            "cpu_share": round(self.cpu_seconds / self.seconds, 3) if self.seconds else None,
            "failures": [
                {"at": round(one.at, 3), "error": one.error, "status": one.status, "body": one.body}
                for one in self.failures[:20]
            ],
        }

    def __repr__(self) -> str:
        return json.dumps(self.as_json())


def nearest_rank(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def is_this_machine(host: str) -> bool:
    """Literal loopback addresses only: a name could mean anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
