"""How control was started: the command line it was given, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from idi.api.paths import Paths
from idi.declaration.types import Platform


@dataclass(frozen=True, slots=True)
class Settings:
    """`directory` is the declaration's folder: the working directory of every module. `ahead`: an `up` comes next."""

    paths: Paths
    environment: str
    directory: str
    gateway_address: str = "127.0.0.1"
    gateway_port: int = 8080
    console_port: int = 8800
    ahead: bool = False

    def gateway_url(self, platform: Platform | None) -> str:
        """Where the gateway answers; https where the declaration gives it a certificate."""
        scheme = "https" if platform and platform.gateway.tls else "http"
        return f"{scheme}://{self.gateway_address}:{self.gateway_port}"
