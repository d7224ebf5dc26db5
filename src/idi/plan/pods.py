"""What revisions depend on where instances are pods: known without a cluster, so that whoever has the declaration knows
every release before anything is sent."""

from __future__ import annotations

from idi.plan.bus import CONFIG, MOUNTED
from idi.plan.types import Context

GATEWAY_PORT = 8080
PLACES = {"bus.program": "nats-server", "bus.config": f"{MOUNTED}/{CONFIG}"}


def gateway_url(namespace: str) -> str:
    return f"http://gateway.{namespace}.svc:{GATEWAY_PORT}"


def context(namespace: str, sidecar: str, relay: str) -> Context:
    return Context("", gateway_url(namespace), sidecar=sidecar, relay=relay, places=PLACES)
