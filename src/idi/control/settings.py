"""How control was started: the command line it was given, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from idi.api.paths import Paths
from idi.declaration.types import Platform

if TYPE_CHECKING:
    from idi.control.cluster import Cluster


@dataclass(frozen=True, slots=True)
class Settings:
    """`directory` is the declaration's folder: the working directory of every module. `ahead`: an `up` comes next.
    `cluster`: where control runs in one."""

    paths: Paths
    environment: str
    directory: str
    gateway_address: str = "127.0.0.1"
    gateway_port: int = 8080
    console_port: int = 8800
    ahead: bool = False
    cluster: Cluster | None = None

    def gateway_url(self, platform: Platform | None) -> str:
        """Where the gateway answers; https where the declaration gives it a certificate."""
        if self.cluster is not None:
            return self.cluster.gateway_url
        scheme = "https" if platform and platform.gateway.tls else "http"
        return f"{scheme}://{self.gateway_address}:{self.gateway_port}"
