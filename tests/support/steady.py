"""A constant load on a platform while something happens to it, and the figures that come of it."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.support.load import Load, start_load
from tests.support.load_plan import LoadResult
from tests.support.platform import Platform, until

LONGEST_S = 600.0


def figure(what: str, **values: object) -> None:
    """A measured figure, for people; nothing is asserted of it."""
    shown = ", ".join(f"{name} {value}" for name, value in values.items())
    print(f"figure: {what}: {shown}")


def in_ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


@dataclass
class Act:
    """A load that runs: `now()` is the offset in its schedule."""

    load: Load
    begun: float

    @property
    def result(self) -> LoadResult:
        return self.load.result

    def now(self) -> float:
        return asyncio.get_running_loop().time() - self.begun


@asynccontextmanager
async def under_load(
    one: Platform, path: str | Sequence[str], tokens: Sequence[str], rate: float, **more: Any
) -> AsyncIterator[Act]:
    """The load begins a second before the block and goes on for a second after it; then it is final."""
    plan = one.load(path, tokens, rate=rate, seconds=LONGEST_S, warm=16, max_failures=10_000, **more)
    async with start_load(plan) as load:
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(1)
        yield Act(load, begun)
        await asyncio.sleep(1)


async def meanwhile(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run something that blocks beside the load."""
    return await asyncio.to_thread(function, *arguments)


async def kill(pid: int) -> float:
    """SIGKILL; seconds on the loop's clock when the process was seen dead."""
    handle = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        select.select([handle], [], [], 10)  # milliseconds: the load's own timers can wait
        return asyncio.get_running_loop().time()
    finally:
        os.close(handle)


def back(
    one: Platform, module: str, instance: str, role: str, old: int
) -> Callable[[], dict[str, Any] | None]:
    """The instance once it is ready again with another process in that role (`pid`, `sidecar_pid`)."""

    def found() -> dict[str, Any] | None:
        for each in one.instances(module):
            if each["id"] == instance and each[role] not in (old, 0) and each["state"] == "ready":
                return each
        return None

    return found


async def wait_back(one: Platform, module: str, instance: str, role: str, old: int) -> dict[str, Any]:
    found = await meanwhile(until, back(one, module, instance, role, old), 30.0)
    assert isinstance(found, dict)
    return found


def access_log(one: Platform, since: float) -> list[dict[str, Any]]:
    """The gateway's entries of requests that began after a wall-clock time. It writes once a second."""
    time.sleep(1.2)
    found = []
    for line in (one.paths.logs / "gateway-access.log").read_text().splitlines():
        entry = json.loads(line)
        entry["at"] = datetime.fromisoformat(entry["time"]).timestamp()
        if entry["at"] >= since:
            found.append(entry)
    return found


def wrongly_routed(one: Platform, killed: float) -> dict[str, object]:
    """Requests that the gateway had to try again around a death, and when it routed the last of them."""
    tried = [each["at"] for each in access_log(one, killed - 0.25) if each["tries"] > 1]
    last = in_ms(max(0.0, max(tried) - killed)) if tried else "none was"
    return {"tried_again": len(tried), "last_wrongly_routed_after": last}


def report(what: str, act: Act, **more: object) -> None:
    result = act.result
    figure(
        what,
        requests=result.answered,
        failed=result.failed,
        rate=f"{result.rate:g}/s",
        p50=in_ms(result.p50),
        p99=in_ms(result.p99),
        longest=in_ms(result.max),
        slip_p99=in_ms(result.slip_p99),
        **more,
    )


def nothing_failed(act: Act) -> None:
    result = act.result
    assert result.answered > 0
    assert result.failed == 0, (result.statuses, result.failures[:5])
    assert set(result.statuses) == {200}
    assert result.retries == 0, "the gateway closed a connection under a request"
