"""What a replica is told, from its environment; a mistake in it is said in one sentence and ends the start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from idi.parts.errors import PartError
from idi.parts.gateway.envoy.replicas.replica import Control

PORT = 8444
PROXY_DIR = "/etc/idi/proxy"
TOKEN = "/var/run/idi/token/token"


@dataclass(frozen=True, slots=True)
class Settings:
    """`listen`: where proxies come."""

    control: Control
    listen: tuple[str, int]


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """IDI_CONTROL names control's host; the port for replicas is another one than its door's. Without POD_IP we listen
    on every address, of either kind."""
    try:
        url = urlsplit(environment["IDI_CONTROL"])
        if url.scheme != "https" or not url.hostname:
            raise ValueError("IDI_CONTROL is not https://HOST:PORT")
        control = Control(
            url.hostname,
            int(environment.get("IDI_CONTROL_XDS_PORT") or PORT),
            Path(environment.get("IDI_PROXY_DIR") or PROXY_DIR) / "ca.crt",
            Path(environment.get("IDI_TOKEN_FILE") or TOKEN),
        )
        listen = (environment.get("POD_IP") or "::", int(environment.get("IDI_XDS_PORT") or PORT))
        return Settings(control, listen)
    except (KeyError, ValueError) as error:
        raise PartError(
            f"The replica's environment is not what it has to be: {error}.",
            "It is started by the platform's chart; look at its values.",
            retryable=False,
        ) from None
