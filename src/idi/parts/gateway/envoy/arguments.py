"""The arguments of an Envoy's process; no protobufs, so that what only starts one is small.

Many run side by side on one machine, so nothing is shared: no hot restart, no base id. The log goes to stderr, a
line each.
"""

from __future__ import annotations

NODE_CLUSTER = "idi"
SIDECAR_FILE = "bootstrap.json"
GATEWAY_FILE = "gateway.json"
"""Names in the folder that every pod with a proxy has (`start.cluster_files`)."""

TOKEN = "xds.token"
TOKEN_FILE = "token.json"
"""The secret with the pod's token, and the file beside Envoy's admin socket in which the agent hands it on."""

LOG_FORMAT = "%Y-%m-%dT%T.%e %l %n %v"
SIDECAR_DRAIN_S = 10
GATEWAY_DRAIN_S = 300
"""How long connections of a listener that changed may go on. Clients' streams get time to end by themselves;
between proxies it bounds how long a tcp connection outlives the policy that allowed it."""


def cluster_argv(
    program: str, folder: str, node: str, *, gateway: bool = False, workers: int = 1
) -> tuple[str, ...]:
    """How an Envoy in a pod is started: what it shall be is in its folder, who it is in its arguments."""
    file, drain_s = (GATEWAY_FILE, GATEWAY_DRAIN_S) if gateway else (SIDECAR_FILE, SIDECAR_DRAIN_S)
    return (
        program,
        *("--service-node", node, "--service-cluster", NODE_CLUSTER),
        *arguments(f"{folder}/{file}", workers, drain_s),
    )


def arguments(config: str, workers: int, drain_s: int) -> tuple[str, ...]:
    return (
        "--config-path",
        config,
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
