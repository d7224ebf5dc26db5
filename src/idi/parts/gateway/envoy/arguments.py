"""An Envoy's arguments, the same on a laptop and in a pod.

Nothing is shared between those of one machine: no hot restart, no base id, no admin port. The log goes to stderr, a
line each; where that ends up is the matter of whoever starts it. Apart from `start`, because what starts an Envoy in
a pod is given its bootstrap and must not load the protobufs that make one.
"""

from __future__ import annotations

LOG_FORMAT = "%Y-%m-%dT%T.%e %l %n %v"
SIDECAR_WORKERS = 1
GATEWAY_WORKERS = 2
SIDECAR_DRAIN_S = 10
GATEWAY_DRAIN_S = 300
"""How long connections of a listener that changed may go on. Clients' streams get time to end by themselves;
between proxies it bounds how long a tcp connection outlives the policy that allowed it."""


def arguments(
    program: str, bootstrap: str, workers: int, drain_s: int, *, node: str = "", cluster: str = ""
) -> tuple[str, ...]:
    """`node` and `cluster` are said here where many share one bootstrap."""
    named = ("--service-node", node, "--service-cluster", cluster) if node else ()
    return (
        program,
        "--config-path",
        bootstrap,
        *named,
        "--concurrency",
        str(workers),
        "--disable-hot-restart",
        "--log-level",
        "warning",
        "--log-format",
        LOG_FORMAT,
        "--file-flush-interval-msec",
        "1000",
        "--drain-time-s",
        str(drain_s),
        "--drain-strategy",
        "immediate",
        "--parent-shutdown-time-s",
        str(drain_s + 5),
    )
