"""What the agent is told, from its environment; a mistake in it is said in one sentence and ends the start.

Without `IDI_AGENT` there is no module: the pod is a gateway, and what is judged is Envoy alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from idi.declaration.readiness import Readiness
from idi.parts.errors import PartError
from idi.parts.gateway.envoy.arguments import GATEWAY_FILE, SIDECAR_FILE

PORT = 20000
PROXY_DIR = "/etc/idi/proxy"
TOKEN = "/var/run/idi/token/token"
DRAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Module:
    """The module beside us. `ports` in the order of the declaration, on 127.0.0.1."""

    name: str
    readiness: Readiness
    ports: Mapping[str, int]

    @property
    def port(self) -> int:
        """Where it is asked, and where it must listen."""
        return self.ports[self.readiness.port]


@dataclass(frozen=True, slots=True)
class Settings:
    """`control` is host and port of its door; `node` is the pod's name, which is Envoy's node too."""

    module: Module | None
    node: str
    address: str
    port: int
    control: tuple[str, int]
    drain_s: float
    bootstrap: Path
    roots: Path
    token: Path


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises `PartError` where a variable is missing or means nothing."""
    proxy = Path(environment.get("IDI_PROXY_DIR") or PROXY_DIR)
    try:
        told = environment.get("IDI_AGENT", "")
        return Settings(
            module=_module(json.loads(told)) if told else None,
            node=environment["POD_NAME"],
            address=environment["POD_IP"],
            port=int(environment.get("IDI_AGENT_PORT") or PORT),
            control=_address(environment["IDI_CONTROL"]),
            drain_s=float(environment.get("IDI_DRAIN_S") or DRAIN_S),
            bootstrap=proxy / (SIDECAR_FILE if told else GATEWAY_FILE),
            roots=proxy / "ca.crt",
            token=Path(environment.get("IDI_TOKEN_FILE") or TOKEN),
        )
    except KeyError as error:
        raise _wrong(f"{error.args[0]} is missing") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise _wrong(str(error)) from error


def _wrong(what: str) -> PartError:
    return PartError(
        f"The agent cannot start: {what}.", "Its variables are made by the module's chart.", retryable=False
    )


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError(f"IDI_CONTROL is {url!r}, not https://HOST:PORT")
    return parts.hostname, parts.port or 443


def _module(told: Mapping[str, object]) -> Module:
    readiness, ports = told["readiness"], told["ports"]
    if not isinstance(readiness, dict) or not isinstance(ports, dict) or not ports:
        raise ValueError("IDI_AGENT must have readiness and ports")
    asked = Readiness(**readiness)
    if asked.port not in ports:
        raise ValueError(f"readiness is asked on the port {asked.port!r}, which the module does not have")
    return Module(str(told["module"]), asked, {name: int(port) for name, port in ports.items()})
