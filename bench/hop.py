"""What one call from module to module costs: through two sidecars with mutual TLS, against calling directly.

    client -> sidecar -> mutual TLS -> sidecar -> server        against        client -> server

Open loop at a fixed 1,000 requests/s over 16 connections, 1 KB answers: latency counts from the time at which a
request was due, so a stall is not left out. The added time is the difference of the percentiles of two runs moments
apart. Client and sidecar share one core, server and its sidecar the other, as if they were two machines.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.figure import Figure, Options, Spread, cpu_seconds, in_turn, main, pinned, placing
from bench.static_envoy import answering, envoy
from tests.support.envoy import free_port, mesh
from tests.support.load import LoadPlan, LoadResult, run_load

RATE = 1000.0
CONNECTIONS = 16
BODY = "x" * 1024
CALLER_CORE, CALLEE_CORE = 0, 1
AIMS = {"p50": (0.8, None), "p95": (None, None), "p99": (3.0, 1.0)}


@dataclass(frozen=True)
class Run:
    """Percentiles in ms; `cpu_ms` is what the sidecars used for one request."""

    latency: dict[str, float]
    slip_p99_ms: float
    cpu_ms: float


def measure(options: Options) -> Sequence[Figure]:
    seconds = options.count(4, 15)
    pairs = asyncio.run(measure_pairs(options.repetitions(4, 10), seconds))
    figures = []
    for name, (aim, stretch) in AIMS.items():
        direct = Spread.of(other.latency[name] for _, other in pairs).value
        through = Spread.of(one.latency[name] for one, _ in pairs).value
        detail: dict[str, object] = {"of": f"{through:.2f} ms through sidecars, {direct:.2f} ms direct"}
        if name == "p99":
            detail["sidecars"] = f"{Spread.of(one.cpu_ms for one, _ in pairs).value:.3f} ms CPU a request"
            slip = max(each.slip_p99_ms for pair in pairs for each in pair)
            detail["how"] = (
                f"{RATE:g} requests/s, {CONNECTIONS} connections, {seconds} s a run, {placing()}; "
                f"the generator was at most {slip:.2f} ms late (p99 of a run)"
            )
        added = Spread.of(one.latency[name] - other.latency[name] for one, other in pairs)
        figures.append(
            Figure(f"added {name} of one hop", added, "ms", at_most=aim, stretch=stretch, detail=detail)
        )
    return figures


async def measure_pairs(runs: int, seconds: int) -> list[tuple[Run, ...]]:
    async with mesh() as platform:
        with ExitStack() as stack:
            server = free_port()
            with pinned(CALLEE_CORE):
                stack.enter_context(envoy(platform.runtime, server, answering(server, BODY)))
            platform.module("caller", calls=["callee"])
            platform.module("callee")
            caller = platform.instance("caller", free_port())
            callee = platform.instance("callee", server)
            platform.publish()
            proxies = []
            for instance, core in ((caller, CALLER_CORE), (callee, CALLEE_CORE)):
                with pinned(core):
                    proxies.append(await platform.proxy(instance.id, ready=False))
            await platform.ready(caller.id, callee.id)
            pids = [proxy.process.pid for proxy in proxies]

            async def one(port: int, for_s: float) -> Run:
                plan = LoadPlan(
                    *("127.0.0.1", port, "/"),
                    rate=RATE,
                    seconds=for_s,
                    connections=CONNECTIONS,
                    warm=CONNECTIONS,
                )
                gc.collect()
                before = cpu_seconds(pids)
                result = await run_load(plan)
                used = cpu_seconds(pids) - before
                if result.failed:
                    raise RuntimeError(f"{result.failed} requests failed: {result.failures[:3]}")
                return Run(percentiles(result), result.slip_p99 * 1000, used * 1000 / result.sent)

            gc.freeze()
            with pinned(CALLER_CORE):
                for port in (caller.outbound["callee"], server):
                    await one(port, 1)
                return await in_turn(
                    runs,
                    lambda: one(caller.outbound["callee"], seconds),
                    lambda: one(server, seconds),
                    progress="pair",
                )


def percentiles(result: LoadResult) -> dict[str, float]:
    return {"p50": result.p50 * 1000, "p95": result.p95 * 1000, "p99": result.p99 * 1000}


if __name__ == "__main__":
    sys.exit(main("hop", measure))
