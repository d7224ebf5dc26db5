"""What control is told about the cluster that it runs in, and the names of things there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from idi.parts.errors import PartError
from idi.plan.pods import gateway_url

PROXY = "idi-proxy"
"""The ConfigMap that every sidecar mounts."""
MOUNTED = "/etc/idi/proxy"
ADMIN = "/run/idi/envoy.admin"
ROOTS = "ca.crt"
XDS_PORT = 8444
PEOPLE_PORT = 8446
"""On loopback: nothing but a port-forward reaches it."""
SEAL = Path("/etc/idi/seal/seal.key")
"""Mounted where a Secret of the user's has it."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Images of what stands beside a module, and of relay and broker; `seal` is the seal key, where it is given."""

    namespace: str
    sidecar_image: str
    relay_image: str = ""
    seal: Path | None = None

    @property
    def names(self) -> list[str]:
        """What control's servers are called by."""
        return [
            "localhost",
            *(f"{one}{rest}" for one in ("control", "xds") for rest in self._suffixes()),
        ]

    def _suffixes(self) -> tuple[str, ...]:
        return ("", f".{self.namespace}", f".{self.namespace}.svc", f".{self.namespace}.svc.cluster.local")

    @property
    def gateway_url(self) -> str:
        return gateway_url(self.namespace)


def cluster_of(namespace: str, environment: Mapping[str, str] = os.environ, seal: Path = SEAL) -> Cluster:
    """Raises `PartError` where the chart did not say which images there are."""
    image = environment.get("IDI_SIDECAR_IMAGE", "")
    if not image:
        raise PartError(
            "IDI_SIDECAR_IMAGE does not say which image the sidecars are.",
            "The platform's chart sets it from images.sidecar.",
            retryable=False,
        )
    given = seal if seal.parent.is_dir() else None
    return Cluster(namespace, image, environment.get("IDI_RELAY_IMAGE", ""), given)
