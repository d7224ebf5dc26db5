"""What the gateway's work costs: the gateway as IDI configures it against an Envoy that only forwards.

Both proxies are pinned to one core, have one worker and the same upstream; the load (48 keep-alive connections,
closed loop, tiny body, one client's token) and the upstream share the other core. The gateway checks an ES256
token (its cache on, as always), counts the request against the limit of its address and of its client (both
raised, so that they are evaluated and refuse nothing), checks the scope and writes a line of its JSON access log.

A second ratio is of requests per second of the proxy's own processor time: it holds on a busy machine too.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from bench.closed_loop import generator, load
from bench.figure import Figure, Options, Spread, cpu_seconds, in_turn, main, pinned, placing
from bench.static_envoy import answering, envoy, forwarding
from idi.declaration.types import AddressLimit, EdgeLimits, RateLimit
from idi.parts.gateway.envoy.start import gateway_start
from idi.traffic.types import GATEWAY, GatewayRoute, Service
from tests.support.envoy import Mesh, free_port, identity_of, mesh

CONNECTIONS = 48
PROXY_CORE, LOAD_CORE = 0, 1
PLENTY = 1_000_000_000


@dataclass(frozen=True)
class Run:
    """`busy` is the proxy's share of its core: near 1, it is what was measured."""

    requests_per_s: float
    requests_per_cpu_s: float
    busy: float


def measure(options: Options) -> Sequence[Figure]:
    seconds = options.count(2, 5)
    pairs = asyncio.run(measure_pairs(options.repetitions(4, 10), seconds))
    ours, bare = [one for one, _ in pairs], [other for _, other in pairs]
    aside = {
        "requests/s": f"gateway {_median(ours, 'requests_per_s'):.0f}, bare {_median(bare, 'requests_per_s'):.0f}",
        "busy": f"gateway {_median(ours, 'busy'):.2f}, bare {_median(bare, 'busy'):.2f} of the core",
        "how": f"{CONNECTIONS} connections by {generator()}, {seconds} s a run, {placing()}",
    }
    return [
        Figure(
            "requests/s of the gateway to those of bare Envoy",
            Spread.ratios((one.requests_per_s, other.requests_per_s) for one, other in pairs),
            at_least=0.85,
            detail=aside,
        ),
        Figure(
            "the same by the proxies' own processor time",
            Spread.ratios((one.requests_per_cpu_s, other.requests_per_cpu_s) for one, other in pairs),
        ),
    ]


def _median(runs: Sequence[Run], name: str) -> float:
    return Spread.of(getattr(run, name) for run in runs).value


async def measure_pairs(runs: int, seconds: int) -> list[tuple[Run, ...]]:
    async with mesh() as platform:
        with ExitStack() as stack:
            upstream, bare_port = free_port(), free_port()
            with pinned(LOAD_CORE):
                stack.enter_context(envoy(platform.runtime, upstream, answering(upstream, "ok\n")))
            with pinned(PROXY_CORE):
                bare = stack.enter_context(
                    envoy(platform.runtime, bare_port, forwarding(bare_port, upstream))
                )
            gateway_pid, gateway_port = await start_gateway(platform, upstream)
            token = platform.tokens.token()

            async def one(pid: int, port: int, for_s: float) -> Run:
                before = cpu_seconds([pid])
                with pinned(LOAD_CORE):
                    done = await load(port, "/v1/cam/", token, CONNECTIONS, for_s)
                used = cpu_seconds([pid]) - before
                if done.bad:
                    raise RuntimeError(f"{done.bad} requests were not answered well on port {port}")
                return Run(
                    done.requests_per_s, done.requests_per_s * for_s / max(used, 0.01), min(1.0, used / for_s)
                )

            for pid, port in ((gateway_pid, gateway_port), (bare.pid, bare_port)):
                await one(pid, port, 1)  # connections to the upstream, the token's cache
            return await in_turn(
                runs,
                lambda: one(gateway_pid, gateway_port, seconds),
                lambda: one(bare.pid, bare_port, seconds),
                progress="pair",
            )


async def start_gateway(platform: Mesh, upstream: int) -> tuple[int, int]:
    """The gateway with its whole configuration, before an upstream that it reaches in plain."""
    edge = platform.edge(
        [GatewayRoute("cam", "/v1/cam/", "/", scopes=("cam.read",))],
        rate_limit=RateLimit(PLENTY, 1.0, PLENTY),
        address_limit=AddressLimit(PLENTY, 1.0, PLENTY, PLENTY, PLENTY),
        access_log=str(platform.runtime / "access.log"),
    )
    services = {"cam": Service("cam", "", "http", "", ("127.0.0.1", upstream))}
    platform.plane.publish(replace(platform.traffic(), services=services))
    platform.plane.set_identity(GATEWAY, platform.authority.issue(identity_of(GATEWAY)))
    start = gateway_start(
        f"credential-of-{GATEWAY}",
        platform.runtime,
        platform.xds_socket,
        EdgeLimits().connections,
        workers=1,
    )
    with pinned(PROXY_CORE):
        proxy = platform.launch(GATEWAY, start)
    await platform.ready(GATEWAY)
    return proxy.process.pid, edge.port


if __name__ == "__main__":
    sys.exit(main("gateway", measure))
